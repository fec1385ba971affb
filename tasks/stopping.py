"""How work stops when its process is told to end: at the next boundary, and soon.

The main thread of a process hears a signal only between two steps of Python: a statement that the
server works on for an hour, or a lock that it waits for, would make it deaf for as long. So the work is
done in a thread of its own, and the main thread does nothing but wait for it, and for a signal.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field
from queue import SimpleQueue
from threading import Event
from typing import Generic, TypeVar

import structlog

from blocks.postgres_session import cancel_statements

T = TypeVar("T")
Item = TypeVar("Item")

ROLLBACK_SECONDS = 4.0
"""What is given up has so long to roll back."""
CANCEL_EVERY = 0.25
log = structlog.get_logger("dpp.flows")


@dataclass(frozen=True, slots=True)
class Stop:
    """Whether work is to stop, and how soon.

    Attributes:
        asked: Nothing new begins; what is under way goes on.
        at_once: What is under way is given up.
    """

    asked: Event = field(default_factory=Event)
    at_once: Event = field(default_factory=Event)


_STOP: ContextVar[Stop] = ContextVar("stop")


@dataclass(frozen=True, slots=True)
class _Ended(Generic[T]):
    """How some work ended: with a value, or with an error."""

    value: T | None = None
    error: BaseException | None = None


def stop_asked() -> bool:
    """Tell whether the work that this code is part of is to begin nothing new."""
    stop = _STOP.get(None)
    return stop is not None and stop.asked.is_set()


def given_up() -> bool:
    """Tell whether the work that this code is part of is to end now."""
    stop = _STOP.get(None)
    return stop is not None and stop.at_once.is_set()


def stoppable(work: Callable[[], T], grace: float) -> T:
    """Do some work, and stop it in good order when a signal is raised as an exception meanwhile.

    What is under way has ``grace`` seconds to reach a boundary. Then the statements that servers
    work on for it are cancelled, so that they roll back; and what has not ended some seconds later
    is left to end with the process.

    Args:
        work: What is done, in a thread that has the context of this one.
        grace: Seconds.

    Raises:
        BaseException: What the work raised; or the signal, when the work has stopped.
    """
    stop = Stop()
    ended: SimpleQueue[_Ended[T]] = SimpleQueue()

    def do() -> None:
        _STOP.set(stop)
        try:
            ended.put(_Ended(value=work()))
        except BaseException as error:  # raised again where it is waited for
            ended.put(_Ended(error=error))

    thread = threading.Thread(target=copy_context().run, args=(do,), name="run", daemon=True)
    thread.start()
    try:
        outcome = ended.get()
    except BaseException:  # SIGTERM, Ctrl-C: a second one ends the wait
        _wind_up(thread, stop, grace)
        raise
    if outcome.error is not None:
        raise outcome.error
    return outcome.value  # type: ignore[return-value]


def _wind_up(thread: threading.Thread, stop: Stop, grace: float) -> None:
    log.warning("run.stopping", grace_seconds=grace)
    stop.asked.set()
    thread.join(grace)
    stop.at_once.set()
    deadline = time.monotonic() + ROLLBACK_SECONDS
    while thread.is_alive() and time.monotonic() < deadline:
        cancel_statements()
        thread.join(CANCEL_EVERY)
    if thread.is_alive():
        log.warning("run.left", remedy="what was under way is done again by the next run")


def in_threads(work: Callable[[Item], T], items: Iterable[Item], most: int) -> Iterator[T]:
    """Do some work on each item in a bounded number of threads, and yield what comes of it.

    Items are taken as threads become free, and results are handed on as they come, in no order: no
    more of either is in memory than there are threads. Once a stop is asked for, no more items are
    taken. The threads do not keep the process from ending.

    Args:
        work: Done on each item, in a thread that has the context of this one.
        items: What it is done on.
        most: Threads.
    """
    source, turn, closed = iter(items), threading.Lock(), Event()
    results: SimpleQueue[_Ended[T] | None] = SimpleQueue()

    def next_item() -> Iterator[Item]:
        while not (closed.is_set() or stop_asked()):
            with turn:
                item = next(source, _NOTHING)
            if item is _NOTHING:
                return
            yield item  # type: ignore[misc]

    def do() -> None:
        try:
            for item in next_item():
                results.put(_Ended(value=work(item)))
        except BaseException as error:  # raised again where the results are taken
            results.put(_Ended(error=error))
        results.put(None)

    for _ in range(most):
        threading.Thread(
            target=copy_context().run, args=(do,), name="partition", daemon=True
        ).start()
    try:
        yield from _taken(results, most)
    finally:
        closed.set()


_NOTHING = object()


def _taken(results: SimpleQueue[_Ended[T] | None], most: int) -> Iterator[T]:
    while most:
        ended = results.get()
        if ended is None:
            most -= 1
        elif ended.error is not None:
            raise ended.error
        else:
            yield ended.value  # type: ignore[misc]
