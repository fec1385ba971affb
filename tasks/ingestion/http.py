"""HTTP requests that are repeated when it may help, and whose answers are believed only when whole."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import structlog
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt

from tasks.ingestion.json_records import parse_json
from tasks.model.classify import classify, classify_status
from tasks.model.errors import PipelineError, SourceRejected, SourceUnavailable

ATTEMPTS = 6
FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 60.0
MAX_BODY_BYTES = 256 << 20
SHOWN = 200
"""Characters of a server's message that are shown."""
SUCCESS = 200
REDIRECTS = range(300, 400)

log = structlog.get_logger("dpp.ingestion")


def get_json(
    client: httpx.Client,
    url: str,
    params: dict[str, str | int],
    *,
    sleep: Callable[[float], None],
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> tuple[Any, str]:
    """Get a JSON document.

    Args:
        client: Knows the server and the credentials.
        url: Path below the client's base URL, or a URL of the same server.
        params: Query parameters.
        sleep: Waits between two attempts.
        now: Gives the time, against which a ``Retry-After`` date is read.

    Returns:
        The parsed document, and its text.

    Raises:
        SourceUnavailable: No whole answer after six attempts.
        SourceRejected: The server refuses the request.
        CredentialsRejected: The server refuses the credentials.
    """
    for attempt in Retrying(
        retry=retry_if_exception_type(SourceUnavailable),
        stop=stop_after_attempt(ATTEMPTS),
        wait=_wait,
        sleep=sleep,
        before_sleep=_log_retry,
        reraise=True,
    ):
        with attempt:
            return _get_once(client, url, params, now)
    raise AssertionError("unreachable: tenacity raises the last error")


def _wait(state: RetryCallState) -> float:
    """Wait as long as the server asks, else exponentially with full jitter; always bounded."""
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, SourceUnavailable) and error.retry_after is not None:
        return error.retry_after
    longest = min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2**state.attempt_number)
    return random.uniform(0, longest)  # noqa: S311 - jitter, no secret


def _log_retry(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    log.warning(
        "ingestion.retry",
        attempt=state.attempt_number,
        wait=state.next_action.sleep if state.next_action else 0.0,
        error=str(error),
    )


def _get_once(
    client: httpx.Client, url: str, params: dict[str, str | int], now: Callable[[], datetime]
) -> tuple[Any, str]:
    where = f"GET {_without_query(url)}"
    try:
        with client.stream("GET", url, params=params or None) as response:
            content = _bounded_body(response, where)
    except httpx.TransportError as error:
        raise classify(error, where) from None
    if response.status_code in REDIRECTS:
        raise SourceRejected(
            f"{where}: HTTP {response.status_code}, a redirect, which could carry the credentials away",
            "set the final address as base_url of the block",
        )
    text = content.decode("utf-8", "replace")
    if response.status_code != SUCCESS:
        raise _refusal(response, where, text, now)
    return _document(content, text, where), text


def _bounded_body(response: httpx.Response, where: str) -> bytes:
    pieces = bytearray()
    for piece in response.iter_bytes():
        pieces += piece
        if len(pieces) > MAX_BODY_BYTES:
            raise SourceRejected(
                f"{where}: the answer is larger than {MAX_BODY_BYTES >> 20} MB",
                "ask for smaller pages or windows",
            )
    return bytes(pieces)


def _document(content: bytes, text: str, where: str) -> Any:
    if not content.strip():
        raise SourceUnavailable(f"{where}: empty answer")
    try:
        content.decode()
        return parse_json(text)
    except ValueError:
        raise SourceUnavailable(f"{where}: expected JSON, got: {text[:SHOWN]!r}") from None


def _refusal(
    response: httpx.Response, where: str, text: str, now: Callable[[], datetime]
) -> PipelineError:
    error = classify_status(response.status_code, where, _said(text))
    if isinstance(error, SourceUnavailable):
        error.retry_after = retry_after_seconds(response.headers.get("Retry-After"), now())
    return error


def _said(text: str) -> str:
    """Return what the server says about a refusal: its message, else the beginning of the body."""
    try:
        body = parse_json(text)
    except ValueError:
        return text[:SHOWN].strip()
    for key in ("message", "error", "detail", "title"):
        if isinstance(body, dict) and isinstance(body.get(key), str):
            return str(body[key])[:SHOWN]
    return text[:SHOWN].strip()


def retry_after_seconds(header: str | None, now: datetime) -> float | None:
    """Read a ``Retry-After`` header (RFC 9110, 10.2.3), in seconds or as a date.

    Returns:
        Seconds from 0 to 60; None if there is no header or it makes no sense.
    """
    if header is None:
        return None
    if re.fullmatch(r"\d{1,9}(\.\d+)?", header.strip()):
        return min(float(header), LONGEST_WAIT_SECONDS)
    try:
        date = parsedate_to_datetime(header)
    except (ValueError, TypeError, OverflowError):
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    return min(max((date - now).total_seconds(), 0.0), LONGEST_WAIT_SECONDS)


def _without_query(url: str) -> str:
    return url.split("?", 1)[0]
