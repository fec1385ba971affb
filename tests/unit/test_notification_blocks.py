"""What the notification blocks of Prefect make of an alert, sent to a server of this machine."""

from __future__ import annotations

import json

import pytest
from apprise.plugins import pagerduty
from prefect.blocks.notifications import PagerDutyWebHook
from pydantic import SecretStr

from tests.sinks import sinks


def test_pagerduty_is_sent_subject_message_and_link(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the address is another one: PagerDuty's own cannot be reached from a test."""
    link = "https://prefect.example.org/runs/flow-run/018f-1?tab=logs&x=1"
    with sinks() as told:
        address = f"http://127.0.0.1:{told.hook_port}/v2/enqueue"
        monkeypatch.setitem(pagerduty.PAGERDUTY_API_LOOKUP, "us", address)
        monkeypatch.setattr(pagerduty.NotifyPagerDuty, "request_rate_per_sec", 0)
        block = PagerDutyWebHook(
            integration_key=SecretStr("i" * 32), api_key=SecretStr("a" * 20), notify_type="failure"
        )
        block.notify(subject="[prod] daily-prod failed", body=f"orders: 5 rows\n{link}")
        (got,) = told.hooks
    sent = json.loads(got.body)
    assert sent["payload"]["summary"].startswith("[prod] daily-prod failed")
    assert sent["payload"]["severity"] in ("critical", "error")
    details = sent["payload"]["custom_details"]
    assert details["Prefect Notification Body"] == f"orders: 5 rows\n{link}"
