"""All datasets with ``schedule: daily``."""

from __future__ import annotations

from functools import partial

from prefect import flow
from prefect.client.schemas.objects import State

from flows.schedule import ScheduleParameters, run_schedule
from tasks.model.report import RunReport
from tasks.stages import run_name


@flow(name="daily", flow_run_name=partial(run_name, "daily"), persist_result=False)
def daily(parameters: ScheduleParameters | None = None) -> State[RunReport]:
    """Load what is new in every dataset of the daily schedule, in the order of their dependencies."""
    return run_schedule("daily", parameters or ScheduleParameters())
