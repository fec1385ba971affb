"""What retention took away, or would take, as an artifact in the Prefect UI: names and counts."""

from __future__ import annotations

import structlog
from prefect.artifacts import create_table_artifact

from tasks.retention.retain import Retained

log = structlog.get_logger("dpp.reporting")


def publish_upkeep(run: str, retained: Retained, *, dry_run: bool) -> None:
    """Write what was erased; that it cannot be shown is logged, and fails nothing."""
    rows = [
        {"dataset": one.dataset, "what": one.what, "count": one.count, "bytes": one.bytes or None}
        for one in retained.erased
    ]
    rows += [
        {"dataset": "*", "what": f"hint: {hint.advice}", "count": None, "bytes": None}
        for hint in retained.hints
    ]
    if not rows:
        return
    done = "would be erased" if dry_run else "was erased; etl.audit has it too"
    try:
        create_table_artifact(key="retention", table=rows, description=f"**{run}**: what {done}.")
    except Exception as error:  # information only
        log.warning("report.not_published", error=type(error).__name__)
