"""Extraction, side by side: this project, pandas and dlt read the same sources into Parquet files.

    make bench-ingestion                  all of it, about ten minutes
    python -m benchmarks.ingestion --scale 0.1 --only table

Every contender runs alone in a process of its own, on servers that stay up for all of them. What is
measured is the extraction with the files it leaves: ours with every check, rejected records and
provenance, as the flows run it. Peak is the resident memory of the process.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from rich.console import Console
from rich.table import Table

COLUMNS = ("id", "customer", "amount", "quantity", "price", "status", "note", "at", "day")
CONTENDERS = {
    "csv": ("ours", "pandas_csv", "dlt_csv"),
    "objects": ("ours", "pandas_objects", "dlt_objects"),
    "table": ("ours", "pandas_table", "dlt_table", "dlt_table_connectorx"),
    "api": ("ours", "pandas_api", "dlt_api"),
}
TITLES = {
    "csv": "one large CSV file",
    "objects": "small CSV objects on S3",
    "table": "a PostgreSQL table",
    "api": "a paginated JSON API",
}
PAGE_RECORDS = 1000
OBJECT_ROWS = 220
"""About 20 kB."""


def _row(number: int, dice: random.Random) -> tuple[Any, ...]:
    return (
        number,
        f"customer {dice.randrange(100_000)}",
        f"{dice.randrange(10**7) / 100:.2f}",
        dice.randrange(100),
        f"{dice.random() * 1000:.6f}",
        dice.choice(("new", "paid", "sent", "returned")),
        "" if number % 7 else 'said "yes", twice',
        f"2024-{1 + number % 12:02d}-{1 + number % 28:02d}T{number % 24:02d}:15:00Z",
        f"2024-{1 + number % 12:02d}-{1 + number % 28:02d}",
    )


def _write_csv(path: Path, first: int, rows: int) -> None:
    dice = random.Random(first)
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(_row(number, dice) for number in range(first, first + rows))


def prepare_csv(_stack: Any, folder: Path, scale: float) -> dict[str, Any]:
    """Write one large file."""
    path = folder / "large.csv"
    rows = int(3_000_000 * scale)
    _write_csv(path, 0, rows)
    return {"path": str(path), "rows": rows, "bytes": path.stat().st_size}


def prepare_objects(stack: Any, folder: Path, scale: float) -> dict[str, Any]:
    """Put 5,000 objects of about 20 kB."""
    import obstore
    from obstore.store import S3Store

    address = stack.object_store
    store = S3Store(
        "objects",
        endpoint=address.endpoint_url,
        access_key_id=address.access_key,
        secret_access_key=address.secret_key,
        region="us-east-1",
        client_options={"allow_http": True},
    )
    _bucket(address, "objects").credentials.get_s3_client().create_bucket(Bucket="objects")
    count = int(5000 * scale)

    def put(number: int) -> int:
        small = folder / f"small-{number % 16}.csv"
        content = small.read_bytes()
        obstore.put(store, f"in/{number:05d}.csv", content)
        return len(content)

    for number in range(16):
        _write_csv(folder / f"small-{number}.csv", number * OBJECT_ROWS, OBJECT_ROWS)
    with ThreadPoolExecutor(8) as pool:
        size = sum(pool.map(put, range(count)))
    return {
        "bucket": "objects",
        "endpoint": address.endpoint_url,
        "key": address.access_key,
        "secret": address.secret_key,
        "rows": count * OBJECT_ROWS,
        "bytes": size,
    }


def prepare_table(stack: Any, _folder: Path, scale: float) -> dict[str, Any]:
    """Fill a table of 5 million rows."""
    import psycopg2

    address = stack.postgres
    rows = int(5_000_000 * scale)
    connection = psycopg2.connect(
        host=address.host,
        port=address.port,
        user=address.user,
        password=address.password,
        dbname="postgres",
    )
    with connection, connection.cursor() as cursor:
        cursor.execute(
            "CREATE TABLE public.things (id bigint PRIMARY KEY, customer text, amount numeric(12,2),"
            " quantity integer, price double precision, status text, note text, at timestamptz,"
            " day date)"
        )
        cursor.execute(
            "INSERT INTO public.things SELECT n, 'customer ' || n %% 100000, (n %% 1000000) / 100.0,"
            " n %% 100, n * 0.001, (ARRAY['new', 'paid', 'sent', 'returned'])[1 + n %% 4],"
            " CASE WHEN n %% 7 = 0 THEN 'said yes, twice' ELSE '' END,"
            " timestamptz '2024-01-01' + n * interval '1 second', date '2024-01-01' + n %% 365"
            " FROM generate_series(1, %s) n",
            (rows,),
        )
        cursor.execute("SELECT pg_table_size('public.things')")
        found = cursor.fetchone()
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE public.things")
    connection.close()
    assert found is not None
    url = (
        f"postgresql+psycopg2://{address.user}:{address.password}@{address.host}:{address.port}"
        "/postgres"
    )
    return {"url": url, "table": "public.things", "rows": rows, "bytes": found[0]}


def prepare_api(_stack: Any, folder: Path, scale: float) -> dict[str, Any]:
    """Write the pages that the API gives."""
    pages = int(500 * scale)
    dice = random.Random(5)
    size = 0
    for page in range(1, pages + 1):
        records = [
            dict(zip(COLUMNS, _row((page - 1) * PAGE_RECORDS + n, dice), strict=True))
            | {"tags": ["a", n % 5]}
            for n in range(PAGE_RECORDS)
        ]
        content = json.dumps({"pages": pages, "data": records}).encode()
        (folder / f"{page}.json").write_bytes(content)
        size += len(content)
    return {"folder": str(folder), "pages": pages, "rows": pages * PAGE_RECORDS, "bytes": size}


class _Pages(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    folder = Path()

    def do_GET(self) -> None:
        page = parse_qs(urlsplit(self.path).query).get("page", ["1"])[0]
        path = self.folder / f"{int(page)}.json"
        content = path.read_bytes() if path.is_file() else b'{"data": []}'
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def serve_pages(folder: str) -> None:
    """Serve the pages of a folder until the process is ended; says its port first."""
    _Pages.folder = Path(folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), _Pages) as server:
        print(server.server_port, flush=True)
        server.serve_forever()


@contextmanager
def api(job: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Run the API in a process of its own, so that it takes no time from a contender's."""
    server = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.ingestion", "--serve", job["folder"]],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        base = f"http://127.0.0.1:{int(server.stdout.readline())}"
        yield {**job, "base_url": base, "path": "/things", "url": f"{base}/things"}
    finally:
        server.terminate()
        server.wait(10)


def _bucket(address: Any, name: str) -> Any:
    from prefect_aws import AwsCredentials, S3Bucket
    from prefect_aws.client_parameters import AwsClientParameters
    from pydantic import SecretStr

    return S3Bucket(
        bucket_name=name,
        credentials=AwsCredentials(
            aws_access_key_id=address.access_key,
            aws_secret_access_key=SecretStr(address.secret_key),
            aws_client_parameters=AwsClientParameters(endpoint_url=address.endpoint_url),
        ),
    )


def _source(name: str, job: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """Return how a dataset file declares the source, and its block."""
    from types import SimpleNamespace

    from blocks.rest_api import RestApiCredentials
    from blocks.source_database import SourceDatabase

    if name == "csv":
        return {"kind": "files", "path": job["path"], "format": {"kind": "csv"}}, None
    if name == "objects":
        address = SimpleNamespace(
            access_key=job["key"], secret_key=job["secret"], endpoint_url=job["endpoint"]
        )
        declared = {"kind": "s3", "path": "in/*.csv", "format": {"kind": "csv"}}
        return declared, _bucket(address, job["bucket"])
    if name == "table":
        return {"kind": "database", "table": job["table"]}, SourceDatabase.from_url(job["url"])
    paging = {"kind": "page", "size": PAGE_RECORDS, "pages": "pages"}
    declared = {"kind": "rest", "path": job["path"], "records": "data", "pagination": paging}
    return declared, RestApiCredentials(base_url=job["base_url"], allow_private=True)


def extract_with_ours(name: str, job: dict[str, Any], out: Path) -> int:
    """Plan and ingest as the flows do, into the raw zone of a lake."""
    from blocks.object_store import LakeStorage
    from tasks.connections import Connections
    from tasks.environments import load_environment
    from tasks.ingestion.ingest import limits_of
    from tasks.ingestion.read import ingest_partition
    from tasks.ingestion.registry import connector_for
    from tasks.model.dataset import DatasetSpec
    from tasks.model.run import Partition, SourceState

    declared, block = _source(name, job)
    if block is not None:
        declared["block"] = "source"
    columns = {column: {"type": "string"} for column in COLUMNS}
    spec = DatasetSpec.model_validate(
        {
            "name": "things",
            "description": "Things",
            "source": declared,
            "columns": columns,
            "load": {"table": "analytics.things", "mode": "append"},
        }
    )
    environment = load_environment("prod")  # how production cuts its sources
    lake = LakeStorage(uri=(out / "lake").as_uri()).get_lake()
    with Connections(environment, lambda _class, _name: block) as connections:
        planner = connector_for(spec, connections, limits_of(environment), out)
        partitions = planner.plan(SourceState())

        def ingest(numbered: tuple[int, Partition]) -> int:
            scratch = out / f"scratch-{numbered[0]}"
            scratch.mkdir()
            with Connections(environment, lambda _class, _name: block) as opened:
                connector = connector_for(spec, opened, limits_of(environment), scratch)
                return ingest_partition(connector, numbered[1], spec, lake, scratch).rows

        with ThreadPoolExecutor(min(environment.concurrency, os.cpu_count() or 1)) as pool:
            return sum(pool.map(ingest, enumerate(partitions)))


def run_ours(name: str, described: str, out: str) -> None:
    """Run our side of one job in this process, and say what it took."""
    import tasks.ingestion.ingest  # noqa: F401 - importing is not what is measured

    began = time.perf_counter()
    rows = extract_with_ours(name, json.loads(described), Path(out))
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    print(json.dumps({"rows": rows, "seconds": seconds, "peak": peak}))


def measure(contender: str, name: str, job: dict[str, Any], peers: str) -> dict[str, Any]:
    """Run one contender in a process of its own.

    Returns:
        Its rows, seconds and peak memory; or what went wrong under ``failed``.
    """
    out = tempfile.mkdtemp(prefix="dpp-bench-")
    command = [peers, str(Path(__file__).with_name("peers.py")), contender, json.dumps(job), out]
    if contender == "ours":
        ours = [sys.executable, "-m", "benchmarks.ingestion", "--ours"]
        command = [*ours, name, json.dumps(job), out]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1800)
    finally:
        shutil.rmtree(out, ignore_errors=True)
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or ["?"])[-1]}
    said: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    if said["rows"] != job["rows"]:
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
        label = contender.replace(f"_{name}", "").replace("_", " + ")
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
    parser.add_argument("--ours", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve_pages(given.serve)
        return
    if given.ours:
        run_ours(*given.ours)
        return
    from embedded.stack import EmbeddedStack

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
