"""A dataset file as text: what the sample showed, with comments on what it did not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import pyarrow as pa

from tasks.inference.child_block import child_lines
from tasks.inference.children import ChildDraft, lists_of_objects
from tasks.inference.digits import is_called_like_a_key, kept_as_text, of_digits
from tasks.inference.tables import TableFacts
from tasks.inference.text import block, column_line, flow, identifier
from tasks.inference.values import Guess, guess_column
from tasks.ingestion.connector import SOURCE_ROW, SOURCE_URI

MOST_PARTS = 8
"""Columns that keys of two are made of."""
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
        facts: What a database says of the table itself.
        as_text: Columns that stay text, with the rows that their type would have refused.
        lists: Lists of objects inside of its rows.
    """

    name: str
    whence: str
    source: dict[str, Any]
    sample: pa.Table
    doubts: list[str] = field(default_factory=list)
    facts: TableFacts = field(default_factory=TableFacts)
    as_text: dict[str, int] = field(default_factory=dict)
    lists: list[ChildDraft] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.lists = lists_of_objects(self.sample)


def render(draft: Draft) -> str:
    """Write the dataset file."""
    names = [name for name in draft.sample.column_names if name not in (SOURCE_URI, SOURCE_ROW)]
    guesses = {name: _guess(draft, name) for name in names}
    _take_empty_for_null(draft, guesses)
    taken: set[str] = set()
    columns = {name: identifier(name, taken) for name in names}
    key = draft.facts.key or find_key(draft.sample, names, guesses)
    rows = draft.sample.num_rows
    if key:  # a list that is a table of its own is no column
        whole = {child.way[0] for child in draft.lists if len(child.way) == 1}
        names = [name for name in names if name not in whole] or names
    lines = [
        "# yaml-language-server: $schema=../docs/dataset.schema.json",
        f"# Inferred from {rows} rows of {draft.whence}. Look at the lines with a comment, then:",
        f"#   dpp check {draft.name}",
        f"name: {draft.name}",
        f"description: {flow(f'Rows of {draft.whence}')}",
        "schedule: manual",
        *(f"# {doubt}" for doubt in draft.doubts),
        "source:",
        *block(draft.source),
    ]
    listed = ", ".join(columns[name] for name in key)
    if draft.facts.key:
        lines.append(f"key: [{listed}]  # the primary key of the table")
    elif key:
        lines.append(f"key: [{listed}]  # different in each of {rows} rows; is it always?")
    else:
        lines.append("# No key was found: with a key, use mode: merge.")
        if draft.source["kind"] in ("database", "rest") and "cursor" not in draft.source:
            lines.append("# Without one, each run reads all rows again and appends them again.")
        lines.extend(
            f"# {child.path} is a list of objects: with a key it can be a table (children)."
            for child in draft.lists
        )
    changed = next((name for name in names if columns[name] in _CHANGED), None)
    if changed and key and guesses[changed].type == "timestamp":
        lines.append(f"cursor: {columns[changed]}  # of two rows of one key the later one stays")
    never = [columns[name] for name in names if name not in key and _is_never_null(draft, name)]
    if never:
        lines.append(
            f"# Never NULL in the sample; nullable: false would refuse it: {', '.join(never)}"
        )
    lines.append("columns:")
    width = max(map(len, columns.values()), default=0) + 1
    lines.extend(column_line(name, columns[name], guesses[name], width) for name in names)
    if key:
        lines.extend(child_lines(draft.name, draft.lists, [columns[name] for name in key]))
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


def _guess(draft: Draft, name: str) -> Guess:
    """Guess a column by its values, by what the source says of it, and by its name."""
    guess = guess_column(draft.sample[name])
    if name in draft.as_text:
        return kept_as_text(guess, draft.as_text[name])
    if name in draft.facts.required and name not in draft.facts.key:
        guess.options["nullable"] = False
    is_text = name in draft.facts.texts or (
        draft.source.get("format", {}).get("kind") in ("parquet", "avro")
        and pa.types.is_string(draft.sample.schema.field(name).type)
    )
    if is_text and guess.type not in ("string", "json", "uuid"):
        kept = {key: value for key, value in guess.options.items() if key == "nullable"}
        doubt = f"text in the source, though all of the sample could be {guess.type}"
        return Guess("string", kept, [doubt])
    if guess.type == "int64":
        return of_digits(guess, name, draft.sample[name])
    return guess


def _is_never_null(draft: Draft, name: str) -> bool:
    column = draft.sample[name]
    if not draft.sample.num_rows or column.null_count or name in draft.facts.required:
        return False
    return not (pa.types.is_string(column.type) and "" in column.to_pylist())


def find_key(
    sample: pa.Table, names: Sequence[str], guesses: Mapping[str, Guess]
) -> tuple[str, ...]:
    """Return the columns that best tell rows apart, () if none do in the sample.

    That prices or dates happen to differ makes no key of them: a key is called like one, or stands
    first. Else it is such a column together with another.
    """
    if not sample.num_rows:
        return ()
    fit = [
        name
        for name in names
        if (
            guesses[name].type in ("string", "uuid", "date") or guesses[name].type.startswith("int")
        )
        and not sample[name].null_count
        and not _has_null_words(sample[name], guesses[name])
    ]
    unique = [name for name in fit if len(sample[name].unique()) == sample.num_rows]
    named = [name for name in fit if is_called_like_a_key(name) or guesses[name].type == "uuid"]
    first = [name for name in names[:1] if name in fit and guesses[name].type != "date"]
    for name in (*named, *first):
        if name in unique:
            return (name,)
    rows = {name: sample[name].to_pylist() for name in fit[:MOST_PARTS]}
    for one, two in combinations(rows, 2):
        may_be = {one, two} & {*named, *first} and one not in unique and two not in unique
        if may_be and len(set(zip(rows[one], rows[two], strict=True))) == sample.num_rows:
            return (one, two)
    return ()


def _has_null_words(column: pa.ChunkedArray, guess: Guess) -> bool:
    """Tell whether texts of a column will be NULL: no key has that."""
    if not pa.types.is_string(column.type):
        return False
    return not {"", *guess.options.get("null_values", ())}.isdisjoint(column.to_pylist())
