"""Upkeep beside loads: partitions ahead, indexes that are missing, and what is past its retention."""

from __future__ import annotations

from functools import partial, reduce

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed
from pydantic import BaseModel, ConfigDict, Field

from flows.outcome import failed
from tasks.connections import forget_blocks
from tasks.environments import environment_catalog, load_environment
from tasks.loading.load import maintain_table
from tasks.loading.maintenance import Maintained
from tasks.model.classify import classify
from tasks.model.dataset import DatasetSpec
from tasks.model.environment import Environment
from tasks.model.value import Value
from tasks.reporting.logs import ensure_logs
from tasks.reporting.upkeep import publish_upkeep
from tasks.retention.retain import Retained, erase_of_dataset, erase_runs, erase_shared
from tasks.stages import run_name
from tasks.stopping import stop_asked, stoppable


class MaintainParameters(BaseModel):
    """What is maintained."""

    model_config = ConfigDict(extra="forbid")

    datasets: list[str] = Field(
        default_factory=list, description="Names of datasets; all without a name."
    )
    erase: bool = Field(
        True,
        description="Also erase what is past its retention: files, rows, flow runs, results. What is "
        "so for the first time is shown, and erased by the next run.",
    )
    dry_run: bool = Field(
        False,
        description="Only show what would be erased; change nothing, and leave the tables as they are.",
    )


class Upkeep(Value):
    """What was done."""

    tables: tuple[Maintained, ...] = ()
    retained: Retained = Field(default_factory=Retained)
    failures: tuple[str, ...] = ()

    def __add__(self, other: Upkeep) -> Upkeep:
        mine, others = self.retained, other.retained
        return Upkeep(
            tables=(*self.tables, *other.tables),
            retained=Retained(
                erased=(*mine.erased, *others.erased),
                planned=(*mine.planned, *others.planned),
                skipped=(*mine.skipped, *others.skipped),
                hints=(*mine.hints, *others.hints),
            ),
            failures=(*self.failures, *other.failures),
        )


@flow(name="maintain", flow_run_name=partial(run_name, "maintain"), persist_result=False)
def maintain(parameters: MaintainParameters | None = None) -> State[Upkeep]:
    """Make partitions ahead, drop old ones, build missing indexes, erase what is past its retention.

    It goes on beside loads; running it again is always safe. One dataset that fails does not stop the
    others.
    """
    ensure_logs()
    forget_blocks()
    asked = parameters or MaintainParameters()
    environment = load_environment()
    catalog = environment_catalog(environment)
    names = asked.datasets or sorted(catalog.datasets)
    specs = [catalog[name] for name in names]
    run = str(flow_run.get_name() or "local")
    known = sorted(catalog.datasets)
    done = stoppable(lambda: _all(environment, specs, known, asked, run), environment.stop_seconds)
    if asked.erase:
        publish_upkeep(run, done.retained, dry_run=asked.dry_run)
    if done.failures:
        return failed("; ".join([*done.failures, _summary(done)]), done)
    return Completed(message=_summary(done), data=done)


def _all(
    environment: Environment,
    specs: list[DatasetSpec],
    known: list[str],
    asked: MaintainParameters,
    run: str,
) -> Upkeep:
    """Take one dataset after the other, and then what is of none."""
    done = [_dataset(environment, spec, known, asked, run) for spec in specs]
    if asked.erase and not stop_asked():
        done.append(_shared(environment, specs, run, dry_run=asked.dry_run))
    return reduce(Upkeep.__add__, done, Upkeep())


def _dataset(
    environment: Environment,
    spec: DatasetSpec,
    known: list[str],
    asked: MaintainParameters,
    run: str,
) -> Upkeep:
    if stop_asked():
        return Upkeep(failures=(f"{spec.name}: not tried, stopped by a signal",))
    tables: tuple[Maintained, ...] = ()
    retained = Retained()
    try:
        if not asked.dry_run:
            tables = (maintain_table(environment, spec, run),)
        if asked.erase:
            retained = erase_of_dataset(environment, spec, known, run, dry_run=asked.dry_run)
    except Exception as error:  # the other datasets need it as much
        return Upkeep(tables=tables, failures=(f"{spec.name}: {classify(error)}",))
    return Upkeep(tables=tables, retained=retained)


def _shared(
    environment: Environment, specs: list[DatasetSpec], run: str, *, dry_run: bool
) -> Upkeep:
    tables = [spec.load.table for spec in specs]
    try:
        shared = erase_shared(environment, tables, run, dry_run=dry_run)
        runs = erase_runs(environment, run, dry_run=dry_run)
    except Exception as error:  # what was done stays in the report
        return Upkeep(failures=(str(classify(error)),))
    return Upkeep(retained=shared) + Upkeep(retained=runs)


def _summary(done: Upkeep) -> str:
    made = sum(len(one.made) for one in done.tables)
    built = sum(len(one.built) for one in done.tables)
    dropped = [one for table in done.tables for one in table.dropped]
    erased = sum(one.count for one in done.retained.erased)
    planned = sum(one.count for one in done.retained.planned)
    text = (
        f"{len(done.tables)} tables: {made} partitions made, {sum(one.whole for one in dropped)} "
        f"dropped with {sum(one.rows for one in dropped)} rows, {built} indexes built; "
        f"{erased} files, rows and runs past their retention erased"
    )
    return f"{text}, {planned} shown, which are still there" if planned else text
