"""A run that is split, without a server: what it keeps of its shards, and how patient it is."""

from __future__ import annotations

import gc
import json
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.client.schemas.responses import DeploymentResponse
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Completed, Scheduled

from flows import fan_out, patience
from flows.fan_out import Fan
from tasks.environments import load_environment
from tasks.model.account import Account
from tasks.model.report import DatasetReport, LoadReceipt, LoadStatus, RowCounts
from tasks.model.shard import FanOut
from tests.misbehaving_http import Asked, MisbehavingServer, Reply, misbehaving_server

FLOW = uuid4()
DONE = Completed()


@dataclass(slots=True)
class FakeRun:
    """Stands for a flow run, which Prefect makes a slow model of."""

    id: UUID
    state: State = DONE


class FakeClient:
    """Stands for Prefect's client: each shard is done as soon as it is asked about."""

    def __init__(self) -> None:
        self.started = 0
        self.on_start: Callable[[], None] = lambda: None

    def run_deployment(self, *_: object, **__: object) -> FakeRun:
        self.started += 1
        self.on_start()
        return FakeRun(uuid4())

    def read_flow_runs(self, flow_run_filter: Any, limit: int) -> list[FakeRun]:
        if flow_run_filter.id is None:  # by its idempotency key: none was started before
            return []
        assert len(flow_run_filter.id.any_) == limit
        return [FakeRun(one) for one in flow_run_filter.id.any_]


def report_of_shard(*_: object) -> DatasetReport:
    account = Account()
    counts = RowCounts(read=7, inserted=7)
    account.add(
        LoadReceipt(
            dataset="d",
            fingerprint="f",
            load_id=1,
            status=LoadStatus.LOADED,
            counts=counts,
            reasons=(),
            seconds=1,
        )
    )
    return account.report("d", "a.d", 1, None, 1)


def fan(shards: tuple[str, ...], run_id: str = "r") -> Fan:
    whole = FanOut(fence=1, config_hash="c", partitions=len(shards), shards=shards)
    return Fan(load_environment("dev"), "d", run_id, whole, 4, Account())


@pytest.fixture
def fake_client(monkeypatch: pytest.MonkeyPatch) -> FakeClient:
    fake = FakeClient()

    @contextmanager
    def client(**_: object) -> Iterator[FakeClient]:
        yield fake

    bar = SimpleNamespace(advance=lambda: None)
    monkeypatch.setattr(fan_out, "get_client", client)
    monkeypatch.setattr(fan_out, "run_deployment", fake.run_deployment)
    monkeypatch.setattr(fan_out, "shard_report", report_of_shard)
    monkeypatch.setattr(fan_out, "ProgressArtifact", lambda *_: bar)
    monkeypatch.setattr(fan_out, "POLL_SECONDS", 0)
    return fake


def test_memory_of_the_run_does_not_grow_with_the_number_of_shards(
    fake_client: FakeClient,
) -> None:
    """Beyond the keys of the work, which it is handed, and of which it makes no other list."""

    def held(count: int) -> int:
        """Return the most that was held at one of eight moments, garbage apart."""
        whole = fan(tuple(f"shards/d/{number:064}.json" for number in range(count)))
        before, most = fake_client.started, 0

        def look() -> None:
            nonlocal most
            if (fake_client.started - before) % (count // 8) == 0:
                gc.collect()
                most = max(most, tracemalloc.get_traced_memory()[0])

        fake_client.on_start = look
        tracemalloc.start()
        try:
            whole.run()
        finally:
            tracemalloc.stop()
        assert whole.account.report("d", "a.d", count, None, 1).counts.read == 7 * count
        return most

    gc.freeze()  # what the other tests of this process have left is not looked through again
    try:
        held(24)  # what is made once in a process
        few, many = held(100), held(2000)
    finally:
        gc.unfreeze()
    assert fake_client.started == 24 + 100 + 2000
    assert many - few < 40_000, (few, many)  # a list of 2,000 shards needs 200,000


class Prefect:
    """Answers as Prefect's server does, after it was away for some requests."""

    def __init__(self, server: MisbehavingServer, *, away: int) -> None:
        self.made: list[FlowRun] = []
        self.away = away
        self.loses_answer = True
        server.answer = self.answer

    def answer(self, asked: Asked, _number: int) -> Reply:
        if self.away:
            self.away -= 1
            return Reply(500)
        if asked.path.endswith("/flow_runs/filter"):
            return self._reply([run.model_dump(mode="json") for run in self.made])
        if "/deployments/name/shard/shard-dev" in asked.path:
            return self._reply(
                DeploymentResponse(id=uuid4(), name="shard-dev", flow_id=FLOW).model_dump(
                    mode="json"
                )
            )
        if asked.path.endswith("/create_flow_run"):
            key = json.loads(asked.body)["idempotency_key"]
            self.made.append(FlowRun(flow_id=FLOW, idempotency_key=key, state=Scheduled()))
            if self.loses_answer:
                return Reply(500)
            return self._reply(self.made[-1].model_dump(mode="json"))
        return Reply(404, b"{}")

    @staticmethod
    def _reply(content: object) -> Reply:
        return Reply(200, json.dumps(content).encode())


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[MisbehavingServer]:
    monkeypatch.setattr(patience, "PAUSE_SECONDS", 0)
    with (
        misbehaving_server() as server,
        temporary_settings({PREFECT_API_URL: f"{server.url}/api"}),
    ):
        yield server


def start(whole: Fan) -> list[UUID]:
    with get_client(sync_client=True) as client:
        whole._start(client)
    return list(whole.started)


def test_server_that_is_away_while_a_shard_is_started_is_waited_for(
    server: MisbehavingServer,
) -> None:
    """It made the run, died, and did not tell: the run is found by its key, and made once."""
    prefect = Prefect(server, away=5)
    assert start(fan(("shards/d/one.json",), "run-1")) == [run.id for run in prefect.made]
    assert [run.idempotency_key for run in prefect.made] == ["run-1/one.json/1"]


def test_server_that_stays_away_ends_the_run_at_last(
    server: MisbehavingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "ATTEMPTS", 3)
    prefect = Prefect(server, away=10**6)
    with pytest.raises(httpx.HTTPStatusError, match="500"):
        start(fan(("shards/d/one.json",)))
    assert 10**6 - prefect.away == 3


def test_refusal_and_stop_are_not_waited_out(
    server: MisbehavingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answer = lambda _asked, _number: Reply(403, b"{}")
    with pytest.raises(httpx.HTTPStatusError, match="403"):
        start(fan(("shards/d/one.json",)))
    monkeypatch.setattr(patience, "stop_asked", lambda: True)
    server.answer = lambda _asked, _number: Reply(500)
    asked = len(server.asked)
    with pytest.raises(httpx.HTTPStatusError, match="500"):
        start(fan(("shards/d/one.json",)))
    assert len(server.asked) == asked + 1
