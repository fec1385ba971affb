"""Evidence of a failed gate: some of its rows, in texts of a bounded length, personal values hidden."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import Any

from tasks.model.dataset import DatasetSpec, LookedUp
from tasks.protection import MASK

EVIDENCE_ROWS = 20
"""Most rows of one gate that are kept as evidence."""
EVIDENCE_CHARACTERS = 200


def hidden_columns(
    spec: DatasetSpec, lookups: Mapping[str, LookedUp], names: Sequence[str]
) -> frozenset[str]:
    """Return the columns whose values are not kept as evidence.

    Those marked ``pii``, those taken from such, and where there are any, those that may have been
    computed of them: all that are not declared columns themselves.
    """
    taken = {
        mine: (lookup.lookup, theirs)
        for lookup in spec.enrich
        for mine, theirs in lookup.take.items()
    }
    personal = {name for name, column in spec.columns.items() if column.pii != "none"}
    personal |= {
        mine
        for mine, (other, theirs) in taken.items()
        if other in lookups and lookups[other].columns[theirs].pii != "none"
    }
    if not personal:
        return frozenset()
    plain = {*spec.columns, *taken} - personal
    return frozenset(names) - plain


def shown(
    names: Sequence[str], rows: Sequence[tuple[Any, ...]], hidden: Set[str]
) -> tuple[dict[str, Any], ...]:
    """Return rows as evidence, with a mask in place of the values of hidden columns."""
    return tuple(
        {
            name: MASK if name in hidden else shortened(value)
            for name, value in zip(names, row, strict=True)
        }
        for row in rows
    )


def shortened(value: Any) -> Any:
    """Return a value as evidence keeps it: text of a bounded length."""
    if isinstance(value, str) and len(value) > EVIDENCE_CHARACTERS:
        return f"{value[:EVIDENCE_CHARACTERS]}…"
    return value
