"""How a run is cut into shards, what is written down of each, and the account of all of them."""

from __future__ import annotations

import pytest
from obstore.store import MemoryStore

from blocks.lake import Lake
from tasks.model.account import MOST_FAILURES, Account
from tasks.model.dataset import DatasetSpec
from tasks.model.environment import Environment
from tasks.model.errors import ConfigError, ErrorKind
from tasks.model.manifest import QuarantineReason
from tasks.model.partition import Partition
from tasks.model.replay import ReplayRequest
from tasks.model.report import LoadReceipt, LoadStatus, Outcome, PartitionFailure, RowCounts
from tasks.model.request import RunRequest
from tasks.model.shard import ShardWork, cut, parallel, shard_above
from tasks.sharding.handover import read_work, write_work


def partition(number: int, **values: object) -> Partition:
    return Partition(dataset="d", label=str(number), slice={"n": number}, **values)  # type: ignore[arg-type]


def environment(**values: object) -> Environment:
    given = {
        "name": "test",
        "warehouse_block": "w",
        "lake_block": "l",
        "memory_budget": "1GB",
        "partition_bytes": "1MB",
        "concurrency": 4,
        "stage_timeout": 1,
        "retention_days": 1,
        "work_pool": {"name": "test", "type": "process"},
    }
    return Environment(**{**given, **values})  # type: ignore[arg-type]


def spec(mode: str = "merge", **values: object) -> DatasetSpec:
    return DatasetSpec.model_validate(
        {
            "name": "d",
            "description": "D",
            "source": {"kind": "files", "path": "*.csv", "format": {"kind": "csv"}},
            "key": ["id"],
            "columns": {"id": {"type": "int64"}},
            "load": {"table": "a.d", "mode": mode},
            **values,
        }
    )


@pytest.mark.parametrize(
    ("count", "most", "sizes"),
    [
        (1, 5, [1]),
        (5, 5, [5]),
        (6, 5, [3, 3]),  # not 5 and 1
        (1000, 300, [250] * 4),
        (0, 5, []),
    ],
)
def test_shards_are_of_about_one_size_and_hold_each_partition_once(
    count: int, most: int, sizes: list[int]
) -> None:
    partitions = [partition(number) for number in range(count)]
    shards = list(cut(partitions, most))
    assert [len(shard) for shard in shards] == sizes
    assert [one for shard in shards for one in shard] == partitions


def test_what_a_shard_does_comes_back_from_the_lake_as_it_was() -> None:
    """A state that all partitions share is written once: it can have a word about each of them."""
    lake = Lake(MemoryStore(), None)
    state = {"ranges": list(range(1000))}
    for states in ([state, state], [state, {}], [{}, {}]):
        work = ShardWork(
            dataset="d",
            run="r",
            fence=3,
            purpose="run",
            config_hash="c",
            most=2,
            snapshots={},
            partitions=tuple(partition(n, state=one) for n, one in enumerate(states)),
        )
        key = write_work(lake, work)
        read = read_work(lake, key)
        assert read.partitions == work.partitions
        assert [one.fingerprint for one in read.partitions] == [
            one.fingerprint for one in work.partitions
        ]
        assert read.fence == 3
        written = lake.get(key)
        assert written is not None
        assert written.count(b"999") == (1 if state in states else 0)
        assert write_work(lake, work) == key


@pytest.mark.parametrize("change", ["gone", "changed", "elsewhere"])
def test_work_that_is_not_what_was_written_is_refused(change: str) -> None:
    lake = Lake(MemoryStore(), None)
    work = ShardWork(
        dataset="d",
        run="r",
        fence=1,
        purpose="run",
        config_hash="c",
        most=1,
        snapshots={},
        partitions=(partition(1),),
    )
    key = write_work(lake, work)
    content = lake.get(key) or b""
    lake.delete(key)
    if change == "changed":
        lake.put_new(key, content.replace(b'"fence":1', b'"fence":2'))
    if change == "elsewhere":
        key = "manifests/d/x.json"
        lake.put_new(key, content)
    with pytest.raises(ConfigError):
        read_work(lake, key)


def test_which_runs_are_split() -> None:
    run, split = RunRequest(), environment(shard_above=100)
    assert shard_above(environment(), spec(), run) is None
    assert shard_above(split, spec(), run) == 100
    assert shard_above(split, spec(shard_above=7), run) == 7
    assert shard_above(environment(task_runner="dask"), spec(), run) == 4
    assert shard_above(split, spec("replace"), run) is None  # one transaction
    assert shard_above(split, spec(), ReplayRequest()) is None
    assert spec().config_hash == spec(shard_above=7).config_hash  # loads nothing again


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (None, (3, 4)),  # as the environment says
        (1, (1, 1)),  # a backfill leaves room for live runs
        (6, (1, 4)),
        (8, (2, 4)),
        (100, (3, 4)),
    ],
)
def test_no_more_partitions_at_a_time_than_were_asked_for(
    asked: int | None, expected: tuple[int, int]
) -> None:
    request = RunRequest(max_parallel=asked)
    assert parallel(environment(max_parallel=3), request) == expected


def receipt(rule: str) -> LoadReceipt:
    reason = QuarantineReason(
        stage="transformation",
        rule=rule,
        column="c",
        rows=2,
        message="m",
        source_uri="u",
        source_row=1,
    )
    return LoadReceipt(
        dataset="d",
        fingerprint="f",
        load_id=1,
        status=LoadStatus.LOADED,
        counts=RowCounts(read=5, inserted=3, quarantined=2),
        reasons=(reason,),
        children={"c": RowCounts(read=1, inserted=1)},
        seconds=1,
    )


def failure() -> PartitionFailure:
    return PartitionFailure(
        label="l",
        fingerprint="f",
        stage="loading",
        error="E",
        message="m",
        kind=ErrorKind.DATA,
        exit_code=1,
    )


def test_account_of_shards_is_that_of_their_partitions_and_does_not_grow() -> None:
    whole, shards = Account(), Account()
    for _ in range(3):
        shard = Account()
        for one in (whole, shard):
            for _ in range(MOST_FAILURES):
                one.add(receipt("type"))
                one.add(receipt("range"))
                one.add(failure())
            one.add(receipt("type").model_copy(update={"status": LoadStatus.ALREADY_LOADED}))
        shards.add_report(shard.report("d", "a.d", 0, None, 0))
    report = whole.report("d", "a.d", 453, 7, 1)
    assert report == shards.report("d", "a.d", 453, 7, 1)
    assert (report.partitions_loaded, report.partitions_already_loaded) == (300, 3)
    assert (report.partitions_failed, len(report.failures)) == (150, MOST_FAILURES)
    assert report.outcome is Outcome.FAILED
    assert [(one.rule, one.rows) for one in report.reasons] == [("type", 300), ("range", 300)]
    assert report.counts == RowCounts(read=1500, inserted=900, quarantined=600)
    assert report.children == {"c": RowCounts(read=300, inserted=300)}
