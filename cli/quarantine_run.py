"""``dpp quarantine replay``: what would be replayed, then the same flow as the deployment's."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from cli.console import console, stderr
from cli.context import connections, prefect_ready
from tasks.catalog import Catalog
from tasks.model.child_dataset import quarantined
from tasks.model.dataset import DatasetSpec
from tasks.model.environment import Environment
from tasks.model.errors import ConfigError, ExitCode
from tasks.model.replay import ReplayRequest, Selection, replay_of
from tasks.model.report import DatasetReport, RowCounts, RunReport

if TYPE_CHECKING:
    from blocks.lake import Lake
    from tasks.connections import Connections

SHORT = 16


def run_replay(
    environment: Environment,
    catalog: Catalog,
    spec: DatasetSpec,
    selection: Selection,
    corrected: Path | None,
    *,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Replay rows, unless there are none or it is only to be shown; return the exit code."""
    content = _read(corrected)
    if dry_run:
        with connections(environment, catalog, [], sources=False) as opened:
            request = _request(opened.lake(), spec, selection, corrected, content)
            _plan(spec, request, opened)
            if request.corrections:
                opened.lake().delete(request.corrections)
        return ExitCode.DONE
    with prefect_ready(environment, catalog, []):
        from cli.run import exit_code, show_report, with_progress
        from tasks.connections import Connections

        with Connections(environment) as opened:
            request = _request(opened.lake(), spec, selection, corrected, content)
            if not _plan(spec, request, opened) and not as_json:
                return ExitCode.DONE
            report = with_progress(lambda: _run(spec.name, environment.name, request))
            if request.corrections:  # its values are in the lake's corrections by now, protected
                opened.lake().delete(request.corrections)
    if as_json:
        typer.echo(report.model_dump_json(indent=2))
    else:
        show_report(report)
        again = _refused_again(report.datasets[0], selection.child)
        if again:
            stderr.print(
                f"[yellow]{again:,} rows were refused again[/]: dpp quarantine show "
                f"{quarantined(spec, selection.child).name}",
                highlight=False,
            )
    return exit_code(report)


def _refused_again(report: DatasetReport, child: str | None) -> int:
    counts = report.counts if child is None else report.children.get(child, RowCounts())
    return counts.quarantined


def _read(corrected: Path | None) -> bytes | None:
    if corrected is None:
        return None
    try:
        return corrected.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"--from {corrected}: {error.strerror}",
            "make it with: dpp quarantine export NAME --to FILE",
        ) from None


def _request(
    lake: Lake,
    spec: DatasetSpec,
    selection: Selection,
    corrected: Path | None,
    content: bytes | None,
) -> ReplayRequest:
    """Put a corrected export where workers find it, under a name of its content."""
    if content is None:
        return ReplayRequest(selection=selection)
    key = f"corrections/{spec.name}/{hashlib.sha256(content).hexdigest()[:SHORT]}.csv"
    lake.put_new(key, content)
    return ReplayRequest(selection=selection, corrections=key, corrections_name=str(corrected))


def _plan(spec: DatasetSpec, request: ReplayRequest, opened: Connections) -> int:
    """Say what a replay would do; return the number of rows."""
    from tasks.loading.ledger import ensure_ledger
    from tasks.replay.plan import plan_replay

    engine = opened.warehouse()
    ensure_ledger(engine)
    protection = opened.protection(spec)
    plan = plan_replay(engine, opened.lake(), spec, request, protection)
    replays = [replay for partition in plan.partitions if (replay := replay_of(partition))]
    rows = sum(reason.count for replay in replays for reason in replay.reasons)
    name = quarantined(spec, request.selection.child).name
    stderr.print(
        f"[bold]{name}[/]: {rows:,} rows to replay, in {len(replays)} partitions",
        highlight=False,
    )
    if plan.resolved:
        stderr.print(f"{plan.resolved:,} rows are resolved already and left alone", highlight=False)
    if plan.unreadable:
        stderr.print(
            f"[yellow]{plan.unreadable:,} rows could not be taken apart when they were read:[/] fill "
            f"in their columns in an export, or load their source again (dpp run {spec.name} "
            "--refresh)",
            highlight=False,
            soft_wrap=True,
        )
    of_rows = request.selection.child is None
    if rows and of_rows and spec.load.mode == "merge" and spec.cursor is None:
        stderr.print(
            f"[yellow]{spec.name} declares no cursor:[/] replayed rows replace rows of the same key "
            "that were loaded later",
            highlight=False,
            soft_wrap=True,
        )
    if not rows:
        console.print("no row is to be replayed")
    return rows


def _run(name: str, environment: str, request: ReplayRequest) -> RunReport:
    from cli.run import report_of_work
    from flows.outcome import report_of
    from flows.replay import ReplayParameters, replay

    parameters = ReplayParameters.of(name, request)
    return report_of_work(
        f"replay of {name}",
        environment,
        lambda: (report_of(replay(parameters, return_state=True), DatasetReport),),
    )
