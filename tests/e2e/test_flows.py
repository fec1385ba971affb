"""The flows on a real Prefect server: one failure does not stop the rest, and no work is done twice."""

from __future__ import annotations

import shutil
import time
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from pydantic import SecretStr

from blocks.content import save_if_changed
from blocks.warehouse import WarehouseCredentials
from flows.daily import daily
from flows.dataset import DatasetParameters, dataset
from flows.hourly import hourly
from flows.outcome import report_of
from flows.schedule import ScheduleParameters
from tasks.model.report import DatasetReport, Outcome, RunReport
from tasks.reporting import progress
from tests.e2e.conftest import THINGS, Project


def run(name: str) -> DatasetReport:
    state: Any = dataset(DatasetParameters(dataset=name), return_state=True)
    report = report_of(state, DatasetReport)
    assert state.is_completed() == (report.outcome is Outcome.SUCCEEDED)
    return report


def stage_states() -> tuple[str, ...]:
    """Return the states of the stages in the run that was made last; the server knows in a second."""
    stages = ("ingest", "transform", "load")
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(sort="EXPECTED_START_TIME_DESC", limit=1)
        only = FlowRunFilter(id=FlowRunFilterId(any_=[runs[0].id]))
        deadline = time.monotonic() + 10
        while True:
            tasks = {
                run.name.split(" ")[0]: run for run in client.read_task_runs(flow_run_filter=only)
            }
            if all(stage in tasks and tasks[stage].state.is_final() for stage in stages):
                return tuple(str(tasks[stage].state_name) for stage in stages)
            assert time.monotonic() < deadline, tasks
            time.sleep(0.2)


def test_one_failing_dataset_stops_only_those_that_look_it_up(server: Project) -> None:
    scheduled = THINGS.replace("source:", "schedule: daily\nsource:")
    server.dataset("things", scheduled)
    broken = scheduled.replace("things", "broken").replace(
        "load:", "quality: {gates: [{quarantine_rate: 0.1}]}\nload:"
    )
    server.dataset("broken", broken)
    user = scheduled.replace("things", "user").replace(
        "load:", "enrich: [{lookup: broken, by: [id], take: {other: price}}]\nload:"
    )
    server.dataset("user", user)
    server.dataset("other", THINGS.replace("things", "other"))  # of no schedule
    state: Any = daily(return_state=True)
    report = report_of(state, RunReport)
    outcomes = {entry.dataset: str(entry.outcome) for entry in report.datasets}
    assert outcomes == {"things": "succeeded", "broken": "failed", "user": "skipped"}
    assert state.is_failed()
    assert state.message == "succeeded: things; failed: broken; skipped: user"
    (failure,) = report.failures
    assert failure.error == "GateFailed"
    assert "quarantine_rate: 40.0% of 5 rows, allowed 10.0%" in failure.message
    assert server.query("SELECT to_regclass('analytics.broken')") == [(None,)]
    assert server.query("SELECT count(*) FROM analytics.things") == [(2,)]


def test_block_is_saved_when_it_differs_only(server: Project) -> None:
    def changed() -> Any:
        (row,) = server.query(
            "SELECT updated FROM block_document WHERE name = 'warehouse'", "prefect"
        )
        return row[0]

    block = WarehouseCredentials.load("warehouse")
    before = changed()
    assert not save_if_changed(block, "warehouse")
    assert changed() == before
    other = block.model_copy(update={"password": SecretStr("another")})
    assert save_if_changed(other, "warehouse")
    assert changed() > before
    stored = WarehouseCredentials.load("warehouse").password.get_secret_value()
    assert stored == "another"
    assert save_if_changed(block, "of-another-name")


def test_schedule_without_datasets_is_done_at_once(server: Project) -> None:
    state: Any = hourly(ScheduleParameters(), return_state=True)
    assert (state.is_completed(), state.message) == (True, "no dataset has this schedule")


def test_work_that_was_done_is_not_done_again_unless_its_files_are_gone(server: Project) -> None:
    """A run that failed while loading goes on there; what the lake lost is made anew."""
    server.query(
        "CREATE SCHEMA analytics; CREATE TABLE analytics.things (id text); COMMIT; SELECT 1"
    )
    report = run("things")
    assert report.failures[0].stage == "loading"
    assert "column id is text, the dataset says bigint" in report.failures[0].message
    assert stage_states() == ("Completed", "Completed", "Failed")
    run("things")
    assert stage_states() == ("Cached", "Cached", "Failed")
    shutil.rmtree(server.root / "lake4" / "clean")
    server.query("DROP TABLE analytics.things; COMMIT; SELECT 1")
    report = run("things")
    assert (report.outcome, report.counts.inserted) == (Outcome.SUCCEEDED, 2)
    assert stage_states() == ("Cached", "Completed", "Completed")
    assert run("things").partitions == 0


def test_progress_is_told_to_whoever_listens(server: Project) -> None:
    heard: list[tuple[Any, ...]] = []

    class Listener:
        def planned(self, name: str, partitions: int) -> None:
            heard.append((name, partitions))

        def advanced(self, name: str, partitions: int, rows: int) -> None:
            heard.append((name, partitions, rows))

    with progress.listening(Listener()):
        run("things")
    assert heard == [("things", 1), ("things", 1, 5)]


def test_object_that_another_run_loads_meanwhile_is_left_out(server: Project) -> None:
    """One partition of two files: one of them is loaded between plan and load. The other one is too."""
    of_the_other: list[DatasetReport] = []

    class Meanwhile:
        def planned(self, name: str, partitions: int) -> None:
            if not of_the_other and partitions:
                of_the_other.append(DatasetReport(dataset=name, table="", outcome=Outcome.SKIPPED))
                parameters = DatasetParameters(dataset=name, objects=["inbox/a.csv"])
                state: Any = dataset(parameters, return_state=True)
                of_the_other[0] = state.result(raise_on_failure=False)

        def advanced(self, name: str, partitions: int, rows: int) -> None:
            pass

    with progress.listening(Meanwhile()):
        report = run("things")
    assert (of_the_other[0].counts.read, of_the_other[0].counts.inserted) == (3, 2)
    assert (report.outcome, report.partitions_loaded) == (Outcome.SUCCEEDED, 1)
    assert (report.counts.read, report.counts.updated, report.counts.quarantined) == (2, 1, 1)
    items = server.query("SELECT uri, load_id FROM etl.source_items ORDER BY load_id")
    assert items == [("inbox/a.csv", 1), ("inbox/b.csv", 2)]
    assert run("things").partitions == 0


def test_whole_dataset_is_replaced_or_nothing_of_it(
    server: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One file that cannot be read keeps all of them out; once it can, all replace the table."""
    monkeypatch.setenv("DPP_PARTITION_BYTES", "1024")  # two files are two partitions
    server.dataset("things", THINGS.replace("mode: merge", "mode: replace"))
    inbox = server.root / "inbox"
    rest = "".join(f"{number},1.00\n" for number in range(100, 160))

    def write(name: str, *rows: str) -> None:
        others = rest.replace(",", "0,") if name == "b" else rest
        (inbox / f"{name}.csv").write_text("\n".join(["id,price", *rows, others]))

    write("a", "1,1.50")
    write("b", "2,2.50")
    report = run("things")
    assert (report.partitions_loaded, report.counts.inserted) == (2, 122)
    assert run("things").partitions == 0
    write("a", "1,7.00")
    write("b", '2,"2.50', "5,5.00")
    report = run("things")
    assert report.outcome is Outcome.FAILED and report.partitions_loaded == 0
    assert server.query("SELECT price::text FROM analytics.things WHERE id = 1") == [("1.50",)]
    write("b", "2,2.50", "5,5.00")
    report = run("things")
    counts = report.counts
    assert report.outcome is Outcome.SUCCEEDED
    assert (counts.inserted, counts.updated, counts.unchanged, counts.deleted) == (1, 1, 121, 0)
    assert report.table_rows == 123
