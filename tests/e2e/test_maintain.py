"""Retention beside a real Prefect server: old runs go, and no file of a dataset that is being loaded."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
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


def planned(done: Upkeep) -> dict[str, int]:
    return {one.what: one.count for one in done.retained.planned}


def test_what_is_old_goes_but_not_under_a_run(server: Project) -> None:
    (server.root / "inbox" / "b.csv").unlink()
    (server.root / "inbox" / "a.csv").write_text("id,price\n1,1.50\n")
    dataset(DatasetParameters(dataset="things"), return_state=True)
    lake = server.root / "lake4"
    for file in [path for path in lake.rglob("*") if path.is_file()]:
        os.utime(file, (OLD.timestamp(), OLD.timestamp()))
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
        assert (erased(done), planned(done)) == ({}, {"flow runs": runs})  # the first time
        client.set_flow_run_state(under_way.id, Completed(), force=True)
    expected = {"manifests": 2, "raw": 1, "clean": 1}
    shown = keep(dry_run=True)
    assert (shown.tables, erased(shown), planned(shown)) == (
        (),
        {},
        {**expected, "flow runs": runs},
    )
    first = keep()
    assert planned(first) == expected
    assert erased(first) == {"flow runs": runs}  # which were shown before; none that is under way
    assert server.query(OLD_RUNS, "prefect") == [(0,)]
    assert len(list(lake.rglob("*.parquet"))) == expected["raw"] + expected["clean"]
    assert (erased(last := keep()), planned(last)) == (expected, {})
    assert not list(lake.rglob("*.parquet"))
    lines = server.query(
        "SELECT dataset, action, coalesce(details ->> 'of', details #>> '{raw,files}', "
        "details ->> 'flow runs') FROM etl.audit ORDER BY audit_id"
    )
    assert lines == [
        ("*", "plan to erase", "flow runs"),
        ("things", "plan to erase", "files and rows"),
        ("*", "erase flow runs", str(runs)),
        ("things", "erase files", "1"),
    ]
