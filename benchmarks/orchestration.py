"""What a partition costs beside the work on it: the same partitions with Prefect, and without.

    python -m benchmarks.orchestration --partitions 10 100 --rows 10000

A real Prefect server and PostgreSQL run on this machine. ``with`` is the flow ``dataset``, from its
begin to its end, in this process; ``without`` does the stages of the same partitions by as many
threads, and nothing else. Prints a table.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.observing import Memory, counted_requests, profiled
from benchmarks.project import ROW_BYTES, THREADS, Project, project

SERVER_SECONDS = 5
"""The server works on what it was told for some seconds more."""


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


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--partitions", type=int, nargs="+", default=[10, 100, 1000])
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
