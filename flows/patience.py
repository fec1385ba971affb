"""Patience with the Prefect server: it is restarted and upgraded while runs go on."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import TypeVar

import httpx
import structlog
from tenacity import RetryCallState, Retrying, retry_if_exception, wait_fixed

from tasks.stopping import stop_asked

T = TypeVar("T")
ATTEMPTS = 120
PAUSE_SECONDS = 1.0
"""Beside the pauses of Prefect's own client, which tries a request again for up to a minute."""
PASSING = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS})
log = structlog.get_logger("dpp.flows")


def patiently(ask: Callable[[], T]) -> T:
    """Ask the Prefect server for something, again and again while it is away.

    Args:
        ask: Asks; to do it twice must be as good as once, since an answer can be lost.

    Raises:
        httpx.HTTPError: The server refuses, it was away too long, or the run is to stop.
    """
    retrying = Retrying(
        retry=retry_if_exception(is_away),
        stop=_gives_up,
        wait=wait_fixed(PAUSE_SECONDS),
        before_sleep=_told,
        reraise=True,
    )
    return retrying(ask)


def is_away(error: BaseException) -> bool:
    """Tell whether an error says that the server may answer soon."""
    if isinstance(error, httpx.HTTPStatusError):
        status = error.response.status_code
        return status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in PASSING
    return isinstance(error, httpx.TransportError)


def _gives_up(state: RetryCallState) -> bool:
    return stop_asked() or state.attempt_number >= ATTEMPTS


def _told(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    log.warning("prefect.away", error=type(error).__name__, attempt=state.attempt_number)
