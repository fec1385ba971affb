"""How long to wait before a request is tried again, and when to give up."""

from __future__ import annotations

import random
import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from tenacity import RetryCallState

from tasks.model.errors import SourceUnavailable

ATTEMPTS = 8
FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 60.0
LONGEST_RETRY_AFTER_SECONDS = 3600.0


def wait(state: RetryCallState) -> float:
    """Wait as long as the server asks, else exponentially with full jitter; always bounded."""
    asked = _asked_for(state)
    if asked is not None:
        return asked
    longest = min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2**state.attempt_number)
    return random.uniform(0, longest)  # noqa: S311 - jitter, no secret


def _asked_for(state: RetryCallState) -> float | None:
    error = state.outcome.exception() if state.outcome else None
    return error.retry_after if isinstance(error, SourceUnavailable) else None


class Budget:
    """Gives up after some attempts, or when the next one would be too late.

    Args:
        seconds: Time from the first attempt to the start of the last one.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def __call__(self, state: RetryCallState) -> bool:
        """Tell whether to give up."""
        if state.attempt_number >= ATTEMPTS:
            return True
        spent = max(state.idle_for, state.seconds_since_start or 0.0)
        return spent + state.upcoming_sleep > self._seconds


def retry_after_seconds(header: str | None, now: datetime) -> float | None:
    """Read a ``Retry-After`` header (RFC 9110, 10.2.3), in seconds or as a date.

    Returns:
        Seconds from 0 to an hour; None if there is no header or it makes no sense.
    """
    if header is None:
        return None
    if re.fullmatch(r"\d{1,300}(\.\d{1,20})?", header.strip(), re.ASCII):
        return min(float(header), LONGEST_RETRY_AFTER_SECONDS)
    try:
        date = parsedate_to_datetime(header)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    return min(max((date - now).total_seconds(), 0.0), LONGEST_RETRY_AFTER_SECONDS)
