"""Runs flows from the terminal: the progress bar, the report, the exit code."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any

from rich.markup import escape

from cli.console import ConsoleHandler, console, is_interactive, stderr
from cli.render import equation_lines, failure_lines, remark_lines, report_table
from tasks.model.environment import Environment
from tasks.model.errors import ExitCode
from tasks.model.report import DatasetReport, RunReport
from tasks.model.request import RunRequest


def require_warehouse(environment: Environment) -> None:
    """Fail at once if the warehouse does not answer; a person does not want to wait for retries."""
    from tasks.connections import Connections
    from tasks.loading.ledger import ledger_exists

    ledger_exists(Connections(environment).warehouse())


def run_datasets(names: Sequence[str], environment: str, *, refresh: bool = False) -> RunReport:
    """Run some datasets one after the other, each as a flow run of its own."""
    from flows.dataset import DatasetParameters, dataset
    from flows.outcome import report_of

    def one(name: str) -> DatasetReport:
        state = dataset(DatasetParameters(dataset=name, refresh=refresh), return_state=True)
        return report_of(state, DatasetReport)

    return report_of_work(f"run of {', '.join(names)}", environment, lambda: tuple(map(one, names)))


def run_span(name: str, environment: str, request: RunRequest) -> RunReport:
    """Run a backfill as its deployment does."""
    from flows.backfill import BackfillParameters, backfill
    from flows.outcome import report_of

    assert request.window is not None
    parameters = BackfillParameters(
        dataset=name,
        start=request.window.start,
        end=request.window.end,
        refresh=request.refresh,
        max_parallel=request.max_parallel or 1,
    )
    return report_of_work(
        f"backfill of {name}",
        environment,
        lambda: (report_of(backfill(parameters, return_state=True), DatasetReport),),
    )


def report_of_work(
    run: str, environment: str, work: Callable[[], tuple[DatasetReport, ...]]
) -> RunReport:
    """Do some work, and return the report of it as of one run.

    Args:
        run: What is run, in words.
        environment: Name of the environment.
        work: Runs each dataset.
    """
    started, clock = datetime.now(UTC), time.monotonic()
    return RunReport(
        environment=environment,
        run=run,
        datasets=work(),
        started_at=started,
        seconds=time.monotonic() - clock,
    )


def run_schedule(schedule: str) -> RunReport:
    """Run a schedule as the deployments do."""
    from flows.daily import daily
    from flows.hourly import hourly
    from flows.outcome import report_of

    flow: Callable[..., Any] = {"daily": daily, "hourly": hourly}[schedule]
    return report_of(flow(return_state=True), RunReport)


def with_progress(work: Callable[[], RunReport]) -> RunReport:
    """Do some work under progress bars, if a person watches."""
    from cli.progress import ProgressBars
    from tasks.reporting.logs import configure_logs
    from tasks.reporting.progress import listening

    with ExitStack() as stack:
        if is_interactive():
            configure_logs(handler=ConsoleHandler(), quiet=True)
            stack.enter_context(listening(stack.enter_context(ProgressBars())))
        else:
            configure_logs()
        return work()


def show_report(report: RunReport) -> None:
    """Print a run's report."""
    console.print(report_table(report))
    for remark in remark_lines(report):
        console.print(f"[yellow]![/] {escape(remark)}", highlight=False)
    for line in equation_lines(report):
        console.print(line)
    for words in failure_lines(report):
        stderr.print(words, highlight=False, soft_wrap=True)


def exit_code(report: RunReport) -> int:
    """Return 0 if all succeeded; else the failures' own code if they agree, else 1."""
    if report.succeeded:
        return ExitCode.DONE
    codes = {failure.exit_code for failure in report.failures}
    return codes.pop() if len(codes) == 1 else ExitCode.RUN_FAILED
