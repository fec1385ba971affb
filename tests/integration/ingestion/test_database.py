"""Databases: every row of a table, then only what changed; ties, late rows and odd cursors included.

Rows of the catalogue of bad inputs: 59 and B29 (ties), 60 (late commits), 61 (a cursor that goes
back), 62 (no cursor, a cursor in the future), B40.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from tasks.ingestion.connector import PlanLimits
from tasks.model.errors import ConfigError, SourceRejected
from tasks.model.request import SourceState, Window
from tests.integration.ingestion.database_support import (
    NOW,
    Ledger,
    connector,
    dispose_readers,
    insert_many,
    read,
    statements,
)  # fmt: skip

TIMES = {"sqlite": "text", "postgresql": "timestamptz", "mysql": "datetime(6)"}


@pytest.fixture(params=["sqlite", "postgresql", "mysql"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[sa.Engine]:
    """An empty table on each of the three."""
    if request.param == "sqlite":
        made = sa.create_engine(f"sqlite:///{tmp_path}/a.db", poolclass=sa.NullPool)
    elif request.param == "mysql":
        made = sa.create_engine(request.getfixturevalue("mariadb"))
    else:
        made = sa.create_engine(request.getfixturevalue("warehouse").url())
    statements(
        made,
        "CREATE TABLE things (id integer PRIMARY KEY, name varchar(40), v integer, "
        f"at {TIMES[request.param]})",
        "CREATE INDEX things_v ON things (v)",
    )
    yield made
    dispose_readers()
    made.dispose()


def insert(engine: sa.Engine, *rows: tuple[int, int | None]) -> None:
    with engine.begin() as connection:
        for row in rows:
            connection.execute(
                sa.text("INSERT INTO things (id, name, v) VALUES (:i, 'x', :v)"),
                dict(zip("iv", row, strict=True)),
            )


def insert_times(engine: sa.Engine, *rows: tuple[int, datetime]) -> None:
    with engine.begin() as connection:
        for i, at in rows:
            text = at.strftime("%Y-%m-%d %H:%M:%S")
            connection.execute(
                sa.text("INSERT INTO things (id, at) VALUES (:i, :at)"),
                {"i": i, "at": f"{text}+00" if engine.dialect.name == "postgresql" else text},
            )


def test_tie_that_is_committed_later_is_not_lost(engine: sa.Engine) -> None:
    """59: rows of the cursor that was largest are read again if there are more of them."""
    insert(engine, (1, 1), (2, 2))
    made, ledger = connector(engine, cursor="v"), Ledger()
    assert ledger.ids(made) == [1, 2]
    assert made.plan(ledger.state) == []
    insert(engine, (4, 2), (5, 3))
    assert ledger.ids(made) == [2, 4, 5]
    assert made.plan(ledger.state) == []
    insert(engine, (6, 3))
    assert ledger.ids(made) == [5, 6]
    assert made.plan(ledger.state) == []


def test_ties_are_not_read_again_when_none_was_added(engine: sa.Engine) -> None:
    """59: a mark that a million rows share costs nothing the next time."""
    insert(engine, *((i, 7) for i in range(20)))
    made, ledger = connector(engine, cursor="v"), Ledger()
    assert len(ledger.ids(made)) == 20
    insert(engine, (100, 8))
    assert ledger.ids(made) == [100]


def test_same_numbers_of_ties_do_not_hide_each_other(engine: sa.Engine) -> None:
    """59: one row more, one less, one more: each time there is a partition the ledger does not have."""
    insert(engine, (1, 1))
    made, ledger = connector(engine, cursor="v"), Ledger()
    assert ledger.ids(made) == [1]
    insert(engine, (2, 1))
    assert ledger.ids(made) == [1, 2]
    statements(engine, "DELETE FROM things WHERE id = 1")
    assert ledger.ids(made) == [2]
    insert(engine, (3, 1))
    assert ledger.ids(made) == [2, 3]


def test_appended_rows_are_read_once_each(engine: sa.Engine) -> None:
    """59: without a key to merge by, the rows of the largest cursor wait for a larger one."""
    insert(engine, (1, 1), (2, 2))
    made, ledger = connector(engine, cursor="v", settled=True), Ledger()
    assert ledger.ids(made) == [1]
    insert(engine, (3, 2))
    assert ledger.ids(made) == []
    insert(engine, (4, 3))
    assert ledger.ids(made) == [2, 3]
    assert made.plan(ledger.state) == []


def test_appended_rows_wait_for_the_lookback(engine: sa.Engine) -> None:
    """60: a row that is committed late is still before the mark."""
    insert(engine, (1, 10), (2, 20))
    made, ledger = connector(engine, cursor="v", settled=True, lookback=5), Ledger()
    assert ledger.ids(made) == [1]
    insert(engine, (3, 16), (4, 30))
    assert ledger.ids(made) == [2, 3]


def test_row_committed_late_is_read_within_the_lookback(engine: sa.Engine) -> None:
    """60: below the mark, but not further than the look-back."""
    insert(engine, (1, 10), (2, 20))
    made, ledger = connector(engine, cursor="v", lookback=5), Ledger()
    assert ledger.ids(made) == [1, 2]
    assert made.plan(ledger.state) == []
    insert(engine, (3, 16))
    assert ledger.ids(made) == [2, 3]
    insert(engine, (4, 30))
    assert ledger.ids(made) == [2, 3, 4]


def test_lookback_of_time(engine: sa.Engine) -> None:
    hour = timedelta(hours=1)
    insert_times(engine, (1, NOW - 9 * hour), (2, NOW - 5 * hour))
    made, ledger = connector(engine, cursor="at", lookback="2h"), Ledger()
    assert ledger.ids(made) == [1, 2]
    insert_times(engine, (3, NOW - 6 * hour), (4, NOW - 8 * hour))
    assert ledger.ids(made) == [2, 3], "8 hours ago is before the look-back"


def test_lookback_of_another_type_is_a_mistake(engine: sa.Engine) -> None:
    insert(engine, (1, 10))
    with pytest.raises(ConfigError, match=r"lookback 2:00:00 does not fit a cursor of type int"):
        connector(engine, cursor="v", lookback="2h").plan(SourceState())


def test_rows_without_cursor_are_included(engine: sa.Engine) -> None:
    """62: read with the others, and again when they may have changed."""
    insert(engine, (1, 1), (2, None))
    made, ledger = connector(engine, cursor="v"), Ledger()
    assert ledger.ids(made) == [1, 2]
    statements(engine, "DELETE FROM things WHERE id = 2")
    insert(engine, (3, None))
    later = connector(engine, cursor="v", now=NOW + timedelta(hours=1))
    assert ledger.ids(later) == [3], "as many as before, and still seen"


def test_rows_without_cursor_are_quarantined(engine: sa.Engine) -> None:
    insert(engine, (1, 1), (2, None))
    rows, (reject,) = Ledger().run(connector(engine, cursor="v", null_cursor="quarantine"))
    assert [row["id"] for row in rows] == [1]
    assert (reject.rule, reject.message) == ("cursor_null", "v has no value")
    assert '"id": "2"' in reject.raw


def test_rows_without_cursor_are_an_error(engine: sa.Engine) -> None:
    insert(engine, (1, 1), (2, None))
    with pytest.raises(
        SourceRejected, match=r"rows without a value in the cursor 'v'.*include or quar"
    ):
        connector(engine, cursor="v", null_cursor="error").plan(SourceState())


def test_rows_without_cursor_cannot_be_appended(engine: sa.Engine) -> None:
    insert(engine, (1, 1), (2, None))
    with pytest.raises(ConfigError, match=r"appended, they would be there once more"):
        connector(engine, cursor="v", settled=True).plan(SourceState())


def test_cursor_in_the_future_does_not_move_the_mark(engine: sa.Engine) -> None:
    """62: a date of 2099 would hide every row that comes after it."""
    insert_times(engine, (1, NOW - timedelta(days=2)), (2, datetime(2099, 1, 1)))
    made, ledger = connector(engine, cursor="at", null_cursor="error"), Ledger()
    rows, (reject,) = ledger.run(made)
    assert [row["id"] for row in rows] == [1]
    assert (reject.rule, reject.message) == ("cursor_future", "at is later than now")
    assert '"id": "2"' in reject.raw
    assert made.plan(ledger.state) == []
    insert_times(engine, (3, NOW - timedelta(days=1)))
    assert ledger.ids(made) == [3]


def test_cursor_in_the_future_as_declared(engine: sa.Engine) -> None:
    insert_times(engine, (1, NOW), (2, datetime(2099, 1, 1)))
    assert Ledger().ids(connector(engine, cursor="at", future_cursor="include")) == [1, 2]
    with pytest.raises(SourceRejected, match=r"the cursor 'at' is later than now in some rows"):
        connector(engine, cursor="at", future_cursor="error").plan(SourceState())


def test_cursor_that_goes_back_stops_the_run(engine: sa.Engine) -> None:
    """61: the source was restored; a smaller mark is never taken in silence."""
    insert(engine, (1, 10), (2, 20))
    ledger = Ledger()
    ledger.run(connector(engine, cursor="v"))
    statements(engine, "DELETE FROM things WHERE id = 2")
    insert(engine, (3, 12))
    with pytest.raises(SourceRejected, match=r"the cursor 'v' went back: 20 was loaded.*now 12"):
        connector(engine, cursor="v").plan(ledger.state)
    statements(engine, "DELETE FROM things")
    with pytest.raises(SourceRejected, match=r"the largest is now None"):
        connector(engine, cursor="v").plan(ledger.state)


def test_cursor_that_goes_back_is_followed_if_declared(engine: sa.Engine) -> None:
    insert(engine, (1, 10), (2, 20))
    made, ledger = connector(engine, cursor="v", backward_cursor="reread"), Ledger()
    ledger.run(made)
    statements(engine, "DELETE FROM things WHERE id = 2")
    insert(engine, (3, 12))
    assert ledger.ids(made) == [3]
    insert(engine, (4, 13))
    assert ledger.ids(made) == [4]


def fill(engine: sa.Engine, rows: int) -> None:
    insert_many(engine, rows, "id, name, v", lambda i: f"({i}, '{'x' * 30}', {i})")


SMALL = PlanLimits(partition_bytes=20_000, batch_bytes=50_000)


def test_large_table_is_cut_into_ranges_that_meet(engine: sa.Engine) -> None:
    fill(engine, 5000)
    made = connector(engine, limits=SMALL)
    partitions = made.plan(SourceState())
    assert len(partitions) > 5
    assert len({partition.fingerprint for partition in partitions}) == len(partitions)
    insert(engine, (-5, 1), (9000, 1))  # beyond what the plan saw
    each = [sorted(row["id"] for row in read(made, partition)[0]) for partition in partitions]
    found = [i for part in each for i in part]
    assert set(range(5000)) <= set(found)
    assert len(found) == len(set(found))
    assert max(map(len, each)) < 2500


def test_partitions_commit_in_any_order_and_what_failed_is_planned_again(engine: sa.Engine) -> None:
    """The mark of a run never covers a partition that was not committed."""
    fill(engine, 5000)
    made, ledger = connector(engine, cursor="v", limits=SMALL), Ledger()
    planned = made.plan(ledger.state)
    assert len(planned) > 5
    failed = {planned[0].fingerprint, planned[3].fingerprint}
    found = []
    for partition in reversed(planned):
        if partition.fingerprint not in failed:
            found += read(made, partition)[0]
            ledger.commit(partition)
    insert(engine, (9000, 9000))
    second = made.plan(ledger.state)
    assert failed < {partition.fingerprint for partition in second}
    ledger.commit(second[-1])  # the newest first, and the two fail once more
    found += read(made, second[-1])[0]
    third = made.plan(ledger.state)
    assert {partition.fingerprint for partition in third} == failed
    for partition in third:
        found += read(made, partition)[0]
        ledger.commit(partition)
    assert sorted(row["id"] for row in found) == [*range(5000), 9000]
    assert made.plan(ledger.state) == []


def test_refresh_in_partitions_leaves_nothing_to_do(engine: sa.Engine) -> None:
    """All is loaded again under other fingerprints; the next run does not load it once more."""
    fill(engine, 3000)
    made, ledger = connector(engine, cursor="v", limits=SMALL), Ledger()
    ledger.run(made)
    again = [each.model_copy(update={"refresh": "run-2"}) for each in made.plan(SourceState())]
    assert len(again) > 2
    assert len(read(made, *again)[0]) == 3000
    for partition in again:
        ledger.commit(partition)
    assert made.plan(ledger.state) == []


def test_plan_is_the_same_when_nothing_was_committed(engine: sa.Engine) -> None:
    fill(engine, 300)
    made = connector(engine, cursor="v", limits=SMALL)
    assert made.plan(SourceState()) == made.plan(SourceState())


def test_column_without_index_is_not_cut(engine: sa.Engine) -> None:
    """Each piece would read the whole table."""
    fill(engine, 5000)
    statements(engine, "UPDATE things SET name = CAST(id AS char(9))")
    assert len(connector(engine, cursor="name", limits=SMALL).plan(SourceState())) == 1


def test_rows_without_a_value_in_the_column_of_the_ranges_are_read(engine: sa.Engine) -> None:
    fill(engine, 3000)
    insert(engine, (7000, None))
    made = connector(engine, split_by="v", limits=SMALL)
    planned = made.plan(SourceState())
    assert len(planned) > 2
    assert sorted(row["id"] for row in read(made, *planned)[0]) == [*range(3000), 7000]


def test_table_without_cursor_is_read_whole_by_each_run(engine: sa.Engine) -> None:
    insert(engine, (1, 1))
    ledger = Ledger()
    assert ledger.ids(connector(engine)) == [1]
    assert ledger.ids(connector(engine, now=NOW + timedelta(hours=1))) == [1]


def test_rows_are_numbered_and_named(engine: sa.Engine) -> None:
    insert(engine, (1, 9), (2, 3))
    made = connector(engine)
    rows, _ = read(made, *made.plan(SourceState()))
    assert [row["_source_row"] for row in rows] == [1, 2]
    assert rows[0]["_source_uri"] == "database:b/things"
    made = connector(engine, cursor="v")
    rows, _ = read(made, *made.plan(SourceState()))
    assert rows[0]["_source_uri"] == "database:b/things?v ..9"


def test_query_takes_the_place_of_a_table(engine: sa.Engine) -> None:
    """Colons, percent signs, a comment at the end and a semicolon are the user's own."""
    insert(engine, (1, 1), (2, 2))
    query = "SELECT id, v, '10:30 %s :x' AS t FROM things WHERE name LIKE 'x%';  "
    made = connector(engine, table=None, query=query, cursor="v")
    rows, _ = read(made, *made.plan(SourceState()))
    assert [(str(row["id"]), row["t"]) for row in rows] == [
        ("1", "10:30 %s :x"),
        ("2", "10:30 %s :x"),
    ]


def test_query_may_end_with_a_comment(engine: sa.Engine) -> None:
    insert(engine, (1, 1))
    made = connector(engine, table=None, query="SELECT id FROM things -- all of them")
    assert len(read(made, *made.plan(SourceState()))[0]) == 1


def test_empty_table_is_no_work(engine: sa.Engine) -> None:
    assert connector(engine, cursor="v").plan(SourceState()) == []


def test_empty_text_is_not_null(engine: sa.Engine) -> None:
    statements(engine, "INSERT INTO things (id, name) VALUES (1, ''), (2, NULL), (3, '\"')")
    rows, _ = Ledger().run(connector(engine))
    assert [row["name"] for row in rows] == ["", None, '"']


def test_column_of_nothing_but_null_is_read(engine: sa.Engine) -> None:
    statements(engine, "INSERT INTO things (id) VALUES (1), (2)")
    made = connector(engine, table=None, query="SELECT name FROM things")
    rows, _ = read(made, *made.plan(SourceState()))
    assert [row["name"] for row in rows] == [None, None]


def test_batches_are_bounded_by_bytes(engine: sa.Engine) -> None:
    fill(engine, 5000)
    made = connector(engine, limits=PlanLimits(batch_bytes=10_000))
    sizes = [
        raw.batch.nbytes
        for part in made.plan(SourceState())
        for raw in made.read(part)
        if raw.batch
    ]
    assert max(sizes[1:]) < 60_000
    assert len(sizes) > 5


def test_value_that_is_too_long_refuses_its_row(engine: sa.Engine) -> None:
    statements(engine, f"INSERT INTO things (id, name) VALUES (1, 'a'), (2, '{'b' * 40}')")
    rows, (reject,) = Ledger().run(connector(engine, limits=PlanLimits(max_value_bytes=30)))
    assert [row["id"] for row in rows] == [1]
    assert (reject.rule, reject.source_row) == ("value_too_long", 2)
    assert reject.message == "name is longer than 30 bytes"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"table": "nothing"}, "there is no .*table.*nothing"),
        ({"cursor": "w"}, "no column 'w' for source.cursor; there are id, name, v, at"),
        ({"split_by": "w"}, "no column 'w' for source.split_by"),
        ({"table": None, "query": "SELECT nope FROM things"}, "there is no such column.*nope"),
        ({"table": None, "query": "SELECT id FROM nowhere"}, "there is no such table.*nowhere"),
        ({"table": None, "query": "SELEKT 1"}, "the query is no valid SQL"),
    ],
)
def test_missing_things_are_named(engine: sa.Engine, change: dict[str, Any], words: str) -> None:
    with pytest.raises(SourceRejected, match=words) as refusal:
        connector(engine, **change).plan(SourceState())
    assert refusal.value.remedy
    assert "database" in refusal.value.message or "no column" in refusal.value.message


def test_table_dropped_after_the_plan_is_named(engine: sa.Engine) -> None:
    """B40: the plan is older than the change."""
    insert(engine, (1, 1))
    made = connector(engine, cursor="v")
    planned = made.plan(SourceState())
    statements(engine, "ALTER TABLE things RENAME TO others")
    with pytest.raises(SourceRejected, match=r"there is no .*table.*things"):
        read(made, *planned)


# --- backfills ------------------------------------------------------------------------------------

JANUARY = Window(start=datetime(2013, 1, 1, tzinfo=UTC), end=datetime(2013, 2, 1, tzinfo=UTC))


def test_backfill_reads_its_span_and_leaves_the_mark(engine: sa.Engine) -> None:
    days = [
        datetime(2012, 12, 31, 23, 59, 59),
        datetime(2013, 1, 1),
        datetime(2013, 1, 31, 23),
        datetime(2013, 2, 1),
    ]
    insert_times(engine, *enumerate(days))
    made, ledger = connector(engine, cursor="at"), Ledger()
    assert ledger.ids(made) == [0, 1, 2, 3]
    mark = ledger.latest
    planned = made.plan(ledger.state.model_copy(update={"window": JANUARY}))
    assert [partition.state for partition in planned] == [{}]
    assert sorted(row["id"] for row in read(made, *planned)[0]) == [1, 2]
    for partition in planned:
        ledger.commit(partition)
    assert ledger.latest == mark
    assert made.plan(ledger.state.model_copy(update={"window": JANUARY})) == []
    assert made.plan(ledger.state) == []


def test_backfill_of_a_span_that_is_not_over_is_planned_again_when_it_grew(
    engine: sa.Engine,
) -> None:
    insert_times(engine, (1, datetime(2013, 1, 5)))
    made, ledger = connector(engine, cursor="at"), Ledger()
    state = {"window": JANUARY}
    (first,) = made.plan(ledger.state.model_copy(update=state))
    ledger.commit(first)
    insert_times(engine, (2, datetime(2013, 1, 6)))
    planned = made.plan(ledger.state.model_copy(update=state))
    assert sorted(row["id"] for row in read(made, *planned)[0]) == [1, 2]


def test_backfill_without_cursor_is_a_mistake(engine: sa.Engine) -> None:
    with pytest.raises(
        ConfigError, match=r"no cursor, so its rows have no time.*declare source.cursor"
    ):
        connector(engine).plan(SourceState(window=JANUARY))


def test_backfill_by_a_number_is_a_mistake(engine: sa.Engine) -> None:
    insert(engine, (1, 1))
    with pytest.raises(
        ConfigError, match=r"the cursor 'v' is a int, no time.*type date or timestamp"
    ):
        connector(engine, cursor="v").plan(SourceState(window=JANUARY))
