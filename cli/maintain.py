"""``dpp maintain``: partitions ahead, indexes that are missing, what is past its retention."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer
from rich import box
from rich.markup import escape
from rich.table import Table

from cli.console import console, stderr
from cli.context import prefect_ready
from tasks.catalog import Catalog
from tasks.loading.maintenance import Maintained
from tasks.model.environment import Environment
from tasks.model.errors import ExitCode

if TYPE_CHECKING:
    from tasks.retention.plan import Erased
    from tasks.retention.retain import Retained


def run_maintenance(
    environment: Environment,
    catalog: Catalog,
    names: Sequence[str],
    *,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Maintain the tables of some datasets, or show what would be done; return the exit code."""
    with prefect_ready(environment, catalog, names):
        from cli.run import require_warehouse
        from flows.maintain import MaintainParameters, Upkeep, maintain
        from flows.outcome import report_of

        require_warehouse(environment)
        if dry_run:
            from cli.tables import print_old_partitions
            from tasks.connections import Connections

            for name in names:
                print_old_partitions(Connections(environment).warehouse(), catalog[name])
        asked = MaintainParameters(datasets=list(names), dry_run=dry_run)
        state = maintain(asked, return_state=True)
        done = report_of(state, Upkeep)
    if as_json:
        typer.echo(json.dumps(done.model_dump(mode="json"), indent=2))
    else:
        if not dry_run:
            _show(done.tables)
        _show_retained(done.retained, dry_run=dry_run)
    if done.failures:
        stderr.print(f"[bold red]failed[/]  {escape(state.message or '')}", soft_wrap=True)
        return ExitCode.RUN_FAILED
    return ExitCode.DONE


def _show_retained(retained: Retained, *, dry_run: bool) -> None:
    _show_erased("erased", retained.erased)
    planned = "would be erased" if dry_run else "shown first; erased by the next dpp maintain"
    _show_erased(planned, retained.planned)
    if not retained.erased and not retained.planned:
        console.print("nothing is past its retention")
    for line in retained.skipped:
        console.print(f"skipped {escape(line)}", highlight=False, soft_wrap=True)
    for hint in retained.hints:
        console.print(f"[yellow]![/] {escape(hint.advice)}", highlight=False, soft_wrap=True)


def _show_erased(title: str, found: Sequence[Erased]) -> None:
    if not found:
        return
    table = Table(box=box.SIMPLE_HEAD, title=title)
    for name in ("dataset", "what", "count", "bytes"):
        table.add_column(name, justify="left" if name in ("dataset", "what") else "right")
    for one in found:
        size = f"{one.bytes:,}" if one.bytes else "–"
        table.add_row(one.dataset, one.what, f"{one.count:,}", size)
    console.print(table)


def _show(done: Sequence[Maintained]) -> None:
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("dataset", "table", "made", "dropped", "built"):
        table.add_column(name, overflow="fold")
    for one in done:
        dropped = ", ".join(f"{each.partition} ({each.rows:,} rows)" for each in one.dropped)
        where = one.table if one.exists else f"{one.table}, which no load has made yet"
        table.add_row(
            one.dataset,
            where,
            ", ".join(one.made) or "–",
            dropped or "–",
            ", ".join(one.built) or "–",
        )
    console.print(table)
