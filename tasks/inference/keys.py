"""Which columns tell rows apart, as far as a sample tells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from tasks.inference.columns import ID_WORDS, Guess, words_of

KEY_WORDS = ID_WORDS | {"uuid", "guid", "code", "isbn", "ean", "iban", "slug"}
KEY_TYPES = frozenset({"int64", "int32", "int16", "string", "uuid"})
PART_TYPES = KEY_TYPES | {"date", "timestamp"}
FEWEST_ROWS = 2
MOST_PARTS = 8
"""Columns that pairs are made of."""


def suggest_key(
    dataset: str, guesses: Mapping[str, Guess], rows: Sequence[Mapping[str, Any]]
) -> tuple[str, ...]:
    """Return the key that a person would try first, () if there is none.

    A column is one if it has no value twice in the sample and a name or a type that keys have, or is
    the first; that prices happen to differ makes no key of them. Else two such columns are, together.

    Args:
        dataset: Name of the dataset.
        guesses: What each column is.
        rows: The sample, by column.
    """
    if len(rows) < FEWEST_ROWS:
        return ()
    single = [name for name, guess in guesses.items() if _may_be_key(name, guess)]
    if single:
        return (min(single, key=lambda name: _rank(dataset, name)),)
    first = next(iter(guesses), "")
    if first and guesses[first].is_unique and guesses[first].type in KEY_TYPES:
        return (first,)
    parts = [
        name
        for name, guess in guesses.items()
        if not guess.nulls
        and guess.type in PART_TYPES
        and (name == first or guess.type == "date" or words_of(name) & KEY_WORDS)
    ][:MOST_PARTS]
    for pair in combinations(parts, 2):
        if len({tuple(row[name] for name in pair) for row in rows}) == len(rows):
            return pair
    return ()


def _may_be_key(name: str, guess: Guess) -> bool:
    named = bool(words_of(name) & KEY_WORDS)
    return guess.is_unique and guess.type in KEY_TYPES and (named or guess.type == "uuid")


def _rank(dataset: str, name: str) -> tuple[int, int]:
    """Order: id, then <dataset>_id, then anything else; the shorter name first."""
    own = {
        f"{dataset}_id",
        f"{dataset.rstrip('s')}_id",
        f"id_{dataset}",
        f"{dataset.rstrip('s')}_no",
    }
    return (0 if name in ("id", "uuid") else 1 if name in own else 2, len(name))
