"""Puts the flights into object storage, one file a day, and the reference tables into a database."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import groupby

from sqlalchemy import (
    DateTime,
    Double,
    Engine,
    Integer,
    MetaData,
    Table,
    Text,
    func,
    insert,
    select,
)
from sqlalchemy import Column as C

from demo.nycflights import NULL, flight_lines, rows

YEAR, MONTH, DAY = 0, 1, 2
FIRST_CHANGE = datetime(2013, 1, 1, tzinfo=UTC)

METADATA = MetaData()
TABLES = (
    Table(
        "airlines",
        METADATA,
        C("carrier", Text, primary_key=True),
        C("name", Text, nullable=False),
        C("updated_at", DateTime(timezone=True), nullable=False),
    ),
    Table(
        "airports",
        METADATA,
        C("faa", Text, primary_key=True),
        C("name", Text, nullable=False),
        C("lat", Double, nullable=False),
        C("lon", Double, nullable=False),
        C("alt", Integer),
        C("tz", Integer),
        C("dst", Text),
        C("tzone", Text),
        C("updated_at", DateTime(timezone=True), nullable=False),
    ),
    Table(
        "planes",
        METADATA,
        C("tailnum", Text, primary_key=True),
        C("year", Integer),
        C("type", Text),
        C("manufacturer", Text),
        C("model", Text),
        C("engines", Integer),
        C("seats", Integer),
        C("speed", Integer),
        C("engine", Text),
        C("updated_at", DateTime(timezone=True), nullable=False),
    ),
)


def daily_files() -> Iterator[tuple[str, bytes]]:
    """Yield (key, gzipped CSV) of each day; equal at every call, down to the byte."""
    lines = flight_lines()
    header = next(lines)
    for (year, month, day), of_day in groupby(lines, key=lambda line: line.split(",", 3)[:3]):
        text = "\n".join([header, *of_day, ""])
        key = f"flights/{year}-{int(month):02}-{int(day):02}.csv.gz"
        yield key, gzip.compress(text.encode(), compresslevel=6, mtime=0)


def publish_flights(put: Callable[[str, bytes], object], existing: set[str]) -> int:
    """Upload the days that are not there yet; return how many were uploaded."""
    uploaded = 0
    for key, content in daily_files():
        if key not in existing:
            put(key, content)
            uploaded += 1
    return uploaded


def seed_operations(engine: Engine) -> int:
    """Fill the source database, unless it is filled; return the number of rows inserted."""
    METADATA.create_all(engine)
    inserted = 0
    for table in TABLES:
        with engine.begin() as connection:
            if connection.scalar(select(func.count()).select_from(table)):
                continue
            content = [
                _typed(table, row) | {"updated_at": FIRST_CHANGE + timedelta(hours=number // 10)}
                for number, row in enumerate(rows(table.name))
            ]
            connection.execute(insert(table), content)
            inserted += len(content)
    return inserted


def _typed(table: Table, row: dict[str, str]) -> dict[str, object]:
    return {
        name: None if text == NULL else table.c[name].type.python_type(text)
        for name, text in row.items()
    }


