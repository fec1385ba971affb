"""A dataset file as text: what the sample showed, with comments on what it did not."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from tasks.inference.values import Guess, guess_column
from tasks.ingestion.connector import SOURCE_ROW, SOURCE_URI
from tasks.model.columns import MAX_IDENTIFIER_BYTES

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_./*-]*")
_WORDS = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n"})
_CHANGED = ("updated_at", "modified_at", "changed_at", "last_modified", "updated", "modified")


@dataclass
class Draft:
    """What is known of a dataset so far.

    Attributes:
        name: Its name.
        whence: Where the sample is from, for a comment.
        source: Declaration of the source; ``format`` of it is nested.
        doubts: What is unsure of the source.
        sample: The rows that were looked at.
    """

    name: str
    whence: str
    source: dict[str, Any]
    sample: pa.Table
    doubts: list[str] = field(default_factory=list)


def identifier(name: str, taken: set[str]) -> str:
    """Return a name for the warehouse that is like a name of the source, and not taken yet."""
    parts = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)
    made = re.sub(r"[^a-z0-9]+", "_", parts.lower()).strip("_") or "column"
    made = made if made[0].isalpha() else f"c_{made}"
    made = made[: MAX_IDENTIFIER_BYTES - 4]
    unique, number = made, 2
    while unique in taken:
        unique, number = f"{made}_{number}", number + 1
    taken.add(unique)
    return unique


def render(draft: Draft) -> str:
    """Write the dataset file."""
    names = [name for name in draft.sample.column_names if name not in (SOURCE_URI, SOURCE_ROW)]
    guesses = {name: guess_column(draft.sample[name]) for name in names}
    _take_empty_for_null(draft, guesses)
    taken: set[str] = set()
    columns = {name: identifier(name, taken) for name in names}
    key = _key(draft.sample, names, guesses)
    rows = draft.sample.num_rows
    lines = [
        "# yaml-language-server: $schema=../docs/dataset.schema.json",
        f"# Inferred from {rows} rows of {draft.whence}. Look at the lines with a comment, then:",
        f"#   dpp check {draft.name}",
        f"name: {draft.name}",
        f"description: {_flow(f'Rows of {draft.whence}')}",
        "schedule: manual",
        *(f"# {doubt}" for doubt in draft.doubts),
        "source:",
        *_block(draft.source),
    ]
    if key:
        lines.append(f"key: [{columns[key]}]  # different in each of {rows} rows; is it always?")
    else:
        lines.append("# No column was different in each row: with a key, use mode: merge.")
    changed = next((name for name in names if columns[name] in _CHANGED), None)
    if changed and key and guesses[changed].type == "timestamp":
        lines.append(f"cursor: {columns[changed]}  # of two rows of one key the later one stays")
    lines.append("columns:")
    width = max(map(len, columns.values()), default=0) + 1
    lines.extend(_column_line(name, columns[name], guesses[name], width) for name in names)
    mode = "merge" if key else "append"
    lines.append(f"load: {{table: analytics.{draft.name}, mode: {mode}}}")
    return "\n".join(lines) + "\n"


def _take_empty_for_null(draft: Draft, guesses: Mapping[str, Guess]) -> None:
    """Declare empty fields of delimited text as NULL, if a typed column has one."""
    declared = draft.source.get("format", {})
    if declared.get("kind") not in ("csv", "fixed"):
        return
    typed = [name for name, guess in guesses.items() if guess.type != "string"]
    if any("" in draft.sample[name].to_pylist() for name in typed):
        declared["null_values"] = [""]
        draft.doubts.append("An empty field is taken for NULL, in columns of text too.")


def _key(sample: pa.Table, names: Sequence[str], guesses: Mapping[str, Guess]) -> str | None:
    """Return the column that best tells rows apart, None if none does in the sample."""
    if not sample.num_rows:
        return None
    unique = []
    for name in names:
        column = sample[name]
        fit = guesses[name].type in ("string", "uuid", "date") or guesses[name].type.startswith(
            "int"
        )
        if fit and not column.null_count and len(column.unique()) == len(column):
            unique.append(name)
    named = [n for n in unique if re.search(r"(^|_)(id|key|code|number|nr|no|uuid)$", n.lower())]
    first = [name for name in names[:1] if name in unique]
    return next(iter([*named, *first, *unique]), None)


def _column_line(source: str, name: str, guess: Guess, width: int) -> str:
    keys: dict[str, Any] = {"type": guess.type}
    if source != name:
        keys["source"] = source
    keys |= guess.options
    comment = f"  # {'; '.join(guess.doubts)}" if guess.doubts else ""
    return f"  {name + ':':<{width}} {_flow(keys)}{comment}"


def _block(mapping: Mapping[str, Any], indent: int = 2) -> list[str]:
    return [f"{' ' * indent}{key}: {_flow(value)}" for key, value in mapping.items()]


def _flow(value: Any) -> str:
    """Write a value on one line; texts are quoted where YAML could read them otherwise."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_flow(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_flow, value)) + "]"
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
        return value
    written = json.dumps(value, ensure_ascii=False)
    return "".join(each if each.isprintable() else f"\\U{ord(each):08X}" for each in written)
