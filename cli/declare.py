"""``dpp new``, ``check`` and ``explain``: for who writes a dataset file."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from cli.console import console, reporting_errors, stderr
from cli.context import chosen, connections, open_project
from cli.options import Names


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
