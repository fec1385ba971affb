"""What retention took away, or would take, as an artifact in the Prefect UI: names and counts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import structlog
from prefect.artifacts import create_table_artifact

from tasks.retention.plan import Erased
from tasks.retention.retain import Retained

log = structlog.get_logger("dpp.reporting")


def publish_upkeep(run: str, retained: Retained, *, dry_run: bool) -> None:
    """Write what was erased, and what will be; that it cannot be shown is logged, and fails nothing."""
    gone = _rows(retained.erased)
    gone += [_row("*", f"hint: {hint.advice}") for hint in retained.hints]
    _publish("retention", f"**{run}**: what was erased; etl.audit has it too.", gone)
    when = (
        "would be erased"
        if dry_run
        else "is past its retention for the first time, and will be erased by the next run. To keep "
        "it, raise retention_days of the environment before"
    )
    _publish("retention-plan", f"**{run}**: what {when}.", _rows(retained.planned))


def _publish(key: str, description: str, rows: list[dict[str, Any]]) -> None:
    if not rows:
        return
    try:
        create_table_artifact(key=key, table=rows, description=description)
    except Exception as error:  # information only
        log.warning("report.not_published", error=type(error).__name__)


def _rows(found: Iterable[Erased]) -> list[dict[str, Any]]:
    return [_row(one.dataset, one.what, one.count, one.bytes or None) for one in found]


def _row(
    dataset: str, what: str, count: int | None = None, size: int | None = None
) -> dict[str, Any]:
    return {"dataset": dataset, "what": what, "count": count, "bytes": size}
