"""Structured logs: one event a line, with run, dataset, partition and stage on each.

The events go through Python's logging, under the logger ``dpp``. So the same lines reach the
terminal (readable), a container's output (JSON) and, by Prefect's own handler, the Prefect UI.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import MutableMapping
from datetime import UTC, datetime
from typing import Any, TextIO

import structlog

LOGGER = "dpp"
CONTEXT_FIRST = ("run", "dataset", "partition", "stage")
_LEVEL_COLOURS = {"DEBUG": "\033[2m", "WARNING": "\033[33m", "ERROR": "\033[31m"}
_handlers: list[logging.Handler] = []
"""The handler of this process, so that setting up again replaces it; Prefect adds its own."""
_QUIET = ("httpx", "httpcore", "urllib3", "botocore", "boto3")


def _render(
    _logger: object, _method: str, event_dict: MutableMapping[str, Any]
) -> tuple[tuple[str], dict[str, Any]]:
    """Turn an event into the text that people read, and keep its fields for the JSON formatter."""
    event = str(event_dict.pop("event"))
    ordered = {key: event_dict.pop(key) for key in CONTEXT_FIRST if key in event_dict}
    ordered.update(event_dict)
    text = " ".join([event, *(f"{key}={_value(value)}" for key, value in ordered.items())])
    return (text,), {"extra": {"event": event, "fields": ordered}}


def _value(value: object) -> str:
    """Write a value so that it cannot end its line or pass for another field."""
    if isinstance(value, float):
        return f"{value:.2f}"
    text = str(value)
    plain = text.isprintable() and not any(c in text for c in " =\"'")
    return text if plain and text else json.dumps(text, ensure_ascii=False)


class TerminalFormatter(logging.Formatter):
    """Time, level and the event, with a little colour where it helps."""

    def __init__(self, *, colours: bool) -> None:
        super().__init__()
        self._colours = colours

    def format(self, record: logging.LogRecord) -> str:
        """Format one record; tracebacks are left to the debug level."""
        time = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S")
        text = f"{time} {record.levelname.lower():<7} {record.getMessage()}"
        colour = _LEVEL_COLOURS.get(record.levelname, "") if self._colours else ""
        return f"{colour}{text}\033[0m" if colour else text


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Format one record."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": getattr(record, "event", record.getMessage()),
            **getattr(record, "fields", {}),
        }
        return json.dumps(line, default=str, ensure_ascii=False)


def configure_logs(
    *,
    stream: TextIO | None = None,
    handler: logging.Handler | None = None,
    quiet: bool = False,
) -> None:
    """Set up logging for this process; ``DPP_LOG_LEVEL`` sets the level, INFO without it.

    Args:
        stream: Where lines go; standard error without it. JSON unless it is a terminal.
        handler: Takes the place of the stream, e.g. one that draws above a progress bar.
        quiet: Show only warnings here, unless ``DPP_LOG_LEVEL`` says more; the UI has all lines.
    """
    out = stream or sys.stderr
    if handler is None:
        handler = logging.StreamHandler(out)
    handler.setFormatter(
        TerminalFormatter(colours=stream is not None) if out.isatty() else JsonFormatter()
    )
    chosen = os.environ.get("DPP_LOG_LEVEL", "INFO").upper()
    if quiet and "DPP_LOG_LEVEL" not in os.environ:
        handler.setLevel(logging.WARNING)
    logger = logging.getLogger(LOGGER)
    for old in _handlers:
        logger.removeHandler(old)
    _handlers[:] = [handler]
    logger.addHandler(handler)
    logger.setLevel(chosen if chosen in logging.getLevelNamesMapping() else logging.INFO)
    logger.propagate = False
    for name in _QUIET:
        # At INFO httpx logs whole URLs, and a key can be in the query.
        logging.getLogger(name).setLevel(logging.WARNING)
    configure_events()


def ensure_logs() -> None:
    """Set up logging, unless this process has done so."""
    if not _handlers:
        configure_logs()


def configure_events() -> None:
    """Make ``structlog.get_logger("dpp.…")`` write through Python's logging."""
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.contextvars.merge_contextvars,
            _render,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
