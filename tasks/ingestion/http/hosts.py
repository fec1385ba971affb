"""When a host may be asked: the circuit breaker and the rate limit, as pure functions of their state.

    closed ──failures in a row──► open ──after a while──► half open ──the probe succeeds──► closed
                                    ▲                         │
                                    └────the probe fails──────┘

While it is half open exactly one request is let through, of all processes that share the state.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum


class Change(StrEnum):
    """A change of the breaker; the events ``etl.breaker.*`` are named after these."""

    OPENED = "opened"
    HALF_OPEN = "half_open"
    CLOSED = "closed"


LONGEST_HOLD_SECONDS = 3600.0
"""Whatever the state says, nobody waits longer than this."""


@dataclass(frozen=True, slots=True)
class HostState:
    """What all processes know of a host; times are seconds of the store's clock.

    Attributes:
        failures: Failures in a row.
        opened_at: When the breaker opened; None while it is closed.
        probe_until: Until then the one probe may take.
        hold_until: The host asked not to be asked before then.
        next_slot: The rate limit's next free moment.
    """

    failures: int = 0
    opened_at: float | None = None
    probe_until: float | None = None
    hold_until: float = 0
    next_slot: float = 0


@dataclass(frozen=True, slots=True)
class Policy:
    """When the breaker opens, and for how long.

    Attributes:
        failures: Failures in a row that open it.
        open_seconds: Nobody asks for so long.
        probe_seconds: The probe is given up for lost after this.
        interval: Least seconds between two requests; 0 is no limit.
    """

    failures: int = 5
    open_seconds: float = 30
    probe_seconds: float = 330
    interval: float = 0


@dataclass(frozen=True, slots=True)
class Admission:
    """Whether a request may be sent.

    Attributes:
        wait: Seconds to wait before it is sent, or before asking again if it is refused.
        refused: It may not be sent.
        probe: It is the one that finds out whether the host is well again.
        failing: The host has failed; its success must be told.
        change: What changed by asking.
    """

    wait: float = 0
    refused: bool = False
    probe: bool = False
    failing: bool = False
    change: Change | None = None


def admit(state: HostState, now: float, policy: Policy) -> tuple[HostState, Admission]:
    """Decide whether a request may be sent now."""
    # A wait of less than a second is waited out: clocks that differ a little are no reason to refuse.
    held_for = min(state.hold_until - now, LONGEST_HOLD_SECONDS)
    if held_for > 1:
        return state, Admission(wait=held_for, refused=True)
    if state.opened_at is None:
        wait = max(0.0, min(state.next_slot - now, LONGEST_HOLD_SECONDS), held_for)
        if policy.interval:
            state = replace(state, next_slot=now + wait + policy.interval)
        return state, Admission(wait=wait, failing=state.failures > 0)
    # A clock that was set back must not keep the breaker open for ever.
    rest = min(state.opened_at + policy.open_seconds - now, policy.open_seconds)
    if rest > 0:
        return state, Admission(wait=rest, refused=True)
    if state.probe_until is not None and now < state.probe_until:
        return state, Admission(
            wait=min(policy.open_seconds, state.probe_until - now), refused=True
        )
    first = state.probe_until is None
    state = replace(state, probe_until=now + policy.probe_seconds)
    return state, Admission(probe=True, failing=True, change=Change.HALF_OPEN if first else None)


def succeeded(state: HostState, *, probe: bool) -> tuple[HostState, Change | None]:
    """Take note of an answer; one that was asked for before the breaker opened says nothing."""
    if state.opened_at is None:
        return replace(state, failures=0), None
    if not probe:
        return state, None
    return replace(state, failures=0, opened_at=None, probe_until=None), Change.CLOSED


def failed(
    state: HostState, now: float, policy: Policy, *, probe: bool
) -> tuple[HostState, Change | None]:
    """Take note of a failure of the host."""
    if state.opened_at is not None:
        if not probe:
            return state, None
        return replace(state, opened_at=now, probe_until=None), Change.OPENED
    state = replace(state, failures=state.failures + 1)
    if state.failures < policy.failures:
        return state, None
    return replace(state, opened_at=now, probe_until=None), Change.OPENED


def held(state: HostState, now: float, seconds: float) -> HostState:
    """Take note that the host asked not to be asked for some seconds."""
    return replace(state, hold_until=max(state.hold_until, now + seconds))
