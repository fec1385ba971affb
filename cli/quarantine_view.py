"""Refused rows as people see them: counts with shares, and a row with its cell marked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from rich import box
from rich.markup import escape
from rich.table import Table

from cli.options import person
from tasks.connections import Connections
from tasks.loading.resolutions import QuarantineReasons
from tasks.model.dataset import DatasetSpec
from tasks.model.environment import Environment
from tasks.model.json_path import ITEM
from tasks.protection import Protection
from tasks.refused import KeptRow
from tasks.replay.reveal import permitted_protection
from tasks.replay.select import SelectedRow
from tasks.reporting.logs import configure_logs

By = Literal["rule", "dataset", "age"]
_AGES = (
    (timedelta(days=1), "less than a day"),
    (timedelta(days=7), "1 to 7 days"),
    (timedelta(days=30), "7 to 30 days"),
)
_OLDEST = "more than 30 days"


@dataclass(slots=True)
class Count:
    """Refused rows that have something in common."""

    dataset: str
    stage: str | None
    rule: str | None
    column: str | None
    age: str | None
    message: str
    source_uri: str
    source_row: int
    first_seen: datetime
    rows: int = 0
    open: int = 0
    replayed: int = 0
    discarded: int = 0
    share_of_read: float = 0
    """Open rows as a share of the rows that the dataset's source gave, 0 to 1."""
    share_of_open: float = 0
    """The same, of all open rows that are listed."""

    def document(self) -> dict[str, Any]:
        """Return it for scripts."""
        return asdict(self) | {"first_seen": self.first_seen.isoformat()}


def counted(
    reasons: Sequence[QuarantineReasons], read: Mapping[str, int], by: By, now: datetime
) -> list[Count]:
    """Count refused rows by rule, by dataset or by age; most open rows of a dataset first."""
    counts: dict[tuple[str | None, ...], Count] = {}
    for reason in reasons:
        of_rule = by == "rule"
        age = _age(now - reason.first_seen) if by == "age" else None
        key = (
            (reason.dataset, reason.stage, reason.rule, reason.column)
            if of_rule
            else (reason.dataset, age)
        )
        count = counts.get(key)
        if count is None:
            count = counts[key] = Count(
                dataset=reason.dataset,
                stage=reason.stage if of_rule else None,
                rule=reason.rule if of_rule else None,
                column=reason.column if of_rule else None,
                age=age,
                message=reason.message,
                source_uri=reason.source_uri,
                source_row=reason.source_row,
                first_seen=reason.first_seen,
            )
        count.first_seen = min(count.first_seen, reason.first_seen)
        count.rows += reason.rows
        count.open += reason.open
        count.replayed += reason.replayed
        count.discarded += reason.discarded
    total = sum(count.open for count in counts.values())
    for count in counts.values():
        count.share_of_read = count.open / read[count.dataset] if read.get(count.dataset) else 0
        count.share_of_open = count.open / total if total else 0
    return sorted(counts.values(), key=lambda count: (count.dataset, -count.open))


def _age(age: timedelta) -> str:
    return next((words for limit, words in _AGES if age < limit), _OLDEST)


def quarantine_table(entries: Sequence[Count], by: By) -> Table:
    """Return the counts as a table."""
    table = Table(box=box.SIMPLE_HEAD)
    names = {"rule": ["rule", "column"], "dataset": [], "age": ["age"]}[by]
    for name in ("dataset", *names):
        table.add_column(name, overflow="fold")
    for name in ("open", "of read", "of listed", "replayed", "discarded"):
        table.add_column(name, justify="right")
    for name in ("first seen", *(["why", "first at"] if by == "rule" else [])):
        table.add_column(name, overflow="fold")
    for entry in entries:
        what: dict[By, list[str]] = {
            "rule": [entry.rule or "–", entry.column or "–"],
            "dataset": [],
            "age": [entry.age or "–"],
        }
        example = [escape(entry.message), escape(f"{entry.source_uri} row {entry.source_row}")]
        table.add_row(
            entry.dataset,
            *(escape(text) for text in what[by]),
            f"{entry.open:,}",
            f"{entry.share_of_read:.2%}",
            f"{entry.share_of_open:.1%}",
            f"{entry.replayed:,}",
            f"{entry.discarded:,}",
            f"{entry.first_seen.astimezone():%Y-%m-%d %H:%M}",
            *(example if by == "rule" else []),
        )
    return table


def refused_title(row: SelectedRow) -> str:
    """Return the line above a refused row: its name, where it is from, and what is wrong."""
    kept = row.kept
    fate = []
    if row.load.times_replayed:
        fate.append(f"replayed {row.load.times_replayed} times before")
    if row.resolution:
        why = f": {row.resolution.reason}" if row.resolution.reason else ""
        fate.append(f"{row.resolution.resolution} by {row.resolution.resolved_by}{why}")
    about = f"  [{'; '.join(fate)}]" if fate else ""
    seen = f"first seen {row.load.first_seen.astimezone():%Y-%m-%d %H:%M}"
    return (
        f"{row.row_id}  {kept.source_uri} row {kept.source_row}: {kept.failures}  ({seen}){about}"
    )


def refused_row(spec: DatasetSpec, kept: KeptRow, raw: str | None) -> Table:
    """Return one refused row, the offending cell marked."""
    table = Table(box=box.SIMPLE, show_header=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    values = kept.values(raw)
    if values is None:
        table.add_row("text", f"{escape(str(raw))}   [bold red]◄ {escape(kept.message)}[/]")
        return table
    declared = spec.columns.get(kept.column or "")
    at_fault = declared.source_column(kept.column or "") if declared else kept.column
    if kept.column is None and values.get(ITEM) is not None:
        at_fault = ITEM  # an item that could not be taken apart
    for name, value in values.items():
        text = "[dim]NULL[/]" if value is None else escape(value)
        if name == at_fault:
            text = f"[bold red]{text}[/]   ◄ {escape(kept.message)}"
        table.add_row(escape(name), text)
    if at_fault not in values:
        table.add_row("[bold red]◄[/]", escape(kept.failures))
    return table


def permitted(environment: Environment, connections: Connections, spec: DatasetSpec) -> Protection:
    """Return what opens protected values; that it was done is logged, beside the output."""
    configure_logs()
    return permitted_protection(environment, connections, spec, person())
