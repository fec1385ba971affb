"""The automations of an environment, as they are made from their documents."""

from __future__ import annotations

import re
import shutil
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from prefect.events.schemas.automations import AutomationCore, Posture
from prefect.server.events.schemas.automations import AutomationCore as ServersAutomation
from prefect.server.events.schemas.events import ReceivedEvent

from deployments.automations.catalog import automations, documents
from deployments.kubernetes.job_template import SIZES
from tasks.catalog import Catalog, load_catalog
from tasks.environments import load_environment
from tasks.model.environment import Alerts, Environment
from tasks.model.errors import ConfigError
from tasks.reporting import events

ROOT = Path(__file__).parents[2]
FLOWS = ("dataset", "daily", "hourly", "maintain", "backfill", "replay", "shard", "listen")
IDS = {f"{flow}/{flow}-{name}": uuid4() for flow in FLOWS for name in ("dev", "staging", "prod")}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "datasets", tmp_path / "datasets")
    return tmp_path / "datasets"


def channels(environment: Environment) -> dict[str, UUID]:
    return {channel: uuid4() for channel in environment.alerts.all_channels}


def after(folder: Path, name: str, *others: str) -> None:
    text = (folder / f"{name}.yaml").read_text()
    text = re.sub(r"^schedule: .*\n", "", text, flags=re.MULTILINE)
    (folder / f"{name}.yaml").write_text(f"after: [{', '.join(others)}]\n{text}")


def made(name: str, catalog: Catalog | None = None) -> dict[str, AutomationCore]:
    environment = load_environment(name)
    found = automations(environment, IDS, channels(environment), catalog=catalog)
    return {automation.name: automation for automation in found}


@pytest.mark.parametrize("name", ["dev", "staging", "prod"])
def test_server_takes_every_automation_of_an_environment(name: str) -> None:
    environment = load_environment(name)
    found = automations(environment, IDS, channels(environment))
    assert len({automation.name for automation in found}) == len(found)
    for automation in found:
        assert automation.name.startswith(f"{name}: ")
        assert "${" not in automation.model_dump_json()
        as_sent = automation.model_dump(mode="json")
        assert as_sent["trigger"].get("posture", "compound") in (
            "Reactive",
            "Proactive",
            "compound",
        )
        ServersAutomation.model_validate(as_sent)  # checks the templates too
        event_names = [*as_sent["trigger"].get("expect", ()), *as_sent["trigger"].get("after", ())]
        for event in event_names:
            assert event.startswith("prefect.flow-run.") or event in events.NAMES, event


def test_alerts_go_to_the_channels_of_their_severity() -> None:
    environment = load_environment("prod")
    ids = channels(environment)
    told = {
        automation.name: {
            action.block_document_id
            for action in automation.actions
            if action.type == "send-notification"
        }
        for automation in automations(environment, IDS, ids)
    }
    critical = {ids[channel] for channel in environment.alerts.critical}
    assert told["prod: run failed"] == told["prod: run late"] == critical
    assert told["prod: schema changed"] == {ids[name] for name in environment.alerts.warning}
    assert len(critical) == 3


def test_environment_without_channels_corrects_states_and_tells_nobody() -> None:
    assert set(made("dev")) == {
        "dev: object landed",
        "dev: run without a sign of life",
        "dev: run pending",
    }


def test_dataset_runs_after_others(folder: Path) -> None:
    after(folder, "airlines", "weather")
    after(folder, "planes", "weather", "airlines")
    found = made("staging", load_catalog(folder))
    one = found["staging: airlines after weather"]
    assert one.trigger.posture is Posture.Reactive
    assert one.actions[0].deployment_id == IDS["dataset/dataset-staging"]
    assert one.actions[0].parameters == {"parameters": {"dataset": "airlines"}}
    assert one.actions[0].schedule_after > one.trigger.within
    both = found["staging: planes after weather and airlines"]
    assert (both.trigger.type, both.trigger.require) == ("compound", "all")
    assert [each.match["prefect.resource.id"] for each in both.trigger.triggers] == [
        ["etl.dataset.weather"],
        ["etl.dataset.airlines"],
    ]


def test_unknown_dataset_under_after_is_named_with_its_line(folder: Path) -> None:
    after(folder, "airlines", "weather", "wether")
    with pytest.raises(
        ConfigError, match=r"airlines\.yaml:1: after: no dataset 'wether'; declared"
    ):
        load_catalog(folder)


def test_datasets_after_each_other_in_a_circle_are_refused(folder: Path) -> None:
    after(folder, "airlines", "planes")
    after(folder, "planes", "airports")
    after(folder, "airports", "airlines")
    with pytest.raises(ConfigError) as error:
        load_catalog(folder)
    circle = str(error.value).rpartition(": ")[2].split(" after ")
    assert circle[0] == circle[-1]
    assert all(
        pair in {("airlines", "planes"), ("planes", "airports"), ("airports", "airlines")}
        for pair in pairwise(circle)
    )


def test_dataset_after_others_has_no_schedule(folder: Path) -> None:
    text = (folder / "airlines.yaml").read_text()
    text = re.sub(r"^schedule: .*\n", "", text, flags=re.MULTILINE)
    (folder / "airlines.yaml").write_text(f"after: [weather]\nschedule: daily\n{text}")
    with pytest.raises(ConfigError, match=r"airlines\.yaml:1: after: a dataset that runs after"):
        load_catalog(folder)


def test_missing_deployment_and_channel_are_named() -> None:
    environment = load_environment("prod")
    with pytest.raises(ConfigError, match="need the deployment 'dataset/dataset-prod'"):
        automations(environment, {}, channels(environment))
    with pytest.raises(ConfigError, match="'slack-webhook/etl-prod', which is not there"):
        automations(environment, IDS, {})


def test_longest_usual_time_of_an_environment_is_that_of_the_alert() -> None:
    environment = load_environment("prod").model_copy(
        update={
            "alerts": Alerts(warning=("slack-webhook/x",), usual_minutes={"daily": 90, "hourly": 1})
        }
    )
    found = {
        automation.name: automation
        for automation in automations(environment, IDS, {"slack-webhook/x": uuid4()})
    }
    daily = found["prod: daily-prod takes long"]
    assert daily.trigger.within.total_seconds() == 5400
    assert "more than 90 minutes" in daily.actions[0].body
    assert "more than 60 seconds" in found["prod: hourly-prod takes long"].actions[0].body
    assert "prod: dataset-prod takes long" not in found


@pytest.mark.parametrize("name", ["staging", "prod"])
def test_long_runs_of_every_flow_are_told_of(name: str) -> None:
    found = made(name)
    assert [flow for flow in FLOWS if f"{name}: {flow}-{name} takes long" not in found] == []


def test_time_that_was_learned_is_below_what_a_job_may_take() -> None:
    environment = load_environment("staging")
    times = {"daily": timedelta(hours=3), "hourly": timedelta(minutes=7)}
    found = automations(environment, IDS, channels(environment), usual=times)
    within = {each.name: each.trigger.within for each in found if "takes long" in each.name}
    small = timedelta(seconds=SIZES["small"].active_deadline_seconds)
    assert within["staging: daily-staging takes long"] == 0.9 * small
    assert within["staging: hourly-staging takes long"] == timedelta(minutes=7)


def test_run_that_is_given_back_again_and_again_is_told_of_however_long_a_job_may_take() -> None:
    found = made("prod")["prod: run given back"].trigger
    assert (found.threshold, found.for_each) == (3, {"prefect.resource.id"})
    longest = max(size.active_deadline_seconds for size in SIZES.values())
    assert found.within.total_seconds() >= found.threshold * longest


def test_documents_hold_each_concern_once() -> None:
    names = [document.name for document in documents()]
    assert len(set(names)) == len(names)


def flow_run_event(flow: str, *tags: str, deployed: bool = True) -> ReceivedEvent:
    """Return the event of a failed run, as the server makes it."""
    related = [{"prefect.resource.id": "prefect.flow.1", "prefect.resource.role": "flow"}]
    related[0]["prefect.resource.name"] = flow
    if deployed:
        where = {"prefect.resource.id": "prefect.deployment.1"}
        related.append({**where, "prefect.resource.role": "deployment"})
    related += [
        {"prefect.resource.id": f"prefect.tag.{tag}", "prefect.resource.role": "tag"}
        for tag in tags
    ]
    return ReceivedEvent.model_validate(
        {
            "id": uuid4(),
            "occurred": datetime.now(UTC),
            "received": datetime.now(UTC),
            "event": "prefect.flow-run.Failed",
            "resource": {"prefect.resource.id": "prefect.flow-run.1"},
            "related": related,
        }
    )


def test_failed_runs_of_deployments_of_the_environment_are_alerted_of_but_shards_are_not() -> None:
    """The run that a shard is a part of tries it again; a run inside of another has no deployment."""
    as_sent = made("prod")["prod: run failed"].model_dump(mode="json")
    trigger = ServersAutomation.model_validate(as_sent).trigger
    assert trigger.covers(flow_run_event("dataset", "etl", "prod"))
    assert not trigger.covers(flow_run_event("shard", "etl", "prod"))
    assert not trigger.covers(flow_run_event("dataset", "etl", "staging"))
    assert not trigger.covers(flow_run_event("dataset", "etl", "prod", deployed=False))
