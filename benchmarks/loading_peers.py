"""The peers' side of ``benchmarks/loading.py``: run by the interpreter that has them installed.

Each function loads one file into PostgreSQL in the way that the peer's own documentation shows, and
returns the number of rows that it was given.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks.process import cpu_seconds, peak_memory

IMPORTED = {
    "pandas": ("pandas", "pyarrow.parquet", "sqlalchemy"),
    "adbc": ("adbc_driver_postgresql.dbapi", "pyarrow.parquet"),
    "dlt": ("dlt", "dlt.destinations", "pyarrow.parquet"),
    "sling": ("sling_linux_amd64",),
}
PACKAGES = {"adbc": "adbc-driver-postgresql", "sling": "sling-linux-amd64"}
KEY = ["l_orderkey", "l_linenumber"]
PANDAS_ROWS = 50_000
"""At its speed the whole file would take minutes; its rate does not depend on the number."""


def _batches(job: dict[str, Any], rows: int = 65_536) -> Iterator[Any]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(job["path"]) as file:
        for group in range(file.num_row_groups):
            yield from file.iter_batches(rows, row_groups=[group])


def pandas_append(job: dict[str, Any]) -> int:
    import pandas as pd
    from sqlalchemy import create_engine

    frame = pd.read_parquet(job["path"]).head(PANDAS_ROWS)
    engine = create_engine(job["url"])
    frame.to_sql("pandas_lineitem", engine, if_exists="append", index=False, chunksize=10_000)
    return len(frame)


def adbc_append(job: dict[str, Any]) -> int:
    import adbc_driver_postgresql.dbapi as adbc
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pq.read_schema(job["path"])
    with adbc.connect(job["url"]) as connection, connection.cursor() as cursor:
        reader = pa.RecordBatchReader.from_batches(schema, _batches(job))
        cursor.adbc_ingest("adbc_lineitem", reader, mode="create")
        connection.commit()
    return job["rows"]


def _dlt(job: dict[str, Any], disposition: Any, *, tuned: bool, keyed: bool) -> int:
    import dlt

    if tuned:  # several files are loaded at a time
        os.environ["DATA_WRITER__FILE_MAX_ITEMS"] = "500000"
    os.environ["RUNTIME__LOG_LEVEL"] = "ERROR"
    pipeline = dlt.pipeline(
        job["pipeline"],
        pipelines_dir=job["pipelines"],
        destination=dlt.destinations.postgres(job["url"]),
        dataset_name=job["pipeline"],
    )
    hints = {"primary_key": KEY} if keyed else {}
    resource_ = dlt.resource(_batches(job), name="lineitem", write_disposition=disposition, **hints)
    format_ = {"loader_file_format": "parquet"} if tuned else {}
    pipeline.run(resource_, **format_)
    return job["rows"]


def dlt_append(job: dict[str, Any]) -> int:
    return _dlt(job, "append", tuned=False, keyed=False)


def dlt_append_tuned(job: dict[str, Any]) -> int:
    return _dlt(job, "append", tuned=True, keyed=False)


def dlt_merge(job: dict[str, Any]) -> int:
    return _dlt(job, "merge", tuned=False, keyed=True)


def dlt_merge_tuned(job: dict[str, Any]) -> int:
    return _dlt(job, "merge", tuned=True, keyed=True)


def dlt_upsert_tuned(job: dict[str, Any]) -> int:
    upsert = {"disposition": "merge", "strategy": "upsert"}
    return _dlt(job, upsert, tuned=True, keyed=True)


def _sling(job: dict[str, Any], table: str, *more: str) -> int:
    import sling_linux_amd64

    binary = Path(sling_linux_amd64.__path__[0]) / "bin" / "sling-linux-amd64"
    binary.chmod(0o755)
    address = urlsplit(job["url"])
    environment = {
        **os.environ,
        "WAREHOUSE": f"postgres://{address.netloc}{address.path}?sslmode=disable",
        "SLING_LOADED_AT_COLUMN": "false",
        "DBUS_SESSION_BUS_ADDRESS": "disabled:",
    }
    done = subprocess.run(
        [
            str(binary), "run", "--src-stream", f"file://{job['csv']}", "--tgt-conn", "WAREHOUSE",
            "--tgt-object", table, *more,
        ],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError((done.stdout + done.stderr).strip().splitlines()[-1])
    return job["rows"]


def sling_append(job: dict[str, Any]) -> int:
    return _sling(job, "public.sling_append", "--mode", "full-refresh")


def sling_merge(job: dict[str, Any]) -> int:
    keys = ",".join(KEY)
    return _sling(job, "public.sling_merge", "--mode", "incremental", "--primary-key", keys)


def main() -> None:
    """Run one contender on one job, and say what it took."""
    name, described = sys.argv[1], json.loads(sys.argv[2])
    load: Callable[[dict[str, Any]], int] = globals()[name]
    package = name.split("_", maxsplit=1)[0]
    for module in IMPORTED[package]:
        import_module(module)  # importing is not what is measured
    before = cpu_seconds()
    began = time.perf_counter()
    rows = load(described)
    seconds = time.perf_counter() - began
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss << 10
    peak = max(peak_memory(), children)
    said = {"rows": rows, "seconds": seconds, "cpu": cpu_seconds() - before, "peak": peak}
    print(json.dumps({**said, "version": f"{package} {version(PACKAGES.get(package, package))}"}))


if __name__ == "__main__":
    main()
