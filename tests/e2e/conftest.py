"""A project of a user in a folder of its own, with real servers that stay up for all its tests."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings
from pydantic import SecretStr

from blocks.content import save_if_changed
from blocks.object_store import LakeStorage
from blocks.warehouse import WarehouseCredentials
from cli.prefect_process import drain_prefect
from embedded.postgres import ensure_database
from embedded.stack import EmbeddedStack

ROOT = Path(__file__).parents[2]
PLATFORM = ("test_bootstrap.py", "test_dask.py", "test_fan_out.py", "test_kubernetes.py")
collect_ignore = [] if os.environ.get("DPP_TEST_PLATFORM") else list(PLATFORM)
"""Minutes of clusters and of many processes: ``make test-platform`` runs them."""
THINGS = """\
name: things
description: Things of a user
source: {kind: files, path: "inbox/*.csv", format: {kind: csv}}
key: [id]
columns:
  id: {type: int64}
  price: {type: "decimal(8,2)", checks: {between: [0, 1000]}}
load: {table: analytics.things, mode: merge}
"""


class CommandLine:
    """``dpp``, each command a process of its own, forked from one that has imported the libraries."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._server = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("command_line.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(
        self, arguments: Sequence[str], environment: dict[str, str], folder: Path
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        assert self._server.stdin and self._server.stdout
        said = {name: self._folder / name for name in ("stdout", "stderr")}
        request = {
            "arguments": arguments,
            "environment": environment,
            "folder": str(folder),
            "root": str(ROOT),
            "timeout": 180,
            **{name: str(path) for name, path in said.items()},
        }
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        code = json.loads(self._server.stdout.readline())["code"]
        return subprocess.CompletedProcess(
            [*arguments], code, **{name: path.read_text() for name, path in said.items()}
        )

    def close(self) -> None:
        """End the process that waits for commands."""
        self._server.communicate()


class Project:
    """A folder with datasets, as ``dpp`` sees it."""

    def __init__(self, root: Path, stack: EmbeddedStack, command_line: CommandLine) -> None:
        self.root = root
        self.stack = stack
        self._command_line = command_line

    def dpp(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run the command line as a user does."""
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("DPP_", "PREFECT_"))
        }
        done = self._command_line.run(
            arguments,
            {**environment, "DPP_HOME": str(self.root), "PYTHONPATH": str(ROOT), **variables},
            self.root,
        )
        assert "Traceback" not in done.stdout + done.stderr, done.stderr
        for secret in (self.stack.secrets.warehouse_password, self.stack.secrets.s3_secret_key):
            assert secret not in done.stdout + done.stderr
        return done

    def dataset(self, name: str, text: str) -> None:
        (self.root / "datasets" / f"{name}.yaml").write_text(text)

    def query(self, sql: str, database: str = "warehouse") -> list[tuple[Any, ...]]:
        address = self.stack.postgres
        connection = psycopg2.connect(
            host=address.host,
            port=address.port,
            user=address.user,
            password=address.password,
            dbname=database,
        )
        try:
            with connection.cursor() as cursor:
                cursor.execute(sql)
                return cursor.fetchall()
        finally:
            connection.close()


@pytest.fixture(scope="package")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedStack]:
    root = tmp_path_factory.mktemp("project")
    shutil.copytree(ROOT / "deployments" / "environments", root / "deployments" / "environments")
    shutil.copy(ROOT / "prefect.yaml", root)
    (root / "flows").symlink_to(ROOT / "flows")
    with EmbeddedStack(root) as stack:
        stack.start("postgres", "object_store", "prefect_server")
        ensure_database(stack.postgres.port, stack.postgres.password, "warehouse")
        yield stack
        drain_prefect()


@pytest.fixture(scope="package")
def command_line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CommandLine]:
    made = CommandLine(tmp_path_factory.mktemp("said"))
    yield made
    made.close()


@pytest.fixture
def project(servers: EmbeddedStack, command_line: CommandLine) -> Project:
    """The project with one dataset, ``things``, and two files in its inbox."""
    root = servers.local.parent
    for folder in ("datasets", "inbox"):
        shutil.rmtree(root / folder, ignore_errors=True)
        (root / folder).mkdir()
    made = Project(root, servers, command_line)
    made.dataset("things", THINGS)
    (root / "inbox" / "a.csv").write_text("id,price\n1,1.50\n2,2.00\n3,-1\n")
    (root / "inbox" / "b.csv").write_text("id,price\n2,2.50\n4,x\n")
    return made


@pytest.fixture
def server(project: Project, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """Flows of this process talk to the project's server; warehouse and lake are empty."""
    address = project.stack.postgres
    monkeypatch.setenv("DPP_HOME", str(project.root))
    shutil.rmtree(project.root / "lake4", ignore_errors=True)
    project.query(
        "DROP SCHEMA IF EXISTS analytics CASCADE; DROP SCHEMA IF EXISTS etl CASCADE; COMMIT; SELECT 1"
    )
    settings = {
        PREFECT_API_URL: project.stack.prefect_api_url,
        PREFECT_HOME: project.root / "prefect",
    }
    with temporary_settings(settings):
        warehouse = WarehouseCredentials(
            host=address.host,
            port=address.port,
            database="warehouse",
            username=address.user,
            password=SecretStr(address.password),
        )
        save_if_changed(warehouse, "warehouse")
        save_if_changed(LakeStorage(uri=f"file://{project.root}/lake4"), "lake")
        yield project
