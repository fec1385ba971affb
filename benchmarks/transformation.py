"""Transformation, side by side: this project, pandas and Polars do the same work on the same flights.

    make bench-transformation                  six million rows, about five minutes
    python -m benchmarks.transformation --years 2

Twenty columns cast from text, texts cleaned, ten rules, a lookup of millions of rows, and the newest of
each key kept. The clean rows of all must be the same, value by value, and so must be the number of
those refused. Each contender runs alone in a process of its own; peak is that process's resident
memory. Ours keeps within its budget and leaves what the flows need: refused rows with their original
values and reasons, a profile, a manifest, files named by content. It runs with all rows as one
partition, and as a run in production cuts them: several partitions, as many at a time as there are
cores, which share the budget.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from benchmarks.flights_job import BOOKINGS, DATASET, TYPES, YEARS, prepare
from benchmarks.process import peak_memory, run_alone

BUDGETS = {"ours": 512, "ours, 256 MB": 256, "ours, in partitions": 512}
"""MB for rows, of the whole process: a quarter of production's, and the demo's."""
IN_PARTITIONS = "ours, in partitions"


def transform_with_ours(job: dict[str, Any], out: Path, contender: str) -> dict[str, Any]:
    """Run the stage as the flows run it, on files of a lake."""
    from datetime import UTC, datetime

    from obstore.store import LocalStore

    from blocks.lake import Lake
    from tasks.lake import file_sha256
    from tasks.model.dataset import DatasetSpec
    from tasks.model.manifest import LakeFile, Manifest
    from tasks.transformation.execute import transform_partition

    root = out / "lake"
    lake = Lake(LocalStore(root, mkdir=True), root)
    spec = DatasetSpec.model_validate(DATASET)

    def stored(path: Path, key: str) -> LakeFile:
        target = root / key
        target.parent.mkdir(parents=True, exist_ok=True)
        target.hardlink_to(path)
        rows = pq.read_metadata(path).num_rows
        return LakeFile(key=key, rows=rows, bytes=path.stat().st_size, sha256=file_sha256(path))

    def ingested(files: tuple[LakeFile, ...], number: int) -> Manifest:
        return Manifest(
            stage="ingestion",
            dataset=spec.name,
            fingerprint=f"{number:064}",
            config_hash=spec.config_hash,
            files=files,
            rows_read=sum(file.rows for file in files),
            rows_deduplicated=0,
            rows_quarantined=0,
            quarantine=(),
            reasons=(),
            created_at=datetime.now(UTC),
            seconds=0,
        )

    raw_paths = sorted(Path(job["raw"]).iterdir())
    raw = tuple(stored(path, f"raw/flights/{path.name}") for path in raw_paths)
    partitions = [(file,) for file in raw] if contender == IN_PARTITIONS else [raw]
    snapshots = {BOOKINGS["name"]: stored(Path(job["lookup"]), "lookups/bookings/all.parquet")}
    at_once = min(len(partitions), os.cpu_count() or 1)

    def transformed(number: int) -> Manifest:
        scratch = out / f"scratch-{number}"
        scratch.mkdir()
        manifest = ingested(partitions[number], number)
        budget = (BUDGETS[contender] << 20) // at_once
        return transform_partition(spec, manifest, snapshots, lake, scratch, memory_bytes=budget)

    before = peak_memory()
    began = time.perf_counter()
    with ThreadPoolExecutor(at_once, "partition") as pool:
        manifests = list(pool.map(transformed, range(len(partitions))))
    seconds = time.perf_counter() - began
    peak = peak_memory()
    (out / "clean").mkdir()
    for number, manifest in enumerate(manifests):
        (out / "clean" / f"{number}.parquet").hardlink_to(root / manifest.files[0].key)
    return {
        "refused": sum(manifest.rows_quarantined for manifest in manifests),
        "duplicates": sum(manifest.rows_deduplicated for manifest in manifests),
        "seconds": seconds,
        "before": before,
        "peak": peak,
        "version": "",
    }


def measure(contender: str, job: dict[str, Any], out: Path, peers: str) -> dict[str, Any]:
    """Run one contender in a process of its own."""
    out.mkdir()
    described = json.dumps(job)
    if contender in BUDGETS:
        command = [sys.executable, "-m", "benchmarks.transformation"]
        command += ["--ours", described, str(out), contender]
    else:
        command = [peers, "-m", "benchmarks.transforming_peers", contender, described, str(out)]
    return run_alone(command)


def compare(one: Path, other: Path) -> tuple[int, list[str]]:
    """Compare two results, value by value, each in the type that the dataset declares.

    Returns:
        How many rows one of them has and the other has not; and the columns that the other holds in
        a type that cannot tell all values of the declared one apart.
    """
    with duckdb.connect(":memory:", config={"memory_limit": "6GB"}) as connection:
        connection.execute(f"SET temp_directory = '{one / 'spill'}'")
        connection.execute("SET TimeZone = 'UTC'")
        results = [f"'{path / 'clean'}/*.parquet'" for path in (one, other)]
        same = ", ".join(f"CAST({name} AS {_sql(kind)}) AS {name}" for name, kind in TYPES.items())
        sums = [
            connection.execute(
                f"SELECT count(*), sum(hash(rows)) FROM (SELECT {same} FROM {result}) AS rows"
            ).fetchone()
            for result in results
        ]
        apart = 0
        if sums[0] != sums[1]:
            for first, second in (results, results[::-1]):
                query = f"SELECT {same} FROM {first} EXCEPT ALL SELECT {same} FROM {second}"
                (count,) = connection.execute(f"SELECT count(*) FROM ({query})").fetchall()[0]
                apart += count
        kinds = connection.execute(f"DESCRIBE SELECT * FROM {results[1]}").fetchall()
    inexact = [name for name, kind, *_ in kinds if kind == "DOUBLE" and TYPES.get(name) != "float"]
    return apart, inexact


def _sql(kind: str) -> str:
    """Return a DuckDB type that holds the values of a declared one."""
    if kind.startswith("int"):
        return "BIGINT"
    return {"string": "VARCHAR", "timestamp": "TIMESTAMPTZ"}.get(kind, kind)


def show(console: Console, job: dict[str, Any], found: dict[str, Any]) -> None:
    """Print what was measured."""
    table = Table(title=f"{job['rows']:,} rows, lookup of {job['lookup_rows']:,}")
    for name in ("", "version", "seconds", "rows/s", "× pandas", "peak MB", "of which rows MB"):
        table.add_column(name, justify="left" if name in ("", "version") else "right")
    pandas = found.get("pandas", {}).get("seconds")
    for contender, took in found.items():
        if "failed" in took:
            table.add_row(contender, "", f"failed: {took['failed']}", *[""] * 4)
            continue
        seconds, peak = took["seconds"], took["peak"] >> 20
        table.add_row(
            contender,
            took["version"],
            f"{seconds:.1f}",
            f"{job['rows'] / seconds:,.0f}",
            f"{pandas / seconds:.1f}" if pandas else "–",
            f"{peak:,}",
            f"{peak - (took['before'] >> 20):,}",
        )
    console.print(table)


def main() -> None:
    """Prepare the rows, run all contenders, compare what they made, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--years", type=int, default=YEARS, help="copies of the year's flights")
    parser.add_argument("--peers", default=".venv-peers/bin/python", help="Python that has Polars")
    parser.add_argument("--only", action="append", help="these contenders")
    parser.add_argument("--ours", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.ours:
        described, out, contender = given.ours
        print(json.dumps(transform_with_ours(json.loads(described), Path(out), contender)))
        return
    from demo.nycflights import flight_lines

    console = Console()
    with tempfile.TemporaryDirectory(prefix="dpp-benchmark-") as made:
        folder = Path(made)
        csv = folder / "flights.csv"
        with csv.open("w") as file:
            file.writelines(f"{line}\n" for line in flight_lines())
        with console.status("writing the rows"):
            job = prepare(folder, csv, given.years)
        found: dict[str, Any] = {}
        for number, contender in enumerate((*BUDGETS, "polars", "pandas")):
            if given.only and contender not in given.only:
                continue
            with console.status(contender):
                found[contender] = measure(contender, job, folder / str(number), given.peers)
            console.print(f"[dim]{contender}: {found[contender]}[/]")
            if number and not {"failed"} & {*found[contender], *found.get("ours", {"failed": 0})}:
                with console.status("comparing the values"):
                    apart, inexact = compare(folder / "0", folder / str(number))
                refused = found[contender]["refused"] - found["ours"]["refused"]
                console.print(
                    f"{contender}: {apart} clean rows differ, {refused} refused rows more"
                    + (f"; as floats: {', '.join(inexact)}" if inexact else "")
                )
        show(console, job, found)


if __name__ == "__main__":
    main()
