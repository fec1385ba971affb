"""A MariaDB server for one test session, where ``mariadbd`` is on the PATH; else its tests are skipped."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
import sqlalchemy as sa

from embedded.ports import LOCALHOST

START_SECONDS = 30
SERVER = ("mariadbd", "--no-defaults", "--skip-log-bin", "--innodb-buffer-pool-size=64M")
PASSWORD = "only-for-tests"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOCALHOST, 0))
        return int(probe.getsockname()[1])


def _as_root() -> list[str]:
    return ["--user=root"] if os.geteuid() == 0 else []


@pytest.fixture(scope="session")
def mariadb_port() -> Iterator[int]:
    """Start a server; it is stopped by its own pid, and its data are removed."""
    if not (shutil.which("mariadbd") and shutil.which("mariadb-install-db")):
        pytest.skip("mariadbd is not on the PATH: apt-get install mariadb-server")
    root = Path(tempfile.mkdtemp(prefix="dpp-mariadb-"))
    subprocess.run(
        ["mariadb-install-db", "--no-defaults", *_as_root(), f"--datadir={root}/data",
         "--auth-root-authentication-method=normal", "--skip-test-db"],
        check=True, capture_output=True,
    )  # fmt: skip
    port = _free_port()
    with (root / "log").open("wb") as log:
        process = subprocess.Popen(
            [*SERVER, *_as_root(), f"--datadir={root}/data", f"--port={port}",
             f"--bind-address={LOCALHOST}", f"--socket={root}/socket", "--innodb-flush-log-at-trx-commit=0"],
            stdout=log, stderr=log,
        )  # fmt: skip
    try:
        _wait(port, process, root / "log")
        yield port
    finally:
        os.kill(process.pid, signal.SIGTERM)
        process.wait(timeout=30)
        shutil.rmtree(root, ignore_errors=True)


def _wait(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    engine = sa.create_engine(f"mysql+pymysql://root@{LOCALHOST}:{port}/mysql")
    while True:
        try:
            with engine.begin() as connection:
                connection.exec_driver_sql(f"CREATE USER writer@'%%' IDENTIFIED BY '{PASSWORD}'")
                connection.exec_driver_sql("GRANT ALL ON *.* TO writer@'%%' WITH GRANT OPTION")
            break
        except sa.exc.OperationalError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"MariaDB did not start: {log.read_text()}") from None
            time.sleep(0.05)
    engine.dispose()


@pytest.fixture
def mariadb(mariadb_port: int) -> Iterator[sa.URL]:
    """The URL of an empty database of its own."""
    name = f"test_{uuid4().hex[:12]}"
    admin = sa.create_engine(
        f"mysql+pymysql://writer:{PASSWORD}@{LOCALHOST}:{mariadb_port}/mysql", poolclass=sa.NullPool
    )
    with admin.begin() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
    yield admin.url.set(database=name)
    with admin.begin() as connection:
        connection.exec_driver_sql(f"DROP DATABASE {name}")
