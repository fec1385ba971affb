"""Databases: every row of a table, then only what changed, ties and missing cursors included."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa

from blocks.source_database import SourceDatabase
from blocks.warehouse import WarehouseCredentials
from tasks.ingestion.connector import PlanLimits, Reject
from tasks.ingestion.connectors.database import DatabaseConnector
from tasks.ingestion.database.cursors import decode_cursor, encode_cursor
from tasks.model.errors import SourceRejected, SourceUnavailable
from tasks.model.run import Partition, SourceState
from tasks.model.source import DatabaseSource


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, warehouse: WarehouseCredentials) -> Iterator[sa.Engine]:
    made = sa.create_engine("sqlite://" if request.param == "sqlite" else warehouse.url())
    with made.begin() as connection:
        connection.execute(
            sa.text("CREATE TABLE things (id integer PRIMARY KEY, name text, v integer)")
        )
    yield made
    made.dispose()


def insert(engine: sa.Engine, *rows: tuple[int, str, int | None]) -> None:
    with engine.begin() as connection:
        for row in rows:
            connection.execute(
                sa.text("INSERT INTO things VALUES (:i, :n, :v)"),
                dict(zip("inv", row, strict=True)),
            )


def connector(engine: sa.Engine, **source: Any) -> DatabaseConnector:
    declared = {"kind": "database", "block": "b", "table": "things", "cursor": "v", **source}
    return DatabaseConnector(
        "things", DatabaseSource.model_validate(declared), engine, PlanLimits(),
        now=lambda: datetime(2013, 1, 1, tzinfo=UTC),
    )  # fmt: skip


def read(
    made: DatabaseConnector, partition: Partition
) -> tuple[list[dict[str, Any]], list[Reject]]:
    rows: list[dict[str, Any]] = []
    rejects: list[Reject] = []
    for raw in made.read(partition):
        rows += raw.batch.to_pylist() if raw.batch is not None else []
        rejects += raw.rejects
    return rows, rejects


def test_what_changed_is_read_and_nothing_is_lost_at_the_boundary(engine: sa.Engine) -> None:
    insert(engine, (1, "a", 1), (2, "b", 2), (3, "no cursor", None))
    made = connector(engine)
    (first,) = made.plan(SourceState())
    assert [row["id"] for row in read(made, first)[0]].__len__() == 3
    state = SourceState(latest=first.state, fingerprints=frozenset({first.fingerprint}))
    assert made.plan(state) == []
    insert(engine, (4, "a tie, committed later", 2), (5, "newer", 3))
    (second,) = made.plan(state)
    assert sorted(row["id"] for row in read(made, second)[0]) == [2, 4, 5]
    state = SourceState(latest=second.state)
    assert made.plan(state) == []
    insert(engine, (6, "another without cursor", None))
    (third,) = made.plan(state)
    assert {3, 6} <= {row["id"] for row in read(made, third)[0]}


def test_rows_are_numbered_in_the_order_of_the_cursor(engine: sa.Engine) -> None:
    insert(engine, (1, "a", 9), (2, "b", 3))
    made = connector(engine)
    rows, _ = read(made, made.plan(SourceState())[0])
    assert [(row["id"], row["_source_row"]) for row in rows] == [(2, 1), (1, 2)]
    assert rows[0]["_source_uri"] == "database:b/things"


def test_table_without_cursor_is_read_whole_each_time(engine: sa.Engine) -> None:
    insert(engine, (1, "a", 1))
    made = connector(engine, cursor=None)
    (partition,) = made.plan(SourceState())
    assert [row["id"] for row in read(made, partition)[0]] == [1]


def test_query_takes_the_place_of_a_table(engine: sa.Engine) -> None:
    insert(engine, (1, "a", 1), (2, "b", 2))
    made = connector(engine, table=None, query="SELECT id, v, id * 1.5 AS more FROM things")
    rows, _ = read(made, made.plan(SourceState())[0])
    assert [row["id"] for row in rows] == ["1", "2"]
    assert float(rows[1]["more"]) == 3.0


def test_empty_table_is_no_work(engine: sa.Engine) -> None:
    assert connector(engine).plan(SourceState()) == []


def test_more_rows_than_one_fetch_are_all_read(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        connection.execute(
            sa.text("INSERT INTO things VALUES (:i, 'x', :i)"), [{"i": i} for i in range(25_000)]
        )
    made = connector(engine)
    rows, _ = read(made, made.plan(SourceState())[0])
    assert [row["_source_row"] for row in rows] == list(range(1, 25_001))


@pytest.mark.parametrize(
    ("change", "words"),
    [({"table": "nothing"}, "there is no table nothing"), ({"cursor": "w"}, "no column 'w'")],
)
def test_missing_things_are_named(engine: sa.Engine, change: dict[str, str], words: str) -> None:
    with pytest.raises(SourceRejected, match=words):
        connector(engine, **change).plan(SourceState())


def test_sqlite_value_of_another_type_refuses_its_row() -> None:
    engine = sa.create_engine("sqlite://")
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE things (id integer PRIMARY KEY, v integer)"))
        connection.execute(sa.text("INSERT INTO things VALUES (1, 7), (2, 'seven')"))
    made = connector(engine, cursor=None)
    rows, (reject,) = read(made, made.plan(SourceState())[0])
    assert [row["id"] for row in rows] == [1]
    assert (reject.rule, reject.source_row) == ("type", 2)
    assert '"v": "seven"' in reject.raw
    engine.dispose()


def test_types_of_postgresql_keep_their_values(warehouse: WarehouseCredentials) -> None:
    engine = sa.create_engine(warehouse.url())
    values = {
        "i": 2**62 + 1,
        "n": Decimal("12345678901234567890.123456789"),
        "m": Decimal("1.50"),
        "t": datetime(2013, 1, 1, 12, 0, 0, 1, tzinfo=UTC),
        "b": b"\x00\xff",
        "e": "",
        "x": None,
    }
    with engine.begin() as connection:
        connection.execute(
            sa.text(
                "CREATE TABLE things (i bigint, n numeric, m numeric(10,2), t timestamptz, b bytea, "
                "e text, x text)"
            )
        )
        connection.execute(sa.text("INSERT INTO things VALUES (:i,:n,:m,:t,:b,:e,:x)"), values)
    made = connector(engine, cursor=None)
    (row,), _ = read(made, made.plan(SourceState())[0])
    assert row | {"n": Decimal(row["n"])} | values == row | {"n": Decimal(row["n"])}
    engine.dispose()


def test_source_role_cannot_write(warehouse: WarehouseCredentials) -> None:
    block = SourceDatabase.from_url(warehouse.url().render_as_string(hide_password=False))
    engine = block.get_engine()
    with engine.connect() as connection, pytest.raises(sa.exc.DBAPIError, match="read-only"):
        connection.execute(sa.text("CREATE TABLE x (i int)"))
    engine.dispose()


def test_database_that_is_not_there_is_unavailable() -> None:
    engine = sa.create_engine("postgresql+psycopg2://u:CANARY@127.0.0.1:1/d")
    with pytest.raises(SourceUnavailable) as refusal:
        connector(engine).plan(SourceState())
    assert "CANARY" not in str(refusal.value)
    assert "Connection refused" in str(refusal.value)


@pytest.mark.parametrize(
    "cursor", [None, 5, "text", datetime(2013, 1, 1, tzinfo=UTC), Decimal("1.5")]
)
def test_cursor_survives_the_ledger(cursor: Any) -> None:
    assert decode_cursor(encode_cursor(cursor)) == cursor
