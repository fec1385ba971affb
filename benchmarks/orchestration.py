"""What a partition costs beside the work on it: the same partitions with Prefect, and without.

    python -m benchmarks.orchestration --partitions 10 100 --rows 10000

A real Prefect server and PostgreSQL run on this machine. ``with`` is the flow ``dataset``, from its
begin to its end, in this process; ``without`` does the stages of the same partitions by as many
threads, and nothing else. Prints a table.
"""

from __future__ import annotations

import argparse
import cProfile
import os
import pstats
import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import httpx
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

ROOT = Path(__file__).parents[1]
THREADS = 2
SERVER_SECONDS = 5
"""The server works on what it was told for some seconds more."""
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


@dataclass(frozen=True)
class Measured:
    """One way of doing all partitions.

    Attributes:
        seconds: From begin to end.
        cpu: Processor seconds of this process, the Prefect server and PostgreSQL meanwhile.
        memory: Megabytes of this process after each quarter of the partitions.
        requests: Requests to the Prefect server, by method and path without ids.
    """

    seconds: float
    cpu: tuple[float, float, float]
    memory: tuple[int, ...]
    requests: Counter[str]


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
                "DPP_LOG_LEVEL": os.environ.get("DPP_LOG_LEVEL", "INFO"),
            }
            settings = {
                PREFECT_API_URL: stack.prefect_api_url,
                PREFECT_HOME: root / "prefect",
                PREFECT_LOGGING_EXTRA_LOGGERS: "dpp",
            }
            with temporary_settings(settings):
                setup_logging(incremental=False)
                yield Project(root, stack)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def with_prefect(made: Project, partitions: int, profile: Path | None) -> Measured:
    """Run the flow."""
    from cli.prefect_process import drain_prefect
    from flows.dataset import DatasetParameters, dataset
    from tasks.reporting import progress

    made.warehouse.save("warehouse", overwrite=True)
    made.empty(f"lake-with-{partitions}").save("lake", overwrite=True)
    memory = Memory(partitions)
    with counted_requests() as requests, progress.listening(memory), profiled(profile):
        began, cpu = time.perf_counter(), made.cpu()
        state: Any = dataset(DatasetParameters(dataset="orders"), return_state=True)
        seconds = time.perf_counter() - began
    assert state.is_completed(), state
    drain_prefect()
    time.sleep(SERVER_SECONDS)
    return Measured(seconds, made.cpu(cpu), memory.quarters, requests)


def without(made: Project, partitions: int) -> Measured:
    """Do the stages of each partition, and nothing else."""
    from tasks.environments import environment_catalog, load_environment
    from tasks.ingestion.connector import PlanLimits
    from tasks.ingestion.connectors.files import FilesConnector
    from tasks.ingestion.planning import plan_partitions
    from tasks.ingestion.read import ingest_partition
    from tasks.lake import manifest_key
    from tasks.loading.ledger import ensure_ledger, open_dataset
    from tasks.loading.ledger_state import source_state
    from tasks.loading.publish import Load, load_partition
    from tasks.model.partition import Partition
    from tasks.model.request import RunRequest
    from tasks.model.source import FilesSource
    from tasks.transformation.execute import STAGE, transform_partition, transformation_identity

    lake = made.empty(f"lake-without-{partitions}").get_lake()
    engine = made.warehouse.get_engine("etl")
    environment = load_environment()
    spec = environment_catalog(environment)["orders"]
    assert isinstance(spec.source, FilesSource)
    memory = Memory(partitions)
    began, cpu = time.perf_counter(), made.cpu()
    ensure_ledger(engine)
    fence = open_dataset(engine, spec.name, "bench")
    limits = PlanLimits(partition_bytes=environment.partition_bytes)
    connector = FilesConnector(spec.name, spec.source, made.root, limits, len(spec.columns))
    state = source_state(engine, spec.name)
    planned = plan_partitions(connector, spec, state, RunRequest(), "bench")
    assert len(planned) == partitions

    def one(partition: Partition) -> None:
        scratch = Path(tempfile.mkdtemp(dir=made.root))
        raw = ingest_partition(connector, partition, spec, lake, scratch, deadline_seconds=900)
        clean = transform_partition(
            spec,
            raw,
            {},
            lake,
            scratch,
            memory_bytes=environment.memory_budget // THREADS,
            deadline_seconds=900,
        )
        identity = transformation_identity(spec, raw, {})
        load = Load(
            spec=spec,
            lookups={},
            partition=partition,
            manifest=clean,
            manifest_key=manifest_key(STAGE, spec.name, raw.fingerprint, identity),
            run="bench",
            fence=fence,
            code_version="bench",
        )
        load_partition(engine, lake, scratch, load)
        shutil.rmtree(scratch)
        memory.advanced(spec.name, 1, 0)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(one, planned))
    seconds = time.perf_counter() - began
    engine.dispose()
    return Measured(seconds, made.cpu(cpu), memory.quarters, Counter())


class Memory:
    """Looks at the memory of this process after each quarter of the partitions."""

    def __init__(self, partitions: int) -> None:
        self._at = [partitions * quarter // 4 for quarter in range(1, 5)]
        self._done = 0
        self._turn = threading.Lock()
        self.quarters: tuple[int, ...] = ()

    def planned(self, dataset: str, partitions: int) -> None:
        """Nothing is done yet."""

    def advanced(self, _dataset: str, partitions: int, _rows: int) -> None:
        """Look, if a quarter is full."""
        with self._turn:
            self._done += partitions
            if self._done in self._at:
                resident = int(Path("/proc/self/statm").read_text().split()[1])
                megabytes = resident * os.sysconf("SC_PAGE_SIZE") >> 20
                self.quarters = (*self.quarters, megabytes)


@contextmanager
def counted_requests() -> Iterator[Counter[str]]:
    """Count the requests of this process."""
    counts: Counter[str] = Counter()

    def count(request: httpx.Request) -> None:
        words = [word for word in request.url.path.split("/") if not any(map(str.isdigit, word))]
        counts[f"{request.method} {'/'.join(words)}"] += 1

    send, send_async = httpx.Client.send, httpx.AsyncClient.send

    def sent(self: httpx.Client, request: httpx.Request, **options: Any) -> httpx.Response:
        count(request)
        return send(self, request, **options)

    async def sent_async(
        self: httpx.AsyncClient, request: httpx.Request, **options: Any
    ) -> httpx.Response:
        count(request)
        return await send_async(self, request, **options)

    with (
        mock.patch.object(httpx.Client, "send", sent),
        mock.patch.object(httpx.AsyncClient, "send", sent_async),
    ):
        yield counts


@contextmanager
def profiled(path: Path | None) -> Iterator[None]:
    """Profile every thread that begins meanwhile, and print what takes long."""
    if path is None:
        yield
        return
    profiles: list[cProfile.Profile] = []
    run: Callable[[threading.Thread], None] = threading.Thread.run

    def profiled_run(self: threading.Thread) -> None:
        if self.name != "partition":
            return run(self)
        profile = cProfile.Profile()
        profiles.append(profile)
        return profile.runcall(run, self)

    with mock.patch.object(threading.Thread, "run", profiled_run):
        yield
    stats = pstats.Stats(*profiles)
    stats.dump_stats(path)
    stats.sort_stats("cumulative").print_stats(60)


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--partitions", type=int, nargs="+", default=[10, 100])
    parser.add_argument("--rows", type=int, default=10_000, help="of a partition")
    parser.add_argument("--profile", type=Path, help="profile the threads, and write it there")
    parser.add_argument("--requests", action="store_true", help="print requests to the server")
    given = parser.parse_args()
    print(f"partitions of {given.rows:,} rows, about {given.rows * ROW_BYTES // 1000:,} kB of CSV")
    print(
        "| partitions | s without | s with | CPU without: here, PostgreSQL | with: here, PostgreSQL, "
        "Prefect server | CPU ms more a partition | share | requests | MB by quarter |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    with project() as made:
        made.fill(2, 10)
        with_prefect(made, 2, None)  # imports, first uses
        for partitions in given.partitions:
            made.fill(partitions, given.rows)
            bare = without(made, partitions)
            full = with_prefect(made, partitions, given.profile)
            more = sum(full.cpu) - sum(bare.cpu)
            print(
                f"| {partitions:,} | {bare.seconds:.1f} | {full.seconds:.1f} "
                f"| {bare.cpu[0]:.1f}, {bare.cpu[2]:.1f} "
                f"| {full.cpu[0]:.1f}, {full.cpu[2]:.1f}, {full.cpu[1]:.1f} "
                f"| {1000 * more / partitions:.0f} | {100 * more / sum(full.cpu):.0f} % "
                f"| {sum(full.requests.values()):,} | {', '.join(map(str, full.memory))} |",
                flush=True,
            )
            if given.requests:
                for name, count in full.requests.most_common(12):
                    print(f"    {count:6,} {name}")


if __name__ == "__main__":
    main()
