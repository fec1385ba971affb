"""Runs ``dpp`` for tests, each command in a process of its own, without importing everything each time.

This process has imported the libraries that the command line needs (none of ours, and not Prefect,
which reads its settings when it is imported), and is forked for each command: half of the seconds that
a command takes are imports. Requests and answers are lines of JSON.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import sys
import time
import traceback
from typing import Any

LIBRARIES = (
    "boto3", "cryptography.fernet", "duckdb", "fastapi", "httpx", "jinja2", "jsonschema", "obstore.store",
    "opentelemetry.trace", "pandas", "pandera.pandas", "psycopg2.extras", "pyarrow.dataset",
    "pyarrow.parquet", "pydantic_settings", "rich.progress", "sqlalchemy.ext.asyncio", "sqlalchemy.orm",
    "structlog", "typer", "websockets", "yaml",
)  # fmt: skip
"""Those that take long. One that is missing costs time, nothing else."""
TIMED_OUT = 124


def main() -> None:
    """Answer requests until there are no more."""
    for name in LIBRARIES:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            run(request)
        sys.stdout.write(json.dumps({"code": ended(child, request["timeout"])}) + "\n")
        sys.stdout.flush()


def run(request: dict[str, Any]) -> None:
    """Become the command; never returns."""
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    for number, path in ((1, request["stdout"]), (2, request["stderr"])):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
    sys.argv = ["dpp", *request["arguments"]]
    sys.path[0] = request["root"]
    code = 1
    try:
        from cli.app import main as command_line

        command_line()
        code = 0
    except SystemExit as ending:
        code = ending.code if isinstance(ending.code, int) else int(ending.code is not None)
    except BaseException:
        traceback.print_exc()
    # As the interpreter ends: what was registered for the end is done, and then nothing more.
    sys.exit(code)


def ended(child: int, timeout: float) -> int:
    """Wait for a child; one that takes too long is ended."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return TIMED_OUT


if __name__ == "__main__":
    main()
