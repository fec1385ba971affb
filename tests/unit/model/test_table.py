"""Indexes, grants, partitions and names in a dataset file: what is refused, and in which words."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tasks.catalog import load_catalog
from tasks.loading.ranges import Range, bounded, gaps, is_regular, period_of, range_suffix
from tasks.model.errors import ConfigError
from tasks.model.index_expression import read_expression
from tasks.model.names import named_within_limit
from tasks.model.table import PartitionBy
from tasks.transformation.contract import column_name
from tests.integration.loading.support import make_spec

COLUMNS = {
    "id": {"type": "int64"},
    "day": {"type": "date", "nullable": False},
    "name": {"type": "string"},
}
PARTS = {"column": "day", "every": "month"}


def refusal(load: dict[str, Any], **more: Any) -> str:
    mode = {"table": "analytics.things", "mode": "merge", **load}
    more = {"key": ("id", "day"), "cursor": None, **more}
    with pytest.raises(ValidationError) as refused:
        make_spec(more.pop("columns", COLUMNS), load=mode, **more)
    return str(refused.value)


# load: and other keys of a dataset file, and words of the refusal.
REFUSED: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"indexes": [{"columns": ["nr"]}]}, {}, "load.indexes.0: 'nr': no column 'nr'; declared are id"),
    ({"indexes": [{"columns": ["lower(1)"]}]}, {}, "reads no column"),
    ({"indexes": [{"columns": ["id); DROP TABLE x; --"]}]}, {}, "found ';'"),
    ({"indexes": [{"columns": ["id) , (day"]}]}, {}, "not one expression with matching paren"),
    ({"indexes": [{"columns": ["id, day"]}]}, {}, "not one expression"),
    ({"indexes": [{"columns": ["(id"]}]}, {}, "not one expression with matching parentheses"),
    ({"indexes": [{"columns": ['"id"']}]}, {}, "found '\"'"),
    ({"indexes": [{"columns": ["id::regclass"]}]}, {}, "'regclass' is no type to cast to"),
    ({"indexes": [{"columns": ["LOWER(name)"]}]}, {}, "write the function 'LOWER' in small letters"),
    ({"indexes": [{"columns": ["id"], "where": "nr > 1"}]}, {}, "no column 'nr'"),
    ({"indexes": [{"columns": ["id"], "method": "rtree"}]}, {}, "'btree', 'hash', 'brin' or 'gin'"),
    ({"indexes": [{"columns": ["id"], "method": "gin", "unique": True}]}, {}, "needs method btree"),
    ({"indexes": [{"columns": ["id", "day"], "method": "hash"}]}, {}, "a hash index has one column"),
    ({"indexes": [{"columns": ["id"]}, {"columns": ["id"]}]}, {}, "indexes.1: it is declared twice"),
    ({"grants": {"": ["select"]}}, {}, "'' is no role"),
    ({"grants": {"none": ["select"]}}, {}, "'none' is no role"),
    ({"grants": {"r" * 64: ["select"]}}, {}, "is no role: 1 to 63 bytes"),
    ({"grants": {"reporting": ["read"]}}, {}, "'select', 'insert'"),
    ({"partition_by": {**PARTS, "column": "nr"}}, {}, "partition_by.column: no column 'nr'"),
    (
        {"partition_by": PARTS},
        {"key": ("id",)},
        "'day' is not part of the primary key of the table (id); PostgreSQL keeps a key unique",
    ),
    (
        {"partition_by": PARTS, "mode": "replace"},
        {"key": ("id",)},
        "'day' is not part of the primary key of the table (id)",
    ),
    (
        {"partition_by": PARTS, "mode": "scd2"},
        {"key": ("id",), "cursor": "name"},
        "'day' is not part of the primary key of the table (id, valid_from)",
    ),
    (
        {"partition_by": PARTS, "mode": "scd2"},
        {"key": ("id",), "cursor": "day"},
        "demands; write column: valid_from",
    ),
    (
        {"partition_by": {**PARTS, "column": "valid_from", "retention": "1 year"}, "mode": "scd2"},
        {"key": ("id",), "cursor": "day"},
        "a version that began long ago may still hold",
    ),
    (
        {"partition_by": {**PARTS, "column": "valid_from"}, "mode": "scd2"},
        {"key": ("id",), "cursor": "name"},
        "'valid_from' is string; partitions are ranges of a date",
    ),
    (
        {"partition_by": {**PARTS, "column": "valid_from"}},
        {},
        "partition_by.column: no column 'valid_from'",
    ),
    (
        {"partition_by": {**PARTS, "column": "name"}},
        {"key": ("id", "name")},
        "'name' is string; partitions are ranges of a date",
    ),
    ({"partition_by": {**PARTS, "every": 7}}, {}, "found 7; of a time: day, week, month or year"),
    ({"partition_by": {**PARTS, "column": "id"}}, {}, "say how many numbers a partition has"),
    (
        {"partition_by": {"column": "id", "every": 10, "retention": "1 year"}},
        {},
        "'retention' and 'outside' are for times",
    ),
    ({"partition_by": {**PARTS, "retention": "soon"}}, {}, "write e.g. 24 months"),
    ({"partition_by": {**PARTS, "every": True}}, {}, "every"),
    (
        {"partition_by": PARTS, "mode": "append"},
        {"key": (), "columns": {**COLUMNS, "day": {"type": "date"}}},
        "belongs to no partition; declare the column with nullable: false",
    ),
    (
        {"partition_by": PARTS, "indexes": [{"columns": ["name"], "unique": True}]},
        {},
        "indexes.0: it is unique and has not 'day', by which the table is partitioned",
    ),
    (
        {"partition_by": PARTS, "indexes": [{"columns": ["day", "lower(name)"], "unique": True}]},
        {},
        "no unique index over an expression on a partitioned table",
    ),
    ({"table": "pg_mine.things"}, {}, "schema 'pg_mine' belongs to PostgreSQL"),
    ({"table": "information_schema.things"}, {}, "belongs to PostgreSQL"),
    ({"table": "Analytics.things"}, {}, "'Analytics' is no name"),
    ({"table": f"analytics.{'t' * 64}"}, {}, "at most 63 bytes"),
    ({}, {"columns": {**COLUMNS, "xmin": {"type": "int64"}}}, "has a hidden xmin"),
    ({}, {"columns": {**COLUMNS, "Name": {"type": "string"}}}, "'Name' is no name"),
    ({}, {"columns": {**COLUMNS, "größe": {"type": "string"}}}, "'größe' is no name"),
    ({}, {"columns": {**COLUMNS, "n" * 64: {"type": "string"}}}, "at most 63 bytes"),
    ({}, {"columns": {**COLUMNS, "_load_id": {"type": "int64"}}}, "is no name"),
]  # fmt: skip


@pytest.mark.parametrize(("load", "more", "words"), REFUSED, ids=[row[2][:40] for row in REFUSED])
def test_refusal_says_what_and_why(load: dict[str, Any], more: dict[str, Any], words: str) -> None:
    assert words in refusal(load, **more)


def test_column_of_the_source_is_never_a_hidden_one() -> None:
    assert [column_name(name) for name in ("xmin", "CTID", "tableoid")] == [
        "c_xmin", "c_ctid", "c_tableoid",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "name", ["things_pkey", "things_search", "things_p2024_01", "things_pdefault"]
)
def test_table_named_like_a_part_of_another_is_refused(tmp_path: Path, name: str) -> None:
    """Tables, indexes and partitions of a schema share their names."""
    text = (
        "name: {0}\ndescription: x\nsource: {{kind: files, path: x, format: {{kind: csv}}}}\n"
        "key: [day]\ncolumns: {{day: {{type: date}}, t: {{type: string}}}}\n"
        "load: {{table: analytics.{0}, mode: merge, index: {{search: [t]}}, "
        "partition_by: {{column: day, every: month}}}}\n"
    )
    (tmp_path / "things.yaml").write_text(text.format("things"))
    (tmp_path / "things_p.yaml").write_text(text.format("things_p"))
    load_catalog(tmp_path)
    (tmp_path / f"{name}.yaml").write_text(text.format(name))
    with pytest.raises(
        ConfigError, match=rf"load.table: analytics.{name} is what an index or a part"
    ):
        load_catalog(tmp_path)


NAME = st.from_regex(r"[a-z][a-z0-9_]{0,62}", fullmatch=True)


@given(NAME, NAME, st.sampled_from(["search", "p2024_01", "x" * 40]))
def test_made_names_fit_and_stay_apart(one: str, other: str, suffix: str) -> None:
    made = [named_within_limit(name, suffix) for name in (one, other)]
    assert all(len(name) <= 63 for name in made)
    assert (made[0] == made[1]) == (one == other)


@given(st.text(max_size=30))
def test_no_text_gets_out_of_an_index(text: str) -> None:
    """What is accepted has balanced parentheses, no comment, and quotes around every name."""
    try:
        read = read_expression(text, ["id", "name"])
    except ValueError:
        return
    rest, depth = "", 0
    for position, piece in enumerate(read.sql.split("'")):
        rest += piece if position % 2 == 0 else ""
    for character in rest:
        depth += (character == "(") - (character == ")")
        assert depth >= 0
    assert depth == 0 and not any(mark in rest for mark in (";", "--", "/*", "$", "\\"))
    assert set(read.columns) <= {"id", "name"}


TIMES = st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59))
PERIODS = st.sampled_from(["day", "week", "month", "year"])


@given(TIMES, PERIODS)
def test_every_time_is_in_one_period(time: datetime, every: Any) -> None:
    period = period_of(time, every)
    assert period.covers(time)
    assert len(range_suffix(period, every)) <= 20
    for edge in (period.lower, period.upper):
        if isinstance(edge, datetime):
            assert period_of(edge, every).lower == edge


@given(TIMES, st.lists(st.tuples(TIMES, st.integers(0, 90)), max_size=5))
def test_gaps_are_what_is_missing(time: datetime, others: list[tuple[datetime, int]]) -> None:
    wanted = period_of(time, "year")
    there = [
        Range(first, first + timedelta(days))
        for first, days in others
        if first < datetime(9999, 1, 1)
    ]
    missing = gaps(wanted, there)
    for point in [time, *(edge for one in there for edge in (one.lower, one.upper))]:
        if isinstance(point, datetime) and wanted.covers(point):
            covered = any(one.covers(point) for one in there)
            assert sum(one.covers(point) for one in missing) == (not covered)


def test_bounds_are_read_as_postgresql_writes_them() -> None:
    def read(text: str) -> Range | None:
        return bounded(f"FOR VALUES FROM ({text.replace(' TO ', ') TO (')})", numbers=False)

    assert read("'2024-01-01 00:00:00+00' TO MAXVALUE") == Range(datetime(2024, 1, 1), None)
    assert read("'0044-03-15 BC' TO 'infinity'") == Range(datetime.min, datetime.max)
    assert bounded("DEFAULT", numbers=False) is None


def test_retention_and_ahead_make_the_regular_span() -> None:
    by = PartitionBy(column="day", every="month", ahead=1, retention="3 months")
    now = datetime(2024, 5, 31)
    regular = [
        month for month in range(1, 10) if is_regular(by, datetime(2024, month, 1), now)
    ]  # the 29th of February and all after it are kept
    assert regular == [2, 3, 4, 5, 6]
