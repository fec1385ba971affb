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
import sys
import time
from pathlib import Path

POLL_SECONDS = 0.05


def process_start(pid: int) -> str | None:
    """Return when a process started, in a form that tells it from a later one with the same pid."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        if Path("/proc/self").exists():
            return None
        with os.popen(f"ps -o lstart= -p {int(pid)}") as answer:  # no /proc: macOS
            return answer.read().strip() or None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] == "Z" else fields[19]


def stop(state: dict[str, object]) -> None:
    """Stop one recorded server by its own pid, if it is still that server."""
    pid, started = int(str(state["pid"])), str(state["started"])
    for number, seconds in (
        (int(str(state["stop_signal"])), float(str(state["stop_seconds"]))),
        (int(signal.SIGKILL), 5.0),
    ):
        if process_start(pid) != started:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        end = time.monotonic() + seconds
        while time.monotonic() < end and process_start(pid) == started:
            time.sleep(POLL_SECONDS)


def main(run_folder: Path) -> None:
    """Wait until the last user is gone, then stop every server, the youngest first."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with (run_folder / "watchdog.lock").open("w") as mine:
        fcntl.flock(mine, fcntl.LOCK_EX)
        with (run_folder / "users.lock").open("a") as users:
            fcntl.flock(users, fcntl.LOCK_EX)
            states = [
                (json.loads(path.read_text()), path) for path in run_folder.glob("*.state.json")
            ]
            for state, path in sorted(states, key=lambda pair: -float(pair[0]["order"])):
                stop(state)
                path.unlink(missing_ok=True)
            # Before the users' lock, so that the next user never takes this watchdog for its own.
            fcntl.flock(mine, fcntl.LOCK_UN)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
