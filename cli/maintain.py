"""``dpp maintain``: partitions ahead, retention, indexes that are missing."""

from __future__ import annotations

import json
from collections.abc import Sequence

import typer
from rich import box
from rich.markup import escape
from rich.table import Table

from cli.console import console, stderr
from cli.context import connections, prefect_ready
from tasks.datasets import Catalog
from tasks.loading.maintenance import Maintained
from tasks.model.environment import Environment
from tasks.model.errors import ExitCode


def run_maintenance(
    environment: Environment,
    catalog: Catalog,
    names: Sequence[str],
    *,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Maintain the tables of some datasets, or show what would be done; return the exit code."""
    if dry_run:
        with connections(environment, catalog, names, sources=False) as opened:
            from cli.tables import print_old_partitions

            for name in names:
                print_old_partitions(opened.warehouse(), catalog[name])
        return ExitCode.DONE
    with prefect_ready(environment, catalog, names):
        from cli.run import require_warehouse
        from flows.maintain import MaintainParameters, maintain

        require_warehouse(environment)
        state = maintain(MaintainParameters(datasets=list(names)), return_state=True)
        found = state.result(raise_on_failure=False)
        if isinstance(found, BaseException):
            raise found
        done = [Maintained.model_validate(one) for one in found]
    if as_json:
        typer.echo(json.dumps([one.model_dump(mode="json") for one in done], indent=2))
    else:
        _show(done)
    if state.is_failed():
        stderr.print(f"[bold red]failed[/]  {escape(state.message or '')}", soft_wrap=True)
        return ExitCode.RUN_FAILED
    return ExitCode.DONE


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
