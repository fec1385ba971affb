"""A PgBouncer in transaction mode, where it is on the PATH; else its tests are skipped."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg2
import pytest

from blocks.warehouse import WarehouseCredentials
from embedded.ports import LOCALHOST
from embedded.postgres import unprivileged

START_SECONDS = 20
SERVER_CONNECTIONS = 2
"""So few that clients of one pool must share them."""


def _program() -> str:
    found = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if found is None:
        pytest.skip("pgbouncer is not on the PATH: apt-get install pgbouncer")
    return found


@contextmanager
def pgbouncer(warehouse: WarehouseCredentials) -> Iterator[WarehouseCredentials]:
    """Give the warehouse as it is seen through a PgBouncer; it is stopped by its own pid."""
    program = _program()
    root = Path(tempfile.mkdtemp(prefix="dpp-pgbouncer-"))
    root.chmod(0o755)
    with socket.socket() as probe:
        probe.bind((LOCALHOST, 0))
        port = int(probe.getsockname()[1])
    password = warehouse.password.get_secret_value()
    (root / "users").write_text(f'"{warehouse.username}" "{password}"\n')
    (root / "ini").write_text(
        f"""\
[databases]
{warehouse.database} = host={LOCALHOST} port={warehouse.port}
[pgbouncer]
listen_addr = {LOCALHOST}
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {root / "users"}
pool_mode = transaction
default_pool_size = {SERVER_CONNECTIONS}
max_client_conn = 100
server_reset_query =
"""
    )
    with (root / "log").open("wb") as log:
        process = subprocess.Popen(
            [*unprivileged(), program, str(root / "ini")], stdout=log, stderr=log
        )
    through = warehouse.model_copy(update={"port": port, "direct_port": warehouse.port})
    try:
        _wait(through, process, root / "log")
        yield through
    finally:
        os.kill(process.pid, signal.SIGTERM)
        process.wait(timeout=30)
        shutil.rmtree(root, ignore_errors=True)


def _wait(through: WarehouseCredentials, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            psycopg2.connect(
                host=through.host,
                port=through.port,
                dbname=through.database,
                user=through.username,
                password=through.password.get_secret_value(),
            ).close()
            return
        except psycopg2.OperationalError as error:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PgBouncer did not start: {log.read_text()}") from error
            time.sleep(0.05)
