"""Starts one server, on record before it exists. Run as a script; standard library only.

Whoever is killed at whatever moment: either the server is recorded for the watchdog, or it was
never started. For this the launcher inherits its user's shared lock and lets go of it only by
becoming the server. The server is nobody's child then, so no user has to reap it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any


def main(lock_descriptor: int, state_path: Path, state: dict[str, Any]) -> None:
    """Fork, record the child with its start time, and let it become the server."""
    go_read, go_write = os.pipe()
    child = os.fork()
    if child == 0:
        os.setsid()
        os.close(go_write)
        if os.read(go_read, 1) != b"!":  # the launcher was killed before it recorded us
            os._exit(1)
        os.close(go_read)
        command = [str(part) for part in state["command"]]
        os.set_inheritable(lock_descriptor, False)
        for number in (signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)  # ignored ones would stay so in the server
        try:
            os.execvp(command[0], command)  # noqa: S606 - no shell is wanted
        except OSError as error:
            os.write(2, f"cannot run {command[0]}: {error}\n".encode())
            os._exit(127)
    # The folder of this script is not on the path of an isolated interpreter.
    sys.path.insert(0, str(Path(__file__).parent))
    from watchdog import process_start  # type: ignore[import-not-found]

    del state["command"]
    partial = state_path.with_suffix(".partial")
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump({**state, "pid": child, "started": process_start(child)}, file)
    partial.replace(state_path)
    os.write(go_write, b"!")


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3]))
