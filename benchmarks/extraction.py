"""Our side of ``benchmarks/ingestion.py``: one source is planned and ingested in this process.

python -m benchmarks.extraction CONTENDER SOURCE JOB FOLDER
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from obstore.store import LocalStore

from benchmarks.pages import PAGE_RECORDS
from benchmarks.process import peak_memory
from benchmarks.sources import COLUMNS, bucket
from blocks.lake import Lake
from tasks.environments import load_environment
from tasks.ingestion.connector import PlanLimits
from tasks.ingestion.read import ingest_partition
from tasks.ingestion.registry import connector_for
from tasks.model.dataset import DatasetSpec
from tasks.model.partition import Partition
from tasks.model.request import SourceState


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

    blocks = {
        "csv": lambda: None,
        "objects": lambda: bucket(
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
    job = json.loads(described)
    with opened(name, job):
        pass  # importing is not what is measured
    began = time.perf_counter()
    rows = extract_with_ours(name, job, Path(out), opened)
    seconds = time.perf_counter() - began
    print(json.dumps({"rows": rows, "seconds": seconds, "peak": peak_memory()}))


if __name__ == "__main__":
    run_ours(*sys.argv[1:])
