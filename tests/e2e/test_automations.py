"""Events go into a real Prefect server; runs and alerts come out, each within half a minute.

All that takes time is begun at once, before the first test, and goes on beside the others.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, TypeVar
from unittest import mock
from uuid import UUID

import httpx
import pytest
from moto.server import ThreadedMotoServer
from prefect.blocks.notifications import SlackWebhook
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate, WorkPoolCreate
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
)
from prefect.client.schemas.objects import (
    ConcurrencyLimitStrategy,
    ConcurrencyOptions,
    FlowRun,
    State,
    StateType,
)
from prefect.client.schemas.schedules import CronSchedule
from prefect.events import Event as ServersEvent
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings
from prefect.states import AwaitingRetry, Failed, Pending, Running, Scheduled
from prefect_aws import AwsCredentials, S3Bucket
from prefect_aws.client_parameters import AwsClientParameters
from pydantic import SecretStr

from blocks.landing_queue import LandingQueue
from blocks.object_store import LakeStorage
from blocks.warehouse import WarehouseCredentials
from deployments.automations.catalog import Timing, automations
from embedded.stack import EmbeddedStack
from flows.listen import ListenParameters, listen
from tasks.environments import environment_catalog, load_environment
from tasks.landing import queue as queue_module
from tasks.landing.listen import hear
from tasks.model.environment import Alerts
from tasks.model.errors import SourceUnavailable
from tasks.model.report import SchemaChange
from tasks.reporting.events import Event, SchemaChanged, breaker_event
from tests.e2e.conftest import ROOT, THINGS
from tests.e2e.test_worker import FLOW_SETTINGS
from tests.misbehaving_http import Asked, Reply, misbehaving_server
from tests.sinks import Sinks, Told, sinks

T = TypeVar("T")
NAME = "auto"
SOON = 30
"""Seconds from an event to what it causes."""
PROCESS = 150
"""Seconds in which a worker runs a process to its end, on a busy machine."""
BUCKET = "landing-zone"
LANDED = THINGS.replace("things", "landed").replace(
    'source: {kind: files, path: "inbox/*.csv", format: {kind: csv}}',
    'source: {kind: s3, block: landing, path: "in/*.csv", format: {kind: csv}}',
)
FOLLOWER = THINGS.replace("things", "follower").replace("source:", "after: [landed]\nsource:")
BOTH = THINGS.replace("things", "both").replace("source:", "after: [left, right]\nsource:")
STOPS_WITHIN = 20
LISTEN = """\
from flows.listen import ListenParameters, listen
listen(ListenParameters(seconds=600))
"""


@dataclass
class Scene:
    """A server with the automations of an environment, and what was begun on it."""

    client: SyncPrefectClient
    sinks: Sinks
    stack: EmbeddedStack
    deployments: dict[str, UUID] = field(default_factory=dict)
    runs: dict[str, FlowRun] = field(default_factory=dict)
    begun: float = 0
    sqs: Any = None
    queues: dict[str, str] = field(default_factory=dict)

    def post(self, event: str, resource: dict[str, str], **more: Any) -> None:
        """Put an event in."""
        told = ServersEvent(event=event, resource=resource, **more)
        self.client.request("POST", "/events", json=[told.model_dump(mode="json")])

    def tell(self, event: Event) -> None:
        """Put an event of the pipeline in."""
        self.post(event.name, event.resource, payload=event.model_dump(mode="json"))

    def runs_of(self, deployment: str) -> list[FlowRun]:
        """Return the runs of a deployment, the oldest first."""
        only = FlowRunFilterDeploymentId(any_=[self.deployments[deployment]])
        found = self.client.read_flow_runs(
            flow_run_filter=FlowRunFilter(deployment_id=only), limit=200
        )
        return sorted(found, key=lambda run: run.created or datetime.max.replace(tzinfo=UTC))

    def state_of(self, name: str) -> State:
        """Return the state of a run that was begun."""
        state = self.client.read_flow_run(self.runs[name].id).state
        assert state is not None
        return state

    def alert(self, subject: str) -> Told:
        """Wait for an alert at the web hook."""
        return until(lambda: self.sinks.hook(subject), SOON, subject, self.begun)

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        import psycopg2

        address = self.stack.postgres
        connection = psycopg2.connect(
            host=address.host,
            port=address.port,
            user=address.user,
            password=address.password,
            dbname="warehouse",
        )
        try:
            with connection.cursor() as cursor:
                cursor.execute(sql)
                return cursor.fetchall()
        finally:
            connection.close()


def until(
    what: Callable[[], T | None], seconds: float, named: str, since: float | None = None
) -> T:
    """Return what comes within some seconds of a moment."""
    deadline = (since or time.monotonic()) + seconds
    while True:
        if found := what():
            return found
        assert time.monotonic() < deadline, f"within {seconds} s no {named}"
        time.sleep(0.3)


@pytest.fixture(scope="module")
def scene(servers: EmbeddedStack) -> Iterator[Scene]:
    root = servers.local.parent
    environments = root / "deployments" / "environments"
    for folder in ("datasets", "inbox", "lake5"):
        shutil.rmtree(root / folder, ignore_errors=True)
    for folder in ("datasets", "inbox"):
        (root / folder).mkdir()
    (root / "datasets" / "landed.yaml").write_text(LANDED)
    (root / "datasets" / "follower.yaml").write_text(FOLLOWER)
    for name in ("left", "right"):
        (root / "datasets" / f"{name}.yaml").write_text(THINGS.replace("things", name))
    (root / "datasets" / "both.yaml").write_text(BOTH)
    (root / "inbox" / "a.csv").write_text("id,price\n7,7.00\n")
    dev = (environments / "dev.yaml").read_text()
    made = dev.replace("name: dev\nembedded", f"name: {NAME}\nqueue_block: landing-queue\nembedded")
    (environments / f"{NAME}.yaml").write_text(made)
    settings = {PREFECT_API_URL: servers.prefect_api_url, PREFECT_HOME: root / "prefect"}
    variables = {"DPP_HOME": str(root), "DPP_ENV": NAME}
    with ExitStack() as stack:
        stack.callback((environments / f"{NAME}.yaml").unlink)
        stack.enter_context(mock.patch.dict(os.environ, variables))
        stack.enter_context(temporary_settings(settings))
        client = stack.enter_context(get_client(sync_client=True))
        scene = Scene(client, stack.enter_context(sinks()), servers)
        servers.start_worker(
            "dev", {**FLOW_SETTINGS, "DPP_HOME": str(root), "PYTHONPATH": str(ROOT)}
        )
        aws = stack.enter_context(landing_zone(scene))
        make_blocks(scene, root)
        make_deployments(scene, str(root))
        channels = make_channels(scene)
        for made_of in make_automations(scene, channels):
            stack.callback(client.delete_automation, client.create_automation(made_of))
        begin(scene, aws)
        yield scene
        for deployment in scene.deployments.values():
            client.delete_deployment(deployment)


class landing_zone:  # noqa: N801 - a context manager
    """A bucket of an S3 server that tells a queue what lands in it."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)

    def __enter__(self) -> AwsCredentials:
        self._server.start()
        host, port = self._server.get_host_and_port()
        aws = AwsCredentials(
            aws_access_key_id="test",
            aws_secret_access_key=SecretStr("only-for-tests"),
            region_name="us-east-1",
            aws_client_parameters=AwsClientParameters(endpoint_url=f"http://{host}:{port}"),
        )
        sqs, s3 = aws.get_client("sqs"), aws.get_s3_client()
        url = sqs.create_queue(QueueName="landing")["QueueUrl"]
        arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
        s3.create_bucket(Bucket=BUCKET)
        told = {"QueueArn": arn["Attributes"]["QueueArn"], "Events": ["s3:ObjectCreated:*"]}
        s3.put_bucket_notification_configuration(
            Bucket=BUCKET, NotificationConfiguration={"QueueConfigurations": [told]}
        )
        S3Bucket(bucket_name=BUCKET, credentials=aws).save("landing", overwrite=True)
        LandingQueue(url=url, credentials=aws).save("landing-queue", overwrite=True)
        self._scene.sqs = sqs
        for name, seconds in (("refused", "1"), ("stopped", "60")):
            made = sqs.create_queue(QueueName=name, Attributes={"VisibilityTimeout": seconds})
            self._scene.queues[name] = made["QueueUrl"]
            LandingQueue(url=made["QueueUrl"], credentials=aws).save(name, overwrite=True)
        return aws

    def __exit__(self, *_: object) -> None:
        self._server.stop()


def make_blocks(scene: Scene, root: Any) -> None:
    address = scene.stack.postgres
    WarehouseCredentials(
        host=address.host,
        port=address.port,
        database="warehouse",
        username=address.user,
        password=SecretStr(address.password),
    ).save("warehouse", overwrite=True)
    LakeStorage(uri=f"file://{root}/lake5").save("lake", overwrite=True)


def make_channels(scene: Scene) -> dict[str, UUID]:
    """Make the blocks that alerts go to: what is not Slack's is handed to apprise as it is."""
    host = "127.0.0.1"
    mail = "from=etl@example.org&to=team@example.org&mode=insecure&format=text"
    urls = {
        "auto-hook": f"json://{host}:{scene.sinks.hook_port}/",
        "auto-mail": f"mailto://{host}:{scene.sinks.mail_port}?{mail}",
    }
    return {
        f"slack-webhook/{name}": SlackWebhook(url=SecretStr(url)).save(name, overwrite=True)
        for name, url in urls.items()
    }


def make_deployments(scene: Scene, root: str) -> None:
    """Make deployments: some that a worker runs, some whose runs nobody takes."""
    client = scene.client
    for pool in ("dev", "auto-nobody"):
        client.create_work_pool(WorkPoolCreate(name=pool, type="process"), overwrite=True)

    def deploy(name: str, flow: str, pool: str, **more: Any) -> None:
        scene.deployments[name] = client.create_deployment(
            flow_id=client.create_flow_from_name(flow),
            name=f"auto-{name}",
            entrypoint=f"flows/{flow}.py:{flow}",
            work_pool_name=pool,
            # Automations go by the tag: a busy machine starts no process within their ten seconds.
            tags=["etl", NAME] if pool == "auto-nobody" else ["etl"],
            pull_steps=[{"prefect.deployments.steps.set_working_directory": {"directory": root}}],
            job_variables={"env": {"DPP_ENV": NAME}},
            **more,
        )

    deploy("dataset", "dataset", "dev")
    deploy("idle", "dataset", "auto-nobody")
    deploy("daily", "daily", "auto-nobody")
    every = DeploymentScheduleCreate(schedule=CronSchedule(cron="* * * * * */5", timezone="UTC"))
    alone = ConcurrencyOptions(collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW)
    deploy(
        "cron", "hourly", "dev", schedules=[every], concurrency_limit=1, concurrency_options=alone
    )


def make_automations(scene: Scene, channels: dict[str, UUID]) -> list[Any]:
    hook, mail = channels
    alerts = Alerts(warning=(hook,), critical=(hook, mail), usual_minutes={"daily": 10 / 60})
    environment = load_environment().model_copy(update={"alerts": alerts})
    ten = timedelta(seconds=10)
    return automations(
        environment,
        {
            f"dataset/dataset-{NAME}": scene.deployments["dataset"],
            f"daily/daily-{NAME}": scene.deployments["daily"],
        },
        channels,
        timing=Timing(ten, ten, ten, once_in=ten, quiet=timedelta(seconds=1)),
        catalog=environment_catalog(environment),
    )


def tell_completed(scene: Scene, dataset: str) -> None:
    """Say that a dataset's run did all that it was asked for."""
    resource = {"prefect.resource.id": f"etl.dataset.{dataset}", "etl.environment": NAME}
    scene.post("etl.run.completed", resource)


@pytest.fixture(scope="module")
def listener(scene: Scene) -> Iterator[subprocess.Popen[bytes]]:
    """A process that listens to a queue of its own, in an environment without automations."""
    variables = {
        "DPP_HOME": str(scene.stack.local.parent),
        "PREFECT_API_URL": scene.stack.prefect_api_url,
        "PREFECT_HOME": str(scene.stack.local.parent / "prefect"),
        "PYTHONPATH": str(ROOT),
        "DPP_ENV": "dev",
        "DPP_QUEUE_BLOCK": "stopped",
    }
    process = subprocess.Popen(
        [sys.executable, "-c", LISTEN],
        env=os.environ | variables,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    yield process
    process.kill()
    process.wait()


def send(scene: Scene, queue: str, key: str) -> None:
    """Send what S3 says of an object that was written."""
    record = {
        "eventName": "ObjectCreated:Put",
        "s3": {"bucket": {"name": BUCKET}, "object": {"key": key, "eTag": key}},
    }
    scene.sqs.send_message(
        QueueUrl=scene.queues[queue], MessageBody=json.dumps({"Records": [record]})
    )


def waiting(scene: Scene, queue: str) -> tuple[int, int]:
    """Return how many messages are in a queue, and how many somebody has taken and not deleted."""
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    found = scene.sqs.get_queue_attributes(QueueUrl=scene.queues[queue], AttributeNames=names)
    there, taken = (int(found["Attributes"][name]) for name in names)
    return there, taken


def told_of(scene: Scene, key: str) -> list[dict[str, Any]]:
    """Return the events of ``dev`` on the server that tell of an object."""
    only = {"event": {"name": ["etl.object.landed"]}, "resource": {"id": ["etl.dataset.landed"]}}
    found = scene.client.request("POST", "/events/filter", json={"filter": only}).json()["events"]
    payloads = [event["payload"] for event in found]
    return [one for one in payloads if one["environment"] == "dev" and one["objects"] == [key]]


def begin(scene: Scene, aws: AwsCredentials) -> None:
    """Let everything happen that is waited for."""
    client, idle = scene.client, scene.deployments["idle"]
    time.sleep(2)  # the server takes notice of new automations
    aws.get_s3_client().put_object(
        Bucket=BUCKET, Key="in/one 1.csv", Body=b"id,price\n1,1.50\n2,-1\n"
    )
    scene.begun = time.monotonic()

    def run(name: str, deployment: UUID, *states: State) -> None:
        run = client.create_flow_run_from_deployment(deployment, name=f"auto {name}")
        scene.runs[name] = run
        for state in states:
            client.set_flow_run_state(run.id, state, force=True)

    run("failed", idle, Running(), Failed(message="orders: the source said no"))
    run("zombie", idle, Running())
    run("pending", idle, Pending())
    run("slow", scene.deployments["daily"], Running())
    past = datetime.now(UTC) - timedelta(minutes=5)
    late = client.create_flow_run_from_deployment(
        idle, name="auto late", state=Scheduled(scheduled_time=past)
    )
    scene.runs["late"] = late
    scene.post(
        "prefect.flow-run.heartbeat",
        {"prefect.resource.id": f"prefect.flow-run.{scene.runs['zombie'].id}"},
        related=[
            {
                "prefect.resource.id": f"prefect.deployment.{idle}",
                "prefect.resource.role": "deployment",
            },
            {"prefect.resource.id": f"prefect.tag.{NAME}", "prefect.resource.role": "tag"},
        ],
    )
    scene.tell(breaker_event(NAME, "api.example.org", "opened"))
    scene.tell(breaker_event("elsewhere", "api.example.com", "opened"))
    change = SchemaChange(column="size", from_type=None, to_type="bigint", kind="column added")
    scene.tell(SchemaChanged(environment=NAME, dataset="orders", load_id=1, changes=(change,)))
    state: Any = listen(ListenParameters(seconds=0), return_state=True)
    assert state.message == "2 messages, 1 objects, 1 events", state  # one is S3's own test message
    later = datetime.now(UTC) + timedelta(hours=1)
    for name, times in (("given back", 3), ("given back twice", 2)):
        states: list[State] = []
        for _ in range(times):
            states += [Running(), AwaitingRetry(scheduled_time=later)]
        run(name, idle, *states)
    tell_completed(scene, "left")


def test_failed_run_is_alerted_of_with_a_link_by_web_hook_and_by_mail(scene: Scene) -> None:
    told = scene.alert("auto-idle failed")
    link = f"{scene.stack.prefect_api_url.removesuffix('/api')}/runs/flow-run/"
    assert told.subject == f"[{NAME}] auto-idle failed"
    assert told.body == (
        f"auto failed: orders: the source said no\n{link}{scene.runs['failed'].id}"
    )
    mail = until(lambda: scene.sinks.mail("auto-idle failed"), SOON, "mail", scene.begun)
    assert mail.to == "team@example.org"
    assert "orders: the source said no" in mail.body
    assert f"{link}{scene.runs['failed'].id}" in mail.body


def test_warnings_are_told_to_their_channel_only_and_of_their_environment_only(
    scene: Scene,
) -> None:
    assert "failed again and again" in scene.alert("api.example.org is left alone").body
    assert "column added: size bigint" in scene.alert("orders: the table was altered").body
    assert scene.sinks.mail("api.example.org") is None
    assert scene.sinks.hook("api.example.com") is None


def test_object_that_lands_is_loaded_and_the_dataset_after_it_runs(scene: Scene) -> None:
    """From S3 to the warehouse: notification, event, run of this object, its end, the next run."""
    first = until(lambda: scene.runs_of("dataset"), SOON, "run for the object", scene.begun)[0]
    assert first.parameters == {"parameters": {"dataset": "landed", "objects": ["in/one 1.csv"]}}

    def ended() -> State | None:
        state = scene.client.read_flow_run(first.id).state
        return state if state is not None and state.is_final() else None

    state = until(ended, PROCESS, "end of the run")
    assert state.is_completed() and "1 inserted" in str(state.message), state
    assert scene.query("SELECT id FROM analytics.landed") == [(1,)]
    told = until(lambda: scene.sinks.hook("landed: many rows refused"), SOON, "alert")
    assert "1 of 2 rows of in/one 1.csv were refused" in told.body
    assert f"/runs/flow-run/{first.id}" in told.body
    runs = until(lambda: scene.runs_of("dataset")[1:], SOON, "run of the dataset after it")
    assert [run.parameters for run in runs] == [{"parameters": {"dataset": "follower"}}]


def test_run_without_a_sign_of_life_is_marked_as_crashed_and_alerted_of(scene: Scene) -> None:
    told = scene.alert("auto-idle crashed")
    state = scene.state_of("zombie")
    assert state.type is StateType.CRASHED
    assert str(state.message).startswith("No sign of life for 10 seconds")
    assert "auto zombie: No sign of life" in told.body


def test_run_whose_process_does_not_begin_is_cancelled_and_alerted_of(scene: Scene) -> None:
    assert "auto pending waited for its process for 10 seconds" in scene.alert("did not begin").body
    state = scene.state_of("pending")
    if (
        state.type is StateType.CANCELLING
    ):  # what comes of it when nobody answers: test_kubernetes.py
        assert str(state.message).startswith("Cancelled by Automation"), state
    else:
        assert (state.type, state.name) == (StateType.CANCELLED, "Cancelled"), state


def test_late_run_and_slow_run_are_alerted_of(scene: Scene) -> None:
    assert "auto late is past its time" in scene.alert("auto-idle is late").body
    told = scene.alert("auto-daily takes longer than usual")
    assert "auto slow has been running for more than 10 seconds" in told.body
    assert scene.state_of("slow").type is StateType.RUNNING


def test_cron_schedule_fires(scene: Scene) -> None:
    """Every five seconds; the runs of the schedule that a worker took are done."""

    def done() -> list[FlowRun]:
        return [run for run in scene.runs_of("cron") if run.state and run.state.is_completed()]

    first = until(done, PROCESS, "run by the schedule")[0]
    assert first.auto_scheduled
    assert "no dataset has this schedule" in str(first.state.message if first.state else "")
    times = sorted(
        run.expected_start_time for run in scene.runs_of("cron") if run.expected_start_time
    )
    assert {(after - before).total_seconds() for before, after in pairwise(times)} == {5}
    scene.client.delete_deployment(scene.deployments.pop("cron"))


def test_run_that_is_given_back_for_the_third_time_is_alerted_of(scene: Scene) -> None:
    """Twice is chance; the run that was given back twice would be told of by the same words."""
    told = scene.alert("auto-idle is started again and again")
    assert "auto given back was ended three times before it was done" in told.body


@pytest.mark.usefixtures("listener")  # which begins meanwhile, for the next test
def test_message_stays_in_the_queue_until_the_server_has_accepted_its_event(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against a server that refuses events, and else is the real one."""
    monkeypatch.setenv("DPP_HOME", str(scene.stack.local.parent))
    monkeypatch.setattr(queue_module, "GATHER_SECONDS", 0)
    send(scene, "refused", "in/refused.csv")
    environment = load_environment("dev").model_copy(update={"queue_block": "refused"})
    real = scene.stack.prefect_api_url.removesuffix("/api")

    def answer(asked: Asked, _number: int) -> Reply:
        if asked.path == "/api/events":
            return Reply(500)
        passed = httpx.request(
            asked.method,
            real + asked.target,
            content=asked.body,
            headers={"Content-Type": "application/json"},
        )
        return Reply(passed.status_code, passed.content)

    with misbehaving_server() as server:
        server.answer = answer
        with (
            temporary_settings({PREFECT_API_URL: f"{server.url}/api"}),
            pytest.raises(SourceUnavailable, match="did not accept events"),
        ):
            hear.fn(environment, 0)
        assert "/api/events" in [asked.path for asked in server.asked]
    assert sum(waiting(scene, "refused")) == 1
    assert told_of(scene, "in/refused.csv") == []
    heard = hear.fn(environment, 2)
    assert (heard.messages, heard.events, heard.failures) == (1, 1, 0)
    assert waiting(scene, "refused") == (0, 0)
    assert len(until(lambda: told_of(scene, "in/refused.csv"), SOON, "event")) == 1


def test_listener_that_is_told_to_end_passes_on_what_it_has_taken(
    scene: Scene, listener: subprocess.Popen[bytes]
) -> None:
    send(scene, "stopped", "in/stopped.csv")
    until(lambda: waiting(scene, "stopped")[0] == 0, PROCESS, "message that was taken")
    listener.send_signal(signal.SIGTERM)
    assert listener.wait(STOPS_WITHIN) == -signal.SIGTERM
    assert waiting(scene, "stopped") == (0, 0)
    assert len(until(lambda: told_of(scene, "in/stopped.csv"), SOON, "event")) == 1


def test_dataset_after_two_others_runs_once_when_both_have_completed(scene: Scene) -> None:
    def runs() -> list[FlowRun]:
        wanted = {"parameters": {"dataset": "both"}}
        return [run for run in scene.runs_of("dataset") if run.parameters == wanted]

    assert runs() == []  # one of them has completed since all began
    tell_completed(scene, "right")
    assert len(until(runs, SOON, "run after both")) == 1


def test_nothing_else_was_alerted_of(scene: Scene) -> None:
    subjects = sorted(told.subject for told in scene.sinks.hooks)
    assert len(subjects) == len(set(subjects)), subjects
    assert [told.subject for told in scene.sinks.mails if "refused" in told.subject] == []
