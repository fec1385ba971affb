"""What a run that is split hands to its shards: files of the lake, of which only names go around."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Self

from pydantic import Field, model_serializer, model_validator

from tasks.model.dataset import DatasetSpec
from tasks.model.environment import Environment
from tasks.model.load import ReplaceLoad
from tasks.model.manifest import LakeFile
from tasks.model.partition import Partition
from tasks.model.request import Purpose, RunRequest
from tasks.model.value import Value


class ShardWork(Value):
    """What one shard does. It is a shard of its run: it has the run's name, fence and lookups."""

    dataset: str
    run: str
    fence: int
    purpose: Purpose
    config_hash: str
    """Hash of the dataset file under which the partitions were planned."""
    most: int = Field(ge=1)
    """Partitions at the same time."""
    snapshots: dict[str, LakeFile]
    state: dict[str, Any] = Field(default_factory=dict)
    """The state of all partitions, where it is one: it can have a word about each of them."""
    partitions: tuple[Partition, ...]

    @model_serializer(mode="wrap")
    def _write_state_once(self, write: Any) -> dict[str, Any]:
        content: dict[str, Any] = write(self)
        states = [partition.state for partition in self.partitions]
        if states and all(state == states[0] for state in states):
            for partition in content["partitions"]:
                del partition["state"]
            content["state"] = states[0]
        return content

    @model_validator(mode="after")
    def _share_state(self) -> Self:
        if self.state:
            for partition in self.partitions:
                object.__setattr__(partition, "state", self.state)
        return self


class FanOut(Value):
    """How a run was split. A run that is started again finds it, and its shards, by this."""

    fence: int
    config_hash: str
    partitions: int
    shards: tuple[str, ...]
    """Keys of the ``ShardWork`` of each in the lake."""


def shard_above(environment: Environment, spec: DatasetSpec, request: RunRequest) -> int | None:
    """Return the number of partitions above which a run is split; None if it never is.

    A whole table that is replaced is published in one transaction, and so by one process; a replay is
    of rows that were refused, which are few.
    """
    if isinstance(spec.load, ReplaceLoad) or request.purpose == "replay":
        return None
    most = spec.shard_above or environment.shard_above
    # A task of a cluster costs so little that each can be as many as a worker works on at a time.
    return most or (environment.concurrency if environment.task_runner == "dask" else None)


def parallel(environment: Environment, request: RunRequest) -> tuple[int, int]:
    """Return how many shards go on at the same time, and how many partitions in each."""
    if request.max_parallel is None:
        return environment.max_parallel, environment.concurrency
    partitions = min(request.max_parallel, environment.concurrency)
    return max(1, min(request.max_parallel // partitions, environment.max_parallel)), partitions


def cut(partitions: Sequence[Partition], most: int) -> Iterator[Sequence[Partition]]:
    """Cut partitions into shards of about one size, none of more than ``most``."""
    count = -(-len(partitions) // most)
    for number in range(count):
        begin, end = (len(partitions) * edge // count for edge in (number, number + 1))
        yield partitions[begin:end]
