"""A PostgreSQL server for one test session, with an empty database for each test."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg2
import pytest
from psycopg2 import sql
from pydantic import SecretStr

from blocks.warehouse import WarehouseCredentials
from embedded.ports import LOCALHOST
from embedded.postgres import SUPERUSER, binaries, connect, initialise, unprivileged
from tasks.loading.ledger import ensure_ledger

PASSWORD = "only-for-tests"
START_SECONDS = 30
LEDGER_TEMPLATE = "test_ledger"
"""A database with an empty ledger, of which others are copies."""
LOADING = frozenset(("engine", "pipeline", "world"))
"""Fixtures of tests that load."""
NO_CRASHES = {
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "autovacuum": "off",
}
"""Of a server that no test crashes: it makes and drops thousands of databases."""


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind((LOCALHOST, 0))
        return int(probe.getsockname()[1])


def _started(
    data: Path, log: Path, port: int | None = None, *, fsync: str = "off"
) -> tuple[subprocess.Popen[bytes], int]:
    port = port or _free_port()
    settings = {
        "listen_addresses": LOCALHOST,
        "unix_socket_directories": "",
        "fsync": fsync,
        "shared_buffers": "128MB",
        "max_connections": "60",
        **({} if fsync == "on" else NO_CRASHES),
    }
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    with log.open("ab") as output:
        process = subprocess.Popen(
            [
                *unprivileged(),
                str(binaries() / "postgres"),
                "-D",
                str(data),
                "-p",
                str(port),
                *options,
            ],
            stdout=output,
            stderr=output,
        )
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            connect(port, PASSWORD, "postgres").close()
            return process, port
        except psycopg2.OperationalError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL did not start: {log.read_text()}") from None
            time.sleep(0.05)


@pytest.fixture(scope="session")
def postgres_port() -> Iterator[int]:
    """Start a server; it is stopped by its own pid, and its data are removed."""
    root = Path(tempfile.mkdtemp(prefix="dpp-loading-"))
    initialise(root / "postgres", PASSWORD)
    process, port = _started(root / "postgres", root / "postgres.log")
    try:
        yield port
    finally:
        os.kill(process.pid, signal.SIGINT)  # "fast": ends all sessions
        process.wait(timeout=30)
        shutil.rmtree(root, ignore_errors=True)


class FragileServer:
    """A server of its own that writes through to the disk, and can be stopped as by a power cut."""

    def __init__(self, root: Path) -> None:
        self._data, self._log = root / "postgres", root / "postgres.log"
        initialise(self._data, PASSWORD)
        self._process, self.port = _started(self._data, self._log, fsync="on")

    def crash(self) -> None:
        """Stop it at once, as ``pg_ctl stop -m immediate``, and start it: it recovers from its log."""
        self._end(signal.SIGQUIT)
        self._process, _ = _started(self._data, self._log, self.port, fsync="on")

    def stop(self) -> None:
        """End all sessions, and stop."""
        self._end(signal.SIGINT)

    def _end(self, how: signal.Signals) -> None:
        os.kill(self._process.pid, how)
        self._process.wait(timeout=30)


@pytest.fixture(scope="module")
def fragile() -> Iterator[FragileServer]:
    """A server that a test may crash; its data are removed."""
    root = Path(tempfile.mkdtemp(prefix="dpp-fragile-"))
    server = FragileServer(root)
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture(scope="session")
def ledger_template(postgres_port: int) -> str:
    """Make the database that has a ledger and nothing else; return its name."""
    admin = connect(postgres_port, PASSWORD, "postgres")
    admin.autocommit = True
    with admin.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {LEDGER_TEMPLATE}")
    admin.close()
    engine = _credentials(postgres_port, LEDGER_TEMPLATE).get_engine("tests")
    ensure_ledger(engine)
    engine.dispose()
    return LEDGER_TEMPLATE


@pytest.fixture
def warehouse(request: pytest.FixtureRequest, postgres_port: int) -> Iterator[WarehouseCredentials]:
    """A block that points to a database of its own: with a ledger if the test loads, else empty."""
    template = None
    if LOADING.intersection(request.fixturenames):
        template = request.getfixturevalue("ledger_template")
    with new_database(postgres_port, template) as block:
        yield block


@contextmanager
def new_database(port: int, template: str | None = None) -> Iterator[WarehouseCredentials]:
    """Make a database, and remove it.

    Args:
        port: Of the server.
        template: Database that has a ledger, of which it becomes a copy; it is empty without it.
    """
    name = f"test_{uuid.uuid4().hex[:12]}"
    admin = connect(port, PASSWORD, "postgres")
    admin.autocommit = True
    with admin.cursor() as cursor:
        cursor.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy").format(
                sql.Identifier(name), sql.Identifier(template or "template0")
            )
        )
    if template:
        made = connect(port, PASSWORD, name)
        with made, made.cursor() as cursor:  # each ledger has an id of its own
            cursor.execute("UPDATE etl.identity SET ledger = gen_random_uuid()")
        made.close()
    yield _credentials(port, name)
    admin.close()
    admin = connect(port, PASSWORD, "postgres")  # the server may have crashed meanwhile
    admin.autocommit = True
    with admin.cursor() as cursor:
        cursor.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
    admin.close()


def _credentials(port: int, database: str) -> WarehouseCredentials:
    return WarehouseCredentials(
        host=LOCALHOST,
        port=port,
        database=database,
        username=SUPERUSER,
        password=SecretStr(PASSWORD),
        sslmode="disable",
        pool_size=6,
        lock_timeout=20,
        idle_in_transaction_timeout=20,
        statement_timeout=60,
    )
