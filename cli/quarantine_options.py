"""Options that the commands of ``dpp quarantine`` share, and what they mean."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from tasks.model.errors import ConfigError
from tasks.model.replay import Selection

Rule = Annotated[str | None, typer.Option(help="Only rows that broke this rule first.")]
Column = Annotated[str | None, typer.Option(help="Only rows that broke it in this column.")]
LoadId = Annotated[int | None, typer.Option("--load", help="Only rows of this load.")]
Row = Annotated[
    list[str] | None, typer.Option("--row", help="Only this row, e.g. 12-345; may be repeated.")
]
Older = Annotated[
    str | None, typer.Option("--older-than", help="Only rows first seen so long ago: 12h, 7d, 4w.")
]
Reveal = Annotated[
    bool,
    typer.Option(
        "--reveal", help="With the values of protected columns; if the environment permits it."
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]
_AGE = re.compile(r"(\d{1,5})([hdw])")
_HOURS = {"h": 1, "d": 24, "w": 168}


def selection_of(
    rule: str | None,
    column: str | None,
    load_id: int | None,
    rows: list[str] | None,
    older_than: str | None,
    *,
    child: str | None = None,
    resolved_too: bool = False,
) -> Selection:
    """Return the rows that the options of a command mean; items, if a child table is named."""
    try:
        return Selection(
            child=child,
            rule=rule,
            column=column,
            load_id=load_id,
            rows=tuple(row.strip() for row in rows or ()),
            seen_before=seen_before(older_than),
            resolved_too=resolved_too,
        )
    except ValueError as error:
        text = str(error)
        if "no row of quarantine" not in text:
            raise
        raise ConfigError(
            f"--row {', '.join(rows or ())}: a row is named like 12-345",
            "dpp quarantine show prints the names",
        ) from None


def seen_before(older_than: str | None) -> datetime | None:
    """Return the time before which rows of an age were seen first."""
    if older_than is None:
        return None
    match = _AGE.fullmatch(older_than.strip())
    if not match:
        raise ConfigError(f"--older-than {older_than!r} is no age", "write e.g. 12h, 7d or 4w")
    return datetime.now(UTC) - timedelta(hours=int(match[1]) * _HOURS[match[2]])
