"""Progress of a run, told to whoever listens: a bar on the terminal, an artifact in the UI."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class ProgressListener(Protocol):
    """Is told how far the datasets of a run are."""

    def planned(self, dataset: str, partitions: int) -> None:
        """A dataset's run begins, with so many partitions."""

    def advanced(self, dataset: str, partitions: int, rows: int) -> None:
        """So many more partitions are done, with so many rows read."""


_listeners: list[ProgressListener] = []


@contextmanager
def listening(listener: ProgressListener) -> Iterator[None]:
    """Tell a listener of the progress of every run in this process."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def planned(dataset: str, partitions: int) -> None:
    """Tell all listeners that a dataset's run begins."""
    for listener in _listeners:
        listener.planned(dataset, partitions)


def advanced(dataset: str, partitions: int, rows: int) -> None:
    """Tell all listeners that partitions are done."""
    for listener in _listeners:
        listener.advanced(dataset, partitions, rows)
