"""What the pipeline tells the Prefect server, so that automations can act on it.

Each event is a model: its fields are the payload, documented in ``docs/events.md``. A payload has
names, counts and messages; never a value of a row. Nothing waits for an event, and nothing depends
on one: what cannot be sent is logged, and the run goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Annotated, ClassVar, ParamSpec

import structlog
from prefect.events import emit_event
from prefect.settings import PREFECT_API_URL
from pydantic import Field, StringConstraints

from tasks.model.errors import ErrorKind
from tasks.model.report import RowCounts, SchemaChange
from tasks.model.request import Purpose
from tasks.model.value import Value

log = structlog.get_logger("dpp.reporting")

P = ParamSpec("P")
MOST_CHANGES = 50
"""Most changes of a table in one event; the ledger has all of them."""
MOST_OBJECTS = 500
"""Most objects in one event."""
Message = Annotated[str, StringConstraints(max_length=1000)]


class Event(Value):
    """Base of all events.

    Attributes:
        name: What happened.
        environment: Where.
    """

    name: ClassVar[str]
    environment: str = Field(description="Name of the environment.")

    @property
    def subject(self) -> tuple[str, str]:
        """Kind and name of what it is about."""
        raise NotImplementedError

    @property
    def resource(self) -> dict[str, str]:
        """What it is about, as Prefect names it; automations match these labels."""
        kind, name = self.subject
        return {
            "prefect.resource.id": f"etl.{kind}.{name}",
            "prefect.resource.name": name,
            "etl.environment": self.environment,
        }


class DatasetEvent(Event):
    """An event about a dataset."""

    dataset: str = Field(description="Name of the dataset.")

    @property
    def subject(self) -> tuple[str, str]:
        """The dataset."""
        return "dataset", self.dataset


class RunEvent(DatasetEvent):
    """An event of a run of a dataset."""

    run: str = Field(description="Name of the flow run.")
    purpose: Purpose = Field(description="Why it ran: `run`, `objects`, `backfill` or `replay`.")


class RunStarted(RunEvent):
    """A run of a dataset begins."""

    name = "etl.run.started"


class RunEnded(RunEvent):
    """What a run of a dataset did."""

    partitions: int = Field(description="Partitions that were planned.")
    partitions_loaded: int = Field(description="Partitions that it loaded.")
    partitions_already_loaded: int = Field(description="Partitions that were loaded meanwhile.")
    counts: RowCounts = Field(description="Account of the rows that it loaded.")
    seconds: float = Field(description="How long it took.")


class RunCompleted(RunEnded):
    """A run of a dataset did all it was asked for, be it nothing."""

    name = "etl.run.completed"


class RunFailed(RunEnded):
    """A run of a dataset did not do all it was asked for."""

    name = "etl.run.failed"
    failures: int = Field(description="Partitions that failed.")
    stage: str = Field(description="Stage at which the first of them failed.")
    error: str = Field(description="Class of its error.")
    kind: ErrorKind = Field(description="What to do about it; see docs/architecture.md.")
    message: Message = Field(description="What it said.")


class PartitionEvent(DatasetEvent):
    """An event of a partition."""

    run: str = Field(description="Name of the flow run.")
    partition: Message = Field(description="The partition in words, e.g. the name of its object.")
    fingerprint: str = Field(description="What tells it from all other partitions.")


class PartitionLoaded(PartitionEvent):
    """A partition was committed."""

    name = "etl.partition.loaded"
    load_id: int = Field(description="Its row in `etl.loads`.")
    counts: RowCounts = Field(description="Account of its rows.")
    seconds: float = Field(description="How long the load took.")


class QuarantineThreshold(PartitionEvent):
    """More rows of a partition were refused than its dataset lets pass in silence."""

    name = "etl.quarantine.threshold"
    read: int = Field(description="Rows that were read.")
    refused: int = Field(description="Rows that were refused.")
    limit: Message = Field(description="The limit that was passed, in words.")
    published: bool = Field(description="Were the other rows loaded?")


class FailedGateFound(Value):
    """One gate that does not hold."""

    gate: Message = Field(description="The gate in a few words.")
    found: Message = Field(description="What was found, and what is allowed.")


class GateFailed(PartitionEvent):
    """Gates refused a partition; nothing of it was published."""

    name = "etl.gate.failed"
    manifest_key: str = Field(description="Where its rows are described in the lake.")
    rows: int = Field(description="Rows that were to be loaded.")
    gates: tuple[FailedGateFound, ...] = Field(description="The gates, and what they found.")


class SchemaChanged(DatasetEvent):
    """A load altered its table."""

    name = "etl.schema.changed"
    load_id: int = Field(description="Its row in `etl.loads`.")
    changes: tuple[SchemaChange, ...] = Field(
        description=f"Columns and types, the first {MOST_CHANGES} of them."
    )


class BreakerEvent(Event):
    """The circuit breaker of a host changed."""

    host: str = Field(description="The host.")

    @property
    def subject(self) -> tuple[str, str]:
        """The host."""
        return "host", self.host


class BreakerOpened(BreakerEvent):
    """A host failed again and again, and is left alone for a while."""

    name = "etl.breaker.opened"


class BreakerHalfOpen(BreakerEvent):
    """A host is asked once, to see whether it is back."""

    name = "etl.breaker.half_open"


class BreakerClosed(BreakerEvent):
    """A host answers again."""

    name = "etl.breaker.closed"


class ObjectLanded(DatasetEvent):
    """Objects of a dataset's source were written."""

    name = "etl.object.landed"
    bucket: str = Field(description="Name of the bucket.")
    objects: tuple[str, ...] = Field(
        max_length=MOST_OBJECTS,
        description="Keys of the objects, as the dataset's source names them. Empty where the dataset "
        "loads its whole source.",
    )


EVENTS: tuple[type[Event], ...] = (
    RunStarted,
    RunCompleted,
    RunFailed,
    PartitionLoaded,
    QuarantineThreshold,
    GateFailed,
    SchemaChanged,
    BreakerOpened,
    BreakerHalfOpen,
    BreakerClosed,
    ObjectLanded,
)
"""Every event that there is."""
NAMES = frozenset(event.name for event in EVENTS)
_BREAKERS: dict[str, type[BreakerEvent]] = {
    "opened": BreakerOpened,
    "half_open": BreakerHalfOpen,
    "closed": BreakerClosed,
}


def breaker_event(environment: str, host: str, change: str) -> BreakerEvent:
    """Return the event of a change of a host's breaker."""
    return _BREAKERS[change](environment=environment, host=host)


def shortened(text: str) -> str:
    """Return a text that fits into a message of an event."""
    most = 1000
    return text if len(text) <= most else f"{text[: most - 1]}…"


def never_raises(tell: Callable[P, None]) -> Callable[P, None]:
    """Make a function that tells of something harmless: rows are committed by the time it is called."""

    @wraps(tell)
    def told(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            tell(*args, **kwargs)
        except Exception as error:  # an event is information; see above
            log.warning("event.not_made", tell=tell.__name__, error=type(error).__name__)

    return told


def emit(event: Event) -> None:
    """Hand an event to Prefect's worker, which sends it in the background; never raises.

    Without a Prefect server there is nobody to tell, and nothing happens.
    """
    if not PREFECT_API_URL.value():
        return
    try:
        emit_event(event=event.name, resource=event.resource, payload=event.model_dump(mode="json"))
    except Exception as error:  # an event is information; see above
        log.warning("event.not_sent", name=event.name, error=type(error).__name__)
