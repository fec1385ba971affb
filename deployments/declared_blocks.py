"""Blocks that an environment declares: which there may be, and where the values of a field come from.

A field of a block in ``deployments/environments`` is a value, or one of

    {variable: NAME}           the environment variable NAME, when bootstrap runs
    {aws_secret: NAME}         the secret NAME of AWS Secrets Manager, when bootstrap runs
    {aws_secret: NAME, key: K} the value of K in it, where the secret is a JSON object
    {block: <slug>/<name>}     another block of the environment
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any

from prefect.blocks.core import Block
from prefect.utilities.dispatch import get_registry_for_type

from tasks.documents import Location

MODULES = (
    "blocks.landing_queue",
    "blocks.object_store",
    "blocks.privacy",
    "blocks.redis_server",
    "blocks.rest_api",
    "blocks.source_database",
    "blocks.warehouse",
    "prefect.blocks.notifications",
    "prefect.blocks.system",
    "prefect_aws",
)
"""Where the block classes are that an environment may declare."""


@dataclass(frozen=True, slots=True)
class Reference:
    """Where a value comes from that is not written down.

    Attributes:
        kind: variable, aws_secret or block.
        name: Its name there.
        key: Key of a secret that is a JSON object.
    """

    kind: str
    name: str
    key: str | None = None

    def __str__(self) -> str:
        """Write it for people."""
        return f"{self.kind} {self.name}" + (f", key {self.key}" if self.key else "")


def reference_of(value: object) -> Reference | None:
    """Return the reference that a field's value is, None if it is a value."""
    if not isinstance(value, Mapping):
        return None
    for kind in ("variable", "aws_secret", "block"):
        rest = set(value) - {kind}
        if kind in value and rest <= ({"key"} if kind == "aws_secret" else set()):
            key = value.get("key")
            return Reference(kind, str(value[kind]), None if key is None else str(key))
    return None


def references(fields: object, place: Location = ()) -> Iterator[tuple[Location, Reference]]:
    """Yield each reference within the fields of a block, with its place."""
    reference = reference_of(fields)
    if reference is not None:
        yield place, reference
    elif isinstance(fields, Mapping):
        for name, value in fields.items():
            yield from references(value, (*place, str(name)))
    elif isinstance(fields, list):
        for position, value in enumerate(fields):
            yield from references(value, (*place, position))


def block_classes() -> dict[str, type[Block]]:
    """Return the block classes that may be declared, by the slug of their type."""
    for module in MODULES:
        importlib.import_module(module)
    registry: dict[str, type[Block]] = get_registry_for_type(Block) or {}
    return {
        slug: cls for slug, cls in registry.items() if cls.__module__.startswith(tuple(MODULES))
    }


def mistakes(blocks: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[Location, str]]:
    """Yield what is wrong about declared blocks, with the place below ``blocks``."""
    classes = block_classes()
    for key, fields in blocks.items():
        slug = key.partition("/")[0]
        if slug not in classes:
            close = difflib.get_close_matches(slug, classes, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            allowed = ", ".join(sorted(classes))
            yield (key,), f"there is no block type {slug!r}{hint}; allowed: {allowed}"
            continue
        yield from _mistakes_of(key, fields, classes[slug])
        for place, reference in references(fields):
            if reference.kind == "block" and reference.name not in blocks:
                known = ", ".join(sorted(blocks))
                yield (key, *place), f"no block {reference.name!r} is declared; there are: {known}"
    for key in _in_cycles(blocks):
        yield (key,), "is part of itself by way of the blocks that it names"


def _mistakes_of(
    key: str, fields: Mapping[str, Any], cls: type[Block]
) -> Iterator[tuple[Location, str]]:
    known = {name for name in cls.model_fields if not name.startswith("_")}
    for name in fields:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            allowed = ", ".join(sorted(known - {"block_type_slug"}))
            yield (key, name), f"unknown field{hint}; allowed: {allowed}"
    for name, field in cls.model_fields.items():
        if field.is_required() and name not in fields:
            yield (key, name), "missing"
    for place in _literal_secrets(fields, secret_fields(cls)):
        yield (
            (key, *place),
            "a secret must not be written down; write {variable: NAME} or {aws_secret: NAME}",
        )


def secret_fields(cls: type[Block]) -> list[str]:
    """Return the fields of a block that hold secrets, dotted; ``*`` stands for any name."""
    found: list[str] = cls.model_json_schema().get("secret_fields", [])
    return found


def _literal_secrets(fields: Mapping[str, Any], secrets: list[str]) -> Iterator[Location]:
    for secret in secrets:
        yield from _literals(fields, secret.split("."), ())


def _literals(node: Any, path: list[str], place: Location) -> Iterator[Location]:
    """Yield the places on a path where a value is written down instead of named."""
    if reference_of(node) is not None or node is None:
        return
    if isinstance(node, list):
        for position, each in enumerate(node):
            yield from _literals(each, path, (*place, position))
    elif path and path[0] == "*" and not isinstance(node, Mapping):
        yield place
    elif path and isinstance(node, Mapping):
        for name in node if path[0] == "*" else {path[0]} & set(node):
            yield from _literals(node[name], path[1:], (*place, str(name)))
    elif not path:
        yield place


def in_order(blocks: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return declared blocks so that each comes after those that it names.

    Raises:
        CycleError: A block is part of itself.
    """
    return [key for key in TopologicalSorter(_named(blocks)).static_order() if key in blocks]


def _in_cycles(blocks: Mapping[str, Mapping[str, Any]]) -> list[str]:
    try:
        in_order(blocks)
    except CycleError as error:
        cycle: list[str] = error.args[1]
        return sorted(set(cycle))
    return []


def _named(blocks: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    return {
        key: sorted(one.name for _, one in references(fields) if one.kind == "block")
        for key, fields in blocks.items()
    }
