"""Starts servers once for all who need them on this machine, and remembers their ports.

Every user holds a shared lock while it works; ``embedded.watchdog`` stops the servers when the last
lock is gone. Starting happens under an exclusive lock, so two commands never start a server twice.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from embedded.component import Component, EmbeddedServerError, Ports
from embedded.listeners import listens_elsewhere
from embedded.ports import LOCALHOST, choose_ports, free_port, port_answers
from embedded.processes import launch, start_watchdog
from embedded.watchdog import is_alive, stop_together

__all__ = [
    "LOCALHOST",
    "Component",
    "EmbeddedServerError",
    "Ports",
    "Supervisor",
    "free_port",
    "port_answers",
]

POLL_SECONDS = 0.05
LOG_LINES_SHOWN = 5
STOP_SECONDS = 30
# A busy machine may keep a healthy server from answering one probe; others may be using it.
DEAF_SECONDS = 10
# A port may be taken between looking and listening; PostgreSQL refuses to start for a moment
# while the children of a killed one end.
ATTEMPTS = 3
RETRY_SECONDS = 0.5


class Supervisor:
    """The servers of one folder, as one user of them sees them.

    Args:
        local: Folder for everything the servers write; they run in the folder above.
    """

    def __init__(self, local: Path) -> None:
        self._run = local.absolute() / "run"
        self._logs = local.absolute() / "logs"
        for folder in (self._run, self._logs):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._users: IO[str] | None = None
        self._cancelled = threading.Event()

    def join(self) -> None:
        """Become a user: from now on the servers stay up until ``leave`` or the process' end.

        Waits while a watchdog is stopping the servers of users before.
        """
        self._cancelled.clear()
        if self._users is not None:
            return
        users = (self._run / "users.lock").open("a")
        fcntl.flock(users, fcntl.LOCK_SH)
        self._users = users
        os.register_at_fork(after_in_child=lambda: users.close())  # noqa: PLW0108 - users.closed
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
        while any(self._run.glob("*.state.json")):
            if self._others_are_left() or time.monotonic() > end:
                return False
            self._start_watchdog()  # somebody may have killed it
            time.sleep(POLL_SECONDS)
        return True

    def cancel(self) -> None:
        """Make every ``ensure`` of other threads give up; what they started stays on record."""
        self._cancelled.set()

    def ensure(self, component: Component) -> tuple[dict[str, int], bool]:
        """Start a component unless it runs.

        Returns:
            Its ports, and whether this call started it.

        Raises:
            EmbeddedServerError: It did not become ready in time.
        """
        if self._users is None:
            raise RuntimeError("join() before ensure(): nobody would stop the server")
        with self._exclusively(f"start-{component.name}"):
            state = self._read(component)
            if state and self._comes_up(component, state):
                return dict(state["ports"]), False
            if state:
                stop_together([state])
                self._state_path(component).unlink(missing_ok=True)
            return self._start(component), True

    def _comes_up(self, component: Component, state: dict[str, Any]) -> bool:
        """Tell whether a recorded server answers; one that was just started gets its full time."""
        age = max(0.0, time.time() - float(state["order"]))
        patience = max(DEAF_SECONDS, component.start_seconds - age)
        return self._wait_until_ready(component, state, time.monotonic() + patience)

    def _wait_until_ready(self, component: Component, state: dict[str, Any], end: float) -> bool:
        while is_alive(state):
            ports = state["ports"]
            if component.ready(ports) and not listens_elsewhere(state["pid"], ports.values()):
                return is_alive(state)
            if time.monotonic() > end:
                return False
            if self._cancelled.wait(POLL_SECONDS):
                raise EmbeddedServerError(f"{component.name}: the start was cancelled")
        return False

    def _start(self, component: Component) -> dict[str, int]:
        component.prepare()
        begin = time.monotonic()
        end = begin + component.start_seconds
        state: dict[str, Any] = {}
        for attempt in range(ATTEMPTS):
            state = self._launch(
                component, self._choose_ports(component, remembered=attempt < ATTEMPTS - 1)
            )
            if self._wait_until_ready(component, state, end):
                return dict(state["ports"])
            if is_alive(state) or self._cancelled.wait(RETRY_SECONDS):
                break
        how = "did not become ready" if is_alive(state) else "ended by itself"
        stop_together([{**state, "stop_seconds": 1.0}])
        self._state_path(component).unlink(missing_ok=True)
        log = self._log_path(component)
        lines = log.read_text(errors="replace").splitlines()[-LOG_LINES_SHOWN:]
        raise EmbeddedServerError(
            f"{component.name} {how} (waited {time.monotonic() - begin:.0f} s); its log {log} "
            "ends with:\n" + "\n".join(f"  {line}" for line in lines)
        )

    def _launch(self, component: Component, ports: dict[str, int]) -> dict[str, Any]:
        assert self._users is not None
        path, log = self._state_path(component), self._log_path(component)
        path.unlink(missing_ok=True)
        launch(component, ports, self._users, path, log)
        state = self._read(component)
        if state is None:
            raise EmbeddedServerError(f"{component.name} could not be started; see {log}")
        return state

    def _choose_ports(self, component: Component, *, remembered: bool) -> dict[str, int]:
        """Choose free ports, the ones of the last time first, and never another server's."""
        with self._exclusively("ports"):
            known = {path: _read_json(path) or {} for path in self._run.glob("*.ports.json")}
            path = self._run / f"{component.name}.ports.json"
            own = known.pop(path, {}) if remembered else dict.fromkeys(component.ports, 0)
            others = {port for ports in known.values() for port in ports.values()}
            wished = {**component.ports, **own}
            chosen = choose_ports(
                {name: wished[name] for name in component.ports},
                component.paired_port_offset,
                others,
            )
            partial = path.with_suffix(".partial")
            partial.write_text(json.dumps(chosen))
            partial.replace(path)
        return chosen

    def _start_watchdog(self) -> None:
        with self._exclusively("start"):
            with (self._run / "watchdog.lock").open("a") as lock:
                if not _locked_at_once(lock, fcntl.LOCK_EX):
                    return  # one is there
            start_watchdog(self._run)

    def _others_are_left(self) -> bool:
        # One prober at a time: they would take each other for users.
        with self._exclusively("probe"), (self._run / "users.lock").open("a") as users:
            if _locked_at_once(users, fcntl.LOCK_EX):
                return False  # nobody: the watchdog is about to take it
            # A shared lock is to be had beside other users, but not beside the watchdog at work.
            return _locked_at_once(users, fcntl.LOCK_SH)

    def _state_path(self, component: Component) -> Path:
        return self._run / f"{component.name}.state.json"

    def _log_path(self, component: Component) -> Path:
        return self._logs / f"{component.name}.log"

    def _read(self, component: Component) -> dict[str, Any] | None:
        return _read_json(self._state_path(component))

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


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return content
