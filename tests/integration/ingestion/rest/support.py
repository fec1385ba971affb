"""A misbehaving API, a block that reaches it, and a clock that only moves when somebody waits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import SecretStr

from blocks.api_client import ApiClient
from blocks.egress import Resolve, resolve
from blocks.rest_api import RestApiCredentials
from tasks.ingestion.connector import PlanLimits, Reject
from tasks.ingestion.connectors.rest import RestConnector
from tasks.ingestion.http.guard import BreakerChange, HostGuard
from tasks.ingestion.http.host_stores import HostStore, MemoryHosts
from tasks.ingestion.http.hosts import Policy
from tasks.model.request import SourceState
from tasks.model.rest_source import RestSource
from tests.misbehaving_http import MisbehavingServer, misbehaving_server

NOW = datetime(2013, 2, 15, 12, tzinfo=UTC)
CANARY = "CANARY-hunter2/=&"


NOTHING_KNOWN = SourceState()


class Api(MisbehavingServer):
    """A server, and what reads it; waits take no time, and are kept."""

    def __init__(self, server: MisbehavingServer, stack: ExitStack) -> None:
        self.server = server
        self.url, self.host, self.port = server.url, server.host, server.port
        self.asked = server.asked
        self.slept: list[float] = []
        self.passed = 0.0
        self.events: list[BreakerChange] = []
        self.store: HostStore = MemoryHosts(lambda: self.passed)
        self.policy = Policy()
        self.rejects: list[Reject] = []
        self._stack = stack

    @property
    def answer(self) -> Any:
        return self.server.answer

    @answer.setter
    def answer(self, answering: Any) -> None:
        self.server.answer = answering

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.passed += seconds

    def now(self) -> datetime:
        return NOW + timedelta(seconds=self.passed)

    def client(self, resolve: Resolve = resolve, **block: Any) -> ApiClient:
        declared = {"base_url": self.url, "allow_private": True, "timeout": 2, **block}
        if "secret" in declared:
            declared["secret"] = SecretStr(declared["secret"])
        return self._stack.enter_context(RestApiCredentials(**declared).get_client(resolve))

    def connector(self, client: ApiClient | None = None, **source: Any) -> RestConnector:
        declared = RestSource.model_validate(
            {"kind": "rest", "block": "b", "path": "/things", "records": "data", **source}
        )
        guard = HostGuard(self.store, self.events.append, self.policy, self.sleep)
        return RestConnector(
            "things",
            declared,
            client or self.client(),
            PlanLimits(),
            guard,
            now=self.now,
            sleep=self.sleep,
        )

    def read(
        self, connector: RestConnector, state: SourceState = NOTHING_KNOWN
    ) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        for partition in connector.plan(state):
            for raw in connector.read(partition):
                rows += raw.batch.to_pylist() if raw.batch is not None else []
                self.rejects += raw.rejects
        return rows

    def ids(self, connector: RestConnector) -> list[str]:
        return [row["id"] for row in self.read(connector)]


@pytest.fixture
def api() -> Iterator[Api]:
    """An API that a test lets misbehave."""
    with ExitStack() as stack:
        yield Api(stack.enter_context(misbehaving_server()), stack)
