"""Stops the servers when nobody uses them any more. Run as a script; standard library only.

It waits for an exclusive lock on a file of which every user of the servers holds a shared lock.
The kernel drops a user's lock however the user ends, so not even SIGKILL leaves a server behind.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

POLL_SECONDS = 0.05
KILL_SECONDS = 5.0
MARK = "ETL_EMBEDDED_SERVERS"
"""Environment variable of every server, and so of its children: which folder they belong to."""


def process_start(pid: int) -> str | None:
    """Return when a process started, which tells it from a later one with the same pid.

    A process that has ended but was not yet reaped counts as gone.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        if Path("/proc/self").exists():
            return None
        answer = subprocess.run(  # noqa: S603 - no /proc: macOS
            ["/bin/ps", "-o", "stat=", "-o", "lstart=", "-p", str(pid)],
            capture_output=True,
            text=True,
            check=False,
        )
        status, _, started = answer.stdout.strip().partition(" ")
        return None if status.startswith("Z") else started.strip() or None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else fields[19]


def is_alive(state: dict[str, Any]) -> bool:
    """Tell whether a recorded process still is that process."""
    started = process_start(int(state["pid"]))
    return started is not None and started == str(state["started"])


def stop_together(states: list[dict[str, Any]]) -> None:
    """Stop recorded processes by their own pid: ask each, and kill it when its time is over."""
    for state in states:
        signal_process(state, int(state["stop_signal"]))
    begin = time.monotonic()
    killed: set[int] = set()
    while states := [state for state in states if is_alive(state)]:
        waited = time.monotonic() - begin
        for state in states:
            if waited > state["stop_seconds"] and state["pid"] not in killed:
                signal_process(state, signal.SIGKILL)
                killed.add(state["pid"])
        if waited > max(state["stop_seconds"] for state in states) + KILL_SECONDS:
            return
        time.sleep(POLL_SECONDS)


def signal_process(state: dict[str, Any], number: int) -> None:
    """Send a signal to a recorded process, unless it is gone or its pid is another's now."""
    if is_alive(state):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(int(state["pid"]), number)


def waves(states: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Order servers for their end: first those which no other needs, then what those needed."""
    left = sorted(states, key=lambda state: float(state["order"]), reverse=True)
    ordered = []
    while left:
        needed = {name for state in left for name in state.get("needs", ())}
        wave = [state for state in left if state.get("name") not in needed] or left
        ordered.append(wave)
        left = [state for state in left if state not in wave]
    return ordered


def marked_processes(run_folder: Path) -> list[int]:
    """Return what servers of a folder left running, e.g. the flow runs of a killed worker.

    Only where there is /proc; elsewhere servers have to end their children themselves.
    """
    mark = f"\0{MARK}={run_folder}\0".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark in b"\0" + (folder / "environ").read_bytes() + b"\0":
                found.append(int(folder.name))
    return [pid for pid in found if pid != os.getpid()]


def read_states(run_folder: Path) -> list[dict[str, Any]]:
    """Return the records of the servers; one that cannot be read is left out."""
    states = []
    for path in run_folder.glob("*.state.json"):
        with contextlib.suppress(OSError, ValueError):
            states.append(json.loads(path.read_text()))
    return states


def main(run_folder: Path) -> None:
    """Become the one watchdog of a folder, wait until its last user is gone, stop every server.

    Returns to the caller as soon as a process of its own, which is nobody's child, is in charge.
    """
    with (run_folder / "watchdog.lock").open("a") as mine:
        fcntl.flock(mine, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fork() > 0:
            os._exit(0)  # the child keeps the lock
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        with (run_folder / "users.lock").open("a") as users:
            fcntl.flock(users, fcntl.LOCK_EX)
            stop_everything(run_folder)
            # Before the users' lock, so that the next user never takes this one for its own.
            fcntl.flock(mine, fcntl.LOCK_UN)


def stop_everything(run_folder: Path) -> None:
    """Stop every server on record and whatever their children left, and remove the records."""
    for wave in waves(read_states(run_folder)):
        stop_together(wave)
    for pid in marked_processes(run_folder):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    for path in run_folder.glob("*.state.json"):
        path.unlink(missing_ok=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
