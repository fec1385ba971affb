"""Hands work to shards and takes their reports back, through the lake; nothing is trusted unchecked."""

from __future__ import annotations

import hashlib

from blocks.lake import Lake
from tasks.model.errors import ConfigError
from tasks.model.report import DatasetReport
from tasks.model.shard import FanOut, ShardWork

ZONE = "shards"


def write_work(lake: Lake, work: ShardWork) -> str:
    """Store what a shard does, and return its key, which names the content."""
    content = work.model_dump_json().encode()
    key = f"{ZONE}/{work.dataset}/{hashlib.sha256(content).hexdigest()}.json"
    lake.put_new(key, content)
    return key


def read_work(lake: Lake, key: str) -> ShardWork:
    """Return what a shard does.

    Raises:
        ConfigError: It is not there, or not what was written.
    """
    content = lake.get(key) if key.startswith(f"{ZONE}/") else None
    if content is None:
        raise ConfigError(
            f"{key}: the lake has no such work of a shard",
            "shards are started by the run of a dataset; run that",
        )
    if f"/{hashlib.sha256(content).hexdigest()}.json" not in key:
        raise ConfigError(f"{key}: the work of the shard was changed", "run the dataset again")
    return ShardWork.model_validate_json(content)


def write_fan_out(lake: Lake, dataset: str, run_id: str, fan_out: FanOut) -> None:
    """Remember how a run was split."""
    key = _fan_out_key(dataset, run_id, fan_out.fence)
    lake.put_new(key, fan_out.model_dump_json().encode())


def read_fan_out(lake: Lake, dataset: str, run_id: str, fence: int) -> FanOut | None:
    """Return how a run was split under a fence; None if it was not."""
    content = lake.get(_fan_out_key(dataset, run_id, fence))
    return None if content is None else FanOut.model_validate_json(content)


def write_report(lake: Lake, work: str, run_id: str, report: DatasetReport) -> None:
    """Store what a shard did; the last word counts, if its flow run was started again."""
    content = report.model_dump_json(exclude={"rows_per_second"})
    key = _report_key(work, run_id)
    lake.delete(key)
    lake.put_new(key, content.encode())


def read_report(lake: Lake, work: str, run_id: str) -> DatasetReport | None:
    """Return what a shard did; None if it did not come to say it."""
    content = lake.get(_report_key(work, run_id))
    return None if content is None else DatasetReport.model_validate_json(content)


def _fan_out_key(dataset: str, run_id: str, fence: int) -> str:
    return f"{ZONE}/{dataset}/runs/{run_id}/{fence}.json"


def _report_key(work: str, run_id: str) -> str:
    return f"{work.removesuffix('.json')}/{run_id}.json"
