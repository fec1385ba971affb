"""``dpp backfill``: what a span of time lacks, shown before it is loaded."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import typer
from rich import box
from rich.markup import escape
from rich.table import Table

from cli.console import console, stderr
from cli.context import connections, prefect_ready
from tasks.catalog import Catalog
from tasks.model.dataset import DatasetSpec
from tasks.model.environment import Environment
from tasks.model.errors import ExitCode
from tasks.model.partition import Partition
from tasks.model.request import RunRequest, Window

if TYPE_CHECKING:
    from tasks.connections import Connections

SHOWN_PARTITIONS = 40


def span_of(start: str, end: str) -> Window:
    """Read the two ends of a span; a time without a zone is UTC."""
    first, last = moment("--from", start), moment("--to", end)
    if first >= last:
        raise typer.BadParameter(f"--to {end} is not after --from {start}")
    return Window(start=first, end=last)


def moment(option: str, text: str) -> datetime:
    """Read a moment that was given as an option; one without a zone is UTC."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(
            f"{option} {text!r} is no date or time; write 2013-01-31 or 2013-01-31T12:00+01:00"
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def run_backfill(
    environment: Environment,
    catalog: Catalog,
    spec: DatasetSpec,
    request: RunRequest,
    *,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Show what a span lacks, and load it unless it is only to be shown; return the exit code."""
    if dry_run:
        with connections(environment, catalog, [spec.name], sources=True) as opened:
            _plan(environment, spec, request, opened, as_json=as_json)
        return ExitCode.DONE
    with prefect_ready(environment, catalog, [spec.name]):
        from cli.run import exit_code, run_span, show_report, with_progress
        from tasks.connections import Connections

        with Connections(environment) as opened:
            if not _plan(environment, spec, request, opened, as_json=False):
                return ExitCode.DONE
        report = with_progress(lambda: run_span(spec.name, environment.name, request))
    if as_json:
        typer.echo(report.model_dump_json(indent=2))
    else:
        show_report(report)
    return exit_code(report)


def _plan(
    environment: Environment,
    spec: DatasetSpec,
    request: RunRequest,
    opened: Connections,
    *,
    as_json: bool,
) -> list[Partition]:
    from tasks.ingestion.ingest import planning_connector
    from tasks.ingestion.planning import plan_partitions, replaces_newer_rows
    from tasks.loading.ledger import ensure_ledger
    from tasks.loading.ledger_state import load_sizes, source_state

    engine = opened.warehouse()
    ensure_ledger(engine)
    connector = planning_connector(environment, spec, opened)
    state = source_state(engine, spec.name)
    partitions = plan_partitions(connector, spec, state, request, "plan")
    sizes = load_sizes(engine, spec.name)
    rows = [sizes.expected_rows(partition) for partition in partitions]
    if as_json:
        for partition, expected in zip(partitions, rows, strict=True):
            said = partition.model_dump(mode="json") | {
                "bytes": partition.bytes,
                "expected_rows": expected,
            }
            typer.echo(json.dumps(said))
        return partitions
    _show(spec, request, partitions, rows, sizes.loads)
    if replaces_newer_rows(spec, request):
        stderr.print(
            f"[yellow]{spec.name} declares no cursor:[/] rows of this span replace rows of the same "
            "key that were loaded later",
            highlight=False,
            soft_wrap=True,
        )
    return partitions


def _show(
    spec: DatasetSpec,
    request: RunRequest,
    partitions: Sequence[Partition],
    rows: Sequence[int | None],
    loads: int,
) -> None:
    assert request.window is not None
    span = f"{request.window.start:%Y-%m-%d %H:%M} to {request.window.end:%Y-%m-%d %H:%M}"
    if not partitions:
        console.print(f"[bold]{spec.name}[/] {span}: nothing is missing", highlight=False)
        return
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("partition")
    for name in ("objects", "bytes", "rows, about"):
        table.add_column(name, justify="right")
    for partition, expected in list(zip(partitions, rows, strict=True))[:SHOWN_PARTITIONS]:
        table.add_row(
            escape(partition.label),
            str(len(partition.items)) if partition.items else "–",
            f"{partition.bytes:,}" if partition.items else "–",
            "–" if expected is None else f"{expected:,}",
        )
    if len(partitions) > SHOWN_PARTITIONS:
        table.add_row(f"and {len(partitions) - SHOWN_PARTITIONS} more", "", "", "")
    console.print(table)
    known = [expected for expected in rows if expected is not None]
    total = f"about {sum(known):,} rows, " if known else ""
    size = sum(partition.bytes for partition in partitions)
    console.print(
        f"[bold]{spec.name}[/] {span}: {len(partitions)} partitions, {total}"
        f"{f'{size:,} bytes, ' if size else ''}{request.max_parallel} at a time; "
        f"{loads} partitions of the dataset are loaded",
        highlight=False,
    )
