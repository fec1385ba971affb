"""Transformation, side by side: this project, pandas and Polars do the same work on the same flights.

    make bench-transformation                  six million rows, about ten minutes
    python -m benchmarks.transformation --years 2

Twenty columns cast from text, texts cleaned, ten rules, a lookup of millions of rows, and the newest of
each key kept. The clean rows of all must be the same, value by value, and so must be the number of
those refused. Each contender runs alone in a process of its own; peak is that process's resident
memory. Ours keeps within its budget and leaves what the flows need: refused rows with their original
values and reasons, a manifest, files named by content.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import duckdb
from rich.console import Console
from rich.table import Table

from benchmarks.flights_job import BOOKINGS, COLUMNS, DATASET, YEARS, prepare
from benchmarks.transforming_peers import peak_bytes

BUDGETS = {"ours": 512, "ours, 256 MB": 256}
"""MB for rows: the demo's budget for one partition, and a quarter of a small worker."""


def transform_with_ours(job: dict[str, Any], out: Path, budget: int) -> dict[str, Any]:
    """Run the stage as the flows run it, on files of a lake."""
    from datetime import UTC, datetime

    from obstore.store import LocalStore

    from blocks.lake import Lake
    from tasks.lake import file_sha256
    from tasks.model.dataset import DatasetSpec
    from tasks.model.run import LakeFile, Manifest
    from tasks.transformation.execute import transform_partition

    root = out / "lake"
    lake = Lake(LocalStore(root, mkdir=True), root)
    spec = DatasetSpec.model_validate(DATASET)

    def stored(name: str, key: str) -> LakeFile:
        path = Path(job[name])
        target = root / key
        target.parent.mkdir(parents=True, exist_ok=True)
        target.hardlink_to(path)
        return LakeFile(
            key=key, rows=job["rows"], bytes=path.stat().st_size, sha256=file_sha256(path)
        )

    raw = Manifest(
        stage="ingestion",
        dataset=spec.name,
        fingerprint="0" * 64,
        config_hash=spec.config_hash,
        files=(stored("raw", "raw/flights/all.parquet"),),
        rows_read=job["rows"],
        rows_deduplicated=0,
        rows_quarantined=0,
        quarantine=(),
        reasons=(),
        created_at=datetime.now(UTC),
        seconds=0,
    )
    snapshots = {BOOKINGS["name"]: stored("lookup", "lookups/bookings/all.parquet")}
    scratch = out / "scratch"
    scratch.mkdir()
    before = peak_bytes()
    began = time.perf_counter()
    manifest = transform_partition(spec, raw, snapshots, lake, scratch, memory_bytes=budget << 20)
    seconds = time.perf_counter() - began
    peak = peak_bytes()
    (out / "clean.parquet").hardlink_to(root / manifest.files[0].key)
    return {
        "refused": manifest.rows_quarantined,
        "duplicates": manifest.rows_deduplicated,
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
        budget = str(BUDGETS[contender])
        command = [sys.executable, "-m", "benchmarks.transformation", "--ours", described, str(out)]
        command.append(budget)
    else:
        script = str(Path(__file__).with_name("transforming_peers.py"))
        command = [peers, script, contender, described, str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        ended = done.stderr.strip() or f"ended with {done.returncode}"
        return {"failed": ended[-300:]}
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def differences(one: Path, other: Path) -> int:
    """Count the rows of one result that the other does not have."""
    with duckdb.connect(":memory:", config={"memory_limit": "3GB"}) as connection:
        connection.execute(f"SET temp_directory = '{one / 'spill'}'")
        connection.execute("SET TimeZone = 'UTC'")
        types = {
            name: {"decimal(6,1)": "DECIMAL(6,1)"}.get(column["type"], "")
            for name, column in DATASET["columns"].items()
        }
        same = ", ".join(
            f"CAST({name} AS {types[name]})" if types.get(name) else f"CAST({name} AS VARCHAR)"
            for name in COLUMNS
        )
        query = " EXCEPT ".join(
            f"SELECT {same} FROM '{path / 'clean.parquet'}'" for path in (one, other)
        )
        counted = connection.execute(f"SELECT count(*) FROM ({query})").fetchone()
    assert counted is not None
    return int(counted[0])


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
        described, out, budget = given.ours
        print(json.dumps(transform_with_ours(json.loads(described), Path(out), int(budget))))
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
            ours = found.get("ours", {"failed": ""})
            if number and "failed" not in found[contender] and "failed" not in ours:
                apart = differences(folder / "0", folder / str(number))
                refused = found[contender]["refused"] - found["ours"]["refused"]
                console.print(
                    f"{contender}: {apart} clean rows differ, {refused} refused rows more"
                )
        show(console, job, found)


if __name__ == "__main__":
    main()
