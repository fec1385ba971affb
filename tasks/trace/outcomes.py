"""What each load did with a row, by the rules of the load mode. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from tasks.loading.checks import LedgerRow
from tasks.model.column_types import decimal_digits, is_integer
from tasks.model.dataset import DatasetSpec
from tasks.model.load import MergeLoad
from tasks.trace.model import What


@dataclass(frozen=True, slots=True)
class Found:
    """What one load had of a key.

    Attributes:
        row: The load.
        values: The clean row as texts; None of a load that compares keys.
        is_key_there: Of a load that compares keys: is the key among them?
    """

    row: LedgerRow
    values: dict[str, Any] | None
    is_key_there: bool = True


def outcomes(spec: DatasetSpec, found: Sequence[Found]) -> Iterator[tuple[Found, What]]:
    """Yield what became of the row in each load; in the order of the loads."""
    there: Found | None = None
    for one in found:
        if one.values is None:
            up_to = one.row.deletes_up_to or 0
            if there is not None and not one.is_key_there and there.row.load_id <= up_to:
                there = None
                yield one, "deleted"
            continue
        what = _what(spec, there, one)
        if what in ("inserted", "updated"):
            there = one
        elif what == "deleted":
            there = None
        yield one, what


def _what(spec: DatasetSpec, there: Found | None, one: Found) -> What:
    if spec.load.mode not in ("append", "insert_only", "merge"):
        return "loaded"
    if spec.load.mode == "append":
        return "inserted"
    if there is not None and spec.load.mode == "merge" and _is_older(spec, one, there):
        return "not taken: older"
    if _is_deletion(spec, one):
        return "deleted"
    if there is None:
        return "inserted"
    if spec.load.mode == "insert_only" or _content(one) == _content(there):
        return "unchanged"
    return "updated"


def _content(one: Found) -> dict[str, Any]:
    own = ("_file", "file_row_number", "_source_uri", "_source_row")
    return {
        name: value
        for name, value in (one.values or {}).items()
        if name not in own and value is not None
    }


def _is_deletion(spec: DatasetSpec, one: Found) -> bool:
    if not isinstance(spec.load, MergeLoad) or spec.load.delete is None or one.values is None:
        return False
    said = one.values.get(spec.load.delete.column)
    return said in [
        str(value).lower() if isinstance(value, bool) else str(value)
        for value in spec.load.delete.values
    ]


def _is_older(spec: DatasetSpec, one: Found, there: Found) -> bool:
    if spec.cursor is None or spec.cursor in spec.key:
        return False
    before, now = _place(spec, there), _place(spec, one)
    if before is None:
        return False
    return now is None or bool(now < before)


def _place(spec: DatasetSpec, one: Found) -> Any:
    """Return the cursor of a row as something that has an order."""
    assert spec.cursor is not None
    text = (one.values or {}).get(spec.cursor)
    kind = spec.columns[spec.cursor].type
    if text is None:
        return None
    if is_integer(kind) or kind == "float" or decimal_digits(kind):
        try:
            return Decimal(text)
        except InvalidOperation:
            return None
    if kind == "timestamp":
        return datetime.fromisoformat(text)
    return text
