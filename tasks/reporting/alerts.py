"""Tells people of a failed run, through the notification blocks that the environment names."""

from __future__ import annotations

from typing import Any

import structlog
from prefect.blocks.core import Block

from tasks.model.environment import Environment
from tasks.model.run import Outcome, RunReport

log = structlog.get_logger("dpp.reporting")


def send_alerts(environment: Environment, report: RunReport) -> None:
    """Send a failed run's summary to each alert channel.

    A channel that cannot be reached is logged and left: an alert never changes a run's outcome.
    """
    subject = f"{report.run} failed in {environment.name}"
    lines = [
        f"{entry.dataset}: {entry.skipped_because or entry.failures[0].message}"
        for entry in report.datasets
        if entry.outcome is not Outcome.SUCCEEDED
    ]
    for channel in environment.alerts:
        try:
            block: Any = Block.load(channel)
            block.notify(body="\n".join(lines), subject=subject)
        except Exception as error:  # an alert is information; see above
            log.warning("alert.not_sent", channel=channel, error=type(error).__name__)
