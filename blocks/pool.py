"""A pool of connections that says who holds them when none is free."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any

import structlog
from sqlalchemy import event, exc
from sqlalchemy.pool import QueuePool

SHOWN = 5
"""Most holders that a message names."""
_WORDS = ("stage", "dataset", "partition")


@dataclass(frozen=True, slots=True)
class Holder:
    """Who took a connection out of the pool.

    Attributes:
        what: The work it is for, as the log names it; or the thread.
        since: When, on the monotonic clock.
    """

    what: str
    since: float

    def __str__(self) -> str:
        return f"{self.what} for {time.monotonic() - self.since:.0f} s"


class WatchedPool(QueuePool):
    """A bounded pool; whoever waits for a connection in vain is told what holds them."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._holders: dict[int, Holder] = {}
        event.listen(self, "checkout", self._taken)
        event.listen(self, "checkin", self._returned)

    def holders(self) -> list[Holder]:
        """Return who holds a connection, the longest first."""
        return sorted(self._holders.copy().values(), key=lambda holder: holder.since)

    def connect(self) -> Any:
        """Take a connection.

        Raises:
            sqlalchemy.exc.TimeoutError: None became free in time; names the holders.
        """
        try:
            return super().connect()
        except exc.TimeoutError:
            held = self.holders()
            more = f" and {len(held) - SHOWN} more" if len(held) > SHOWN else ""
            raise exc.TimeoutError(
                f"no free connection within {self._timeout:.0f} s: the {self.size()} of this process "
                f"are held by {', '.join(map(str, held[:SHOWN]))}{more}"
            ) from None

    def _taken(self, _connection: Any, record: Any, _proxy: Any) -> None:
        words = structlog.contextvars.get_contextvars()
        named = " ".join(str(words[word]) for word in _WORDS if word in words)
        what = named or f"thread {threading.current_thread().name}"
        self._holders[id(record)] = Holder(what, time.monotonic())

    def _returned(self, _connection: Any, record: Any) -> None:
        self._holders.pop(id(record), None)
