"""Retention beside a real Prefect server: old runs go, and no file of a dataset that is being loaded."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from prefect.client.orchestration import get_client
from prefect.states import Cancelling, Completed, Running

from flows.dataset import DatasetParameters, dataset
from flows.maintain import MaintainParameters, Upkeep, maintain
from flows.outcome import report_of
from tasks.retention.retain import run_under_way
from tests.e2e.conftest import Project

OLD = datetime.now(UTC) - timedelta(days=100)
OLD_RUNS = "SELECT count(*) FROM flow_run WHERE end_time < now() - interval '90 days'"


def keep(**asked: Any) -> Upkeep:
    state: Any = maintain(MaintainParameters(datasets=["things"], **asked), return_state=True)
    done = report_of(state, Upkeep)
    assert state.is_completed(), state
    return done


def erased(done: Upkeep) -> dict[str, int]:
    return {one.what: one.count for one in done.retained.erased}


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def planned(done: Upkeep) -> dict[str, int]:
    return {one.what: one.count for one in done.retained.planned}


def test_what_is_old_goes_but_not_under_a_run(server: Project) -> None:
    (server.root / "inbox" / "b.csv").unlink()
    (server.root / "inbox" / "a.csv").write_text("id,price\n1,1.50\n")
    dataset(DatasetParameters(dataset="things"), return_state=True)
    lake = server.root / "lake4"
    results = server.root / "prefect" / "storage" / "dpp"
    cached = len(files(results))
    assert cached >= 2  # of ingestion and of transformation
    left = server.root / ".local" / "scratch" / "load-of-a-killed-run"
    left.mkdir(parents=True)
    for path in (*files(lake), *files(results), left):
        os.utime(path, (OLD.timestamp(), OLD.timestamp()))
    server.query("UPDATE etl.loads SET loaded_at = now() - interval '100 days'; COMMIT; SELECT 1")
    server.query(
        "UPDATE flow_run SET end_time = now() - interval '100 days' WHERE end_time IS NOT NULL; "
        "COMMIT; SELECT 1",
        "prefect",
    )
    ((runs,),) = server.query(OLD_RUNS, "prefect")
    assert runs >= 1
    with get_client(sync_client=True) as client:
        parameters = {"parameters": {"dataset": "things"}}
        gone = client.create_flow_run(dataset, parameters=parameters, state=Cancelling())
        server.query(
            "UPDATE flow_run SET start_time = NULL, expected_start_time = now() - interval '8 days' "
            f"WHERE id = '{gone.id}'; COMMIT; SELECT 1",
            "prefect",
        )
        assert run_under_way("things") is None  # its process never began, and never will
        under_way = client.create_flow_run(dataset, parameters=parameters, state=Running())
        done = keep()
        assert done.retained.skipped == (f"things: run {under_way.name} is under way",)
        assert [table.table for table in done.tables] == ["analytics.things"]
        assert erased(done) == {"folders of intermediate files": 1}
        shared = {"cached results": cached, "flow runs": runs}
        assert planned(done) == shared  # the first time
        client.set_flow_run_state(under_way.id, Completed(), force=True)
    expected = {"manifests": 2, "raw": 1, "clean": 1}
    shown = keep(dry_run=True)
    assert (shown.tables, erased(shown), planned(shown)) == ((), {}, {**expected, **shared})
    first = keep()
    assert planned(first) == expected
    assert erased(first) == shared  # which were shown before; no run that is under way
    assert not files(results)
    assert server.query(OLD_RUNS, "prefect") == [(0,)]
    assert len(list(lake.rglob("*.parquet"))) == expected["raw"] + expected["clean"]
    assert (erased(last := keep()), planned(last)) == (expected, {})
    assert not list(lake.rglob("*.parquet"))
    lines = server.query(
        "SELECT dataset, action, details ->> 'of', details #>> '{raw,files}', "
        "details ->> 'flow runs', details #>> '{cached results,files}', "
        "details ->> 'folders of intermediate files' FROM etl.audit ORDER BY audit_id"
    )
    assert [tuple(each for each in line if each is not None) for line in lines] == [
        ("*", "erase what is left behind", "1"),
        ("*", "plan to erase", "what is shared"),
        ("*", "plan to erase", "flow runs"),
        ("things", "plan to erase", "files and rows"),
        ("*", "erase what is shared", str(cached)),
        ("*", "erase flow runs", str(runs)),
        ("things", "erase files", "1"),
    ]
