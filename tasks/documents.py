"""Documents: YAML files that know the line of each key; a mistake is said with file, line and key."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from tasks.model.errors import ConfigError
from tasks.model.gates import GATE_BRANCHES
from tasks.model.plugins import plugin_kinds
from tasks.model.source import BRANCHES

MAX_FILE_BYTES = 1 << 20
MAX_VALUES = 100_000
"""Most values of a file when its aliases are unfolded; a dataset of 1,600 columns has about 10,000."""
ModelT = TypeVar("ModelT", bound=BaseModel)
Location = tuple[int | str, ...]


@dataclass(frozen=True, slots=True)
class Document:
    """A YAML file with the line of each of its keys."""

    path: Path
    content: CommentedMap

    def line(self, location: Location) -> int:
        """Return the line, from 1, of the deepest part of a location that the file has."""
        node: Any = self.content
        line = 1
        for part in location:
            place = _line_of(node, part)
            if place is None:
                continue  # a union's branch or a default: not a key of the file
            line, node = place + 1, node[part]
        return line


def _line_of(node: object, part: int | str) -> int | None:
    """Return the line, from 0, of a key or an item; a key that ``<<`` brought has its anchor's."""
    if isinstance(node, CommentedMap) and part in node:
        if part in (node.lc.data or {}):
            return int(node.lc.key(part)[0])
        for merged in node.merge:
            if (line := _line_of(merged, part)) is not None:
                return line
    elif isinstance(node, CommentedSeq) and isinstance(part, int) and part < len(node):
        return int(node.lc.item(part)[0])
    return None


def read_yaml(path: Path) -> Document:
    """Read one YAML 1.2 mapping; ``NO`` and ``on`` stay texts, duplicate keys are errors.

    Raises:
        ConfigError: The file is missing, too large, not YAML or not a mapping.
    """
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ConfigError(
                f"{path}: larger than {MAX_FILE_BYTES} bytes; is this the right file?"
            )
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 at byte {error.start}") from None
    try:
        content = YAML(typ="rt", pure=True).load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise ConfigError(f"{where}: not valid YAML: {error.problem or error.context}") from None
    except (YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(content, CommentedMap):
        found = "nothing" if content is None else f"a {type(content).__name__}"
        raise ConfigError(f"{path}:1: expected a mapping of keys to values, found {found}")
    if _unfolded(content, {}) > MAX_VALUES:
        raise ConfigError(f"{path}: its aliases unfold to more than {MAX_VALUES} values")
    return Document(path, content)


def _unfolded(node: object, known: dict[int, int]) -> int:
    """Count the values of a node with its aliases unfolded; one that holds itself has no end."""
    if not isinstance(node, Mapping | list):
        return 1
    if id(node) not in known:
        known[id(node)] = MAX_VALUES  # until it is counted: met again inside itself
        values = node.values() if isinstance(node, Mapping) else node
        known[id(node)] = 1 + sum(_unfolded(value, known) for value in values)
    return known[id(node)]


def parse(document: Document, model: type[ModelT]) -> ModelT:
    """Check a document against its model.

    Raises:
        ConfigError: One line per mistake: file, line, key, found, allowed.
    """
    try:
        return model.model_validate(_plain(document.content))
    except ValidationError as error:
        mistakes = [_explain(document, model, dict(detail)) for detail in error.errors()]
        raise ConfigError("\n".join(mistakes)) from None


def _plain(node: object) -> object:
    """Turn YAML nodes into plain Python, so that no node outlives its file."""
    if isinstance(node, Mapping):
        return {str(key): _plain(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_plain(value) for value in node]
    if isinstance(node, bool) or node is None:
        return node
    for kind in (int, float, str):
        if isinstance(node, kind):
            return kind(node)
    return node


def _explain(document: Document, model: type[BaseModel], detail: dict[str, Any]) -> str:
    location: Location = tuple(
        part for part in detail["loc"] if part not in BRANCHES and part not in GATE_BRANCHES
    )
    if location[:1] == ("load",):  # what follows is the mode, which is no key
        location = ("load", *location[2:])
    kind = detail["type"]
    if kind == "union_tag_not_found":
        location, kind = (*location, detail["ctx"]["discriminator"].strip("'")), "missing"
    if kind == "union_tag_invalid":
        context = detail["ctx"]
        choice = context["discriminator"].strip("'")
        location = (*location, choice)
        where = f"{document.path}:{document.line(location)}: {'.'.join(map(str, location))}"
        brought = "".join(f", {name!r}" for name in sorted(plugin_kinds()))
        brought = brought if location[0] == "source" else ""
        return f"{where}: found {context['tag']!r}; allowed: {context['expected_tags']}{brought}"
    message = detail["msg"].removeprefix("Value error, ")
    if not location:  # about the whole file: the message begins with the key
        named: Location = tuple(message.split(":")[0].split(" ")[0].split("."))
        return f"{document.path}:{document.line(named)}: {message}"
    key = ".".join(str(part) for part in location)
    where = f"{document.path}:{document.line(location)}: {key}"
    if kind == "missing":
        return f"{where}: missing"
    if kind == "extra_forbidden":
        allowed = sorted(_fields_at(model, location[:-1]))
        close = difflib.get_close_matches(str(location[-1]), allowed, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        choice = f"; allowed: {', '.join(allowed)}" if allowed else ""
        return f"{where}: unknown key{hint}{choice}"
    found = detail.get("input")
    if kind != "value_error" and isinstance(found, str | int | float | bool | None):
        message = f"found {found!r}: {message[0].lower()}{message[1:]}"
    return f"{where}: {message}"


def _fields_at(model: type[BaseModel], location: Location) -> set[str]:
    """Return the keys allowed at a location, found in the model's JSON schema."""
    schema = model.model_json_schema()
    definitions = schema.get("$defs", {})

    def resolve(node: dict[str, Any]) -> list[dict[str, Any]]:
        if "$ref" in node:
            return resolve(definitions[node["$ref"].rsplit("/", 1)[-1]])
        branches = node.get("anyOf", []) + node.get("oneOf", [])
        return [leaf for branch in branches for leaf in resolve(branch)] or [node]

    nodes = resolve(schema)
    for part in location:
        following: list[dict[str, Any]] = []
        for node in nodes:
            child = node.get("properties", {}).get(part)
            if child is None and isinstance(node.get("additionalProperties"), dict):
                child = node["additionalProperties"]
            if isinstance(part, int):
                child = node.get("items")
            if child is not None:
                following.extend(resolve(child))
        if following:
            nodes = following
        else:  # the name of a union's branch: keep only that branch
            nodes = [
                node
                for node in nodes
                if node.get("title") == part
                or node.get("properties", {}).get("kind", {}).get("const") == part
            ] or nodes
    return {name for node in nodes for name in node.get("properties", {})}
