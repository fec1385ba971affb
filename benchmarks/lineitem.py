"""Rows in the shape of TPC-H's lineitem: sixteen columns of six types, a key of two columns."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import duckdb

from tasks.model.dataset import DatasetSpec

COLUMNS: dict[str, dict[str, Any]] = {
    "l_orderkey": {"type": "int64"},
    "l_linenumber": {"type": "int32"},
    "l_partkey": {"type": "int32"},
    "l_suppkey": {"type": "int32"},
    "l_quantity": {"type": "decimal(15,2)"},
    "l_extendedprice": {"type": "decimal(15,2)"},
    "l_discount": {"type": "decimal(15,2)"},
    "l_tax": {"type": "decimal(15,2)"},
    "l_returnflag": {"type": "string"},
    "l_linestatus": {"type": "string"},
    "l_shipdate": {"type": "date"},
    "l_commitdate": {"type": "date"},
    "l_receiptdate": {"type": "date"},
    "l_shipinstruct": {"type": "string"},
    "l_shipmode": {"type": "string"},
    "l_comment": {"type": "string"},
}
KEY = ("l_orderkey", "l_linenumber")
LINES = 4
"""Lines of an order."""
ROW_GROUP = 122_880
ROW = """
    n // {lines} AS l_orderkey,
    (n % {lines})::integer AS l_linenumber,
    (hash(n, 1, {seed}) % 200000)::integer AS l_partkey,
    (hash(n, 2) % 10000)::integer AS l_suppkey,
    (hash(n, 3) % 50 + 1)::decimal(15,2) AS l_quantity,
    ((hash(n, 4) % 10000000) / 100)::decimal(15,2) AS l_extendedprice,
    ((hash(n, 5) % 11) / 100)::decimal(15,2) AS l_discount,
    ((hash(n, 6) % 9) / 100)::decimal(15,2) AS l_tax,
    ['N', 'R', 'A'][(hash(n, 7) % 3 + 1)::integer] AS l_returnflag,
    ['O', 'F'][(hash(n, 8) % 2 + 1)::integer] AS l_linestatus,
    date '1992-01-02' + (hash(n, 9) % 2500)::integer AS l_shipdate,
    date '1992-01-31' + (hash(n, 10) % 2450)::integer AS l_commitdate,
    date '1992-01-04' + (hash(n, 11) % 2520)::integer AS l_receiptdate,
    ['DELIVER IN PERSON', 'COLLECT COD', 'NONE', 'TAKE BACK RETURN']
        [(hash(n, 12) % 4 + 1)::integer] AS l_shipinstruct,
    ['REG AIR', 'AIR', 'RAIL', 'SHIP', 'TRUCK', 'MAIL', 'FOB']
        [(hash(n, 13) % 7 + 1)::integer] AS l_shipmode,
    substr('carefully final deposits sleep quickly among the furiously even requests; '
           || 'blithely regular ideas are', (hash(n, 14) % 60 + 1)::integer,
           (hash(n, 15) % 34 + 10)::integer) AS l_comment
"""


def write_rows(path: Path, first: int, count: int, *, changed: int = 0, stride: int = 1) -> None:
    """Write rows as a clean Parquet file, or as CSV if the path ends so.

    Args:
        path: The file.
        first: Number of the first row; a row's key and values follow from its number.
        count: Rows to write.
        changed: Other values of one column for another number here: a newer version of the rows.
        stride: Distance between the numbers of two rows: keys scattered over a larger table.
    """
    row = ROW.format(lines=LINES, seed=changed)
    options = (
        "FORMAT csv, HEADER"
        if path.suffix == ".csv"
        else f"FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {ROW_GROUP}"
    )
    with duckdb.connect() as session:
        session.execute(
            f"COPY (SELECT {row} FROM (SELECT {first} + i * {stride} AS n FROM range({count}) r(i))) "
            f"TO '{path}' ({options})"
        )


def lineitem(mode: str, table: str, names: Iterable[str] = COLUMNS) -> DatasetSpec:
    """Return the dataset of the rows, or of some of their columns, for a mode of loading."""
    return DatasetSpec.model_validate(
        {
            "name": table,
            "description": "Lines of orders",
            "source": {"kind": "files", "path": "*.csv", "format": {"kind": "csv"}},
            "key": list(KEY),
            "columns": {name: COLUMNS[name] for name in names},
            "load": {"table": f"bench.{table}", "mode": mode},
        }
    )
