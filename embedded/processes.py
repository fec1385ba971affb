"""Runs the two scripts of this package: the launcher of a server, and the watchdog."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

from embedded.component import Component, Ports
from embedded.watchdog import MARK

SCRIPTS = Path(__file__).parent
LOG_BYTES = 5_000_000
"""A log longer than this is put aside at the next start."""


def launch(component: Component, ports: Ports, users: IO[str], state: Path, log: Path) -> None:
    """Start a server's process; when this returns, it is on record in the file ``state``.

    Args:
        component: What to start.
        ports: The ports that were chosen for it.
        users: The open file of which we hold the shared lock.
        state: Where to record the process, in ``<root>/.local/run``.
        log: Where its output is appended.
    """
    wanted = {
        "name": component.name,
        "command": component.command(ports),
        "ports": dict(ports),
        "stop_signal": int(component.stop_signal),
        "stop_seconds": component.stop_seconds,
        "needs": component.needs,
        "order": time.time(),
    }
    run = state.parent
    dropped = (*component.drop_variables, MARK)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    if log.exists() and log.stat().st_size > LOG_BYTES:
        log.replace(log.with_suffix(".log.1"))
    with log.open("ab") as output:
        subprocess.run(  # noqa: S603 - the commands are ours
            _script("launcher.py", str(users.fileno()), str(state), json.dumps(wanted)),
            env={**inherited, **component.environment(ports), MARK: str(run)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C is for us, not for the servers
            pass_fds=(users.fileno(),),
            cwd=run.parent.parent,
            check=False,
        )


def start_watchdog(run: Path) -> None:
    """Start the watchdog of a folder; when this returns, it is in charge."""
    subprocess.run(  # noqa: S603 - our own script
        _script("watchdog.py", str(run)),
        env={name: value for name, value in os.environ.items() if name != MARK},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd="/",
        check=True,
    )


def _script(name: str, *arguments: str) -> list[str]:
    """Isolated, and without site-packages: starts in 15 ms, and nobody's module gets in its way."""
    return [sys.executable, "-I", "-S", str(SCRIPTS / name), *arguments]
