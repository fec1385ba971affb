"""``children:`` of a dataset file as text, from the lists of objects in a sample."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tasks.inference.children import ChildDraft
from tasks.inference.digits import is_called_like_a_key, kept_as_text, of_digits
from tasks.inference.text import column_line, flow, identifier
from tasks.inference.values import Guess, guess_column


def child_lines(
    dataset: str, lists: Sequence[ChildDraft], parent_key: Sequence[str]
) -> Iterator[str]:
    """Write the child tables of a dataset.

    Args:
        dataset: Its name.
        lists: The lists of objects in its rows.
        parent_key: Columns of its key.
    """
    taken: set[str] = set()
    if lists:
        yield "children:"
    for child in lists:
        yield from _child(dataset, child, identifier(child.name, taken), parent_key)


def _child(dataset: str, child: ChildDraft, name: str, parent_key: Sequence[str]) -> Iterator[str]:
    guesses = {key: guess_of_item(child, key) for key in child.items.column_names}
    own: set[str] = set()
    columns = {key: identifier(key, own) for key in guesses}
    link = _link(dataset, own, parent_key)
    key = _key(child, guesses)
    yield f"  {name}:  # each item of the list is a row, with the key of the row that it is in"
    yield f"    table: analytics.{dataset}_{name}"
    if child.way != (name,):
        yield f"    path: {flow(child.path)}"
    if list(link) != list(link.values()):
        yield f"    link: {flow(link)}"
    if key:
        yield f"    key: [{columns[key]}]  # different in each list of the sample; is it always?"
    else:
        yield "    # Nothing tells the items of a list apart: they are told by their place, _position."
    yield "    columns:"
    width = max(map(len, columns.values())) + 1
    for source, column in columns.items():
        yield f"    {column_line(source, column, guesses[source], width)}"


def guess_of_item(child: ChildDraft, key: str) -> Guess:
    """Guess a column of the items."""
    guess = guess_column(child.items[key])
    if key in child.as_text:
        return kept_as_text(guess, child.as_text[key])
    return of_digits(guess, key, child.items[key]) if guess.type == "int64" else guess


def _link(dataset: str, own: set[str], parent_key: Sequence[str]) -> dict[str, str]:
    """Return column of the child table → column of the parent's key, with names that items lack."""
    taken = set(own)
    return {
        identifier(f"{dataset}_{column}" if column in own else column, taken): column
        for column in parent_key
    }


def _key(child: ChildDraft, guesses: Mapping[str, Guess]) -> str | None:
    """Return the key that tells the items of each list apart, None if none seems to."""
    if len(set(child.parents)) == len(child.parents):
        return None  # no list has two
    for name, guess in guesses.items():
        values: list[Any] = child.items[name].to_pylist()
        fits = guess.type in ("string", "uuid") or guess.type.startswith("int")
        if not fits or not is_called_like_a_key(name) or None in values or "" in values:
            continue
        if len(set(zip(child.parents, values, strict=True))) == len(values):
            return name
    return None
