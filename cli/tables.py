"""Tables of datasets, as ``dpp check`` shows them: what differs, and the DDL that would change it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import typer
from rich import box
from rich.markup import escape
from rich.table import Table
from sqlalchemy import Engine

from cli.console import console
from tasks.catalog import Catalog
from tasks.loading.difference import Difference
from tasks.loading.retention import old_partitions
from tasks.loading.table_check import Ddl, check_table, ddl_script, table_report
from tasks.model.dataset import DatasetSpec, LookedUp


def show_table(engine: Engine, spec: DatasetSpec, lookups: Mapping[str, LookedUp]) -> None:
    """Print how a dataset's table differs from its file, and who would run which DDL."""
    check_table(engine, spec, lookups)
    report = table_report(engine, spec, lookups)
    if not report.exists:
        console.print(
            f"[green]✓[/] {spec.name}: the first load makes {spec.load.table}; "
            f"dpp check {spec.name} --dry-run prints its DDL",
            highlight=False,
        )
        return
    if not report.differences:
        console.print(
            f"[green]✓[/] {spec.name}: {spec.load.table} is as the dataset file says",
            highlight=False,
        )
        return
    console.print(f"[yellow]![/] {spec.name}: {spec.load.table} is not as the dataset file says")
    console.print(differences_table(report.differences))
    print_statements(report.ddl)


def differences_table(differences: Sequence[Difference]) -> Table:
    """Return how a table differs from its dataset file, and what a run does about it."""
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("column", "table", "dataset file", "a run"):
        table.add_column(name, overflow="fold")
    for found in dict.fromkeys(_row(one) for one in differences):
        table.add_row(*found)
    return table


def _row(found: Difference) -> tuple[str, ...]:
    verdict = "[green]alters it[/]" if found.when == "load" else "[green]builds it[/]"
    if found.refusal:
        verdict = "[red]is refused[/]"
    elif found.when == "hand":
        verdict = "[yellow]leaves it[/]"
    return (*map(escape, (found.column, found.there, found.wanted)), verdict)


def print_statements(ddl: Sequence[Ddl]) -> None:
    """Print DDL: what the next run runs, and what is left to a person."""
    by_a_run = [one for one in ddl if one.when != "hand"]
    if by_a_run:
        refused = any(one.refused for one in ddl)
        console.print(f"  The next run {'that is not refused ' if refused else ''}runs:")
    for one in by_a_run:
        _print(f"    {one.text};")
    by_hand = [one for one in ddl if one.when == "hand"]
    if by_hand:
        console.print("  Left to a person:")
    for one in by_hand:
        _print(f"    -- {one.why}")
        _print(f"    {one.text};")


def _print(text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def print_old_partitions(engine: Engine, spec: DatasetSpec) -> None:
    """Print the partitions that retention would drop now."""
    old = old_partitions(engine, spec)
    console.print(
        f"{spec.name}: {len(old)} partitions would be dropped{': ' if old else ''}{', '.join(old)}",
        highlight=False,
        soft_wrap=True,
    )


def print_ddl(engine: Engine, catalog: Catalog, names: Sequence[str]) -> None:
    """Print the DDL of some datasets as a script for psql."""
    for name in names:
        check_table(engine, catalog[name], catalog.lookups_of(catalog[name]))
    specs = [(catalog[name], catalog.lookups_of(catalog[name])) for name in names]
    typer.echo(ddl_script(engine, specs), nl=False)
