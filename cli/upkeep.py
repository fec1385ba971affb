"""``dpp index``, ``reconcile`` and ``maintain``: tables are proved, mended and kept in order."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from cli.console import reporting_errors
from cli.context import chosen, connections, open_project
from cli.options import AsJson, Names


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
