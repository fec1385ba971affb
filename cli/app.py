"""The command line ``dpp``: the same verbs as the flows, for people and for scripts.

Exit codes: 0 done, 1 the run failed, 2 the user's mistake, 3 a dependency is unreachable.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from cli.bootstrap import bootstrap
from cli.console import console, reporting_errors, stderr
from cli.context import chosen, connections, open_project, prefect_ready
from cli.history import trace, unload
from cli.lint import lint
from cli.quarantine import quarantine_app
from cli.rebuild import rebuild
from tasks.model.request import RunRequest

app = typer.Typer(
    name="dpp",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Declare a dataset in one YAML file; get an exact, restartable run into PostgreSQL.",
    epilog="Exit codes: 0 done · 1 the run failed · 2 your mistake · 3 a dependency is unreachable. "
    "DPP_ENV chooses the environment (dev, staging, prod), DPP_LOG_LEVEL=INFO shows every step.",
)
app.add_typer(quarantine_app, name="quarantine")

Names = Annotated[list[str] | None, typer.Argument(help="Datasets; all without a name.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


@app.command()
def demo() -> None:
    """Run the main job on real data: a year of flights from New York."""
    with reporting_errors():
        from cli.demo import run_demo

        raise typer.Exit(run_demo())


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="Name of the dataset; its file gets it too.")],
    whence: Annotated[
        str,
        typer.Option(
            "--from",
            help="A path or a glob in quotes; with --block: s3://bucket/path, https://…, or a table.",
        ),
    ],
    block: Annotated[
        str | None, typer.Option(help="Name of the block with the connection, for all but paths.")
    ] = None,
    rows: Annotated[int, typer.Option(min=1, help="Rows of the sample.")] = 10_000,
    force: Annotated[bool, typer.Option("--force", help="Replace a file of that name.")] = False,
) -> None:
    """Infer a dataset file from a sample, with comments on what is unsure.

    dpp new orders --from "inbox/*.csv"

    dpp new orders --from public.orders --block shop
    """
    with reporting_errors():
        from cli.new import write_dataset
        from tasks.environments import load_environment

        write_dataset(load_environment(), name, whence, block, rows, force=force)


@app.command()
def check(
    names: Names = None,
    offline: Annotated[
        bool, typer.Option(help="Check the files only; open no connection.")
    ] = False,
    preview: Annotated[int, typer.Option(help="Rows of each source to show.")] = 10,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Print the DDL that runs would run, for psql; nothing else."
        ),
    ] = False,
) -> None:
    """Check dataset files, connections, tables and what the sources give, before anything runs."""
    with reporting_errors():
        environment, catalog = open_project()
        from tasks.transformation.check import check_query

        if offline and dry_run:
            raise typer.BadParameter("--dry-run compares with the tables; it needs the warehouse")
        picked = chosen(catalog, names or [])
        if dry_run:
            with connections(environment, catalog, picked, sources=False) as opened:
                from cli.tables import print_ddl

                print_ddl(opened.warehouse(), catalog, picked)
            return
        with tempfile.TemporaryDirectory(prefix="dpp-check-") as folder:
            for name in picked:
                check_query(catalog[name], catalog.lookups_of(catalog[name]), Path(folder))
                console.print(f"[green]✓[/] {catalog.paths[name]}", highlight=False)
        if offline:
            return
        from cli.check import check_connections

        with connections(environment, catalog, picked, sources=True) as opened:
            check_connections(environment, catalog, picked, opened, preview)


@app.command()
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


@app.command()
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


@app.command()
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


@app.command()
def explain(
    name: Annotated[str, typer.Argument(help="The dataset.")],
) -> None:
    """Print the query that transforms the dataset, and the rules that it checks."""
    with reporting_errors():
        _, catalog = open_project()
        from tasks.transformation.check import explain_query

        query = explain_query(catalog[name], catalog.lookups_of(catalog[name]))
        typer.echo(f"{query.preparation};\n" if query.preparation else "", nl=False)
        typer.echo(query.sql)
        stderr.print(f"\n[bold]{len(query.rules)} rules[/], by the number in _failures")
        for position, rule in enumerate(query.rules):
            where = rule.column or rule.name
            stderr.print(f"{position:>4}  {where}: {escape(rule.message)}", highlight=False)


@app.command()
def status(as_json: AsJson = False) -> None:
    """Show what each dataset holds, and when it was loaded last."""
    with reporting_errors():
        environment, catalog = open_project()
        with connections(environment, catalog, [], sources=False) as opened:
            from cli.status import read_status, show_status

            found = read_status(opened.warehouse())
        if as_json:
            typer.echo(json.dumps(found.as_json(), indent=2))
        else:
            show_status(found, catalog)


@app.command()
def profile(
    name: Annotated[str, typer.Argument(help="The dataset.")], as_json: AsJson = False
) -> None:
    """Show what the rows of the partition look like that was loaded last, and what is unusual."""
    with reporting_errors():
        environment, catalog = open_project()
        (picked,) = chosen(catalog, [name])
        with connections(environment, catalog, [], sources=False) as opened:
            from cli.profile import show_profile
            from tasks.loading.ledger import ensure_ledger
            from tasks.loading.profiles import latest_profile

            engine = opened.warehouse()
            ensure_ledger(engine)
            stored = latest_profile(engine, picked)
            if as_json:
                typer.echo(stored.model_dump_json() if stored else "null")
            else:
                show_profile(picked, stored)


@app.command()
def search(
    name: Annotated[str, typer.Argument(help="The dataset.")],
    text: Annotated[
        str,
        typer.Argument(help="Words; 'OR' between them, '-' before one, quotes around a phrase."),
    ],
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Most rows to show.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Find rows by what their texts say, the best first; misspelt words are found too.

    dpp search flights "boeing 737"
    """
    with reporting_errors():
        environment, catalog = open_project()
        (picked,) = chosen(catalog, [name])
        with connections(environment, catalog, [], sources=False) as opened:
            from cli.search import show_found
            from tasks.loading.search import search as find

            found = find(opened.warehouse(), catalog[picked], text, limit)
        if as_json:
            typer.echo(json.dumps(found, indent=2, default=str))
        else:
            show_found(catalog[picked], text, found)


@app.command()
def index(
    name: Annotated[str, typer.Argument(help="The dataset.")],
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Build every index anew, also those that are current.")
    ] = False,
) -> None:
    """Make the search index as it is declared, while everybody goes on reading and loading.

    A run does so too, at its end; this is for a declaration that changed, and for a bloated index.
    """
    with reporting_errors():
        environment, catalog = open_project()
        (picked,) = chosen(catalog, [name])
        with connections(environment, catalog, [], sources=False) as opened:
            from cli.search import build_index

            build_index(opened.warehouse_itself(), catalog[picked], rebuild=rebuild)


@app.command()
def reconcile(
    names: Names = None,
    repair: Annotated[
        bool,
        typer.Option(
            "--repair",
            help="Make what differs again: lake files from the source, rows from the lake. Then check.",
        ),
    ] = False,
    source: Annotated[
        bool,
        typer.Option(
            "--source", help="Read the sources again too, and compare them with the lake."
        ),
    ] = False,
    since: Annotated[
        str | None,
        typer.Option(help="With --source: leave out loads before this day, or this moment; UTC."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Prove that every row is accounted for: ledger, lake and warehouse in one snapshot.

    It lists every difference. --repair rewrites the rows that differ, and no others.
    """
    with reporting_errors():
        environment, catalog = open_project()
        picked = chosen(catalog, names or [])
        if since is not None and not source:
            raise typer.BadParameter("--since is about --source, which is not given")
        with connections(environment, catalog, picked, sources=source or repair) as opened:
            from cli.reconcile import (
                reconcile_datasets,
                reconcile_sources,
                repair_datasets,
                show_checks,
                show_partitions,
            )

            checks = reconcile_datasets(environment, catalog, picked, opened)
            if repair and (broken := [check for check in checks if not check.holds]):
                repair_datasets(environment, catalog, broken, opened)
                checks = reconcile_datasets(environment, catalog, picked, opened)
            again = reconcile_sources(environment, catalog, picked, opened, since) if source else []
        checks_of_lake, checks = checks, [*checks, *again]
        if as_json:
            typer.echo(json.dumps([check.model_dump(mode="json") for check in checks], indent=2))
        else:
            if source:
                show_partitions(checks_of_lake, again)
            show_checks(checks)
        if not all(check.holds for check in checks):
            raise typer.Exit(1)


app.command()(lint)
app.command()(bootstrap)
app.command()(trace)
app.command()(unload)
app.command()(rebuild)


@app.command()
def maintain(
    names: Names = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Show what would be dropped and erased, and do neither."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make partitions ahead, drop old ones, build missing indexes, erase what is past its retention."""
    with reporting_errors():
        from cli.maintain import run_maintenance

        environment, catalog = open_project()
        picked = chosen(catalog, names or [])
        raise typer.Exit(
            run_maintenance(environment, catalog, picked, dry_run=dry_run, as_json=as_json)
        )


@app.command()
def up() -> None:
    """Open the Prefect UI with a worker for the dev deployments, until Ctrl-C."""
    with reporting_errors():
        from cli.up import serve

        serve()


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
