"""The queue of the landing bucket: objects that landed become events, and these start runs."""

from __future__ import annotations

from functools import partial

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed
from pydantic import BaseModel, ConfigDict, Field

from tasks.environments import load_environment
from tasks.landing.listen import Heard, hear
from tasks.reporting.logs import ensure_logs
from tasks.stages import run_name
from tasks.stopping import stoppable


class ListenParameters(BaseModel):
    """How long to listen."""

    model_config = ConfigDict(extra="forbid")

    seconds: float = Field(
        540,
        ge=0,
        description="Listen for so long: the schedule's interval less a minute in which a process "
        "begins and ends; 0: take what is there now.",
    )


@flow(name="listen", flow_run_name=partial(run_name, "listen"), persist_result=False)
def listen(parameters: ListenParameters | None = None) -> State[Heard]:
    """Turn notifications of the landing bucket into events, which start runs of the datasets.

    It ends after a while, and its schedule starts it again: so a run that died is replaced soon, and
    new dataset files are seen. Running it twice at the same time does no harm.
    """
    ensure_logs()
    environment = load_environment()
    if environment.queue_block is None:
        return Completed(message=f"{environment.name} names no queue_block: nothing to listen to")
    seconds = (parameters or ListenParameters()).seconds
    heard = stoppable(lambda: hear(environment, seconds), environment.stop_seconds)
    return Completed(
        message=f"{heard.messages} messages, {heard.objects} objects, {heard.events} events"
        + (f"; {heard.not_understood} not understood" if heard.not_understood else ""),
        data=heard,
    )
