"""The peers' side of ``benchmarks/ingestion.py``: run by the interpreter that has them installed.

Each function extracts one source into Parquet files of a folder, in the way that the peer's own
documentation shows for speed, and returns the number of rows.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.process import peak_memory

IMPORTED = {
    "pandas": ("pandas", "pyarrow.parquet", "s3fs", "sqlalchemy", "requests"),
    "dlt": ("dlt", "dlt.sources.filesystem", "dlt.sources.sql_database", "pyarrow.parquet"),
}


def pandas_csv(job: dict[str, Any], out: Path) -> int:
    import pandas as pd

    frame = pd.read_csv(job["path"])
    frame.to_parquet(out / "rows.parquet")
    return len(frame)


def pandas_objects(job: dict[str, Any], out: Path) -> int:
    import pandas as pd
    import s3fs

    bucket = s3fs.S3FileSystem(**_s3(job))
    frames = []
    for key in bucket.find(job["bucket"]):
        with bucket.open(key) as file:
            frames.append(pd.read_csv(file))
    frame = pd.concat(frames)
    frame.to_parquet(out / "rows.parquet")
    return len(frame)


def pandas_table(job: dict[str, Any], out: Path) -> int:
    import pandas as pd
    from sqlalchemy import create_engine

    rows = 0
    with create_engine(job["url"]).connect().execution_options(stream_results=True) as connection:
        frames = pd.read_sql(f"SELECT * FROM {job['table']}", connection, chunksize=100_000)
        for number, frame in enumerate(frames):
            frame.to_parquet(out / f"{number}.parquet")
            rows += len(frame)
    return rows


def pandas_api(job: dict[str, Any], out: Path) -> int:
    import pandas as pd
    import requests

    records: list[Any] = []
    with requests.Session() as session:
        for page in range(1, job["pages"] + 1):
            records += session.get(job["url"], params={"page": page}).json()["data"]
    frame = pd.json_normalize(records, max_level=0)
    frame["tags"] = frame["tags"].map(json.dumps)
    frame.to_parquet(out / "rows.parquet")
    return len(frame)


def _s3(job: dict[str, Any]) -> dict[str, Any]:
    return {
        "key": job["key"],
        "secret": job["secret"],
        "client_kwargs": {"endpoint_url": job["endpoint"], "region_name": "us-east-1"},
    }


def _dlt(resource_: Any, out: Path) -> int:
    import dlt

    pipeline = dlt.pipeline(
        "benchmark",
        pipelines_dir=str(out / "work"),
        destination=dlt.destinations.filesystem(bucket_url=(out / "files").as_uri()),
        dataset_name="rows",
    )
    pipeline.run(resource_, loader_file_format="parquet")
    counts = pipeline.last_trace.last_normalize_info.row_counts
    return sum(rows for table, rows in counts.items() if table == "things")


def dlt_csv(job: dict[str, Any], out: Path) -> int:
    from dlt.sources.filesystem import filesystem, read_csv_duckdb

    path = Path(job["path"])
    files = filesystem(bucket_url=path.parent.as_uri(), file_glob=path.name)
    return _dlt((files | read_csv_duckdb(use_pyarrow=True)).with_name("things"), out)


def dlt_objects(job: dict[str, Any], out: Path) -> int:
    from dlt.sources.credentials import AwsCredentials
    from dlt.sources.filesystem import filesystem, read_csv_duckdb

    credentials = AwsCredentials(
        aws_access_key_id=job["key"],
        aws_secret_access_key=job["secret"],
        endpoint_url=job["endpoint"],
        region_name="us-east-1",
    )
    files = filesystem(
        bucket_url=f"s3://{job['bucket']}", file_glob="**/*.csv", credentials=credentials
    )
    return _dlt((files | read_csv_duckdb(use_pyarrow=True)).with_name("things"), out)


def dlt_table(job: dict[str, Any], out: Path) -> int:
    from dlt.sources.sql_database import sql_table

    schema, table = job["table"].split(".")
    rows = sql_table(
        credentials=job["url"], schema=schema, table=table, backend="pyarrow", chunk_size=100_000
    )
    return _dlt(rows.with_name("things"), out)


def dlt_table_connectorx(job: dict[str, Any], out: Path) -> int:
    from dlt.sources.sql_database import sql_table

    schema, table = job["table"].split(".")
    rows = sql_table(
        credentials=job["url"],
        schema=schema,
        table=table,
        backend="connectorx",
        reflection_level="full_with_precision",
        backend_kwargs={"conn": job["url"].replace("+psycopg2", ""), "return_type": "arrow_stream"},
    )
    return _dlt(rows.with_name("things"), out)


def dlt_api(job: dict[str, Any], out: Path) -> int:
    import dlt
    from dlt.sources.helpers.rest_client import RESTClient
    from dlt.sources.helpers.rest_client.paginators import PageNumberPaginator

    client = RESTClient(
        job["base_url"],
        paginator=PageNumberPaginator(base_page=1, total_path="pages"),
        data_selector="data",
    )

    @dlt.resource(name="things", max_table_nesting=0)
    def things() -> Any:
        yield from client.paginate(job["path"])

    return _dlt(things, out)


def main() -> None:
    """Run one contender on one job, and say what it took."""
    name, described, out = sys.argv[1], json.loads(sys.argv[2]), Path(sys.argv[3])
    extract: Callable[[dict[str, Any], Path], int] = globals()[name]
    for package in IMPORTED[name.split("_", maxsplit=1)[0]]:
        import_module(package)  # importing is not what is measured
    began = time.perf_counter()
    rows = extract(described, out)
    seconds = time.perf_counter() - began
    print(json.dumps({"rows": rows, "seconds": seconds, "peak": peak_memory()}))


if __name__ == "__main__":
    main()
