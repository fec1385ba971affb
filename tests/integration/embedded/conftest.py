"""Users of embedded servers, each test in a folder of its own; nothing may be left behind."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from embedded.postgres import initialise
from embedded.secrets import load_secrets
from embedded.watchdog import marked_processes, process_start

SCRIPT = Path(__file__).with_name("user_process.py")


def wait_until(condition: Callable[[], bool], seconds: float = 15) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return condition()


class Folder:
    """A root folder, seen from outside."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.run = root / ".local" / "run"
        self.processes: list[subprocess.Popen[str]] = []

    def user(self, *names: str, wait: bool = True, prefix: tuple[str, ...] = (), **kwargs: Any):
        options = kwargs.pop("options", ())
        python = kwargs.pop("python", sys.executable)
        process = subprocess.Popen(
            [*prefix, python, str(SCRIPT), str(self.root), ",".join(names), *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            **kwargs,
        )
        self.processes.append(process)
        if wait:
            assert self.told(process) == "joined"
        return process

    @staticmethod
    def told(process: subprocess.Popen[str]) -> Any:
        assert process.stdout
        return json.loads(process.stdout.readline())

    def end(self, process: subprocess.Popen[str]) -> list[list[str]]:
        out, _ = process.communicate("\n", timeout=30)
        assert process.returncode == 0
        return json.loads(out)["events"]

    def state(self, name: str) -> dict[str, Any]:
        return json.loads((self.run / f"{name}.state.json").read_text())

    def is_up(self, state: dict[str, Any]) -> bool:
        return process_start(state["pid"]) == state["started"]

    def is_quiet(self) -> bool:
        """No record, and no process that carries this folder's mark."""
        return not any(self.run.glob("*.state.json")) and not marked_processes(self.run)

    def becomes_quiet(self, seconds: float = 15) -> bool:
        return wait_until(self.is_quiet, seconds)

    def watchdogs(self) -> list[int]:
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if words[-2:] == [os.fsencode(self.run), b""]:
                found.append(int(entry.name))
        return found


@pytest.fixture(scope="session")
def filled_local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ``.local`` with secrets and an empty PostgreSQL: to be copied, which is quicker."""
    local = tmp_path_factory.mktemp("filled") / ".local"
    initialise(local / "postgres", load_secrets(local).warehouse_password)
    return local


@pytest.fixture
def filled_folder(folder: Folder, filled_local: Path) -> Folder:
    """A root folder in which PostgreSQL has been before."""
    shutil.copytree(filled_local, folder.root / ".local")
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    made = Folder(tmp_path)
    yield made
    for process in made.processes:
        if process.poll() is None:
            process.kill()
        process.communicate()
    assert wait_until(made.is_quiet), "servers were left behind"
    assert wait_until(lambda: not made.watchdogs()), "a watchdog was left behind"
