"""What a source says of its cursor when a run is planned, and what of it is refused."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa
import structlog

from tasks.ingestion.database import extent
from tasks.ingestion.database.cursors import future_limit, moved_back
from tasks.ingestion.database.ranges import Mark, Seen
from tasks.ingestion.database.relation import Relation
from tasks.model.database_source import DatabaseSource
from tasks.model.errors import ConfigError, SourceRejected

log = structlog.get_logger("dpp.ingestion")


class CursorWatch:
    """Looks at the cursor column of a source.

    Args:
        connection: The source, in the transaction of the plan.
        relation: The table or query.
        source: Its declaration.
        settled: Is each row read once only?
        now: The time.
    """

    def __init__(
        self,
        connection: sa.Connection,
        relation: Relation,
        source: DatabaseSource,
        now: datetime,
        *,
        settled: bool,
    ) -> None:
        self._connection = connection
        self._relation = relation
        self._source = source
        self._now = now
        self._settled = settled
        self.column = relation.column(source.cursor or "", "cursor").name
        self._cursor: sa.ColumnElement[Any] = sa.column(self.column)

    def edge(self, *conditions: sa.ColumnElement[bool], last: bool = True) -> Any:
        """Return the largest or smallest cursor of some rows."""
        return extent.edge(self._connection, self._relation, self.column, *conditions, last=last)

    def digest(self, *conditions: sa.ColumnElement[bool], as_of: str | None = None) -> str | None:
        """Return what stands for some rows."""
        return extent.digest(self._connection, self._relation, as_of, *conditions)

    def limit(self, sample: Any) -> Any:
        """Return the largest cursor that is not in the future; None if that is no matter."""
        if self._source.future_cursor == "include":
            return None
        return future_limit(sample, self._now)

    def seen(self, mark: Mark) -> tuple[Seen, Any]:
        """Return what the source says, and where a run begins."""
        cursor = self._cursor
        limit = self.limit(self.edge())
        high = self.edge() if limit is None else self.edge(cursor <= limit)
        lookback = self._source.lookback_span
        if self._settled:
            high = None if high is None else moved_back(high, lookback)
        from_mark = mark.value if high is None or mark.value is None else min(high, mark.value)
        low = None if from_mark is None else moved_back(from_mark, 0 if self._settled else lookback)
        seen = Seen(high=high)
        if high is not None and not self._settled:
            top = self.digest(cursor >= moved_back(high, lookback), cursor <= high)
            seen = replace(seen, top=top)
            if mark.value is not None:
                overlap = self.digest(cursor >= low, cursor <= mark.value)
                seen = replace(seen, overlap=overlap)
        if self._relation.column(self.column, "cursor").nullable:
            nulls = self.digest(cursor.is_(None), as_of=self._now.isoformat())
            seen = replace(seen, nulls=nulls)
        first = None if limit is None else self.edge(cursor > limit, last=False)
        if first is not None:
            seen = replace(seen, future=self.digest(cursor >= first), future_from=first)
        return seen, low

    def refuse(self, seen: Seen, mark: Mark, where: str) -> None:
        """Stop at what the declaration calls an error, and warn of what it does not.

        Args:
            seen: What the source says.
            mark: Where the last plan ended.
            where: The block and the table, for the message.

        Raises:
            SourceRejected: The source has what is declared an error.
            ConfigError: The declaration does not fit what the source has.
        """
        column = self.column
        if seen.nulls and self._source.null_cursor == "error":
            raise SourceRejected(
                f"{where}: rows without a value in the cursor {column!r}",
                "fill it in the source, or declare source.null_cursor: include or quarantine",
            )
        if seen.nulls and self._settled and self._source.null_cursor == "include":
            raise ConfigError(
                f"{where}: rows without a value in the cursor {column!r}; appended, they would "
                "be there once more after each run",
                "declare source.null_cursor: quarantine, or load.mode: merge",
            )
        if seen.future and self._source.future_cursor == "error":
            raise SourceRejected(
                f"{where}: the cursor {column!r} is later than now in some rows",
                "correct them in the source, or declare source.future_cursor: quarantine or include",
            )
        went_back = mark.value is not None and (seen.high is None or seen.high < mark.value)
        if went_back:
            if self._source.backward_cursor == "error":
                raise SourceRejected(
                    f"{where}: the cursor {column!r} went back: {mark.value} was loaded, and the "
                    f"largest is now {seen.high}; the source was restored, or its newest rows deleted",
                    "declare source.backward_cursor: reread to go on from there, or load anew",
                )
            log.warning(
                "ingestion.cursor_went_back", where=where, mark=str(mark.value),
                largest=str(seen.high),
            )  # fmt: skip
