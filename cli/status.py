"""``dpp status``: what each dataset holds, and what waits at a gate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rich.markup import escape
from sqlalchemy import Engine

from cli.console import console
from cli.render import status_table
from tasks.catalog import Catalog
from tasks.loading.gate_failures import OpenGateFailure, open_gate_failures
from tasks.loading.ledger import ledger_exists
from tasks.loading.ledger_state import DatasetStatus, status


@dataclass(frozen=True)
class Status:
    """What the ledger says.

    Attributes:
        entries: What each dataset holds.
        waiting: By dataset, the last partition that a gate refused and that is not loaded.
    """

    entries: list[DatasetStatus]
    waiting: dict[str, OpenGateFailure]

    def as_json(self) -> list[dict[str, Any]]:
        """Return it for scripts; a dataset that never passed its gates has no loads."""
        loaded = [entry.model_dump(mode="json") for entry in self.entries]
        known = {entry.dataset for entry in self.entries}
        never: list[dict[str, Any]] = [
            {"dataset": name, "target": failure.target, "loads": 0}
            for name, failure in self.waiting.items()
            if name not in known
        ]
        return [
            {**entry, "gate_failure": self._waiting_as_json(entry["dataset"])}
            for entry in [*loaded, *never]
        ]

    def _waiting_as_json(self, dataset: str) -> dict[str, Any] | None:
        failure = self.waiting.get(dataset)
        return failure.model_dump(mode="json") if failure else None


def read_status(engine: Engine) -> Status:
    """Read what each dataset holds; nothing where nothing was ever loaded."""
    if not ledger_exists(engine):
        return Status([], {})
    return Status(status(engine), open_gate_failures(engine))


def show_status(found: Status, catalog: Catalog) -> None:
    """Print it for people."""
    if found.entries:
        older = {
            entry.dataset
            for entry in found.entries
            if entry.dataset in catalog.datasets
            and (entry.configurations, entry.config_hash) != (1, catalog[entry.dataset].config_hash)
        }
        console.print(status_table(found.entries, older))
    else:
        console.print("nothing is loaded yet: dpp run")
    for failure in found.waiting.values():
        others = f", and {failure.open - 1} more" if failure.open > 1 else ""
        console.print(
            f"[bold yellow]waits at a gate[/]  {escape(failure.dataset)}: {escape(failure.label)} "
            f"since {failure.failed_at.astimezone():%Y-%m-%d %H:%M:%S}: {escape(failure.gate)}: "
            f"{escape(failure.found)}{others}; some of the rows are in etl.gate_failures",
            highlight=False,
            soft_wrap=True,
        )
