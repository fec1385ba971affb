"""``dpp demo``: the main job on real data; run again, it shows that nothing is loaded twice."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Group
from rich.markup import escape
from rich.panel import Panel
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from cli.console import console, stderr
from cli.context import open_project, prefect_ready
from demo.nycflights import data_folder
from tasks.catalog import Catalog
from tasks.model.errors import ExitCode
from tasks.model.report import RunReport

if TYPE_CHECKING:
    from tasks.connections import Connections
    from tasks.loading.ledger_state import DatasetStatus
    from tasks.loading.reconcile import Check

DATASETS = ("weather", "airlines", "airports", "planes", "flights")
SHOWN_REFUSED = 2
"""Refused rows that are shown of each dataset."""
EXAMPLE = "airbus SFO"


def run_demo() -> int:
    """Run the hourly and the daily schedule on the demo's sources; return the exit code."""
    began = time.monotonic()
    environment, catalog = open_project()
    data_folder()
    console.print(Rule("[bold]a year of flights from New York[/]"))
    console.print(
        "365 gzipped CSV files in an S3 bucket, a REST API that throttles and fails now and then, "
        "and three tables of a source database: cleaned, checked, enriched, loaded into PostgreSQL.\n"
    )
    with prefect_ready(environment, catalog, DATASETS):
        stderr.print(f"[dim]servers ready after {time.monotonic() - began:.0f} s[/]")
        from cli.run import exit_code, run_schedule, with_progress
        from tasks.connections import Connections

        report = with_progress(lambda: _both_schedules(run_schedule, environment.name))
        connections = Connections(environment)
        facts = _Facts(connections, catalog, environment.retention_days)
        _show(report, facts)
    console.print(
        f"[dim]{time.monotonic() - began:.0f} s in all, starting and stopping the servers included[/]"
    )
    if report.succeeded and not facts.all_hold:
        return ExitCode.RUN_FAILED
    return exit_code(report)


def _both_schedules(run_schedule: Callable[[str], RunReport], environment: str) -> RunReport:
    first, second = run_schedule("hourly"), run_schedule("daily")
    return RunReport(
        environment=environment,
        run="demo",
        datasets=(*first.datasets, *second.datasets),
        started_at=first.started_at,
        seconds=first.seconds + second.seconds,
    )


class _Facts:
    """What warehouse and lake say after the run, read while the servers are up."""

    def __init__(self, connections: Connections, catalog: Catalog, retention_days: int) -> None:
        from tasks.loading.ledger_state import quarantine_manifests, status
        from tasks.loading.reconcile import reconcile
        from tasks.loading.search import search
        from tasks.quarantine import read_refused

        engine, lake = connections.warehouse(), connections.lake()
        self.status: Sequence[DatasetStatus] = [
            entry for entry in status(engine) if entry.dataset in DATASETS
        ]
        self.checks: Sequence[Check] = [
            check
            for name in DATASETS
            for check in reconcile(engine, lake, catalog[name], retention_days)
        ]
        self.refused: dict[str, list[dict[str, Any]]] = {
            name: list(read_refused(lake, quarantine_manifests(engine, name), None, SHOWN_REFUSED))
            for name in DATASETS
        }
        loaded = any(entry.dataset == "flights" for entry in self.status)
        self.found = search(engine, catalog["flights"], EXAMPLE, limit=3) if loaded else []

    @property
    def all_hold(self) -> bool:
        return all(check.holds for check in self.checks)

    def table_rows(self, dataset: str) -> str:
        """Return the rows of a dataset's table, as reconcile counted them."""
        return next(
            (c.found for c in self.checks if c.dataset == dataset and c.invariant == "I6"), "–"
        )


def _show(report: RunReport, facts: _Facts) -> None:
    from cli.render import failure_lines, report_table

    console.print(report_table(report))
    for words in failure_lines(report):
        stderr.print(words, highlight=False, soft_wrap=True)
    console.print(Panel(_proof(report, facts), title="every row is accounted for", box=box.ROUNDED))
    if any(facts.refused.values()):
        console.print(_refused_table(facts))
    if facts.found:
        console.print(_search_table(facts))
    console.print(_where_next())


def _proof(report: RunReport, facts: _Facts) -> Group:
    lines: list[Text] = []
    for entry in facts.status:
        counts = entry.counts
        tick = ("✓", "green") if counts.balanced else ("✗", "bold red")
        lines.append(
            Text.assemble(
                tick,
                f" {entry.dataset:<9}{counts.read:>8,} read = {counts.loaded:>7,} loaded + "
                f"{counts.deduplicated:,} deduplicated + {counts.quarantined:>3,} quarantined",
                (f"   {entry.target} has {int(facts.table_rows(entry.dataset)):,} rows", "dim"),
            )
        )
    broken = [check for check in facts.checks if not check.holds]
    if broken:
        lines += [
            Text(
                f"✗ {c.dataset}: {c.statement}: {c.found} instead of {c.expected}", style="bold red"
            )
            for c in broken
        ]
    else:
        lines.append(
            Text.assemble(
                ("✓", "green"),
                f" reconcile: all {len(facts.checks)} invariants hold over ledger, ",
                "lake and warehouse",
            )
        )
    changed = sum(entry.counts.changed for entry in report.datasets)
    if report.succeeded and not any(entry.partitions for entry in report.datasets):
        lines.append(
            Text(
                "✓ 0 rows changed: each partition is in the ledger, so none was read again",
                style="bold green",
            )
        )
    elif report.succeeded:
        lines.append(Text(f"✓ {changed:,} rows changed; run it again, and it will be 0"))
    return Group(*lines)


def _refused_table(facts: _Facts) -> Table:
    table = Table(
        title="in quarantine, not lost: the first rows of each dataset",
        box=box.SIMPLE_HEAD,
        title_style="bold",
    )
    for name in ("dataset", "where", "column", "found", "why"):
        table.add_column(name)
    for dataset, rows in facts.refused.items():
        for row in rows:
            where = f"{str(row['source_uri']).split('?')[0]} row {row['source_row']}"
            table.add_row(
                dataset,
                escape(where),
                row["column"] or row["rule"],
                escape(_found(row)),
                escape(row["message"]),
            )
    return table


def _found(row: dict[str, Any]) -> str:
    """Return the offending value of a refused row."""
    try:
        values = json.loads(row["raw"] or "")
    except ValueError:
        return "–"
    if row["column"] is None and "lat" in values:
        return f"{values['faa']}: {float(values['lat']):.2f}, {float(values['lon']):.2f}"
    return str(values.get(row["column"], "–")) if isinstance(values, dict) else "–"


def _search_table(facts: _Facts) -> Table:
    table = Table(
        title=f"the search index finds '{EXAMPLE}'", box=box.SIMPLE_HEAD, title_style="bold"
    )
    names = ("time_hour", "carrier", "flight", "origin", "dest", "plane_manufacturer", "plane_model",
             "temp", "wind_speed")  # fmt: skip
    for name in names:
        table.add_column(name)
    for row in facts.found:
        table.add_row(*(f"{row[name]:.1f}" if isinstance(row[name], float) else str(row[name])
                        for name in names))  # fmt: skip
    return table


def _where_next() -> Group:
    table = Table(box=None, show_header=False, padding=(0, 2), title_justify="left")
    table.add_column(style="bold")
    table.add_column(style="dim")
    if shutil.which("dpp") is None:
        table.add_row("source .venv/bin/activate", "puts dpp on the path of this shell")
    for command, why in (
        ("dpp up", "opens the Prefect UI with these runs in it"),
        ("dpp quarantine show flights", "the refused rows, the offending cell marked"),
        ("dpp explain flights", "the query that did the work"),
        ("dpp reconcile", "the proof again, invariant by invariant"),
        ("datasets/flights.yaml", "the file that declares all of this"),
    ):
        table.add_row(command, why)
    return Group(Text("where to look next", style="bold"), table)
