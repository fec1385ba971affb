"""One dataset, a span of its source's time: what is missing there, beside the live runs."""

from __future__ import annotations

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from flows.dataset import run_and_report
from tasks.model.report import DatasetReport
from tasks.model.request import RunRequest, Window
from tasks.stages import run_name


class BackfillParameters(BaseModel):
    """Which dataset, and which span of its source's time."""

    model_config = ConfigDict(extra="forbid")

    dataset: str = Field(description="Name of the dataset, as in its file.")
    start: AwareDatetime = Field(description="Begin of the span.")
    end: AwareDatetime = Field(description="End of the span, which is not part of it.")
    refresh: bool = Field(False, description="Load again what was loaded before.")
    max_parallel: int = Field(
        1, ge=1, description="Most partitions at a time; one leaves room for live runs."
    )


def _name_run() -> str:
    given = flow_run.get_parameters()["parameters"]
    return run_name(f"backfill-{BackfillParameters.model_validate(given).dataset}")


@flow(name="backfill", flow_run_name=_name_run, persist_result=False)
def backfill(parameters: BackfillParameters) -> State[DatasetReport]:
    """Load what is missing in a span of the source's time.

    It does what a run of the dataset does, and goes on beside one. Running it again is always safe.
    """
    request = RunRequest(
        window=Window(start=parameters.start, end=parameters.end),
        refresh=parameters.refresh,
        max_parallel=parameters.max_parallel,
    )
    return run_and_report(parameters.dataset, request)
