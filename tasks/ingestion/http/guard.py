"""Stands before each request: keeps the rate, and leaves a host alone that fails."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import structlog

from tasks.ingestion.http import hosts
from tasks.ingestion.http.host_stores import HostStore, MemoryHosts
from tasks.ingestion.http.hosts import Admission, Change, Policy
from tasks.model.errors import SourceUnavailable

log = structlog.get_logger("dpp.ingestion")


@dataclass(frozen=True, slots=True)
class BreakerChange:
    """The breaker of a host changed."""

    host: str
    change: Change


Tell = Callable[[BreakerChange], None]

_HERE = MemoryHosts()
"""State of hosts for all work of this process, where no store is shared."""


def tell_nobody(_change: BreakerChange) -> None:
    """Listen to nothing."""


class LeftAloneError(SourceUnavailable):
    """The host was not even asked."""


class HostGuard:
    """The circuit breaker and the rate limit of hosts.

    Args:
        store: Keeps their state; in this process, if none is given.
        tell: Is told of each change of a breaker.
        policy: When the breaker opens.
        sleep: Waits for the rate limit.
    """

    def __init__(
        self,
        store: HostStore = _HERE,
        tell: Tell = tell_nobody,
        policy: Policy = Policy(),  # noqa: B008 - frozen
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._store = store
        self._tell = tell
        self._policy = policy
        self._sleep = sleep

    def admit(self, host: str, interval: float = 0) -> Admission:
        """Wait for this request's turn.

        Args:
            host: Who is asked.
            interval: Least seconds between two requests; 0 is no limit.

        Raises:
            LeftAloneError: The host is to be left alone for now.
        """
        policy = replace(self._policy, interval=interval)
        admission = self._store.change(host, lambda state, now: hosts.admit(state, now, policy))
        self._told(host, admission.change)
        if admission.refused:
            raise LeftAloneError(
                f"{host} is left alone for another {admission.wait:.0f} s, "
                "after it failed again and again, or asked for it",
                retry_after=admission.wait,
            )
        if admission.wait:
            self._sleep(admission.wait)
        return admission

    def succeeded(self, host: str, admission: Admission) -> None:
        """Take note of an answer."""
        if admission.failing:  # else there is nothing to be changed
            change = self._store.change(
                host, lambda state, _now: hosts.succeeded(state, probe=admission.probe)
            )
            self._told(host, change)

    def failed(self, host: str, admission: Admission) -> None:
        """Take note of a failure of the host."""
        change = self._store.change(
            host,
            lambda state, now: hosts.failed(state, now, self._policy, probe=admission.probe),
        )
        self._told(host, change)

    def hold(self, host: str, seconds: float) -> None:
        """Leave the host alone, as it asked for; for all who would ask it."""
        self._store.change(host, lambda state, now: (hosts.held(state, now, seconds), None))

    def _told(self, host: str, change: Change | None) -> None:
        if change is None:
            return
        told = BreakerChange(host, change)
        log.warning("breaker.changed", host=host, change=str(change))
        try:
            self._tell(told)
        except Exception as error:  # who listens is no condition of work
            log.warning("breaker.not_told", change=str(change), error=type(error).__name__)
