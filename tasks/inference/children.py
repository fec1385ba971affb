"""Lists of objects inside of a sample's rows, which could be rows of tables of their own."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from tasks.json_tokens import items, members, token_text
from tasks.model.json_path import parse_value_path

MOST_ITEMS = 5000
"""Items of a list that are looked at."""
DEEPEST = 3
"""Objects inside of each other in which lists are looked for."""
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
Way = tuple[str, ...]


@dataclass
class ChildDraft:
    """What is known of a list of objects.

    Attributes:
        way: The column that it is in, and the keys that lead to it.
        items: Its items in the sample, as texts by their keys.
        parents: The row that each item belongs to.
        as_text: Keys that stay text, with the items that their type would have refused.
    """

    way: Way
    items: pa.Table
    parents: list[int]
    as_text: dict[str, int] = field(default_factory=dict)

    @property
    def path(self) -> str:
        """The way, as a dataset file has it."""
        if all(_PLAIN.fullmatch(key) for key in self.way):
            return ".".join(self.way)
        return "$" + "".join(f"[{json.dumps(key, ensure_ascii=False)}]" for key in self.way)

    @property
    def name(self) -> str:
        """What the list is called."""
        return self.way[-1]


def lists_of_objects(sample: pa.Table) -> list[ChildDraft]:
    """Find the lists of objects in a sample: where there is one, it is one in every row that has it.

    Args:
        sample: The rows, nested values as JSON.
    """
    found: dict[Way, list[tuple[int, bytes]]] = {}
    other: set[Way] = set()
    for name in sample.column_names:
        if not pa.types.is_string(sample[name].type):
            continue
        for row, text in enumerate(sample[name].to_pylist()):
            if text and text[0] in "[{":
                _look(text.encode(), (name,), row, found, other)
    drafts = (_draft(way, lists) for way, lists in found.items() if way not in other)
    return [draft for draft in drafts if draft is not None]


def _look(
    token: bytes,
    way: Way,
    row: int,
    found: dict[Way, list[tuple[int, bytes]]],
    other: set[Way],
) -> None:
    """Note the lists in a value, and ways at which there is something else too."""
    if token[:1] == b"[":
        found.setdefault(way, []).append((row, token))
    elif token != b"null":
        other.add(way)
    if token[:1] != b"{" or len(way) > DEEPEST:
        return
    try:
        inner = members(token)
    except ValueError:
        return
    for key, value in inner.items():
        _look(value, (*way, key), row, found, other)


def _draft(way: Way, lists: Sequence[tuple[int, bytes]]) -> ChildDraft | None:
    """Return what is known of a list, None if its items are not objects alike enough for a table."""
    rows: list[dict[str, str | None]] = []
    parents: list[int] = []
    try:
        for row, item in _all_items(lists):
            rows.append({key: token_text(value) for key, value in members(item).items()})
            parents.append(row)
            if len(rows) == MOST_ITEMS:
                break
    except ValueError:  # a value that is no object, or one that would be refused
        return None
    keys = list(dict.fromkeys(key for row in rows for key in row))
    if not keys or len({key.casefold() for key in keys}) < len(keys) or not _can_be_declared(way):
        return None
    columns = [pa.array([row.get(key) for row in rows], pa.string()) for key in keys]
    return ChildDraft(way, pa.table(columns, names=keys), parents)


def _all_items(lists: Sequence[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    for row, token in lists:
        for item in items(token):
            yield row, item


def _can_be_declared(way: Way) -> bool:
    """Tell whether a dataset file can say the way, whatever its keys have in them."""
    draft = ChildDraft(way, pa.table({}), [])
    try:
        return parse_value_path(draft.path).steps == way
    except ValueError:
        return False
