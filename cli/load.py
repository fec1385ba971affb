"""``dpp plan``, ``run`` and ``backfill``: what would be loaded, and loading it."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.console import console, reporting_errors
from cli.context import chosen, connections, open_project, prefect_ready
from cli.options import AsJson, Names
from tasks.model.request import RunRequest


def plan(names: Names = None, as_json: AsJson = False) -> None:
    """Show what would run: the partitions that the ledger does not have."""
    with reporting_errors():
        environment, catalog = open_project()
        picked = chosen(catalog, names or [])
        with connections(environment, catalog, picked, sources=True) as opened:
            from cli.render import plan_table
            from tasks.ingestion.ingest import planning_connector
            from tasks.ingestion.planning import plan_partitions
            from tasks.loading.ledger import ensure_ledger
            from tasks.loading.ledger_state import source_state

            engine = opened.warehouse()
            ensure_ledger(engine)
            for name in picked:
                state = source_state(engine, name)
                connector = planning_connector(environment, catalog[name], opened)
                partitions = plan_partitions(connector, catalog[name], state, RunRequest(), name)
                if as_json:
                    for partition in partitions:
                        typer.echo(partition.model_dump_json())
                    continue
                total = sum(partition.bytes for partition in partitions)
                console.print(
                    f"[bold]{name}[/] {len(partitions)} new partitions, {total:,} bytes; "
                    f"{len(state.fingerprints)} are loaded",
                    highlight=False,
                )
                if partitions:
                    console.print(plan_table(partitions))


def run(
    names: Names = None,
    schedule: Annotated[
        str | None, typer.Option(help="Run a schedule instead: daily or hourly.")
    ] = None,
    refresh: Annotated[
        bool, typer.Option("--refresh", help="Load again what was loaded before; needs names.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Load what is new. In dev whatever it needs is started, and stopped again at the end."""
    with reporting_errors():
        environment, catalog = open_project()
        if schedule not in (None, "daily", "hourly") or (schedule and names):
            raise typer.BadParameter("--schedule takes daily or hourly, and no names beside it")
        if refresh and not names:
            raise typer.BadParameter("--refresh needs the names of the datasets")
        picked = (
            [spec.name for spec in catalog.scheduled(schedule)]
            if schedule
            else [spec.name for spec in catalog.in_order(chosen(catalog, names or []))]
        )
        with prefect_ready(environment, catalog, picked):
            from cli.run import (
                exit_code,
                require_warehouse,
                run_datasets,
                run_schedule,
                show_report,
                with_progress,
            )

            require_warehouse(environment)
            report = with_progress(
                lambda: (
                    run_schedule(schedule)
                    if schedule
                    else run_datasets(picked, environment.name, refresh=refresh)
                )
            )
        if as_json:
            typer.echo(report.model_dump_json(indent=2))
        else:
            show_report(report)
        raise typer.Exit(exit_code(report))


def backfill(
    name: Annotated[str, typer.Argument(help="The dataset.")],
    start: Annotated[
        str, typer.Option("--from", help="Begin of the span: 2013-01-01, or with a time; UTC.")
    ],
    end: Annotated[str, typer.Option("--to", help="End of the span, which is not part of it.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be loaded, and load nothing.")
    ] = False,
    refresh: Annotated[
        bool, typer.Option("--refresh", help="Load again what was loaded before.")
    ] = False,
    max_parallel: Annotated[
        int, typer.Option(min=1, help="Most partitions at a time; one leaves room for live runs.")
    ] = 1,
    as_json: AsJson = False,
) -> None:
    """Load what is missing in a span of a source's time, beside the live runs.

    It shows the partitions with their rows and bytes before it begins.
    """
    with reporting_errors():
        from cli.backfill import run_backfill, span_of

        environment, catalog = open_project()
        request = RunRequest(window=span_of(start, end), refresh=refresh, max_parallel=max_parallel)
        code = run_backfill(
            environment, catalog, catalog[name], request, dry_run=dry_run, as_json=as_json
        )
        raise typer.Exit(code)
