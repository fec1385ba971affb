"""Snapshots that the partitions of one plan share, held open by the process that planned.

PostgreSQL exports a snapshot for as long as the transaction that exported it is open. So the planning
connection is kept by this process until all partitions of the plan are read, a newer plan of the
dataset takes its place, ``HELD_SECONDS`` are over, or the process ends. A partition that is read
later, or by another process, finds no snapshot here; its connector decides what that means.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass

import structlog

HELD_SECONDS = 4 * 3600
"""An open snapshot keeps the source from removing dead rows: this is the longest that it may."""

log = structlog.get_logger("dpp.ingestion")


@dataclass
class _Held:
    name: str
    waiting: set[str]
    session: ExitStack
    timer: threading.Timer


class Snapshots:
    """The snapshots that this process holds, one for each dataset."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[str, _Held] = {}

    def hold(
        self,
        dataset: str,
        name: str,
        slices: Iterable[str],
        session: ExitStack,
        seconds: float = HELD_SECONDS,
    ) -> None:
        """Keep a snapshot for some partitions; that of an earlier plan is let go.

        Args:
            dataset: Whose plan it is.
            name: What PostgreSQL called it.
            slices: What stands for the partitions.
            session: Closes the connection that holds it.
            seconds: The longest that it is held.
        """
        timer = threading.Timer(seconds, self._expire, (dataset, name))
        timer.daemon = True
        with self._lock:
            before = self._held.pop(dataset, None)
            self._held[dataset] = _Held(name, set(slices), session, timer)
        if before is not None:
            _let_go(before)
        timer.start()

    def find(self, dataset: str, slice_version: str) -> str | None:
        """Return the snapshot in which a partition was planned, None if it is not held here."""
        with self._lock:
            held = self._held.get(dataset)
            return held.name if held is not None and slice_version in held.waiting else None

    def read(self, dataset: str, slice_version: str) -> None:
        """Take note that a partition was read to its end; the last one lets the snapshot go."""
        with self._lock:
            held = self._held.get(dataset)
            if held is None:
                return
            held.waiting.discard(slice_version)
            if held.waiting:
                return
            del self._held[dataset]
        _let_go(held)

    def _expire(self, dataset: str, name: str) -> None:
        with self._lock:
            held = self._held.get(dataset)
            if held is None or held.name != name:
                return
            del self._held[dataset]
        log.warning("ingestion.snapshot_expired", dataset=dataset, partitions=len(held.waiting))
        _let_go(held)


def _let_go(held: _Held) -> None:
    held.timer.cancel()
    try:
        held.session.close()
    except Exception as error:  # the connection may be long gone; nothing is lost
        log.info("ingestion.snapshot_was_gone", error=type(error).__name__)


SNAPSHOTS = Snapshots()
"""Those of this process: connectors come and go with each task, the snapshot stays."""
