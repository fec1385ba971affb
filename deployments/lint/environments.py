"""Environment files: keys, crons, blocks that are whole, and no secret in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from deployments.declared_blocks import mistakes
from deployments.lint.findings import Finding, finding
from deployments.lint.schedules import wrong_cron
from deployments.lint.secrets import plain_secrets
from deployments.work_pools import base_job_template
from tasks.catalog import Catalog
from tasks.documents import Document, Location, read_yaml
from tasks.environments import FOLDER, load_environment
from tasks.model.environment import Environment
from tasks.model.errors import ConfigError

_LINE = re.compile(
    r"(?P<path>.*?):(?P<line>\d+): (?:(?P<key>[\w.\[\]/-]+): )?(?P<message>.*)", re.S
)
SOURCE_BLOCKS = {
    "s3": "s3-bucket",
    "rest": "etl-rest-api-credentials",
    "database": "etl-source-database",
}


def from_error(error: ConfigError, path: str) -> list[Finding]:
    """Turn an error of a file, a line for each mistake, into findings."""
    found = []
    for line in error.message.split("\n"):
        match = _LINE.fullmatch(line)
        if match:
            found.append(
                Finding(match["path"], int(match["line"]), match["key"] or "", match["message"])
            )
        else:
            found.append(Finding(path, 0, "", line.removeprefix(f"{path}: ")))
    return found


def environment_names(root: Path) -> list[str]:
    """Return the names of all environments."""
    return sorted(path.stem for path in (root / FOLDER).glob("*.yaml"))


def lint_environment(root: Path, name: str) -> tuple[Environment | None, list[Finding]]:
    """Check an environment's file; without mistakes of its keys the environment comes back too."""
    path = root / FOLDER / f"{name}.yaml"
    try:
        document = read_yaml(path)
        environment = load_environment(name)
    except ConfigError as error:
        return None, from_error(error, str(path))
    wrong = [*_wrong(environment, document)]
    return environment, [finding(document, place, message) for place, message in wrong]


def _wrong(environment: Environment, document: Document) -> Iterator[tuple[Location, str]]:
    for schedule, cron in environment.schedules.items():
        if message := wrong_cron(cron):
            yield ("schedules", schedule), message
    for place, message in mistakes(environment.blocks):
        yield ("blocks", *place), message
    rest = {key: value for key, value in document.content.items() if key != "blocks"}
    yield from plain_secrets(rest)
    yield from _wrong_template(environment)
    if environment.blocks:
        for key, needed in (
            ("warehouse_block", f"etl-warehouse-credentials/{environment.warehouse_block}"),
            ("lake_block", f"etl-lake-storage/{environment.lake_block}"),
            ("queue_block", f"etl-landing-queue/{environment.queue_block}"),
            ("redis_block", f"etl-redis-server/{environment.redis_block}"),
            ("privacy_block", f"etl-privacy-keys/{environment.privacy_block}"),
        ):
            if getattr(environment, key) and needed not in environment.blocks:
                yield (key,), f"blocks declares no {needed}"
        for channel in environment.alerts.all_channels:
            if channel not in environment.blocks:
                yield ("alerts",), f"blocks declares no {channel}"


def _wrong_template(environment: Environment) -> Iterator[tuple[Location, str]]:
    template = base_job_template(environment.work_pool)
    known = set(template["variables"]["properties"])
    used = set(re.findall(r"\{\{\s*(\w+)\s*\}\}", str(template["job_configuration"])))
    for name in sorted(used - known):
        yield ("work_pool",), f"the job template names {name!r}, which is none of its variables"


def wrong_sources(environment: Environment, catalog: Catalog) -> Iterator[Finding]:
    """Yield datasets whose source has a block that the environment does not declare."""
    if not environment.blocks:
        return
    for name, spec in catalog.datasets.items():
        slug = SOURCE_BLOCKS.get(spec.source.kind)
        block = getattr(spec.source, "block", None)
        if slug and block and f"{slug}/{block}" not in environment.blocks:
            yield finding(
                read_yaml(catalog.paths[name]),
                ("source", "block"),
                f"environment {environment.name} declares no block {slug}/{block}",
            )
