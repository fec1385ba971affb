"""A progress bar per dataset while a run is under way."""

from __future__ import annotations

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from cli.console import stderr


class ProgressBars:
    """Listens to a run and draws a bar for each dataset: partitions and rows."""

    def __init__(self) -> None:
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("[bold]{task.description:<10}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("partitions"),
            TextColumn("{task.fields[rows]:>9,} rows"),
            TimeElapsedColumn(),
            console=stderr,
        )
        self._tasks: dict[str, TaskID] = {}
        self._rows: dict[str, int] = {}

    def __enter__(self) -> ProgressBars:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def planned(self, dataset: str, partitions: int) -> None:
        """Draw the bar of a dataset."""
        self._rows[dataset] = 0
        self._tasks[dataset] = self._progress.add_task(
            dataset, total=partitions, completed=0, rows=0
        )

    def advanced(self, dataset: str, partitions: int, rows: int) -> None:
        """Move the bar of a dataset."""
        self._rows[dataset] += rows
        self._progress.update(self._tasks[dataset], advance=partitions, rows=self._rows[dataset])
