"""A run that is split: starts its shards, a few at a time, waits for them and adds up what they did.

What it knows of a shard that waits is the key of its work in the lake; of one that was started also the
id of its flow run, until that ended. So its memory grows by the keys, and by nothing else.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import cast
from uuid import UUID

import structlog
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterIdempotencyKey,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelled, Cancelling

from flows.patience import patiently
from flows.shard import ShardParameters
from tasks.model.account import Account
from tasks.model.environment import Environment
from tasks.model.errors import ConfigError, ErrorKind, ExitCode
from tasks.model.report import DatasetReport, PartitionFailure
from tasks.model.shard import FanOut
from tasks.reporting import progress
from tasks.reporting.report import ProgressArtifact
from tasks.sharding.shard import shard_report
from tasks.stopping import stop_asked

ATTEMPTS = 3
POLL_SECONDS = 1.0
HOPELESS_KINDS = frozenset((ErrorKind.TERMINAL, ErrorKind.DATA))
"""What another attempt would meet again."""
log = structlog.get_logger("dpp.flows")


@dataclass(slots=True)
class Shard:
    """One shard, as its run knows it.

    Attributes:
        number: Which one, from 1 on.
        work: Key of its work in the lake.
        attempt: How often it was started.
    """

    number: int
    work: str
    attempt: int = 1


@dataclass
class Fan:
    """The shards of a run: those that were started, those that are tried again, and how many wait.

    Attributes:
        environment: The settings.
        dataset: Name of the dataset.
        run_id: Id of the flow run that was split; with the work it names a shard for good.
        fan_out: How it was split.
        most: Shards at the same time.
        account: Takes what they did.
    """

    environment: Environment
    dataset: str
    run_id: str
    fan_out: FanOut
    most: int
    account: Account
    started: dict[UUID, Shard] = field(default_factory=dict)
    _taken: int = 0
    _again: deque[Shard] = field(default_factory=deque)
    _last: list[FlowRun] = field(default_factory=list)

    def run(self) -> None:
        """Take all shards to their end; a failed one does not stop the others."""
        artifact = ProgressArtifact(self.dataset, len(self.fan_out.shards))
        changed = time.monotonic()
        with get_client(sync_client=True) as client:
            while self._is_waiting() or self.started:
                if stop_asked():
                    self._left(client)
                    return
                moved = self._start(client)
                for flow_run in self._ended(client):
                    moved = True
                    if self._settle(flow_run):
                        artifact.advance()
                waited = time.monotonic() - changed
                if moved or self._running():
                    changed = time.monotonic()
                elif waited > self.environment.shard_start_seconds:
                    self._give_up(client)
                time.sleep(POLL_SECONDS)

    def _is_waiting(self) -> bool:
        return bool(self._again) or self._taken < len(self.fan_out.shards)

    def _next(self) -> Shard:
        """Return the shard that is started next: one that is tried again, or one that is new."""
        if self._again:
            return self._again.popleft()
        self._taken += 1
        return Shard(self._taken, self.fan_out.shards[self._taken - 1])

    def _start(self, client: SyncPrefectClient) -> bool:
        began = False
        while self._is_waiting() and len(self.started) < self.most:
            shard = self._next()
            flow_run = patiently(partial(self._flow_run, client, shard))
            self.started[flow_run.id] = shard
            began = True
        return began

    def _flow_run(self, client: SyncPrefectClient, shard: Shard) -> FlowRun:
        """Start the flow run of a shard, or find it: a run that is started again has started some.

        So it can be asked for twice: a server that died may have made the run and not told of it.
        """
        key = f"{self.run_id}/{shard.work.rpartition('/')[2]}/{shard.attempt}"
        only = FlowRunFilter(idempotency_key=FlowRunFilterIdempotencyKey(any_=[key]))
        if found := client.read_flow_runs(flow_run_filter=only, limit=1):
            return found[0]
        parameters = ShardParameters(dataset=self.dataset, work=shard.work)
        try:
            made = run_deployment(
                f"shard/shard-{self.environment.name}",
                parameters={"parameters": parameters.model_dump()},
                flow_run_name=f"{self.dataset} shard {shard.number} of {len(self.fan_out.shards)}"
                + (f", attempt {shard.attempt}" if shard.attempt > 1 else ""),
                timeout=0,
                idempotency_key=key,
            )
            return cast("FlowRun", made)
        except ObjectNotFound:
            raise ConfigError(
                f"there is no deployment shard/shard-{self.environment.name} to run the shards of "
                f"{self.dataset}",
                f"dpp bootstrap --env {self.environment.name}; or leave out shard_above",
            ) from None

    def _read(self, client: SyncPrefectClient) -> list[FlowRun]:
        """Return the flow runs of the shards that were started."""
        only = FlowRunFilter(id=FlowRunFilterId(any_=list(self.started)))
        return patiently(
            lambda: client.read_flow_runs(flow_run_filter=only, limit=len(self.started))
        )

    def _ended(self, client: SyncPrefectClient) -> Iterator[FlowRun]:
        self._last = self._read(client) if self.started else []
        yield from (one for one in self._last if one.state and one.state.is_final())

    def _running(self) -> bool:
        return any(one.state and one.state.is_running() for one in self._last)

    def _settle(self, flow_run: FlowRun) -> bool:
        """Take what a shard did; or put it back, to be tried again alone. Tell whether it is done."""
        shard = self.started.pop(flow_run.id)
        assert flow_run.state is not None
        report = shard_report(self.environment, shard.work, str(flow_run.id))
        ended = report is not None and not report.failures
        if not ended and shard.attempt < ATTEMPTS and _worth_another(flow_run, report):
            log.warning("shard.again", shard=shard.number, state=flow_run.state.name)
            self._again.append(Shard(shard.number, shard.work, shard.attempt + 1))
            return False
        if report is None:
            self._fail(shard, f"ended as {flow_run.state.name}: {flow_run.state.message}")
        else:
            self.account.add_report(report)
            progress.advanced(self.dataset, report.partitions, report.counts.read)
        return True

    def _give_up(self, client: SyncPrefectClient) -> None:
        """Nothing runs and nothing has moved for long: nobody takes the shards."""
        seconds = self.environment.shard_start_seconds
        pool = self.environment.work_pool.name
        for run_id, shard in list(self.started.items()):
            late: State[None] = Cancelled(message="it did not start in time")
            patiently(partial(client.set_flow_run_state, run_id, late, force=True))
            self._fail(
                shard,
                f"did not start within {seconds:g} s; is there a worker for work pool {pool!r}, "
                "with room for this run and its shards?",
            )
            del self.started[run_id]
        while self._is_waiting():
            self._fail(self._next(), "was not started, since those before it did not start")

    def _left(self, client: SyncPrefectClient) -> None:
        """The run is to stop. Its shards go on for when it is started again, unless it is cancelled."""
        own = client.read_flow_run(UUID(self.run_id)).state
        if own is None or own.type not in (StateType.CANCELLING, StateType.CANCELLED):
            log.warning("shards.go_on", shards=len(self.started))
            return
        for flow_run in self._read(client) if self.started else []:
            if flow_run.state and not flow_run.state.is_final():
                client.set_flow_run_state(flow_run.id, Cancelling(message="its run was cancelled"))
        log.warning("shards.cancelled", shards=len(self.started))

    def _fail(self, shard: Shard, why: str) -> None:
        label = f"shard {shard.number} of {len(self.fan_out.shards)}"
        failure = PartitionFailure(
            label=label,
            fingerprint="",
            stage="shard",
            error="ShardFailed",
            message=f"{label} {why}",
            kind=ErrorKind.TRANSIENT,
            exit_code=ExitCode.RUN_FAILED,
        )
        self.account.add(failure)


def _worth_another(flow_run: FlowRun, report: DatasetReport | None) -> bool:
    assert flow_run.state is not None
    if flow_run.state.is_cancelled():  # by a person, who means it
        return False
    if report is None:
        return True
    return any(failure.kind not in HOPELESS_KINDS for failure in report.failures)
