"""Events: what the documents say of them is what they are, and no event stops a run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from tasks.reporting import events
from tasks.reporting.events import EVENTS, BreakerEvent, Event, emit

ROOT = Path(__file__).parents[2]


def test_documents_have_every_event_with_every_field_as_the_models_say() -> None:
    text = (ROOT / "docs" / "events.md").read_text()
    sections = re.split(r"^### `([a-z_.]+)`\n", text, flags=re.MULTILINE)[1:]
    documented = dict(zip(sections[::2], sections[1::2], strict=True))
    assert list(documented) == [event.name for event in EVENTS]
    for event in EVENTS:
        section = documented[event.name].split("\n\n`counts` has")[0]
        kind = "host.<host>" if issubclass(event, BreakerEvent) else "dataset.<name>"
        assert section.strip().startswith(f"{event.__doc__} Resource `etl.{kind}`.")
        rows = dict(re.findall(r"^\| `([a-z_]+)` \| (.*) \|$", section, flags=re.MULTILINE))
        assert rows == {name: field.description for name, field in event.model_fields.items()}


def breaker() -> Event:
    return events.breaker_event("prod", "api.example.org", "opened")


def test_event_names_its_resource_and_its_environment() -> None:
    assert breaker().resource == {
        "prefect.resource.id": "etl.host.api.example.org",
        "prefect.resource.name": "api.example.org",
        "etl.environment": "prod",
    }


def test_without_a_server_no_event_is_sent_and_none_is_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Prefect would start a server of its own to take the event."""

    def never(**_event: object) -> None:
        raise AssertionError("it was handed over")

    monkeypatch.setattr(events, "emit_event", never)
    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        emit(breaker())


def test_event_that_cannot_be_sent_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is too large, what Prefect refuses: it is logged, and the run goes on."""
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        monkeypatch.setattr(events, "emit_event", lambda **_event: 1 / 0)
        emit(breaker())


def test_event_that_cannot_be_made_changes_nothing() -> None:
    """Rows are committed when an event is made of them."""

    @events.never_raises
    def tell() -> None:
        events.breaker_event("prod", "a", "torn")

    tell()
