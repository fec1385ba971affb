"""Where the state of hosts is kept: PostgreSQL or Redis for all processes, memory for one.

A store has one operation: change the state of a host by a function, alone. Times are those of the
store, so that clocks of several machines need not agree.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import cache
from typing import Any, Protocol, TypeVar

import structlog
from sqlalchemy import Engine, text

from tasks.ingestion.http.hosts import HostState

T = TypeVar("T")
Apply = Callable[[HostState, float], tuple[HostState, T]]

REDIS_SECONDS = 2.0
FORGOTTEN_AFTER_SECONDS = 86_400
AGAIN_AFTER_SECONDS = 60.0

_LOCK = text("SELECT state FROM etl.source_hosts WHERE host = :host FOR UPDATE")
_ADD = text(
    "INSERT INTO etl.source_hosts (host, state) VALUES (:host, '{}') ON CONFLICT (host) DO NOTHING"
)
_CLOCK = text("SELECT extract(epoch FROM clock_timestamp())::double precision")
_SAVE = text(
    "UPDATE etl.source_hosts SET state = cast(:state AS jsonb), changed_at = now() "
    "WHERE host = :host"
)

log = structlog.get_logger("dpp.ingestion")


class HostStore(Protocol):
    """Keeps the state of hosts."""

    def change(self, host: str, apply: Apply[T]) -> T:
        """Replace the state of a host by what a function makes of it; nobody else does meanwhile.

        Args:
            host: The host.
            apply: Takes the state and the time, returns the new state and a result.

        Returns:
            The result.
        """
        ...


class MemoryHosts:
    """Keeps the state for one process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._states: dict[str, HostState] = {}
        self._lock = threading.Lock()
        self._clock = clock

    def change(self, host: str, apply: Apply[T]) -> T:
        """Replace the state of a host; see ``HostStore``."""
        with self._lock:
            state = self._states.get(host, HostState())
            self._states[host], result = apply(state, self._clock())
            return result


class PostgresHosts:
    """Keeps the state in the warehouse, in ``etl.source_hosts``.

    Args:
        engine: The warehouse.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def change(self, host: str, apply: Apply[T]) -> T:
        """Replace the state of a host; see ``HostStore``."""
        name = {"host": host}
        with self._engine.begin() as connection:
            found = connection.execute(_LOCK, name).first()
            if found is None:
                connection.execute(_ADD, name)
                found = connection.execute(_LOCK, name).one()
            # Asked for only now, when nobody else has the row.
            now = float(connection.execute(_CLOCK).scalar_one())
            before = HostState(**found[0])
            after, result = apply(before, now)
            if after != before:
                connection.execute(_SAVE, {**name, "state": json.dumps(asdict(after))})
            return result


class RedisHosts:
    """Keeps the state in Redis.

    Args:
        url: Address of the server, with its password.
    """

    def __init__(self, url: str) -> None:
        import redis  # only those who configure Redis have it

        self._redis = redis.Redis.from_url(
            url, socket_timeout=REDIS_SECONDS, socket_connect_timeout=REDIS_SECONDS
        )

    def change(self, host: str, apply: Apply[T]) -> T:
        """Replace the state of a host; see ``HostStore``."""
        key = f"dpp:source_host:{host}"
        results: list[T] = []

        def replaced(pipe: Any) -> None:
            found = pipe.get(key)
            seconds, microseconds = pipe.time()
            before = HostState(**json.loads(found)) if found else HostState()
            after, result = apply(before, seconds + microseconds / 1e6)
            results[:] = [result]
            pipe.multi()
            if after != before:
                pipe.set(key, json.dumps(asdict(after)), ex=FORGOTTEN_AFTER_SECONDS)

        self._redis.transaction(replaced, key)  # again, if somebody else was faster
        return results[0]


class SharedIfAlive:
    """Uses a shared store while it answers, and memory while it does not: it is no condition of work.

    Args:
        shared: The store of all processes.
        clock: Gives seconds.
    """

    def __init__(self, shared: HostStore, clock: Callable[[], float] = time.monotonic) -> None:
        self._shared = shared
        self._alone = MemoryHosts(clock)
        self._clock = clock
        self._again_at = float("-inf")

    def change(self, host: str, apply: Apply[T]) -> T:
        """Replace the state of a host; see ``HostStore``."""
        if self._clock() >= self._again_at:
            try:
                return self._shared.change(host, apply)
            except Exception as error:  # whatever it is, sources are read without it
                self._again_at = self._clock() + AGAIN_AFTER_SECONDS
                log.warning(
                    "breaker.store_unavailable",
                    store=type(self._shared).__name__,
                    error=type(error).__name__,
                    again_in=AGAIN_AFTER_SECONDS,
                )
        return self._alone.change(host, apply)


@cache
def _redis_hosts(url: str) -> SharedIfAlive:
    return SharedIfAlive(RedisHosts(url))


@cache
def _postgres_hosts(engine: Engine) -> SharedIfAlive:
    return SharedIfAlive(PostgresHosts(engine))


def shared_hosts(redis_url: str | None, warehouse: Callable[[], Engine]) -> HostStore:
    """Return the store that all processes share: Redis if there is one, else the warehouse.

    Args:
        redis_url: Address of the Redis server, None if there is none.
        warehouse: Opens the warehouse.
    """
    try:
        return _redis_hosts(redis_url) if redis_url else _postgres_hosts(warehouse())
    except Exception as error:  # not even an address: sources are read without it
        log.warning("breaker.store_unavailable", error=type(error).__name__)
        return MemoryHosts()
