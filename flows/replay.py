"""Refused rows of one dataset: replayed, discarded, exported or counted; also by a form in the UI."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Literal, Self

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed
from pydantic import BaseModel, ConfigDict, Field, model_validator

from flows.dataset import run_and_report
from tasks.connections import forget_blocks
from tasks.environments import environment_catalog, load_environment
from tasks.model.replay import ReplayRequest, Selection
from tasks.model.report import DatasetReport
from tasks.replay.replay import count_refused, discard_refused, export_refused
from tasks.reporting.logs import ensure_logs
from tasks.stages import run_name


class ReplayParameters(BaseModel):
    """What is done with which refused rows."""

    model_config = ConfigDict(extra="forbid")

    dataset: str = Field(
        description="Name of the dataset, as in its file; or of a child table of it, as orders.lines."
    )
    action: Literal["replay", "discard", "export", "list"] = Field(
        "replay",
        description="replay: through the stages again. discard: leave out for good. export: a CSV "
        "file in the lake, to correct. list: count them.",
    )
    rule: str | None = Field(None, description="Only rows that broke this rule first.")
    column: str | None = Field(None, description="Only rows that broke it in this column.")
    load_id: int | None = Field(None, description="Only rows of this load.")
    rows: list[str] = Field(default_factory=list, description="Only these rows, e.g. 12-345.")
    older_than_days: float | None = Field(
        None, ge=0, description="Only rows that were first seen so many days ago."
    )
    seen_before: datetime | None = Field(
        None, description="Only rows that were first seen before this time."
    )
    corrections: str | None = Field(
        None,
        description="Replay: key in the lake of a corrected export, e.g. corrections/flights.csv; "
        "only its rows are replayed.",
    )
    corrections_name: str | None = Field(None, description="What messages call that file.")
    reason: str | None = Field(None, description="Discard: why. It is kept for those who ask.")

    @model_validator(mode="after")
    def _discard_says_why(self) -> Self:
        if self.action == "discard" and not (self.reason or "").strip():
            raise ValueError("action 'discard' needs a reason")
        if self.action != "replay" and self.corrections:
            raise ValueError(f"corrections are for action 'replay', not for {self.action!r}")
        return self

    @classmethod
    def of(cls, dataset: str, request: ReplayRequest) -> Self:
        """Return the parameters that ask for a replay."""
        selection = request.selection
        return cls(
            dataset=f"{dataset}.{selection.child}" if selection.child else dataset,
            rule=selection.rule,
            column=selection.column,
            load_id=selection.load_id,
            rows=list(selection.rows),
            seen_before=selection.seen_before,
            corrections=request.corrections,
            corrections_name=request.corrections_name,
        )

    @property
    def selection(self) -> Selection:
        """The rows that are meant."""
        before = self.seen_before
        if self.older_than_days is not None:
            age = datetime.now(UTC) - timedelta(days=self.older_than_days)
            before = min(before, age) if before else age
        return Selection(
            child=self.dataset.partition(".")[2] or None,
            rule=self.rule or None,
            column=self.column or None,
            load_id=self.load_id,
            rows=tuple(self.rows),
            seen_before=before,
        )


def _name_run() -> str:
    given = ReplayParameters.model_validate(flow_run.get_parameters()["parameters"])
    return run_name(f"{given.action}-{given.dataset}")


@flow(name="replay", flow_run_name=_name_run, persist_result=False)
def replay(parameters: ReplayParameters) -> State[DatasetReport]:
    """Replay, discard, export or count the refused rows of a dataset.

    Running it again is always safe: a row is resolved once.
    """
    ensure_logs()
    forget_blocks()
    environment = load_environment()
    spec, _ = environment_catalog(environment).quarantine_of(parameters.dataset)
    if parameters.action == "replay":
        request = ReplayRequest(
            selection=parameters.selection,
            corrections=parameters.corrections or None,
            corrections_name=parameters.corrections_name,
        )
        return run_and_report(spec.name, request)
    selection = parameters.selection
    if parameters.action == "discard":
        name = str(flow_run.get_name() or "local")
        count = discard_refused(environment, spec, selection, str(parameters.reason), name)
        return Completed(message=f"{count} rows discarded")
    if parameters.action == "export":
        count, key = export_refused(environment, spec, selection)
        return Completed(message=f"{count} rows exported to {key} in the lake")
    count = count_refused(environment, spec, selection)
    return Completed(message=f"{count} rows are in quarantine; see the artifact")
