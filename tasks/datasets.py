"""Reads dataset files, and says file, line, key, found and allowed when one is wrong."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from tasks.model.column_types import decimal_digits, is_integer
from tasks.model.columns import ColumnSpec
from tasks.model.dataset import DATASET_FILE, DatasetSpec, LookedUp
from tasks.model.errors import ConfigError
from tasks.model.gates import GATE_BRANCHES, References
from tasks.model.lookup import Lookup
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


@dataclass(frozen=True, slots=True)
class Catalog:
    """All datasets of a folder, checked one by one and against each other."""

    datasets: dict[str, DatasetSpec]
    paths: dict[str, Path]

    def __getitem__(self, name: str) -> DatasetSpec:
        try:
            return self.datasets[name]
        except KeyError:
            close = difflib.get_close_matches(name, self.datasets, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            known = ", ".join(sorted(self.datasets)) or "none"
            raise ConfigError(f"no dataset {name!r}{hint}; declared are: {known}") from None

    def quarantine_of(self, name: str) -> tuple[DatasetSpec, str | None]:
        """Return the dataset whose refused rows are meant, and its child if items of one are.

        Args:
            name: A dataset, or a child table of one as ``orders.lines``.

        Raises:
            ConfigError: There is none of the name.
        """
        dataset, _, child = name.partition(".")
        spec = self[dataset]
        if "." not in name:
            return spec, None
        if child not in spec.children:
            known = ", ".join(f"{dataset}.{one}" for one in sorted(spec.children)) or "none"
            raise ConfigError(f"no child table {name!r}; those of {dataset} are: {known}")
        return spec, child

    def in_order(self, names: Iterable[str]) -> list[DatasetSpec]:
        """Return the named datasets so that each comes after those it looks up."""
        chosen = dict.fromkeys(names)
        graph = {
            name: [other for other in self[name].dependencies if other in chosen] for name in chosen
        }
        return [self[name] for name in TopologicalSorter(graph).static_order()]

    def scheduled(self, schedule: str) -> list[DatasetSpec]:
        """Return the datasets of a schedule, in dependency order."""
        return self.in_order(
            name for name, spec in self.datasets.items() if spec.schedule == schedule
        )

    def lookups_of(self, spec: DatasetSpec) -> dict[str, LookedUp]:
        """Return what one dataset looks up, by name: datasets, and what else it declares."""
        own = {lookup.lookup: lookup for lookup in spec.enrich if not lookup.is_dataset}
        return {**{name: self[name] for name in spec.dependencies}, **own}


def load_catalog(folder: Path) -> Catalog:
    """Read every dataset file of a folder.

    Raises:
        ConfigError: Every mistake of every file, one a line.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder of dataset files")
    datasets: dict[str, DatasetSpec] = {}
    paths: dict[str, Path] = {}
    mistakes: list[str] = []
    for path in sorted(folder.iterdir()):
        if path.suffix not in (".yaml", ".yml"):
            continue
        try:
            spec = load_dataset(path)
        except ConfigError as error:
            mistakes.append(error.message)
            continue
        if spec.name in datasets:
            mistakes.append(f"{path}: dataset {spec.name!r} is also in {paths[spec.name]}")
        datasets[spec.name], paths[spec.name] = spec, path
    if not mistakes:
        mistakes = list(_mistakes_between(datasets, paths))
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    return Catalog(datasets, paths)


def load_dataset(path: Path) -> DatasetSpec:
    """Read one dataset file; its name must be that of the dataset.

    Raises:
        ConfigError: What is wrong, with file, line and key.
    """
    document = read_yaml(path)
    spec = parse(document, DatasetSpec)
    if not DATASET_FILE.match(path.name) or path.stem != spec.name:
        line = document.line(("name",))
        raise ConfigError(f"{path}:{line}: name: found {spec.name!r} in a file named {path.name}")
    return spec


def _mistakes_between(datasets: dict[str, DatasetSpec], paths: dict[str, Path]) -> Iterable[str]:
    tables: dict[str, str] = {}
    for name, spec in datasets.items():
        document = read_yaml(paths[name])
        for place, table in _tables(spec):
            if other := tables.get(table):
                found = f"{'.'.join(place)}: {table} is filled by {other!r} too"
                yield f"{paths[name]}:{document.line(place)}: {found}"
            tables[table] = name
        if owner := _whose_name(spec, datasets.values()):
            line = document.line(("load", "table"))
            yield (
                f"{paths[name]}:{line}: load.table: {spec.load.table} is what an index or a partition "
                f"of {owner.load.table} is called, which {owner.name!r} fills; choose another"
            )
        for number, lookup in enumerate(spec.lookups):
            key, position = "enrich", number
            if number >= len(spec.enrich):
                key, position = "references", number - len(spec.enrich)
            where = f"{paths[name]}:{document.line((key, position))}: {key}"
            looked_up = datasets.get(lookup.lookup) if lookup.is_dataset else lookup
            if looked_up is not None:
                mistakes = _lookup_mistakes(spec, lookup, looked_up)
                yield from (f"{where}: {mistake}" for mistake in mistakes)
            else:
                known = ", ".join(sorted(datasets))
                yield f"{where}: no dataset {lookup.lookup!r}; declared are: {known}"
        yield from _gate_mistakes(spec, datasets, document)
        yield from _after_mistakes(spec, datasets, document)
    yield from _circles(datasets, paths)


def _circles(datasets: dict[str, DatasetSpec], paths: dict[str, Path]) -> Iterable[str]:
    looked_up = {name: spec.dependencies for name, spec in datasets.items()}
    run_after = {name: spec.after for name, spec in datasets.items()}
    if circle := _circle(looked_up):
        yield f"datasets look each other up in a circle: {' → '.join(circle)}"
    elif circle := _circle(run_after):
        line = read_yaml(paths[circle[0]]).line(("after",))
        # The sorter says who comes before whom; people read who runs after whom.
        yield (
            f"{paths[circle[0]]}:{line}: after: datasets run after each other in a circle: "
            f"{' after '.join(reversed(circle))}"
        )


def _circle(graph: Mapping[str, Iterable[str]]) -> list[str]:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return [str(name) for name in error.args[1]]
    return []


def _after_mistakes(
    spec: DatasetSpec, datasets: Mapping[str, DatasetSpec], document: Document
) -> Iterable[str]:
    for position, name in enumerate(spec.after):
        if name not in datasets:
            where = f"{document.path}:{document.line(('after', position))}: after"
            known = ", ".join(sorted(datasets))
            yield f"{where}: no dataset {name!r}; declared are: {known}"


def _tables(spec: DatasetSpec) -> Iterable[tuple[tuple[str, ...], str]]:
    yield ("load", "table"), spec.load.table
    for name, child in spec.children.items():
        yield ("children", name, "table"), child.table


def _gate_mistakes(
    spec: DatasetSpec, datasets: Mapping[str, DatasetSpec], document: Document
) -> Iterable[str]:
    for position, gate in enumerate(spec.quality.gates):
        if not isinstance(gate, References) or gate.references.dataset is None:
            continue
        line = document.line(("quality", "gates", position))
        where = f"{document.path}:{line}: quality.gates: references"
        other = datasets.get(gate.references.dataset)
        if other is None:
            known = ", ".join(sorted(datasets))
            yield f"{where}: no dataset {gate.references.dataset!r}; declared are: {known}"
            continue
        there = {*other.columns, *other.made_columns, *other.taken_columns}
        for column in gate.references.columns.values():
            if column not in there:
                yield f"{where}: {other.name} has no column {column!r}"


def _whose_name(spec: DatasetSpec, others: Iterable[DatasetSpec]) -> DatasetSpec | None:
    """Return the dataset that makes something with the name of this one's table, if one does.

    Tables, indexes and partitions of a schema share their names.
    """
    for other in others:
        made = [
            *(["pkey"] if other.table_key else []),
            *(["search", "trigram"] if other.load.index else []),
            *([r"p(default|min|m?\d)\w*"] if other.load.partition_by else []),
        ]
        pattern = rf"{re.escape(other.load.table)}_({'|'.join(made)})"
        if made and re.fullmatch(pattern, spec.load.table):
            return other
    return None


def _lookup_mistakes(spec: DatasetSpec, lookup: Lookup, target: LookedUp) -> Iterable[str]:
    name = lookup.lookup
    if set(lookup.matched.values()) != set(target.key):
        yield (
            f"by: found {sorted(lookup.matched.values())}, but rows of {name} are only told apart "
            f"by its whole key {list(target.key)}"
        )
    for column in lookup.take.values():
        if column not in target.columns:
            yield f"take: {name} has no column {column!r}"
    mine_of = {**spec.columns, **spec.derive}
    for mine, theirs in lookup.matched.items():
        if theirs in target.columns:
            here, there = _family(mine_of[mine]), _family(target.columns[theirs])
            if here != there:
                yield f"by: {mine} is {here}, {name}.{theirs} is {there}"
    for mine in lookup.as_of or {}:
        kind = _family(mine_of[mine])
        if kind not in _ORDERED:
            yield f"as_of: {mine} is {kind}; times and numbers have a before and an after"
        elif lookup.within and kind == "number":
            yield f"within: {mine} is a number; only times lie within a span of time"


_ORDERED = ("number", "date", "timestamp", "timestamp with a time zone")


def _family(column: ColumnSpec) -> str:
    if is_integer(column.type) or decimal_digits(column.type):
        return "number"
    if column.type == "enum":
        return "string"
    return "timestamp with a time zone" if column.timezone else column.type
