"""All of a project's files that are deployed: ``prefect.yaml``, environments, automations, datasets."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from deployments.automations.catalog import automations
from deployments.lint.environments import (
    environment_names,
    from_error,
    lint_environment,
    wrong_sources,
)
from deployments.lint.findings import Finding
from deployments.lint.prefect_yaml import entries_of, lint_prefect_file
from deployments.prefect_file import DEPLOY_VARIABLES, FILE, read_prefect_file
from tasks.catalog import Catalog
from tasks.documents import Document
from tasks.environments import environment_catalog
from tasks.model.environment import Environment
from tasks.model.errors import ConfigError

AUTOMATIONS = "deployments/automations"


def lint(root: Path, variables: Mapping[str, str], only: str | None = None) -> list[Finding]:
    """Return every mistake that can be known without a server.

    Args:
        root: Folder of the project.
        variables: Environment variables. Without ``only`` those that a deployment sets may be missing.
        only: Check the deployments of this environment only, as they would be deployed now.
    """
    found: list[Finding] = []
    environments: dict[str, Environment] = {}
    known = environment_names(root)
    for name in known if only is None else [only]:
        environment, mistakes = lint_environment(root, name)
        found += mistakes
        if environment is not None:
            environments[name] = environment
    if only is None:
        variables = {**dict.fromkeys(DEPLOY_VARIABLES, "/set-when-deployed:1"), **variables}
    catalogs = _Catalogs(environments)
    found += catalogs.findings
    try:
        document = read_prefect_file(root)
    except ConfigError as error:  # all is said: the automations can only name what is not there
        found += from_error(error, str(root / FILE))
    else:
        found += lint_prefect_file(root, document, environments, variables, known)
        deployments = _full_names(document)
        for environment in environments.values() if deployments else ():
            catalog = catalogs.of(environment)
            if catalog is not None:
                found += _lint_automations(environment, catalog, root, deployments)
    return sorted(set(found))


def _lint_automations(
    environment: Environment, catalog: Catalog, root: Path, deployments: list[str]
) -> list[Finding]:
    """Make the automations, with ids that stand for those that the server will give."""
    path = str(root / AUTOMATIONS)
    try:
        names = [
            automation.name
            for automation in automations(
                environment,
                {name: uuid.uuid4() for name in deployments},
                {channel: uuid.uuid4() for channel in environment.alerts.all_channels},
                catalog=catalog,
            )
        ]
    except ConfigError as error:
        return from_error(error, path)
    except (ValidationError, KeyError, TypeError) as error:
        return [Finding(path, 0, environment.name, f"{type(error).__name__}: {error}")]
    return [
        Finding(path, 0, environment.name, f"automation {name!r} is there twice")
        for name in sorted({name for name in names if names.count(name) > 1})
    ]


def _full_names(document: Document) -> list[str]:
    return [
        f"{str(raw.get('entrypoint')).rpartition(':')[2]}/{raw.get('name')}"
        for raw in entries_of(document)
        if isinstance(raw, Mapping)
    ]


class _Catalogs:
    """The folders of datasets of some environments, each read once, as ``dpp check --offline`` does.

    Attributes:
        findings: Their mistakes.
    """

    def __init__(self, environments: Mapping[str, Environment]) -> None:
        self.findings: list[Finding] = []
        self._read: dict[Path, Catalog] = {}
        for folder, one in {each.datasets: each for each in environments.values()}.items():
            try:
                catalog = environment_catalog(one)
            except ConfigError as error:
                self.findings += from_error(error, str(folder))
                continue
            self._read[folder] = catalog
            self.findings += _wrong_queries(catalog)
            for environment in environments.values():
                if environment.datasets == folder:
                    self.findings += wrong_sources(environment, catalog)

    def of(self, environment: Environment) -> Catalog | None:
        """Return the datasets of an environment; None if they cannot be read."""
        return self._read.get(environment.datasets)


def _wrong_queries(catalog: Catalog) -> list[Finding]:
    from tasks.transformation.check import check_query

    found: list[Finding] = []
    with tempfile.TemporaryDirectory(prefix="dpp-lint-") as folder:
        for name, spec in catalog.datasets.items():
            try:
                check_query(spec, catalog.lookups_of(spec), Path(folder))
            except ConfigError as error:
                found += from_error(error, str(catalog.paths[name]))
    return found
