"""The circuit breaker and the rate limit of hosts, as functions of their state."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tasks.ingestion.http import hosts
from tasks.ingestion.http.guard import BreakerChange, HostGuard, LeftAloneError
from tasks.ingestion.http.host_stores import MemoryHosts, SharedIfAlive
from tasks.ingestion.http.hosts import Change, HostState, Policy
from tasks.reporting.events import breaker_event

POLICY = Policy(failures=3, open_seconds=30, probe_seconds=60)


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def guard(clock: Clock, events: list[BreakerChange]) -> HostGuard:
    def sleep(seconds: float) -> None:
        clock.now += seconds

    return HostGuard(MemoryHosts(clock), events.append, POLICY, sleep)


def fail(made: HostGuard, times: int) -> None:
    for _ in range(times):
        made.failed("a", made.admit("a"))


def test_breaker_opens_lets_one_probe_through_and_closes() -> None:
    clock, events = Clock(), list[BreakerChange]()
    made = guard(clock, events)
    fail(made, 3)
    with pytest.raises(LeftAloneError, match="a is left alone for another 30 s"):
        made.admit("a")
    made.admit("b")  # hosts do not stand for each other
    clock.now += 30
    probe = made.admit("a")
    assert probe.probe
    with pytest.raises(LeftAloneError):
        made.admit("a")
    made.succeeded("a", probe)
    assert not made.admit("a").probe
    told = [breaker_event("prod", event.host, str(event.change)) for event in events]
    assert [event.name for event in told] == [
        "etl.breaker.opened",
        "etl.breaker.half_open",
        "etl.breaker.closed",
    ]
    assert {event.resource["prefect.resource.id"] for event in told} == {"etl.host.a"}


def test_probe_that_fails_opens_it_again() -> None:
    clock, events = Clock(), list[BreakerChange]()
    made = guard(clock, events)
    fail(made, 3)
    clock.now += 30
    fail(made, 1)
    with pytest.raises(LeftAloneError):
        made.admit("a")
    assert [event.change for event in events] == [Change.OPENED, Change.HALF_OPEN, Change.OPENED]


def test_probe_that_never_answers_is_replaced() -> None:
    clock = Clock()
    made = guard(clock, [])
    fail(made, 3)
    clock.now += 30
    assert made.admit("a").probe
    clock.now += POLICY.probe_seconds
    assert made.admit("a").probe


def test_success_ends_a_row_of_failures() -> None:
    made = guard(Clock(), [])
    for _ in range(10):
        fail(made, 2)
        made.succeeded("a", made.admit("a"))
    assert not made.admit("a").probe


def test_listener_that_fails_does_not_stop_work() -> None:
    def tell(_event: BreakerChange) -> None:
        raise RuntimeError("no server")

    made = HostGuard(MemoryHosts(), tell, POLICY)
    fail(made, 3)
    with pytest.raises(LeftAloneError):
        made.admit("a")


def test_host_that_asks_for_rest_gets_it() -> None:
    clock = Clock()
    made = guard(clock, [])
    made.hold("a", 20)
    with pytest.raises(LeftAloneError) as refusal:
        made.admit("a")
    assert refusal.value.retry_after == 20
    clock.now += 19.5
    assert made.admit("a").wait == pytest.approx(0.5)


def test_requests_keep_their_distance() -> None:
    clock = Clock()
    made = guard(clock, [])
    times = []
    for _ in range(5):
        made.admit("a", interval=0.25)
        times.append(clock.now - 1000)
    assert times == [0, 0.25, 0.5, 0.75, 1.0]


@example(HostState(next_slot=262145.0), 258544.60702467195)
@given(
    st.builds(
        HostState,
        failures=st.integers(0, 9),
        opened_at=st.none() | st.floats(0, 1e6),
        probe_until=st.none() | st.floats(0, 1e6),
        hold_until=st.floats(0, 1e6),
        next_slot=st.floats(0, 1e6),
    ),
    st.floats(0, 1e6),
)
def test_whatever_the_clock_says_nobody_waits_for_ever(state: HostState, now: float) -> None:
    """A clock that was set back, or a state of another time, must not close a host for ever."""
    _, admission = hosts.admit(state, now, replace(POLICY, interval=1))
    assert 0 <= admission.wait <= hosts.LONGEST_HOLD_SECONDS


def test_store_that_is_gone_is_done_without_for_a_while() -> None:
    clock, calls = Clock(), list[str]()

    class Gone:
        def change(self, host: str, apply: object) -> object:
            calls.append(host)
            raise OSError("gone")

    made = HostGuard(SharedIfAlive(Gone(), clock), policy=POLICY)  # type: ignore[arg-type]
    fail(made, 3)
    with pytest.raises(LeftAloneError):
        made.admit("a")
    assert calls == ["a"]
    clock.now += 61
    made.admit("a")
    assert calls == ["a", "a"]
