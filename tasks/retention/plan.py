"""What is past its retention is shown before it is erased: the first time only the plan is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import Engine

from tasks.loading.audit import record
from tasks.loading.queries import query
from tasks.loading.session import session
from tasks.model.value import Value

Of = Literal["files and rows", "what is shared", "flow runs"]


class Erased(Value):
    """What is past its retention, by zone of the lake or table; gone, or to go."""

    dataset: str
    what: str
    count: int
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """A plan to erase, in the audit: who finds it there knows that people could see it.

    Attributes:
        engine: The warehouse, with a ledger.
        dataset: Name of the dataset, or ``EVERY_DATASET``.
        of: Which part of the erasing.
        days: The retention. A plan for a longer one said nothing of what a shorter one takes.
        run: Id of the flow run. A plan of its own counts for nothing: a task that is tried again, or a
            run that Kubernetes begins again, was looked at by nobody.
    """

    engine: Engine
    dataset: str
    of: Of
    days: int
    run: str

    def was_shown(self) -> bool:
        """Tell whether another run has written such a plan."""
        given = {"dataset": self.dataset, "of": self.of, "days": self.days, "run": self.run}
        with session(self.engine, read_only=True) as connection, connection.cursor() as cursor:
            cursor.execute(query("was_planned"), given)
            return cursor.fetchone() == (True,)

    def show(self, found: Sequence[Erased], actor: str) -> None:
        """Write the plan into the audit.

        Args:
            found: What will go.
            actor: Who plans it.
        """
        with session(self.engine) as connection, connection.cursor() as cursor:
            record(
                cursor,
                self.dataset,
                "plan to erase",
                actor=actor,
                reason=f"older than {self.days} days; the next run erases it",
                details={
                    "of": self.of,
                    "retention_days": self.days,
                    "run": self.run,
                    "plan": {one.what: {"count": one.count, "bytes": one.bytes} for one in found},
                },
            )
