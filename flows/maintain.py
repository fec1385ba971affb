"""Tables beside their loads: partitions ahead, retention, indexes that are missing."""

from __future__ import annotations

from functools import partial

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed, Failed
from pydantic import BaseModel, ConfigDict, Field

from tasks.connections import forget_blocks
from tasks.environments import environment_catalog, load_environment
from tasks.loading.load import maintain_table
from tasks.loading.maintenance import Maintained
from tasks.model.classify import classify
from tasks.model.dataset import DatasetSpec
from tasks.model.environment import Environment
from tasks.reporting.logs import ensure_logs
from tasks.stages import run_name
from tasks.stopping import stop_asked, stoppable


class MaintainParameters(BaseModel):
    """Which tables."""

    model_config = ConfigDict(extra="forbid")

    datasets: list[str] = Field(
        default_factory=list, description="Names of datasets; all without a name."
    )


@flow(name="maintain", flow_run_name=partial(run_name, "maintain"), persist_result=False)
def maintain(parameters: MaintainParameters | None = None) -> State[list[Maintained]]:
    """Make partitions ahead, drop those past their retention, build indexes that are missing.

    It goes on beside loads; running it again is always safe. One table that fails does not stop
    the others.
    """
    ensure_logs()
    forget_blocks()
    environment = load_environment()
    catalog = environment_catalog(environment)
    names = (parameters or MaintainParameters()).datasets or sorted(catalog.datasets)
    specs = [catalog[name] for name in names]
    run = str(flow_run.get_name() or "local")
    done, failures = stoppable(
        lambda: _each_table(environment, specs, run), environment.stop_seconds
    )
    if failures:
        return Failed(message="; ".join([*failures, _summary(done)]), data=done)
    return Completed(message=_summary(done), data=done)


def _each_table(
    environment: Environment, specs: list[DatasetSpec], run: str
) -> tuple[list[Maintained], list[str]]:
    """Maintain one table after the other; one that fails does not stop the others."""
    done: list[Maintained] = []
    failures: list[str] = []
    for spec in specs:
        if stop_asked():
            break
        try:
            done.append(maintain_table(environment, spec, run))
        except Exception as error:  # the other tables need it as much
            failures.append(f"{spec.name}: {classify(error)}")
    return done, failures


def _summary(done: list[Maintained]) -> str:
    made = sum(len(one.made) for one in done)
    built = sum(len(one.built) for one in done)
    dropped = [one for table in done for one in table.dropped]
    return (
        f"{len(done)} tables: {made} partitions made, {sum(one.whole for one in dropped)} dropped "
        f"with {sum(one.rows for one in dropped)} rows, {built} indexes built"
    )
