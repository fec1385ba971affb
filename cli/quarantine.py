"""``dpp quarantine``: the refused rows, counted and shown."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from rich import box
from rich.markup import escape
from rich.table import Table

from cli.console import console, reporting_errors
from cli.context import connections, open_project

quarantine_app = typer.Typer(
    no_args_is_help=True, help="Look at the rows that broke a rule; none of them is lost."
)


@quarantine_app.command("list")
def list_reasons(
    dataset: Annotated[str | None, typer.Argument(help="Only this dataset.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Count the refused rows by dataset and rule."""
    with reporting_errors():
        environment, catalog = open_project()
        if dataset:
            catalog[dataset]
        with connections(environment, catalog, [], sources=False) as opened:
            from cli.render import quarantine_table
            from tasks.loading.ledger import ledger_exists, quarantine_summary

            engine = opened.warehouse()
            entries = quarantine_summary(engine, dataset) if ledger_exists(engine) else []
        if as_json:
            typer.echo(json.dumps([entry.model_dump(mode="json") for entry in entries], indent=2))
        elif entries:
            console.print(quarantine_table(entries))
        else:
            console.print("no row is in quarantine")


@quarantine_app.command()
def show(
    dataset: Annotated[str, typer.Argument(help="The dataset.")],
    rule: Annotated[str | None, typer.Option(help="Only rows that broke this rule.")] = None,
    limit: Annotated[int, typer.Option(help="Most rows to show.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="Print the rows as JSON.")] = False,
) -> None:
    """Show refused rows with their reason and what they said originally."""
    with reporting_errors():
        environment, catalog = open_project()
        catalog[dataset]
        with connections(environment, catalog, [], sources=False) as opened:
            from tasks.loading.ledger import ledger_exists, quarantine_manifests
            from tasks.quarantine import read_refused

            engine, lake = opened.warehouse(), opened.lake()
            keys = quarantine_manifests(engine, dataset) if ledger_exists(engine) else []
            rows = list(read_refused(lake, keys, rule, limit))
        if as_json:
            for row in rows:
                typer.echo(json.dumps(row, ensure_ascii=False))
        elif rows:
            for row in rows:
                where = f"{row['source_uri']} row {row['source_row']}: {row['failures']}"
                console.print(where, style="bold", markup=False, highlight=False)
                console.print(_refused_row(row))
        else:
            console.print("no such row is in quarantine")


def _refused_row(row: dict[str, Any]) -> Table:
    """Return one refused row, the offending cell marked."""
    table = Table(box=box.SIMPLE, show_header=False)
    table.add_column(style="dim")
    table.add_column()
    try:
        values = json.loads(row["raw"] or "{}")
    except ValueError:
        values = None
    if not isinstance(values, dict):
        table.add_row("raw", escape(str(row["raw"])))
        return table
    for name, value in values.items():
        text = "[dim]NULL[/]" if value is None else escape(str(value))
        if name == row["column"]:
            text = f"[bold red]{text}[/]   ◄ {escape(row['message'])}"
        table.add_row(name, text)
    return table
