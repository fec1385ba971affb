"""The flights come as one file a day, byte for byte; the operations tables come typed, once."""

import gzip
from collections import Counter
from datetime import UTC, datetime

import pytest
from sqlalchemy import create_engine, select

from demo import publish
from demo.nycflights import FLIGHTS, flight_lines, rows
from demo.publish import METADATA, TABLES, daily_files, publish_flights, seed_operations
from tasks.model.errors import ConfigError

ROWS = {"airlines": 16, "airports": 1458, "planes": 3322}


@pytest.fixture(scope="module")
def published() -> dict[str, bytes]:
    store: dict[str, bytes] = {}
    assert publish_flights(store.__setitem__, set()) == 365
    return store


@pytest.fixture(scope="module")
def operations():
    engine = create_engine("sqlite://")
    assert seed_operations(engine) == sum(ROWS.values())
    yield engine
    engine.dispose()


def _content(engine) -> dict[str, list]:
    with engine.connect() as connection:
        return {table.name: list(connection.execute(select(table))) for table in TABLES}


def test_a_year_is_365_objects(published):
    assert len(published) == 365
    assert min(published) == "flights/2013-01-01.csv.gz"
    assert max(published) == "flights/2013-12-31.csv.gz"


def test_every_line_of_the_file_is_published_once_and_unchanged(published):
    """The lines of all objects are those of flights.csv, field for field, NA included."""
    lines = flight_lines()
    header = next(lines)
    found: Counter[str] = Counter()
    for content in published.values():
        first, *of_day = gzip.decompress(content).decode().removesuffix("\n").split("\n")
        assert first == header
        found.update(of_day)
    assert found.total() == FLIGHTS == 336_776
    assert found == Counter(lines)


def test_an_object_holds_its_own_day(published):
    for key, content in published.items():
        _, *of_day = gzip.decompress(content).decode().splitlines()
        days = {"{}-{:0>2}-{:0>2}".format(*line.split(",")) for line in of_day}
        assert days == {key.removeprefix("flights/").removesuffix(".csv.gz")}


def test_objects_are_the_same_bytes_every_time(published):
    """ETags are stable: no time, name or system is in the header of gzip."""
    assert dict(daily_files()) == published
    assert {content[3:8] + content[9:10] for content in published.values()} == {b"\0" * 5 + b"\xff"}


def test_objects_that_are_there_are_not_uploaded_again(published):
    uploaded: list[str] = []
    missing = {"flights/2013-02-28.csv.gz", "flights/2013-12-31.csv.gz"}
    count = publish_flights(lambda key, _: uploaded.append(key), set(published) - missing)
    assert count == 2
    assert set(uploaded) == missing
    assert publish_flights(lambda key, _: uploaded.append(key), set(published)) == 0


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        # A day in two pieces would overwrite its own first half.
        (["year,month,day,x", "2013,1,1,a", "2013,1,2,b", "2013,1,1,c"], "not in one piece"),
        # Days cannot be told from other columns.
        (["day,month,year,x", "1,1,2013,a"], "does not begin with"),
    ],
)
def test_a_file_that_cannot_be_cut_into_days_is_refused(monkeypatch, lines, message):
    monkeypatch.setattr(publish, "flight_lines", lambda: iter(lines))
    with pytest.raises(ConfigError, match=message):
        dict(daily_files())


def test_the_tables_have_the_rows_of_the_files(operations):
    content = _content(operations)
    assert {name: len(found) for name, found in content.items()} == ROWS


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_values_are_those_of_the_files(operations, table):
    """A number is the number that was written, a text the text, and only NA is NULL."""
    with operations.connect() as connection:
        found = connection.execute(select(table)).mappings()
        stored = {row[table.primary_key.columns[0].name]: dict(row) for row in found}
    for row in rows(table.name):
        record = stored[row[table.primary_key.columns[0].name]]
        assert record.pop("updated_at").year == 2013
        for name, text in row.items():
            value = record.pop(name)
            assert value is None if text == "NA" else type(value)(text) == value
        assert record == {}


def test_missing_values_are_null_where_they_should_be(operations):
    content = _content(operations)
    assert sum(row.year is None for row in content["planes"]) == 70
    assert sum(row.speed is None for row in content["planes"]) == 3299
    assert sum(row.tzone is None for row in content["airports"]) == 3


def test_seeding_again_changes_nothing(operations):
    before = _content(operations)
    assert seed_operations(operations) == 0
    assert _content(operations) == before


def test_two_databases_get_the_same_content(operations):
    other = create_engine("sqlite://")
    try:
        seed_operations(other)
        assert _content(other) == _content(operations)
    finally:
        other.dispose()


def test_changes_are_spread_over_the_year(operations):
    """Every row of a table has a time of its own, so that a cursor can walk through the year."""
    for name, found in _content(operations).items():
        times = [row.updated_at.replace(tzinfo=UTC) for row in found]
        assert len(set(times)) == ROWS[name]
        assert min(times) == datetime(2013, 1, 1, tzinfo=UTC)
        assert max(times) < datetime(2014, 1, 1, tzinfo=UTC)


def test_every_table_says_when_a_row_changed():
    for table in METADATA.tables.values():
        assert table.c.updated_at.type.timezone
        assert not table.c.updated_at.nullable
