"""What all commands share: the console, the words of an error, and the exit code it ends with."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.markup import escape

from tasks.model.errors import PipelineError

WIDTH_WITHOUT_TERMINAL = 140
console = Console(width=None if sys.stdout.isatty() else WIDTH_WITHOUT_TERMINAL)
"""For results: tables and reports."""
stderr = Console(stderr=True)
"""For everything else: progress, warnings, errors."""


class ConsoleHandler(logging.Handler):
    """Prints log lines above a progress bar instead of through it."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record; a terminal that is gone is no reason for a run to fail."""
        style = {"WARNING": "yellow", "ERROR": "red"}.get(record.levelname)
        try:
            stderr.print(
                self.format(record), style=style, markup=False, highlight=False, soft_wrap=True
            )
        except Exception:
            self.handleError(record)


def show_error(error: PipelineError) -> None:
    """Print an error and what to do about it."""
    stderr.print(f"[bold red]error[/] {escape(error.message)}", highlight=False, soft_wrap=True)
    if error.remedy:
        stderr.print(f"      [dim]{escape(error.remedy)}[/]", highlight=False, soft_wrap=True)


@contextmanager
def reporting_errors() -> Iterator[None]:
    """End the command with the right exit code, and without a traceback, on an error of ours."""
    try:
        yield
    except PipelineError as error:
        show_error(error)
        raise typer.Exit(error.exit_code) from None
    except KeyboardInterrupt:
        stderr.print("[yellow]interrupted[/] — run again to go on; nothing is loaded twice")
        raise typer.Exit(128 + 2) from None


def starting(component: str, event: str) -> None:
    """Tell of a server that is started."""
    if event == "ready":
        stderr.print(f"[dim]started {component.replace('_', ' ')}[/]", highlight=False)


def is_interactive() -> bool:
    """Tell whether a person watches."""
    return sys.stderr.isatty()
