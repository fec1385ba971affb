"""``dpp profile``: what the rows of the latest partition look like."""

from __future__ import annotations

from datetime import UTC, datetime

from rich import box
from rich.console import JustifyMethod
from rich.markup import escape
from rich.table import Table

from cli.console import console
from tasks.loading.profiles import StoredProfile
from tasks.model.profile import ColumnProfile, Profile

SHOWN_TOP = 3
SHOWN_CHARACTERS = 24


def show_profile(dataset: str, stored: StoredProfile | None) -> None:
    """Print a profile, and what was unusual about it."""
    if stored is None:
        console.print(f"no profile of {dataset} yet: dpp run {dataset}", highlight=False)
        return
    console.print(profile_table(dataset, stored))
    for finding in stored.findings:
        style = "dim" if finding.severity == "note" else "yellow"
        console.print(f"[{style}]{escape(finding.message)}[/]", highlight=False)


def profile_table(dataset: str, stored: StoredProfile) -> Table:
    """Return a profile as a table, a line per column."""
    profile = stored.profile
    sampled = profile.sampled if profile.sampled < profile.rows else 0
    title = f"{dataset} · {stored.label} · {profile.rows:,} rows · {stored.at:%Y-%m-%d %H:%M} UTC"
    table = Table(
        box=box.SIMPLE_HEAD,
        title=escape(title),
        title_style="bold",
        caption=f"medians, frequent values and bounds of texts are of a sample of {sampled:,} rows"
        if sampled
        else None,
    )
    columns: tuple[tuple[str, JustifyMethod], ...] = (
        ("column", "left"), ("NULL", "right"), ("distinct", "right"), ("min", "left"),
        ("median", "left"), ("max", "left"), ("length", "right"), ("most frequent", "left"),
    )  # fmt: skip
    for name, justify in columns:
        table.add_column(name, justify=justify)
    for name, column in profile.columns.items():
        table.add_row(name, *map(escape, _cells(profile, name, column)))
    return table


def _cells(profile: Profile, name: str, column: ColumnProfile) -> list[str]:
    rate = profile.null_rate(name) or 0.0
    top = ", ".join(f"{_short(value)} {share:.0%}" for value, share in column.top[:SHOWN_TOP])
    length = f"{column.lengths[0]}–{column.lengths[2]}" if column.lengths else ""
    return [
        f"{rate:.1%}" if rate else "–",
        f"{column.distinct:,}",
        _short(column.min or ""),
        _median(column),
        _short(column.max or ""),
        length,
        "protected" if column.protected else top,
    ]


def _median(column: ColumnProfile) -> str:
    if not column.quantiles:
        return ""
    middle = column.quantiles[len(column.quantiles) // 2]
    if column.kind != "time":
        return f"{middle:,.6g}"
    try:
        return f"{datetime.fromtimestamp(middle, UTC):%Y-%m-%d %H:%M:%S}"
    except (ValueError, OverflowError):  # a time of day or a span, or a year beyond Python's
        return f"{middle:,.0f} s"


def _short(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[: SHOWN_CHARACTERS - 1]}…"
