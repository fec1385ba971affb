"""Starts servers once for all who need them on this machine, and remembers their ports.

Every user holds a shared lock while it works; ``embedded.watchdog`` stops the servers when the last
lock is gone. Starting happens under an exclusive lock, so two commands never start a server twice.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from embedded.watchdog import process_start

LOCALHOST = "127.0.0.1"
POLL_SECONDS = 0.1
LOG_LINES_SHOWN = 5
STOP_SECONDS = 30
FIRST_PORT = 10_000
Ports = Mapping[str, int]


class EmbeddedServerError(RuntimeError):
    """A server of the dev environment did not come up."""


@dataclass(frozen=True)
class Component:
    """One server: how it is started, and how one knows that it is ready.

    Attributes:
        name: Name, also of its log and its state file.
        ports: Name of each port it listens on → the preferred one, 0 for any.
        command: Gives the command line for the ports that were found free.
        environment: Gives variables beside this process' own; secrets go here, never in the command.
        ready: Tells whether the server answers.
        prepare: Runs before the first start, e.g. initdb.
        stop_signal: What asks it to end.
        stop_seconds: How long it may take before it is killed.
        start_seconds: How long it may take to be ready.
        needs: Names of the components that must be ready before it.
        paired_port_offset: The server opens another port this much above each of its ports.
    """

    name: str
    ports: Mapping[str, int]
    command: Callable[[Ports], list[str]]
    ready: Callable[[Ports], bool]
    environment: Callable[[Ports], dict[str, str]] = field(default=lambda _ports: {})
    prepare: Callable[[], None] = field(default=lambda: None)
    stop_signal: int = signal.SIGTERM
    stop_seconds: float = 10
    start_seconds: float = 60
    needs: tuple[str, ...] = ()
    paired_port_offset: int = 0


class Supervisor:
    """The servers of one folder, as one user of them sees them.

    Args:
        local: Folder for everything the servers write.
    """

    def __init__(self, local: Path) -> None:
        self._run = local / "run"
        self._logs = local / "logs"
        self._cwd = local.parent
        for folder in (self._run, self._logs):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._users: IO[str] | None = None

    def join(self) -> None:
        """Become a user: from now on the servers stay up until ``leave`` or the process' end."""
        self._users = (self._run / "users.lock").open("a")
        fcntl.flock(self._users, fcntl.LOCK_SH)
        with self._exclusively("start"):
            self._start_watchdog()

    def leave(self) -> bool:
        """Stop being a user; wait for the servers' end if nobody else uses them.

        Returns:
            True if the servers were stopped, False if someone else still uses them.
        """
        if self._users is None:
            return False
        self._users.close()
        self._users = None
        end = time.monotonic() + STOP_SECONDS
        while any(self._run.glob("*.state.json")) and time.monotonic() < end:
            if self._others_are_left():
                return False
            time.sleep(POLL_SECONDS)
        return True

    def _others_are_left(self) -> bool:
        with (self._run / "users.lock").open("a") as users:
            if _locked_at_once(users, fcntl.LOCK_EX):
                return False  # nobody: the watchdog is about to take it
            # A shared lock is to be had beside other users, but not beside the watchdog at work.
            return _locked_at_once(users, fcntl.LOCK_SH)

    def ensure(self, component: Component) -> tuple[dict[str, int], bool]:
        """Start a component unless it runs.

        Returns:
            Its ports, and whether this call started it.

        Raises:
            EmbeddedServerError: It did not become ready in time.
        """
        with self._exclusively(f"start-{component.name}"):
            state = self._read(component)
            if state and self._is_alive(state) and component.ready(state["ports"]):
                return dict(state["ports"]), False
            return self._start(component, state), True

    def _start(self, component: Component, previous: dict[str, Any] | None) -> dict[str, int]:
        if previous and self._is_alive(previous):  # alive but deaf
            with contextlib.suppress(ProcessLookupError):
                os.kill(previous["pid"], signal.SIGKILL)
        component.prepare()
        ports = self._choose_ports(component)
        log_path = self._logs / f"{component.name}.log"
        with log_path.open("ab") as log:
            process = subprocess.Popen(  # noqa: S603 - the commands are ours
                component.command(ports),
                env={**os.environ, **component.environment(ports)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd=self._cwd,
            )
        self._write(component, process.pid, ports)
        end = time.monotonic() + component.start_seconds
        while time.monotonic() < end:
            if process.poll() is not None:
                break
            if component.ready(ports):
                return ports
            time.sleep(POLL_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
        self._state_path(component).unlink(missing_ok=True)
        lines = log_path.read_text(errors="replace").splitlines()[-LOG_LINES_SHOWN:]
        how = "ended at once" if process.poll() is not None else "did not become ready"
        raise EmbeddedServerError(
            f"{component.name} {how} (within {component.start_seconds:.0f} s); its log {log_path} "
            "ends with:\n" + "\n".join(f"  {line}" for line in lines)
        )

    def _choose_ports(self, component: Component) -> dict[str, int]:
        remembered_path = self._run / f"{component.name}.ports.json"
        remembered: dict[str, int] = {}
        with contextlib.suppress(OSError, ValueError):
            remembered = json.loads(remembered_path.read_text())
        with self._exclusively("ports"):
            ports = {}
            for name, preferred in component.ports.items():
                wished = remembered.get(name, preferred)
                offset = component.paired_port_offset
                ports[name] = wished if _pair_is_free(wished, offset) else free_port(offset)
            _write_atomically(remembered_path, json.dumps(ports))
        return ports

    def _start_watchdog(self) -> None:
        with (self._run / "watchdog.lock").open("a") as lock:
            if not _locked_at_once(lock, fcntl.LOCK_EX):
                return  # one is there
        script = Path(__file__).with_name("watchdog.py")
        subprocess.Popen(  # noqa: S603 - our own script
            [sys.executable, "-I", "-S", str(script), str(self._run)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _state_path(self, component: Component) -> Path:
        return self._run / f"{component.name}.state.json"

    def _read(self, component: Component) -> dict[str, Any] | None:
        try:
            state: dict[str, Any] = json.loads(self._state_path(component).read_text())
        except (OSError, ValueError):
            return None
        return state

    def _write(self, component: Component, pid: int, ports: Ports) -> None:
        state = {
            "pid": pid,
            "started": process_start(pid),
            "ports": dict(ports),
            "stop_signal": int(component.stop_signal),
            "stop_seconds": component.stop_seconds,
            "order": time.time(),
        }
        _write_atomically(self._state_path(component), json.dumps(state))

    @staticmethod
    def _is_alive(state: Mapping[str, Any]) -> bool:
        return process_start(state["pid"]) == state["started"]

    @contextmanager
    def _exclusively(self, what: str) -> Iterator[None]:
        with (self._run / f"{what}.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _locked_at_once(file: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _write_atomically(path: Path, text: str) -> None:
    partial = path.with_suffix(f".{os.getpid()}.partial")
    partial.touch(mode=0o600)
    partial.write_text(text)
    partial.replace(path)


def free_port(paired_offset: int = 0) -> int:
    """Return a port of the loopback interface that nobody uses, nor the one paired with it."""
    while True:
        with socket.socket() as probe:
            probe.bind((LOCALHOST, 0))
            port = int(probe.getsockname()[1])
        if not paired_offset:
            return port
        low = port - paired_offset  # ephemeral ports are high: the pair is looked for below
        if low > FIRST_PORT and _pair_is_free(low, paired_offset):
            return low


def _pair_is_free(port: int, offset: int) -> bool:
    return bool(port) and port_is_free(port) and (not offset or port_is_free(port + offset))


def port_is_free(port: int) -> bool:
    """Tell whether a server can listen on a port of the loopback interface."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOCALHOST, port))
        except OSError:
            return False
        return True


def port_answers(port: int) -> bool:
    """Tell whether something accepts connections on a port of the loopback interface."""
    try:
        with socket.create_connection((LOCALHOST, port), timeout=1):
            return True
    except OSError:
        return False
