"""How a flow run ends: with its report, and failed with an exception that carries it."""

from __future__ import annotations

from typing import Any, TypeVar, cast

from prefect.client.schemas.objects import State
from prefect.states import Failed

ReportT = TypeVar("ReportT")


class RunFailed(Exception):
    """A flow run that failed, and its report.

    A report alone cannot be the result of a failed state: in a process of its own Prefect raises what
    it finds there, and would end with a ``TypeError`` about the report.
    """

    def __init__(self, message: str, report: object) -> None:
        super().__init__(message, report)
        self.report = report

    def __str__(self) -> str:
        return str(self.args[0])


def failed(message: str, report: ReportT) -> State[ReportT]:
    """Return the state of a run that failed, with its report."""
    return cast("State[ReportT]", Failed(message=message, data=RunFailed(message, report)))


def report_of(state: State[Any], kind: type[ReportT]) -> ReportT:
    """Return the report of a flow run that ended, whether it failed or not.

    Raises:
        Exception: What stopped the run before it had a report.
    """
    result = state.result(raise_on_failure=False)
    if isinstance(result, RunFailed):
        result = result.report
    if isinstance(result, kind):
        return result
    if isinstance(result, BaseException):
        raise result
    raise RuntimeError(state.message)
