"""Extraction, side by side: this project, pandas and dlt read the same sources into Parquet files.

    make bench-ingestion                  all of it, about ten minutes
    python -m benchmarks.ingestion --scale 0.1 --only table

Every contender runs alone in a process of its own, on servers that stay up for all of them. What is
measured is the extraction with the files it leaves: ours with every check, rejected records and
provenance. It runs as dlt and pandas do, without an orchestrator; "ours, in Prefect" is the same in
a process that has Prefect and opens its blocks, as a flow does. Peak is resident memory.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.pages import api, prepare_api
from benchmarks.process import run_alone
from benchmarks.sources import prepare_csv, prepare_objects, prepare_table
from embedded.stack import EmbeddedStack

CONTENDERS = {
    "csv": ("ours", "ours_in_prefect", "pandas_csv", "dlt_csv"),
    "objects": ("ours", "ours_in_prefect", "pandas_objects", "dlt_objects"),
    "table": ("ours", "ours_in_prefect", "pandas_table", "dlt_table", "dlt_table_connectorx"),
    "api": ("ours", "ours_in_prefect", "pandas_api", "dlt_api"),
}
TITLES = {
    "csv": "one large CSV file",
    "objects": "small CSV objects on S3",
    "table": "a PostgreSQL table",
    "api": "a paginated JSON API",
}


def measure(contender: str, name: str, job: dict[str, Any], peers: str) -> dict[str, Any]:
    """Run one contender in a process of its own.

    Returns:
        Its rows, seconds and peak memory; or what went wrong under ``failed``.
    """
    out = tempfile.mkdtemp(prefix="dpp-bench-")
    command = [peers, "-m", "benchmarks.peers", contender, json.dumps(job), out]
    if contender.startswith("ours"):
        ours = [sys.executable, "-m", "benchmarks.extraction", contender]
        command = [*ours, name, json.dumps(job), out]
    try:
        said = run_alone(command)
    finally:
        shutil.rmtree(out, ignore_errors=True)
    if said.get("rows", job["rows"]) != job["rows"]:
        said["failed"] = f"{said['rows']} rows of {job['rows']}"
    return said


def show(console: Console, name: str, job: dict[str, Any], found: dict[str, Any]) -> None:
    """Print the table of one job."""
    title = f"{TITLES[name]}: {job['rows']:,} rows, {job['bytes'] / 1e6:,.0f} MB"
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for heading in ("seconds", "rows/s", "MB/s", "peak MB", "time, ours = 1", "memory, ours = 1"):
        table.add_column(heading, justify="right")
    ours = found["ours"]
    for contender, said in found.items():
        label = contender.replace(f"_{name}", "").replace("_in_prefect", ", in Prefect")
        label = label.replace("_", " + ")
        if "seconds" not in said:
            table.add_row(label, said["failed"])
            continue
        cells = [
            f"{said['seconds']:.1f}",
            f"{said['rows'] / said['seconds']:,.0f}",
            f"{job['bytes'] / 1e6 / said['seconds']:.1f}",
            f"{said['peak'] / 1e6:.0f}",
        ]
        if "seconds" in ours:
            cells.append(f"{said['seconds'] / ours['seconds']:.2f}")
            cells.append(f"{said['peak'] / ours['peak']:.2f}")
        table.add_row(label, *cells)
        if "failed" in said:
            table.add_row(f"  {said['failed']}")
    console.print(table)


def main() -> None:
    """Prepare the sources, run every contender, and print a table for each source."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--scale", type=float, default=1.0, help="size of the sources")
    parser.add_argument("--only", choices=list(CONTENDERS), action="append", help="these sources")
    parser.add_argument("--peers", default=".venv-peers/bin/python", help="Python that has dlt")
    given = parser.parse_args()
    console = Console(width=120)
    prepare = {"csv": prepare_csv, "objects": prepare_objects, "table": prepare_table}
    with (
        tempfile.TemporaryDirectory(prefix="dpp-bench-") as root,
        EmbeddedStack(Path(root) / "servers") as stack,
    ):
        stack.start("postgres", "object_store")
        for name in given.only or CONTENDERS:
            folder = Path(root) / name
            folder.mkdir()
            console.print(f"[dim]preparing {TITLES[name]} …[/]")
            job = prepare.get(name, prepare_api)(stack, folder, given.scale)
            found: dict[str, Any] = {}
            with api(job) if name == "api" else _as_it_is(job) as ready:
                for contender in CONTENDERS[name]:
                    console.print(f"[dim]{contender} …[/]")
                    found[contender] = measure(contender, name, ready, given.peers)
            show(console, name, job, found)


@contextmanager
def _as_it_is(job: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield job


if __name__ == "__main__":
    main()
