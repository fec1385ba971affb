"""Which ranges a run reads, decided from what the source and the ledger say. Pure.

A range is ``from <= column < to``, or ``<= to`` when it is closed. The ranges of one plan meet
without a gap. Each partition of a plan leaves the same state: the mark, and the ranges of the plan
with their versions. So it does not matter which of them is committed first: the next plan finds
those that are missing, and plans them again as they were.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

from tasks.ingestion.database.cursors import decode_cursor, encode_cursor

MOST_PARTITIONS = 256


@dataclass(frozen=True)
class Range:
    """A part of the rows.

    Attributes:
        column: Cursor or key; None for all rows.
        low: Smallest value, None for no bound.
        high: Largest value, None for no bound.
        closed: Does ``high`` belong to it?
        open_low: Is ``low`` itself left out?
        part: ``range``; ``nulls``, the rows without a cursor; ``future``, those from ``low`` on.
        with_nulls: Are rows without a value part of it?
        version: Tells apart what the bounds do not: what stands for the rows at the edges, the plan.
    """

    column: str | None = None
    low: Any = None
    high: Any = None
    closed: bool = False
    open_low: bool = False
    part: str = "range"
    with_nulls: bool = False
    version: tuple[Any, ...] = ()

    def to_slice(self) -> dict[str, Any]:
        """Write it as JSON, for a partition and for the ledger."""
        return {
            "part": self.part,
            "column": self.column,
            "from": encode_cursor(self.low),
            "to": encode_cursor(self.high),
            "closed": self.closed,
            "open_low": self.open_low,
            "with_nulls": self.with_nulls,
            "version": list(self.version),
        }

    @classmethod
    def from_slice(cls, written: dict[str, Any]) -> Range:
        """Read what ``to_slice`` wrote."""
        return cls(
            column=written["column"],
            low=decode_cursor(written["from"]),
            high=decode_cursor(written["to"]),
            closed=written["closed"],
            open_low=written["open_low"],
            part=written["part"],
            with_nulls=written["with_nulls"],
            version=tuple(written["version"]),
        )

    @property
    def words(self) -> str:
        """Say which rows these are."""
        if self.column is None:
            return "all rows"
        if self.part == "nulls":
            return f"{self.column} is null"
        if self.part == "future":
            return f"{self.column} in the future"
        low = "" if self.low is None else str(self.low)
        high = "" if self.high is None else str(self.high)
        return f"{self.column} {low}..{high}"


def cut_range(whole: Range, cuts: Sequence[Any]) -> list[Range]:
    """Cut a range in pieces that meet; only the first has the rows without a value.

    Args:
        whole: What is cut.
        cuts: Values inside it, in order.
    """
    edges = [whole.low, *cuts, whole.high]
    last = len(edges) - 2
    pieces = []
    for position, (low, high) in enumerate(pairwise(edges)):
        pieces.append(
            replace(
                whole,
                low=low,
                high=high,
                closed=whole.closed and position == last,
                open_low=whole.open_low and position == 0,
                with_nulls=whole.with_nulls and position == 0,
                version=whole.version if position in (0, last) else whole.version[-1:],
            )
        )
    return pieces


@dataclass(frozen=True)
class Seen:
    """What the source says of its cursor now.

    Attributes:
        high: Largest cursor that is not in the future, None if there is none.
        overlap: Stands for the rows between the mark less the look-back and the mark.
        top: Stands for the rows between ``high`` less the look-back and ``high``.
        nulls: Stands for the rows without a cursor; None if there are none.
        future: Stands for the rows with a cursor in the future; None if there are none.
        future_from: The smallest of these.
    """

    high: Any = None
    overlap: str | None = None
    top: str | None = None
    nulls: str | None = None
    future: str | None = None
    future_from: Any = None


@dataclass(frozen=True)
class Mark:
    """Where the last plan ended, as the ledger has it.

    Attributes:
        column: The cursor.
        value: The largest cursor that was planned.
        top: Stands for the rows at the mark, and within the look-back before it, as planned then.
        nulls: Stands for the rows without a cursor then.
        future: Stands for the rows in the future then.
        round: Number of plans so far.
        ranges: The ranges of the last plan, each with its version; of a single one, none.
    """

    column: str
    value: Any = None
    top: str | None = None
    nulls: str | None = None
    future: str | None = None
    round: int = 0
    ranges: tuple[tuple[str, dict[str, Any]], ...] = field(default=())

    @classmethod
    def from_state(cls, state: dict[str, Any], column: str) -> Mark:
        """Read a partition's state; that of another cursor column counts as none."""
        if state.get("column") != column:
            return cls(column)
        return cls(
            column,
            decode_cursor(state["cursor"]),
            state["top"],
            state["nulls"],
            state["future"],
            state["round"],
            tuple((known, written) for known, written in state["ranges"]),
        )

    def to_state(self) -> dict[str, Any]:
        """Write it as JSON, for the state of a partition."""
        return {
            "column": self.column,
            "cursor": encode_cursor(self.value),
            "top": self.top,
            "nulls": self.nulls,
            "future": self.future,
            "round": self.round,
            "ranges": [list(known) for known in self.ranges],
        }

    def missing(self, committed: frozenset[str]) -> list[Range]:
        """Return the ranges of the last plan that were not committed.

        Args:
            committed: The versions of those that were.
        """
        return [
            Range.from_slice(written)
            for version, written in self.ranges
            if version not in committed
        ]


def increment(mark: Mark, seen: Seen, low: Any, *, settled: bool) -> tuple[list[Range], Mark]:
    """Return what is new since the mark, uncut, and the mark that the plan leaves.

    Args:
        mark: Where the last plan ended.
        seen: What the source says now.
        low: The mark less the look-back.
        settled: Are rows read once and for all, as ``append`` needs it? Then the rows of the
            largest cursor wait until there is a larger one.
    """
    version = (mark.round + 1,)
    ranges = []
    if settled:
        if seen.high is not None and (mark.value is None or seen.high > mark.value):
            ranges.append(Range(mark.column, mark.value, seen.high, version=version))
    elif changed := _changed(mark, seen, low, version):
        ranges.append(changed)
    if seen.nulls and seen.nulls != mark.nulls:
        ranges.append(Range(mark.column, part="nulls", version=(seen.nulls, *version)))
    if seen.future and seen.future != mark.future:
        ranges.append(
            Range(mark.column, seen.future_from, part="future", version=(seen.future, *version))
        )
    after = Mark(mark.column, seen.high, seen.top, seen.nulls, seen.future, version[0])
    return ranges, after


def _changed(mark: Mark, seen: Seen, low: Any, version: tuple[Any, ...]) -> Range | None:
    """Return the range from the mark to the largest cursor, the mark's own rows if they changed."""
    if seen.high is None:
        return None
    whole = Range(
        mark.column, low, seen.high, closed=True, version=(seen.overlap, seen.top, *version)
    )
    if mark.value is None or seen.high < mark.value:
        return whole
    same_rows = seen.overlap == mark.top
    if seen.high == mark.value:
        return None if same_rows else whole
    # Without a look-back, rows that share the mark need not be read again if none was added.
    return replace(whole, open_low=True) if same_rows and low == mark.value else whole
