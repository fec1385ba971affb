"""Options that commands share, asking for a yes, and who it is that gives it."""

from __future__ import annotations

import getpass
import sys
from typing import Annotated

import typer

from cli.console import console
from tasks.model.errors import ConfigError, ExitCode

Names = Annotated[list[str] | None, typer.Argument(help="Datasets; all without a name.")]
Dataset = Annotated[
    str, typer.Argument(help="The dataset, or a child table of it as orders.lines.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask; scripts need it.")]


def confirm(question: str, what: str = "discarding") -> None:
    """Ask a person; end the command if the answer is no, or if nobody is there."""
    if not sys.stdin.isatty():
        raise ConfigError(f"{what} needs a yes, and nobody is here to give it", "add --yes")
    if not typer.confirm(question):
        console.print("nothing was done")
        raise typer.Exit(ExitCode.DONE)


def person() -> str:
    """Return who runs the command, for the records."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"
