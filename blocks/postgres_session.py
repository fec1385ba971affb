"""PostgreSQL connections whose every wait ends, and whose settings hold behind any pooler.

Two things no parameter of libpq gives. A server that took a statement and never answers, behind a
middlebox that keeps the TCP connection alive, would be waited for without end: here the socket is
shut down once the statement's time limit and that of the network are over. And a pooler in
transaction mode, as PgBouncer, knows nothing of settings that were made at the start of a session:
here they are made at the start of each transaction, for that transaction.
"""

from __future__ import annotations

import os
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import psycopg2
import psycopg2.extensions
from psycopg2 import sql

T = TypeVar("T")


class Watchdog:
    """One thread that shuts down sockets on which nothing was heard in time."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waits: dict[object, tuple[float, int]] = {}
        self._given_up: set[object] = set()
        self._next = float("inf")
        self._thread: threading.Thread | None = None

    @contextmanager
    def limit(self, descriptor: int, seconds: float) -> Iterator[None]:
        """Give up what is done inside with a socket after some seconds.

        Raises:
            psycopg2.OperationalError: It was given up; the connection is of no use any more.
        """
        wait = object()
        end = time.monotonic() + seconds
        with self._changed:
            self._waits[wait] = (end, descriptor)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(
                    target=self._watch, name="postgres-watchdog", daemon=True
                )
                self._thread.start()
            elif end < self._next:
                self._changed.notify()
        try:
            yield
        except psycopg2.Error:
            if wait in self._given_up:
                raise psycopg2.OperationalError(
                    f"timeout expired: the server did not answer within {seconds:.0f} s"
                ) from None
            raise
        finally:
            with self._changed:
                self._waits.pop(wait, None)
                self._given_up.discard(wait)

    def _watch(self) -> None:
        with self._changed:
            while True:
                now = time.monotonic()
                for wait, (end, descriptor) in list(self._waits.items()):
                    if end <= now:
                        del self._waits[wait]
                        self._given_up.add(wait)
                        _shut_down(descriptor)
                self._next = min((end for end, _ in self._waits.values()), default=float("inf"))
                self._changed.wait(None if self._next == float("inf") else self._next - now)


def _shut_down(descriptor: int) -> None:
    try:
        with socket.socket(fileno=os.dup(descriptor)) as line:
            line.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # it is gone already


_WATCHDOG = Watchdog()
_CONNECTIONS: weakref.WeakSet[Connection] = weakref.WeakSet()
"""All of this process."""
_MADE = threading.Lock()


class Connection(psycopg2.extensions.connection):
    """A connection of ``connector``; its cursors are ``Cursor``."""

    answer_seconds: float
    settings: sql.Composed | None
    waiting = 0
    """How many answers of the server are waited for: a statement within a statement is two."""

    def commit(self) -> None:
        """Commit, within the time limit."""
        self.within_limit(super().commit)

    def rollback(self) -> None:
        """Roll back, within the time limit."""
        self.within_limit(super().rollback)

    def within_limit(self, action: Callable[[], T]) -> T:
        """Do something with the server, and give it up when the time limit is over."""
        if self.closed:
            return action()  # which says so
        self.waiting += 1
        try:
            with _WATCHDOG.limit(self.fileno(), self.answer_seconds):
                return action()
        finally:
            self.waiting -= 1

    def within_transaction(self, action: Callable[[], T]) -> T:
        """Do something in a transaction that has its settings, and within the time limit."""

        def begun() -> T:
            self._begin()
            return action()

        return self.within_limit(begun)

    def _begin(self) -> None:
        if (
            self.settings is None
            or self.autocommit
            or self.status != psycopg2.extensions.STATUS_READY
        ):
            return
        with super().cursor(cursor_factory=psycopg2.extensions.cursor) as cursor:
            cursor.execute(self.settings)


class Cursor(psycopg2.extensions.cursor):
    """A cursor that begins transactions with their settings, and waits for no answer without end."""

    connection: Connection

    def execute(self, query: Any, vars: Any = None) -> None:  # noqa: A002 - the driver's name
        """Execute a statement."""
        base = super().execute
        self.connection.within_transaction(lambda: base(query, vars))

    def executemany(self, query: Any, vars_list: Any) -> None:
        """Execute a statement for each of some parameters; the limit is for all of them."""
        base = super().executemany
        self.connection.within_transaction(lambda: base(query, vars_list))

    def copy_expert(self, sql: Any, file: Any, size: int = 8192) -> None:
        """Run a COPY."""
        base = super().copy_expert
        self.connection.within_transaction(lambda: base(sql, file, size))

    def fetchmany(self, size: int | None = None) -> list[tuple[Any, ...]]:
        """Return the next rows; a named cursor asks the server for them."""
        base = super().fetchmany
        return self.connection.within_limit(lambda: base(self.arraysize if size is None else size))


def connector(
    settings: Mapping[str, str] | None, answer_seconds: float
) -> Callable[..., Connection]:
    """Return what psycopg2 takes as ``connection_factory``.

    Args:
        settings: Settings of each transaction; None to leave them as they are.
        answer_seconds: How long any answer of the server is waited for.
    """
    statement = _settings_statement(settings) if settings else None

    def connect(dsn: str, *arguments: Any) -> Connection:
        made = Connection(dsn, *arguments)
        made.answer_seconds = answer_seconds
        made.settings = statement
        made.cursor_factory = Cursor
        with _MADE:
            _CONNECTIONS.add(made)
        return made

    return connect


def cancel_statements() -> None:
    """Ask the servers to give up what they do for this process, and to roll it back.

    A process that ends without that leaves them working: they notice only when they are done.
    """
    with _MADE:
        connections = list(_CONNECTIONS)
    for connection in connections:
        if connection.waiting:
            with suppress(psycopg2.Error):  # it ended meanwhile, or the server is gone
                connection.cancel()


def _settings_statement(settings: Mapping[str, str]) -> sql.Composed:
    calls = [
        sql.SQL("pg_catalog.set_config({}, {}, true)").format(sql.Literal(name), sql.Literal(value))
        for name, value in settings.items()
    ]
    return sql.SQL("SELECT {}").format(sql.SQL(", ").join(calls))
