"""SIGTERM: a run stops at the next boundary, leaves nothing open, and the next run goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import psycopg2
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL

from flows.dataset import DatasetParameters, dataset
from tests.e2e.conftest import ROOT, Project

PARTITIONS = 80
ROWS = 150
SECONDS = 60
STOPS_WITHIN = 20
HERE: list[int] = []
RUN = """\
from flows.dataset import DatasetParameters, dataset
dataset(DatasetParameters(dataset="things"))
"""


def start(server: Project, **variables: str) -> subprocess.Popen[str]:
    environment = os.environ | {
        "PREFECT_API_URL": str(PREFECT_API_URL.value()),
        "PREFECT_HOME": str(server.root / "prefect"),
        "DPP_HOME": str(server.root),
        "DPP_PARTITION_BYTES": "1024",
        "PYTHONPATH": str(ROOT),
    }
    return subprocess.Popen(
        [sys.executable, "-c", RUN],
        cwd=server.root,
        env=environment | variables,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(what: Callable[[], Any]) -> None:
    deadline = time.monotonic() + SECONDS
    while not what():
        assert time.monotonic() < deadline, "it does not come to that"
        time.sleep(0.05)


def terminate(process: subprocess.Popen[str]) -> str:
    """Send SIGTERM, see that the process ends by it in time, and return what it logged."""
    process.send_signal(signal.SIGTERM)
    _, logged = process.communicate(timeout=STOPS_WITHIN)
    assert process.returncode == -signal.SIGTERM, logged
    return logged


def last_state() -> tuple[str, str]:
    with get_client(sync_client=True) as client:
        (run,) = client.read_flow_runs(sort="EXPECTED_START_TIME_DESC", limit=1)
    assert run.state
    return run.state.name, str(run.state.message)


def loads(server: Project) -> int:
    there = server.query("SELECT to_regclass('etl.loads') IS NOT NULL")[0][0]
    return int(server.query("SELECT count(*) FROM etl.loads")[0][0]) if there else 0


def sessions(server: Project, also: str = "") -> list[tuple[Any, ...]]:
    """Return the sessions of runs; this process keeps idle ones of runs that were here."""
    return server.query(
        "SELECT pid, query FROM pg_stat_activity WHERE datname = 'warehouse' AND pid <> "
        f"pg_backend_pid() AND application_name LIKE 'etl%' AND pid <> ALL (ARRAY{HERE}::int[]) {also}"
    )


def test_terminated_run_stops_at_a_boundary_and_the_next_one_goes_on(server: Project) -> None:
    """One that is loading, and one that waits for a lock that somebody holds."""
    HERE[:] = [pid for pid, _ in sessions(server)]
    for number in range(PARTITIONS):
        rows = "".join(f"{number * ROWS + row},{row}.50\n" for row in range(ROWS))
        (server.root / "inbox" / f"{number:03}.csv").write_text("id,price\n" + rows)
    for name in ("a", "b"):
        (server.root / "inbox" / f"{name}.csv").unlink()

    process = start(server, DPP_CONCURRENCY="1")  # it must not be through before it is told
    wait_for(lambda: loads(server) >= 3 or process.poll() is not None)
    logged = terminate(process)
    done = loads(server)
    assert 3 <= done < PARTITIONS
    assert f'"event": "run.stopped", "dataset": "things", "partitions": {PARTITIONS}' in logged
    assert f'"loaded": {done}' in logged  # those under way reached the boundary
    assert last_state() == ("Crashed", "Execution was aborted by a termination signal.")
    wait_for(lambda: not sessions(server))

    address = server.stack.postgres
    holder = psycopg2.connect(
        host=address.host,
        port=address.port,
        user=address.user,
        password=address.password,
        dbname="warehouse",
    )
    with holder, holder.cursor() as cursor:
        cursor.execute("LOCK TABLE analytics.things IN SHARE MODE")
        process = start(server, DPP_STOP_SECONDS="1")
        wait_for(lambda: sessions(server, "AND wait_event_type = 'Lock'") or process.poll())
        terminate(process)
        assert last_state()[0] == "Crashed"
        assert loads(server) == done
        assert not sessions(server, "AND state <> 'idle'")
        wait_for(lambda: not sessions(server))
    holder.close()

    state: Any = dataset(DatasetParameters(dataset="things"), return_state=True)
    assert state.is_completed(), state
    assert server.query("SELECT count(*), count(DISTINCT id) FROM analytics.things") == [
        (PARTITIONS * ROWS, PARTITIONS * ROWS)
    ]
