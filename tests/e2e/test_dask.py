"""A run on a Dask cluster: two worker processes take its shards, and it reports for all of them."""

from __future__ import annotations

from typing import Any

import pytest
from distributed import Client, LocalCluster

from flows.dataset import DatasetParameters, dataset
from flows.outcome import report_of
from tasks.model.report import DatasetReport
from tests.e2e.conftest import Project
from tests.e2e.test_fan_out import FILES, ROWS, fill


def run(server: Project) -> tuple[Any, DatasetReport]:
    state: Any = dataset(DatasetParameters(dataset="things"), return_state=True)
    report = report_of(state, DatasetReport)
    return state, report


def test_shards_are_tasks_of_the_cluster(server: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(server)
    monkeypatch.setenv("DPP_PARTITION_BYTES", "1024")
    monkeypatch.setenv("DPP_TASK_RUNNER", "dask")
    _, report = run(server)
    assert "dask_address is not set" in report.failures[0].message
    monkeypatch.setenv("DPP_DASK_ADDRESS", "tcp://127.0.0.1:1")
    monkeypatch.setattr("flows.dask_cluster.CONNECT_SECONDS", 1)
    _, report = run(server)
    assert "no Dask scheduler answers at tcp://127.0.0.1:1" in report.failures[0].message
    with LocalCluster(
        n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None
    ) as cluster:
        monkeypatch.setenv("DPP_DASK_ADDRESS", cluster.scheduler_address)
        state, report = run(server)
        with Client(cluster) as client:
            assert len(client.nthreads()) == 2
    assert state.is_completed(), state
    assert (report.partitions, report.partitions_loaded) == (FILES, FILES)
    assert report.counts.inserted == FILES * ROWS
    assert server.query("SELECT count(*), count(DISTINCT id) FROM analytics.things") == [
        (FILES * ROWS, FILES * ROWS)
    ]
    shards = server.query(
        "SELECT t.name, t.state_name FROM task_run t JOIN flow_run r ON r.id = t.flow_run_id "
        f"WHERE r.name = '{report_run(server)}' AND t.name LIKE 'shard %' ORDER BY 1",
        "prefect",
    )
    assert shards == [(f"shard {number} of 3", "Completed") for number in (1, 2, 3)]


def report_run(server: Project) -> str:
    """Return the name of the run that loaded the partitions: all of them under one name."""
    ((name,),) = server.query("SELECT DISTINCT run FROM etl.loads")
    return str(name)
