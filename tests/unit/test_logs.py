"""One event a line, with its context; readable on a terminal, JSON elsewhere; no forged lines."""

from __future__ import annotations

import io
import json

import pytest
import structlog

from tasks.reporting.logs import configure_logs


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def log_things() -> None:
    log = structlog.get_logger("dpp.loading")
    with structlog.contextvars.bound_contextvars(stage="loading", dataset="flights", run="r 1"):
        log.info("loading.copied", rows=52311, seconds=0.912)
        log.warning("loading.odd", value="a\nERROR forged", other="\x1b[31m", percent="100 %s")
        log.debug("loading.detail")


def test_terminal_line_is_event_and_fields() -> None:
    out = Terminal()
    configure_logs(stream=out)
    log_things()
    first, second = out.getvalue().splitlines()
    assert first.endswith(
        'loading.copied run="r 1" dataset=flights stage=loading rows=52311 seconds=0.91'
    )
    assert r'value="a\nERROR forged"' in second
    assert r'other="\u001b[31m"' in second
    assert 'percent="100 %s"' in second


def test_elsewhere_each_line_is_json() -> None:
    out = io.StringIO()
    configure_logs(stream=out)
    log_things()
    first, second = (json.loads(line) for line in out.getvalue().splitlines())
    assert first["event"] == "loading.copied"
    assert (first["dataset"], first["rows"], first["level"]) == ("flights", 52311, "info")
    assert second["value"] == "a\nERROR forged"


@pytest.mark.parametrize(("level", "lines"), [("DEBUG", 3), ("WARNING", 1), ("nonsense", 2)])
def test_level_comes_from_the_environment(
    level: str, lines: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DPP_LOG_LEVEL", level)
    out = io.StringIO()
    configure_logs(stream=out)
    log_things()
    assert len(out.getvalue().splitlines()) == lines


def test_setting_up_again_does_not_double_lines() -> None:
    first, second = io.StringIO(), io.StringIO()
    configure_logs(stream=first)
    configure_logs(stream=second)
    log_things()
    assert not first.getvalue()
    assert len(second.getvalue().splitlines()) == 2
