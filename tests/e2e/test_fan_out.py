"""A run that is split: its shards are found again, a failed one is run again alone, the report is whole."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg2
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import FlowRun
from prefect.flow_engine import run_flow
from prefect.settings import PREFECT_API_URL
from prefect.states import Cancelling, Pending, Scheduled

from flows.dataset import dataset
from flows.outcome import report_of
from tasks.model.report import DatasetReport
from tests.e2e.conftest import ROOT, Project
from tests.e2e.test_worker import FLOW_SETTINGS

FILES, ROWS = 6, 100
STOPS_WITHIN = 20
SECONDS = 240  # each shard starts three interpreters; a busy machine takes its time
PARENT = """\
import sys
from uuid import UUID
from prefect.client.orchestration import get_client
from prefect.flow_engine import run_flow
from flows.dataset import dataset
with get_client(sync_client=True) as client:
    run = client.read_flow_run(UUID(sys.argv[1]))
run_flow(dataset, flow_run=run, parameters=run.parameters)
"""
TURN = "hashtextextended('etl:analytics.things', 0)"


def fill(server: Project) -> None:
    """Write six files, each of which is a partition with a row that is refused."""
    for name in ("a", "b"):
        (server.root / "inbox" / f"{name}.csv").unlink()
    for number in range(FILES):
        rows = "".join(f"{number * ROWS + row},{row}.50\n" for row in range(ROWS))
        (server.root / "inbox" / f"{number:03}.csv").write_text("id,price\n" + rows + "-1,x\n")


def split_on(server: Project, monkeypatch: pytest.MonkeyPatch, pool: str) -> None:
    """Make six partitions, two of which make a shard, and a deployment of shards on a work pool."""
    fill(server)
    variables = {"DPP_PARTITION_BYTES": "1024", "DPP_SHARD_ABOVE": "2", "DPP_MAX_PARALLEL": "2"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name=pool, type="process"), overwrite=True)
        client.create_deployment(
            client.create_flow_from_name("shard"),
            "shard-dev",
            entrypoint="flows/shard.py:shard",
            work_pool_name=pool,
            pull_steps=[
                {"prefect.deployments.steps.set_working_directory": {"directory": str(server.root)}}
            ],
        )


@pytest.fixture
def sharded(server: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A run that is split, and a worker for its shards."""
    split_on(server, monkeypatch, "dev")
    server.stack.start_worker(
        "dev", {**FLOW_SETTINGS, "DPP_HOME": str(server.root), "PYTHONPATH": str(ROOT)}
    )
    return server


@pytest.fixture
def unattended(server: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A run that is split, and nobody for its shards."""
    server.query(
        "DELETE FROM flow_run WHERE flow_id IN (SELECT id FROM flow WHERE name = 'shard'); "
        "COMMIT; SELECT 1",
        "prefect",
    )
    split_on(server, monkeypatch, "nobody")
    return server


def new_run() -> FlowRun:
    with get_client(sync_client=True) as client:
        parameters = {"parameters": {"dataset": "things"}}
        return client.create_flow_run(dataset, parameters=parameters, state=Pending())


def started(server: Project, run_id: UUID) -> subprocess.Popen[bytes]:
    """Start a run in a process of its own."""
    variables = {
        "PREFECT_API_URL": str(PREFECT_API_URL.value()),
        "PREFECT_HOME": str(server.root / "prefect"),
        "PYTHONPATH": str(ROOT),
    }
    return subprocess.Popen(
        [sys.executable, "-c", PARENT, str(run_id)],
        env=os.environ | variables,
        stderr=subprocess.DEVNULL,
    )


def go_on(run_id: UUID) -> Any:
    """Start a run again, here, as a worker does."""
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(run_id, Scheduled(), force=True)
        run = client.read_flow_run(run_id)
    return run_flow(dataset, flow_run=run, parameters=run.parameters, return_type="state")


def shard_runs(server: Project) -> list[tuple[str, str, str, str]]:
    """Return id, name, state and message of the shards that were started since the test began."""
    return server.query(
        "SELECT r.id::text, r.name, r.state_name, s.message FROM flow_run r JOIN flow_run_state s ON s.id = r.state_id JOIN flow f ON f.id = r.flow_id "
        "WHERE f.name = 'shard' ORDER BY r.name",
        "prefect",
    )


def wait_for(server: Project, what: Callable[[], Any]) -> None:
    deadline = time.monotonic() + SECONDS
    while not what():
        assert time.monotonic() < deadline, shard_runs(server)
        time.sleep(0.1)


def process_of(run_id: str) -> int:
    """Return the process in which a flow run of the worker executes: its engine's."""
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            command = (folder / "cmdline").read_bytes().decode()
            environment = (folder / "environ").read_bytes().decode()
        except OSError:
            continue
        if "engine" in command and f"PREFECT__FLOW_RUN_ID={run_id}" in environment:
            return int(folder.name)
    raise AssertionError("no process of that run")


@pytest.mark.timeout(600)
def test_killed_run_finds_its_shards_and_a_killed_shard_is_run_again_alone(
    sharded: Project,
) -> None:
    run = new_run()
    address = sharded.stack.postgres
    holder = psycopg2.connect(
        host=address.host,
        port=address.port,
        user=address.user,
        password=address.password,
        dbname="warehouse",
    )
    with holder, holder.cursor() as cursor:
        cursor.execute(f"SELECT pg_advisory_xact_lock({TURN})")  # nobody publishes
        parent = started(sharded, run.id)
        waiting = (
            "SELECT count(DISTINCT application_name) FROM pg_stat_activity "
            "WHERE datname = 'warehouse' AND wait_event = 'advisory'"
        )
        try:
            wait_for(sharded, lambda: sharded.query(waiting) != [(0,)])
        finally:
            parent.kill()
        parent.wait()
        begun = shard_runs(sharded)
        assert [one[1] for one in begun] == ["things shard 1 of 3", "things shard 2 of 3"], begun
        killed = next(one for one in begun if one[2] == "Running")
        os.kill(process_of(killed[0]), signal.SIGKILL)
        wait_for(sharded, lambda: "Crashed" in {one[2] for one in shard_runs(sharded)})
    holder.close()

    state = go_on(run.id)
    report = report_of(state, DatasetReport)
    assert state.is_completed(), state
    assert (report.partitions, report.partitions_loaded, report.partitions_failed) == (
        FILES,
        FILES,
        0,
    )
    assert (report.counts.read, report.counts.inserted) == (FILES * (ROWS + 1), FILES * ROWS)
    assert [(reason.rule, reason.rows) for reason in report.reasons] == [("type", FILES)]
    assert sorted(one[1] for one in shard_runs(sharded)) == sorted(
        [*(f"things shard {number} of 3" for number in (1, 2, 3)), f"{killed[1]}, attempt 2"]
    )
    assert sharded.query("SELECT fence FROM etl.datasets") == [(1,)]  # it took nothing over
    assert sharded.query("SELECT count(*), count(DISTINCT id) FROM analytics.things") == [
        (FILES * ROWS, FILES * ROWS)
    ]


@pytest.mark.timeout(600)
def test_shards_that_nobody_takes_are_cancelled_and_the_run_says_so(
    unattended: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DPP_SHARD_START_SECONDS", "2")
    state = go_on(new_run().id)
    report = report_of(state, DatasetReport)
    assert state.is_failed(), state
    assert [failure.message.split(";")[0] for failure in report.failures] == [
        "shard 1 of 3 did not start within 2 s",
        "shard 2 of 3 did not start within 2 s",
        "shard 3 of 3 was not started, since those before it did not start",
    ]
    assert "is there a worker for work pool 'dev'" in str(state.message)
    assert [one[1:] for one in shard_runs(unattended)] == [
        (f"things shard {number} of 3", "Cancelled", "it did not start in time")
        for number in (1, 2)
    ]
    assert unattended.query("SELECT count(*) FROM etl.loads") == [(0,)]


@pytest.mark.timeout(600)
def test_shards_of_a_run_that_is_cancelled_are_cancelled(unattended: Project) -> None:
    run = new_run()
    parent = started(unattended, run.id)
    wait_for(unattended, lambda: len(shard_runs(unattended)) == 2)
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(run.id, Cancelling(), force=True)
    parent.send_signal(signal.SIGTERM)  # as the worker does then
    assert parent.wait(STOPS_WITHIN) == -signal.SIGTERM
    wait_for(unattended, lambda: {one[2] for one in shard_runs(unattended)} == {"Cancelled"})
    assert len(shard_runs(unattended)) == 2  # and no other was started
