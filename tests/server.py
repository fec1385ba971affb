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

PASSWORD = "only-for-tests"
START_SECONDS = 30


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


@pytest.fixture
def warehouse(postgres_port: int) -> Iterator[WarehouseCredentials]:
    """A block that points to an empty database of its own."""
    with empty_database(postgres_port) as block:
        yield block


@contextmanager
def empty_database(postgres_port: int) -> Iterator[WarehouseCredentials]:
    """Make an empty database, and remove it."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    admin = connect(postgres_port, PASSWORD, "postgres")
    admin.autocommit = True
    with admin.cursor() as cursor:
        cursor.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        yield WarehouseCredentials(
            host=LOCALHOST,
            port=postgres_port,
            database=name,
            username=SUPERUSER,
            password=SecretStr(PASSWORD),
            sslmode="disable",
            pool_size=6,
            lock_timeout=20,
            idle_in_transaction_timeout=20,
            statement_timeout=60,
        )
    admin.close()
    admin = connect(postgres_port, PASSWORD, "postgres")  # the server may have crashed meanwhile
    admin.autocommit = True
    with admin.cursor() as cursor:
        cursor.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
    admin.close()
