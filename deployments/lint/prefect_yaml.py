"""``prefect.yaml`` as a whole: its keys, each of its deployments, and what is missing."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from pydantic import ValidationError

from deployments.lint.deployments import Surroundings, wrong_deployment, wrong_pull, wrong_texts
from deployments.lint.environments import from_error
from deployments.lint.findings import Finding, finding, keys, shown
from deployments.lint.flows import flows_of
from deployments.prefect_file import (
    FILE,
    DeploymentEntry,
    PrefectFile,
    environment_of,
    flow_of,
)
from tasks.documents import Document, Location, parse
from tasks.model.environment import Environment
from tasks.model.errors import ConfigError


def lint_prefect_file(
    root: Path,
    document: Document,
    environments: Mapping[str, Environment],
    variables: Mapping[str, str],
    known: Collection[str],
) -> list[Finding]:
    """Return every mistake of the file.

    Args:
        root: Folder of the project.
        document: The file.
        environments: Those whose deployments are checked, by name.
        variables: Environment variables that are set, or will be.
        known: Names of all environments.
    """
    found = _structure(document)
    around = Surroundings(root, variables, document.content.get("pull"))
    found += [finding(document, place, message) for place, message in _wrong_top(document, around)]
    names: list[str] = []
    for position, raw in enumerate(entries_of(document)):
        for place, message in _wrong_entry(raw, names, environments, known, around):
            found.append(finding(document, ("deployments", position, *place), message))
    found += _missing(document, names, environments)
    found += _forgotten(root, document)
    return _once(found)


def _wrong_entry(
    raw: object,
    names: list[str],
    environments: Mapping[str, Environment],
    known: Collection[str],
    around: Surroundings,
) -> Iterator[tuple[Location, str]]:
    """Yield what is wrong about a deployment; its name is added to the names."""
    try:
        entry = DeploymentEntry.model_validate(raw)
    except ValidationError:
        if isinstance(raw, Mapping):
            names.append(str(raw.get("name")))
        return  # said by its structure
    if entry.name in names:
        yield ("name",), f"{entry.name!r} is there twice"
    names.append(entry.name)
    chosen = environment_of(entry.name, known)
    if chosen is None:
        allowed = ", ".join(f"-{name}" for name in known)
        yield ("name",), f"found {entry.name!r}; must end with an environment: {allowed}"
    elif chosen in environments:
        environment = environments[chosen]
        yield from wrong_deployment(entry, environment, around)
        yield from wrong_texts(raw, around, environment.variables)


def entries_of(document: Document) -> list[object]:
    """Return what stands for deployments; nothing, if it is no list."""
    found = document.content.get("deployments")
    return found if isinstance(found, list) else []


def _structure(document: Document) -> list[Finding]:
    """Check keys and types; deployments are called by their names."""
    try:
        parse(document, PrefectFile)
    except ConfigError as error:
        found = []
        for each in from_error(error, str(document.path)):
            location = tuple(int(p) if p.isdigit() else p for p in each.key.split("."))
            key = shown(document, location) if each.key else ""
            found.append(Finding(each.path, each.line, key, each.message))
        return found
    return []


def _wrong_top(document: Document, around: Surroundings) -> Iterator[tuple[Location, str]]:
    for place, key in keys(document.content):
        if "{{" in key:
            yield place, "a key is never filled by Prefect"
    pull = document.content.get("pull")
    if isinstance(pull, list):
        for place, message in wrong_pull(pull, around.variables):
            yield ("pull", *place), message
        for place, message in wrong_texts(pull, around, {}):
            yield ("pull", *place), message


def _missing(
    document: Document, names: list[str], environments: Mapping[str, Environment]
) -> Iterator[Finding]:
    """Find flows that are deployed elsewhere, but not in an environment."""
    flows = {flow_of(name, env) for name in names if (env := environment_of(name, environments))}
    for environment in environments:
        for flow in sorted(flows):
            if f"{flow}-{environment}" not in names:
                message = f"{flow}-{environment} is missing; {flow} is deployed elsewhere"
                yield finding(document, ("deployments",), message)


def _forgotten(root: Path, document: Document) -> Iterator[Finding]:
    """Find flows that are deployed nowhere."""
    deployed = {
        str(raw.get("entrypoint")) for raw in entries_of(document) if isinstance(raw, Mapping)
    }
    for entrypoint, line in flows_of(root).items():
        if entrypoint not in deployed:
            path, _, name = entrypoint.partition(":")
            yield Finding(str(root / path), line, name, f"no deployment in {FILE}")


def _once(found: list[Finding]) -> list[Finding]:
    """Report once what several deployments have by one anchor."""
    known: dict[tuple[str, int, str, str], Finding] = {}
    for each in found:
        known.setdefault((each.path, each.line, each.key.rpartition(".")[2], each.message), each)
    return [*known.values()]
