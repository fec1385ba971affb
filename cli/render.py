"""Reports, plans and summaries as tables for people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich import box
from rich.console import JustifyMethod
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from tasks.loading.ledger_state import DatasetStatus
from tasks.loading.reconcile import Check
from tasks.model.partition import Partition
from tasks.model.report import DatasetReport, Outcome, RowCounts, RunReport

MAX_REMARKS = 10
_OUTCOMES = {
    Outcome.SUCCEEDED: "[green]✓[/]",
    Outcome.FAILED: "[red]✗[/]",
    Outcome.SKIPPED: "[yellow]–[/]",
}


def report_table(report: RunReport) -> Table:
    """Return the report of a run: a line per dataset, and a line for all of them."""
    table = Table(
        box=box.SIMPLE_HEAD, title=f"{report.run} · {report.environment}", title_style="bold"
    )
    table.add_column("")
    table.add_column("dataset")
    for name in (
        "read",
        "inserted",
        "updated",
        "unchanged",
        "deduplicated",
        "quarantined",
        "seconds",
        "rows/s",
    ):
        table.add_column(name, justify="right")
    for entry in report.datasets:
        table.add_row(_OUTCOMES[entry.outcome], entry.dataset, *_counts(entry))
        for name, counts in entry.children.items():
            table.add_row("", f"  {entry.dataset}.{name}", *_numbers(counts), "", "")
    return table


def _counts(entry: DatasetReport) -> list[str]:
    speed = f"{entry.rows_per_second:,}" if entry.counts.read else "–"
    return [*_numbers(entry.counts), f"{entry.seconds:.1f}", speed]


def _numbers(counts: RowCounts) -> list[str]:
    numbers = (
        counts.read,
        counts.inserted,
        counts.updated,
        counts.unchanged,
        counts.deduplicated,
        counts.quarantined,
    )
    return [f"{number:,}" for number in numbers]


def equation_lines(report: RunReport) -> Iterable[Text]:
    """Yield the row equation of each dataset, with a tick where it holds."""
    for entry in report.datasets:
        counts = entry.counts
        gone = f"; {counts.deleted:,} deleted, gone from the source" if counts.deleted else ""
        tick = ("✓", "green") if counts.balanced else ("✗", "bold red")
        yield Text.assemble(
            tick,
            f" {entry.dataset:<10} {counts.read:>9,} read = {counts.loaded:>9,} loaded + "
            f"{counts.deduplicated:,} deduplicated + {counts.quarantined:,} quarantined{gone}",
        )


def remark_lines(report: RunReport) -> list[str]:
    """Return what people should look at although it was loaded: warnings, and what is unusual."""
    lines = []
    for entry in report.datasets:
        for warning in entry.warnings[:MAX_REMARKS]:
            about = f"{warning.column}: " if warning.column else ""
            lines.append(
                f"{entry.dataset}: {warning.rows:,} rows break rule {warning.rule}: "
                f"{about}{warning.message}"
            )
        unusual = [one for one in dict.fromkeys(entry.findings) if one.severity == "warn"]
        lines += [f"{entry.dataset}: {one.message}" for one in unusual[:MAX_REMARKS]]
        if len(unusual) > MAX_REMARKS:
            lines.append(
                f"{entry.dataset}: and {len(unusual) - MAX_REMARKS} more, in the UI under Artifacts"
            )
    return lines


def failure_lines(report: RunReport) -> Iterable[str]:
    """Yield what went wrong, in words."""
    for entry in report.datasets:
        if entry.skipped_because:
            yield f"[yellow]skipped[/] {entry.dataset}: {escape(entry.skipped_because)}"
        for failure in entry.failures:
            where = f"{escape(failure.label)} in {failure.stage}"
            yield f"[bold red]failed[/]  {where}: {escape(failure.message)}"
        if (more := entry.partitions_failed - len(entry.failures)) > 0:
            yield f"[bold red]failed[/]  {more} more partitions of {entry.dataset}"


def plan_table(partitions: Sequence[Partition]) -> Table:
    """Return what would run."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("partition")
    table.add_column("objects", justify="right")
    table.add_column("bytes", justify="right")
    table.add_column("fingerprint")
    for partition in partitions:
        objects = str(len(partition.items)) if partition.items else "–"
        size = f"{partition.bytes:,}" if partition.items else "–"
        table.add_row(escape(partition.label), objects, size, partition.fingerprint[:12])
    return table


def status_table(statuses: Sequence[DatasetStatus], older: set[str]) -> Table:
    """Return what each dataset holds.

    Args:
        statuses: What the ledger says.
        older: Datasets of which something was loaded under an older dataset file.
    """
    table = Table(box=box.SIMPLE_HEAD)
    columns: tuple[tuple[str, JustifyMethod], ...] = (
        ("dataset", "left"), ("table", "left"), ("loads", "right"), ("read", "right"),
        ("loaded", "right"), ("deduplicated", "right"), ("quarantined", "right"),
        ("deleted", "right"), ("restored", "right"),
        ("last loaded", "left"), ("by run", "left"), ("", "left"),
    )  # fmt: skip
    for name, justify in columns:
        table.add_column(name, justify=justify)
    for entry in statuses:
        table.add_row(
            entry.dataset,
            entry.target,
            f"{entry.loads:,}",
            f"{entry.counts.read:,}",
            f"{entry.counts.loaded:,}",
            f"{entry.counts.deduplicated:,}",
            f"{entry.counts.quarantined:,}",
            f"{entry.counts.deleted:,}",
            f"{entry.counts.restored:,}",
            f"{entry.loaded_at.astimezone():%Y-%m-%d %H:%M:%S}",
            entry.run,
            "[yellow]dataset file changed since[/]" if entry.dataset in older else "",
        )
    return table


def reconcile_table(checks: Sequence[Check]) -> Table:
    """Return every invariant with its verdict."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("")
    for name in ("dataset", "invariant", "statement"):
        table.add_column(name)
    for name in ("expected", "found"):
        table.add_column(name, justify="right")
    for check in checks:
        table.add_row(
            "[green]✓[/]" if check.holds else "[bold red]✗[/]",
            check.dataset,
            check.invariant,
            check.statement,
            escape(_grouped(check.expected)),
            escape(_grouped(check.found)),
        )
    return table


def _grouped(text: str) -> str:
    return f"{int(text):,}" if text.isdigit() else text
