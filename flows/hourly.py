"""All datasets with ``schedule: hourly``."""

from __future__ import annotations

from functools import partial

from prefect import flow
from prefect.client.schemas.objects import State

from flows.schedule import ScheduleParameters, run_schedule
from tasks.model.report import RunReport
from tasks.stages import run_name


@flow(name="hourly", flow_run_name=partial(run_name, "hourly"), persist_result=False)
def hourly(parameters: ScheduleParameters | None = None) -> State[RunReport]:
    """Load what is new in every dataset of the hourly schedule, in the order of their dependencies."""
    return run_schedule("hourly", parameters or ScheduleParameters())
