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
import csv
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from benchmarks.peers import peak_memory

if TYPE_CHECKING:
    from rich.console import Console

COLUMNS = ("id", "customer", "amount", "quantity", "price", "status", "note", "at", "day")
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


def _declared(name: str, job: dict[str, Any]) -> dict[str, Any]:
    """Return how a dataset file declares the source."""
    if name == "csv":
        return {"kind": "files", "path": job["path"], "format": {"kind": "csv"}}
    if name == "objects":
        found = {"kind": "s3", "path": "in/*.csv", "format": {"kind": "csv"}}
    elif name == "table":
        found = {"kind": "database", "table": job["table"]}
    else:
        paging = {"kind": "page", "size": PAGE_RECORDS, "pages": "pages"}
        found = {"kind": "rest", "path": job["path"], "records": "data", "pagination": paging}
    return found | {"block": "source"}


class ReadyClients:
    """The clients of a source as a flow's blocks make them, without Prefect: nor has dlt one."""

    def __init__(self, job: dict[str, Any]) -> None:
        self._job = job

    def object_store(self, _source: Any) -> Any:
        """Open the bucket."""
        from obstore.store import S3Store

        return S3Store(
            self._job["bucket"],
            endpoint=self._job["endpoint"],
            access_key_id=self._job["key"],
            secret_access_key=self._job["secret"],
            region="us-east-1",
            client_options={"allow_http": True},
        )

    def database(self, _name: str) -> Any:
        """Open the database."""
        from sqlalchemy import create_engine

        return create_engine(self._job["url"], hide_parameters=True)

    def rest_client(self, _name: str) -> Any:
        """Open the API."""
        import httpx

        from blocks.api_client import ApiClient
        from blocks.egress import CheckedTransport
        from blocks.http_auth import HomeAuth, Origin

        base = self._job["base_url"]
        transport = CheckedTransport(
            allow_private=True, total_seconds=300, limits=httpx.Limits(max_connections=8)
        )
        return ApiClient(base, HomeAuth(Origin.of(httpx.URL(base))), transport)

    def redis_url(self) -> None:
        """Name no Redis server."""

    def warehouse(self) -> Any:
        """Give no warehouse: with one client the state of the host need not be shared."""
        raise ConnectionError


@contextmanager
def _ready(_name: str, job: dict[str, Any]) -> Iterator[Any]:
    yield ReadyClients(job)


@contextmanager
def _from_blocks(name: str, job: dict[str, Any]) -> Iterator[Any]:
    """Open the clients from Prefect's blocks, in a process that has Prefect, as a flow does."""
    from types import SimpleNamespace

    from blocks.rest_api import RestApiCredentials
    from blocks.source_database import SourceDatabase
    from tasks.connections import Connections
    from tasks.environments import load_environment

    blocks = {
        "csv": lambda: None,
        "objects": lambda: _bucket(
            SimpleNamespace(
                access_key=job["key"], secret_key=job["secret"], endpoint_url=job["endpoint"]
            ),
            job["bucket"],
        ),
        "table": lambda: SourceDatabase.from_url(job["url"]),
        "api": lambda: RestApiCredentials(base_url=job["base_url"], allow_private=True),
    }
    block: Any = blocks[name]()
    with Connections(load_environment("prod"), lambda _class, _name: block) as connections:
        yield connections


def extract_with_ours(name: str, job: dict[str, Any], out: Path, opened: Any) -> int:
    """Plan and ingest as the flows do, into the raw zone of a lake.

    Args:
        name: Which source.
        job: Where it is.
        out: Folder of the lake and of unfinished files.
        opened: Opens the source's clients for one piece of work.
    """
    from obstore.store import LocalStore

    from blocks.lake import Lake
    from tasks.environments import load_environment
    from tasks.ingestion.connector import PlanLimits
    from tasks.ingestion.read import ingest_partition
    from tasks.ingestion.registry import connector_for
    from tasks.model.dataset import DatasetSpec
    from tasks.model.run import Partition, SourceState

    columns = {column: {"type": "string"} for column in COLUMNS}
    spec = DatasetSpec.model_validate(
        {
            "name": "things",
            "description": "Things",
            "source": _declared(name, job),
            "columns": columns,
            "load": {"table": "analytics.things", "mode": "append"},
        }
    )
    environment = load_environment("prod")  # how production cuts its sources
    limits = PlanLimits(partition_bytes=environment.partition_bytes)
    (out / "lake").mkdir()
    lake = Lake(LocalStore(out / "lake"), out / "lake")
    with opened(name, job) as connections:
        partitions = connector_for(spec, connections, limits, out).plan(SourceState())

        def ingest(numbered: tuple[int, Partition]) -> int:
            scratch = out / f"scratch-{numbered[0]}"
            scratch.mkdir()
            with opened(name, job) as clients:
                connector = connector_for(spec, clients, limits, scratch)
                return ingest_partition(connector, numbered[1], spec, lake, scratch).rows

        with ThreadPoolExecutor(min(environment.concurrency, os.cpu_count() or 1)) as pool:
            return sum(pool.map(ingest, enumerate(partitions)))


def run_ours(contender: str, name: str, described: str, out: str) -> None:
    """Run our side of one job in this process, and say what it took."""
    opened = _ready
    if contender == "ours_in_prefect":
        import_module("tasks.ingestion.ingest")  # the stage as a Prefect task

        opened = _from_blocks
    began = time.perf_counter()
    rows = extract_with_ours(name, json.loads(described), Path(out), opened)
    seconds = time.perf_counter() - began
    print(json.dumps({"rows": rows, "seconds": seconds, "peak": peak_memory()}))


def measure(contender: str, name: str, job: dict[str, Any], peers: str) -> dict[str, Any]:
    """Run one contender in a process of its own.

    Returns:
        Its rows, seconds and peak memory; or what went wrong under ``failed``.
    """
    out = tempfile.mkdtemp(prefix="dpp-bench-")
    command = [peers, str(Path(__file__).with_name("peers.py")), contender, json.dumps(job), out]
    if contender.startswith("ours"):
        ours = [sys.executable, "-m", "benchmarks.ingestion", "--ours", contender]
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
    from rich.table import Table

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
    parser.add_argument("--ours", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve_pages(given.serve)
        return
    if given.ours:
        run_ours(*given.ours)
        return
    from rich.console import Console

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
