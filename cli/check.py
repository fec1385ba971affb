"""``dpp check``: do the connections work, and what do the sources give?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich import box
from rich.markup import escape
from rich.table import Table

from cli.console import console
from cli.tables import show_table
from tasks.catalog import Catalog
from tasks.connections import Connections
from tasks.ingestion.connector import RawBatch
from tasks.ingestion.ingest import limits_of
from tasks.ingestion.registry import connector_for
from tasks.loading.ledger import ledger_exists
from tasks.model.child_dataset import child_tables
from tasks.model.dataset import DatasetSpec
from tasks.model.environment import Environment
from tasks.model.request import SourceState
from tasks.protection import MASK, pii_columns
from tasks.stages import scratch_root
from tasks.transformation.children import preview_items

SHOWN_COLUMNS = 8


def check_connections(
    environment: Environment,
    catalog: Catalog,
    names: Sequence[str],
    connections: Connections,
    preview: int,
) -> None:
    """Open the warehouse, the lake and each source, and show the first rows of each."""
    ledger_exists(connections.warehouse())
    console.print("[green]✓[/] warehouse answers")
    connections.lake().size("manifests")
    console.print("[green]✓[/] lake answers")
    for name in names:
        spec = catalog[name]
        show_table(connections.warehouse(), spec, catalog.lookups_of(spec))
        for child in child_tables(spec).values():
            show_table(connections.warehouse(), child, {})
    scratch = scratch_root(environment)
    scratch.mkdir(parents=True, exist_ok=True)
    for name in names:
        connector = connector_for(catalog[name], connections, limits_of(environment), scratch)
        partitions = connector.plan(SourceState())
        console.print(
            f"[green]✓[/] {name}: the source answers, {len(partitions)} partitions in all",
            highlight=False,
        )
        if partitions and preview:
            first = next(iter(connector.read(partitions[0])), None)
            if first is not None:
                _show(first, preview, pii_columns(catalog[name]))
                _show_items(catalog[name], first, preview)


def _show(raw: RawBatch, rows: int, protected: Mapping[str, str]) -> None:
    for reject in raw.rejects[:rows]:
        console.print(f"  [yellow]row {reject.source_row}: {escape(reject.message)}[/]")
    if raw.batch is None:
        return
    names = [name for name in raw.batch.schema.names if not name.startswith("_")]
    _show_rows(names, raw.batch.slice(0, rows).to_pylist(), protected)


def _show_items(spec: DatasetSpec, raw: RawBatch, rows: int) -> None:
    """Show the first rows of each child table."""
    for name, child in child_tables(spec).items():
        found = preview_items(spec, name, raw.batch, rows) if raw.batch is not None else []
        console.print(f"  items of {name}, for {child.load.table}", highlight=False)
        names = list(dict.fromkeys(key for item in found for key in item))
        _show_rows(names, found, pii_columns(child))


def _show_rows(
    names: Sequence[str], rows: Sequence[Mapping[str, object]], protected: Mapping[str, str]
) -> None:
    shown = names[:SHOWN_COLUMNS]
    table = Table(box=box.SIMPLE, padding=(0, 1))
    for name in shown:
        table.add_column(name)
    for row in rows:
        table.add_row(
            *(
                "[dim]NULL[/]"
                if row.get(name) is None
                else MASK
                if name in protected
                else escape(str(row[name]))
                for name in shown
            )
        )
    console.print(table)
    if len(names) > len(shown):
        console.print(f"  [dim]and {len(names) - len(shown)} columns more[/]")
