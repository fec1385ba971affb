"""Objects on S3: how long planning takes, and what many small objects cost beside a large one.

    make bench-objects                    about five minutes
    python -m benchmarks.objects --objects 10000

Each measurement runs alone in a process of its own, against the embedded S3 server on this machine.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.ingestion import measure
from benchmarks.process import peak_memory
from benchmarks.sources import OBJECT_ROWS, bucket, prepare_objects, write_csv

SMALL_OBJECTS = 5000


def prepare_many(stack: Any, objects: int) -> dict[str, Any]:
    """Put objects of a few bytes, in folders of a thousand."""
    import obstore

    from blocks.object_store import s3_store

    address = stack.object_store
    block = bucket(address, "many")
    block.credentials.get_s3_client().create_bucket(Bucket="many")
    store = s3_store(block)

    def put(number: int) -> None:
        obstore.put(store, f"in/{number // 1000:04d}/{number:07d}.csv", b"id\n1\n")

    with ThreadPoolExecutor(16) as pool:
        for _ in pool.map(put, range(objects)):
            pass
    return {
        "bucket": "many",
        "endpoint": address.endpoint_url,
        "key": address.access_key,
        "secret": address.secret_key,
        "objects": objects,
    }


def prepare_large(stack: Any, folder: Path) -> dict[str, Any]:
    """Put one object with the rows of the small ones."""
    import obstore

    from blocks.object_store import s3_store

    address = stack.object_store
    block = bucket(address, "large")
    block.credentials.get_s3_client().create_bucket(Bucket="large")
    rows = SMALL_OBJECTS * OBJECT_ROWS
    path = folder / "large.csv"
    write_csv(path, 0, rows)
    obstore.put(s3_store(block), "in/large.csv", path)
    return {
        "bucket": "large",
        "endpoint": address.endpoint_url,
        "key": address.access_key,
        "secret": address.secret_key,
        "rows": rows,
        "bytes": path.stat().st_size,
    }


def plan_here(job: dict[str, Any]) -> None:
    """List and plan in this process, and say what it took: all new first, then all known."""
    from types import SimpleNamespace

    from blocks.object_store import s3_store
    from tasks.environments import load_environment
    from tasks.ingestion.connectors.s3 import S3Connector
    from tasks.ingestion.ingest import limits_of
    from tasks.model.request import SourceState
    from tasks.model.source import S3Source

    address = SimpleNamespace(
        access_key=job["key"], secret_key=job["secret"], endpoint_url=job["endpoint"]
    )
    source = S3Source.model_validate(
        {"kind": "s3", "block": "b", "path": "in/**/*.csv", "format": {"kind": "csv"}}
    )
    limits = limits_of(load_environment("prod"))
    store = s3_store(bucket(address, job["bucket"]))
    with tempfile.TemporaryDirectory() as scratch:
        connector = S3Connector("things", source, store, Path(scratch), limits, 1)
        began = time.perf_counter()
        partitions = connector.plan(SourceState())
        first = time.perf_counter() - began
        known = {(item.uri, item.version) for partition in partitions for item in partition.items}
        began = time.perf_counter()
        again = connector.plan(SourceState(items=frozenset(known)))
        second = time.perf_counter() - began
    said = {
        "partitions": len(partitions),
        "items": len(known),
        "again": len(again),
        "first": first,
        "second": second,
        "peak": peak_memory(),
    }
    print(json.dumps(said))


@contextmanager
def servers() -> Iterator[tuple[Any, Path]]:
    """Start an S3 server in a folder of its own."""
    from embedded.stack import EmbeddedStack

    with (
        tempfile.TemporaryDirectory(prefix="dpp-bench-") as root,
        EmbeddedStack(Path(root) / "servers") as stack,
    ):
        stack.start("object_store")
        yield stack, Path(root)


def show_planning(console: Console, job: dict[str, Any]) -> None:
    """Plan in a process of its own, and print what it took."""
    command = [sys.executable, "-m", "benchmarks.objects", "--plan", json.dumps(job)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=1800)
    said = json.loads(done.stdout.splitlines()[-1])
    table = Table(title=f"planning {job['objects']:,} objects", title_justify="left")
    for heading in ("", "seconds", "partitions", "peak MB"):
        table.add_column(heading, justify="right" if heading else "left")
    table.add_row(
        "all are new",
        f"{said['first']:.1f}",
        f"{said['partitions']:,}",
        f"{said['peak'] / 1e6:.0f}",
    )
    table.add_row("all are known", f"{said['second']:.1f}", f"{said['again']:,}", "")
    console.print(table)


def show_small_and_large(console: Console, small: dict[str, Any], large: dict[str, Any]) -> None:
    """Ingest both, and print one beside the other."""
    table = Table(title="the same rows in small objects and in one", title_justify="left")
    for heading in ("", "MB", "seconds", "rows/s", "peak MB"):
        table.add_column(heading, justify="right" if heading else "left")
    for label, job in (("5,000 objects", small), ("one object", large)):
        said = measure("ours", "objects", job, "")
        if "failed" in said:
            table.add_row(label, said["failed"])
            continue
        table.add_row(
            label,
            f"{job['bytes'] / 1e6:.0f}",
            f"{said['seconds']:.1f}",
            f"{said['rows'] / said['seconds']:,.0f}",
            f"{said['peak'] / 1e6:.0f}",
        )
    console.print(table)


def main() -> None:
    """Prepare the objects, measure, and print two tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--objects", type=int, default=100_000, help="how many are planned")
    parser.add_argument("--plan", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.plan:
        plan_here(json.loads(given.plan))
        return
    console = Console(width=120)
    with servers() as (stack, root):
        small = prepare_objects(stack, root, 1.0)
        large = prepare_large(stack, root)
        show_small_and_large(console, small, large)
        console.print(f"[dim]putting {given.objects:,} objects …[/]")
        show_planning(console, prepare_many(stack, given.objects))


if __name__ == "__main__":
    main()
