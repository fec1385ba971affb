"""A project with servers of its own, for benchmarks: files to load, an empty warehouse, a new lake."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg2
from prefect.logging.configuration import setup_logging
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_HOME,
    PREFECT_LOGGING_EXTRA_LOGGERS,
    temporary_settings,
)
from pydantic import SecretStr

from blocks.object_store import LakeStorage
from blocks.warehouse import WarehouseCredentials
from embedded.postgres import ensure_database
from embedded.stack import EmbeddedStack
from tasks.reporting.logs import configure_logs

ROOT = Path(__file__).parents[1]
THREADS = 2
DATASET = """\
name: orders
description: Orders of the benchmark
source: {kind: files, path: "inbox/*.csv", format: {kind: csv}}
key: [id]
cursor: at
columns:
  id: {type: int64}
  customer: {type: string, clean: [strip, upper], checks: {pattern: "C[0-9]+"}}
  amount: {type: "decimal(10,2)", checks: {between: [0, 100000]}}
  at: {type: timestamp, timezone: UTC}
  note: {type: string}
load: {table: analytics.orders, mode: merge}
"""
ROW_BYTES = 60
"""About that many, as CSV."""


class Project:
    """A project in a folder of its own, with its servers."""

    def __init__(self, root: Path, stack: EmbeddedStack) -> None:
        self.root, self.stack = root, stack
        address = stack.postgres
        self.warehouse = WarehouseCredentials(
            host=address.host,
            port=address.port,
            database="warehouse",
            username=address.user,
            password=SecretStr(address.password),
        )

    def cpu(self, before: tuple[float, ...] = (0, 0, 0)) -> tuple[float, float, float]:
        """Return the processor seconds of this process, the Prefect server, and PostgreSQL."""
        servers = {"uvicorn": 0.0, "postgres": 0.0}
        parents: dict[int, int] = {}
        seconds: dict[int, float] = {}
        kinds: dict[int, str] = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                stat = (folder / "stat").read_text().rpartition(")")[2].split()
                command = (folder / "cmdline").read_bytes().decode(errors="replace")
                about = command + (folder / "environ").read_bytes().decode(errors="replace")
            except OSError:
                continue
            pid = int(folder.name)
            parents[pid] = int(stat[1])
            seconds[pid] = sum(map(int, stat[11:15])) / os.sysconf("SC_CLK_TCK")
            kind = next((name for name in servers if name in command), None)
            if kind and str(self.root) in about:
                kinds[pid] = kind
        for pid in parents:
            server = pid
            while server not in kinds and server in parents:
                server = parents[server]
            if server in kinds:
                servers[kinds[server]] += seconds[pid]
        now = (time.process_time(), servers["uvicorn"], servers["postgres"])
        here, prefect, postgres = (one - other for one, other in zip(now, before, strict=True))
        return here, prefect, postgres

    def fill(self, partitions: int, rows: int) -> None:
        """Write the files, each a partition."""
        shutil.rmtree(self.root / "inbox", ignore_errors=True)
        (self.root / "inbox").mkdir()
        for number in range(partitions):
            lines = (
                f"{number * rows + row}, c{row % 977} ,{row % 1000}.5,2026-01-01T00:00:{row % 60:02}Z,"
                f"note {row}\n"
                for row in range(rows)
            )
            path = self.root / "inbox" / f"{number:05}.csv"
            path.write_text("id,customer,amount,at,note\n" + "".join(lines))

    def empty(self, name: str) -> LakeStorage:
        """Empty the warehouse, and return a new lake."""
        address = self.stack.postgres
        connection = psycopg2.connect(
            host=address.host,
            port=address.port,
            user=address.user,
            password=address.password,
            dbname="warehouse",
        )
        with connection, connection.cursor() as cursor:
            cursor.execute("DROP SCHEMA IF EXISTS analytics CASCADE")
            cursor.execute("DROP SCHEMA IF EXISTS etl CASCADE")
        connection.close()
        return LakeStorage(uri=f"file://{self.root / name}")


@contextmanager
def project() -> Iterator[Project]:
    """Start the servers; they end with the block."""
    root = Path(tempfile.mkdtemp(prefix="dpp-orchestration-"))
    shutil.copytree(ROOT / "deployments" / "environments", root / "deployments" / "environments")
    (root / "datasets").mkdir()
    (root / "datasets" / "orders.yaml").write_text(DATASET)
    try:
        with EmbeddedStack(root) as stack:
            stack.start("postgres", "prefect_server")
            ensure_database(stack.postgres.port, stack.postgres.password, "warehouse")
            os.environ |= {
                "DPP_HOME": str(root),
                "DPP_ENV": "dev",
                "DPP_PARTITION_BYTES": "1024",  # a file is a partition
                "DPP_CONCURRENCY": str(THREADS),
                # The server gets every line as ever; the terminal is for the table.
                "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "WARNING",
            }
            settings = {
                PREFECT_API_URL: stack.prefect_api_url,
                PREFECT_HOME: root / "prefect",
                PREFECT_LOGGING_EXTRA_LOGGERS: "dpp",
            }
            with temporary_settings(settings):
                setup_logging(incremental=False)
                configure_logs(quiet=True)
                # The stages without Prefect log outside of a flow run.
                warnings.filterwarnings("ignore", "Logger 'dpp", UserWarning)
                yield Project(root, stack)
    finally:
        shutil.rmtree(root, ignore_errors=True)
