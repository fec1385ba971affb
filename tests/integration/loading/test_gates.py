"""Gates that ask the staged rows: what they refuse, what they keep of it, and that they change nothing."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from tasks.loading import load as load_stage
from tasks.loading.gate_failures import open_gate_failures
from tasks.model.dataset import DatasetSpec
from tasks.model.errors import ConfigError, GateFailed
from tasks.reporting.events import Event
from tests.integration.loading.support import World, make_partition, make_spec, rows_table

CITIES = make_spec(name="cities", cursor=None, columns={"id": {"type": "int64"}})
PARENTS = {"references": {"dataset": "cities", "columns": {"seen": "id"}}}
ORPHANS = "SELECT s.id FROM staged s WHERE NOT EXISTS (SELECT FROM analytics.cities c WHERE c.id = s.seen)"
KEPT = "SELECT gate, found, evidence, rows, times, run FROM etl.gate_failures ORDER BY gate"


def gated(*gates: dict[str, Any], **more: Any) -> DatasetSpec:
    return make_spec(quality={"gates": list(gates)}, **more)


def load(world: World, spec: DatasetSpec, rows: list[tuple[Any, ...]], label: str = "a") -> None:
    world.load(spec, label, rows, lookups={"cities": CITIES})


def refused(world: World, spec: DatasetSpec, rows: list[tuple[Any, ...]]) -> GateFailed:
    """Load rows that a gate must refuse; nothing of them may be there."""
    with pytest.raises(GateFailed) as raised:
        load(world, spec, rows)
    assert world.sql("SELECT count(*) FROM etl.loads WHERE dataset = 'things'") == [(0,)]
    assert world.sql("SELECT to_regclass('analytics.things')") == [(None,)]
    return raised.value


@pytest.fixture
def cities(world: World) -> World:
    """The world with a table of the cities 1 and 2."""
    table = pa.table({"id": [1, 2]})
    world.publish(world.prepared(CITIES, make_partition("cities", "cities"), table))
    return world


# Gate, rows (id, name, seen), what is found or None where it holds, evidence.
ROWS = [(1, "a", 1), (2, "b", 2), (3, "b", 1), (4, None, None), (5, None, None)]
ASKED = [
    ({"unique": ["seen", "name"]}, ROWS, None, []),  # NULL is like nothing
    (
        {"unique": ["name"]},
        ROWS,
        "unique (name): 1 values are in 2 rows, allowed is one row each",
        [{"name": "b", "_rows": 2}],
    ),
    (PARENTS, ROWS, None, []),
    (
        PARENTS,
        [*ROWS, (6, "c", 9), (7, "c", 9), (8, "c", 8)],
        (
            "references cities (seen): 2 values in 3 of 8 rows are not in analytics.cities, "
            "allowed are 0.0% of the rows"
        ),
        [{"seen": "9", "_rows": 2}, {"seen": "8", "_rows": 1}],
    ),
    (
        {"references": {"table": "analytics.cities", "columns": {"seen": "id"}, "missing": 0.25}},
        [*ROWS, (6, "c", 9)],
        None,
        [],
    ),
    ({"sql": ORPHANS, "name": "orphans"}, ROWS[:3], None, []),
    (
        {"sql": ORPHANS, "name": "orphans"},
        ROWS,
        "sql orphans: its query gives 2 rows, allowed is none",
        [{"id": "4"}, {"id": "5"}],
    ),
    (
        {"sql": "SELECT max(id) AS most, now() - now() AS age FROM staged -- of all"},
        [(2**53 + 1, "a", 1)],
        "sql SELECT max(id) AS most, now() - now() AS age FROM staged --",
        [{"most": "9007199254740993", "age": "00:00:00"}],
    ),
    (
        {"sql": "SELECT 1 WHERE NOT EXISTS (SELECT FROM staged)"},
        [],
        "gives 1 rows",
        [{"?column?": "1"}],
    ),
    ({"sql": "SELECT generate_series(1, 50)"}, ROWS, "gives more than 20 rows", 20),
    (
        {"null_rate": {"name": 0.2}},
        ROWS,
        "null_rate name: NULL in 40.0% of 5 rows, allowed 20.0%",
        [{"id": "4"}, {"id": "5"}],
    ),
]


@pytest.mark.parametrize(("gate", "rows", "found", "evidence"), ASKED)
def test_gate_holds_or_keeps_its_evidence(
    cities: World, gate: dict[str, Any], rows: list[Any], found: str | None, evidence: Any
) -> None:
    """A failed gate publishes nothing; its finding and some rows are kept, beside the lake files."""
    spec = gated(gate)
    if found is None:
        load(cities, spec, rows)
        assert len(cities.rows(spec)) == len(rows)
        assert cities.sql(KEPT) == []
        return
    error = refused(cities, spec, rows)
    assert found in error.message
    ((kept_gate, kept_found, kept, number, times, run),) = cities.sql(KEPT)
    assert f"{kept_gate}: {kept_found}" in error.message
    assert (number, times, run) == (len(rows), 1, "run-1")
    assert kept == evidence if isinstance(evidence, list) else len(kept) == evidence
    (failure,) = error.failed
    assert not any(str(value) in failure.found for row in failure.evidence for value in row.values()
                   if len(str(value)) > 2)  # fmt: skip


def test_failure_is_open_until_the_partition_is_loaded(cities: World) -> None:
    """It is counted once per partition; where the rows are is kept; loading it closes it."""
    rows = [(1, "a", 9)]
    spec = gated(PARENTS, {"unique": ["name"]})
    for _ in range(2):
        refused(cities, spec, [*rows, (2, "a", 1)])
    ((_, found, _, _, times, _), _) = cities.sql(KEPT)
    assert times == 2 and "1 values in 1 of 2 rows" in found
    ((key, files),) = cities.sql("SELECT DISTINCT manifest_key, files FROM etl.gate_failures")
    assert all(cities.lake.local_path(name, cities.scratch).exists() for name in [key, *files])
    waiting = open_gate_failures(cities.engine)["things"]
    assert (waiting.label, waiting.open, waiting.target) == ("a", 2, "analytics.things")
    load(cities, gated(), rows)
    assert open_gate_failures(cities.engine) == {}


# A query that is none, or would change something, and what is said about it.
NOT_ASKED = [
    ("SELECT 1; DELETE FROM analytics.cities", "multi-query plan"),
    ("DELETE FROM analytics.cities RETURNING id", "read-only transaction"),
    (
        "WITH d AS (DELETE FROM analytics.cities RETURNING id) SELECT * FROM d",
        "read-only transaction",
    ),
    ("SELECT id INTO analytics.more FROM staged", "cannot open SELECT INTO query"),
    ("CREATE TABLE analytics.more (id int)", "cannot open CREATE TABLE query"),
    ("ROLLBACK TO SAVEPOINT gates", "cannot open ROLLBACK query"),
    ("SELECT analytics.empty_cities()", "read-only transaction"),
    ("SELECT set_config('transaction_read_only', 'off', true)", "read-write mode"),
    ("SELECT nextval(pg_get_serial_sequence('etl.loads', 'load_id'))", "read-only transaction"),
    ("SELECT id FROM stage", 'relation "stage" does not exist'),
    ("SELECT colour FROM staged", 'column "colour" does not exist'),
    ("SELECT '", "unterminated"),
]


def test_query_that_is_no_question_is_refused(cities: World) -> None:
    """One SELECT that changes nothing; all else is the user's mistake, and has changed nothing."""
    cities.sql(
        "CREATE FUNCTION analytics.empty_cities() RETURNS int LANGUAGE sql AS "
        "$$ DELETE FROM analytics.cities RETURNING 1 $$"
    )
    for statement, said in NOT_ASKED:
        with pytest.raises(ConfigError) as raised:
            load(cities, gated({"sql": statement, "name": "mine"}), ROWS)
        assert said in raised.value.message, statement
        assert raised.value.message.startswith("things: quality.gates: sql mine: SQLSTATE")
    assert cities.sql("SELECT count(*) FROM analytics.cities") == [(2,)]
    assert cities.sql("SELECT to_regclass('analytics.more')") == [(None,)]


def test_query_that_does_not_end_or_divides_by_zero_does_not_hold(cities: World) -> None:
    """What cannot be answered is no yes; the other gates are asked all the same."""
    spec = gated(
        {"sql": "SELECT pg_sleep(20)", "name": "slow", "timeout": "1s"},
        {"sql": "SELECT id / (id - id) FROM staged", "name": "zero"},
        {"unique": ["name"]},
    )
    message = refused(cities, spec, ROWS).message
    assert "sql slow: its query gave no answer within 1s" in message
    assert "sql zero: its query ended with DivisionByZero" in message
    assert "unique (name)" in message


def test_gates_leave_the_transaction_as_it_was(cities: World) -> None:
    """After them the load writes with its own time limits, and the view is gone."""
    spec = gated({"sql": "SELECT 1 FROM staged WHERE id < 0", "timeout": "1s"}, PARENTS)
    seen: list[Any] = []

    def on_step(step: str) -> None:
        if step == "merged":
            seen.extend(cities.sql("SELECT count(*) FROM pg_class WHERE relname = 'staged'"))

    ready = cities.prepared(spec, make_partition("a"), rows_table(ROWS), lookups={"cities": CITIES})
    cities.publish(ready, on_step)
    assert seen == [(0,)]
    assert len(cities.rows(spec)) == len(ROWS)


def test_personal_values_are_not_kept(cities: World) -> None:
    """Neither of a marked column, nor of anything that may be made of it."""
    columns = {
        "id": {"type": "int64"},
        "name": {"type": "string", "pii": "mask"},
        "seen": {"type": "int64"},
    }
    gates = [
        {"unique": ["name"]},
        {"sql": "SELECT id, name, upper(name) AS shout, seen AS s FROM staged", "name": "all"},
    ]
    rows = [(1, "canary@example.org", 1), (2, "canary@example.org", 1)]
    error = refused(cities, gated(*gates, columns=columns), rows)
    everything = json.dumps(cities.sql("SELECT evidence, found FROM etl.gate_failures"))
    assert "canary" not in (everything + str(error)).lower()
    kept = dict(cities.sql("SELECT gate, evidence FROM etl.gate_failures"))
    assert kept["unique (name)"] == [{"name": "***", "_rows": 2}]
    assert kept["sql all"][0] == {"id": "1", "name": "***", "shout": "***", "s": "1"}


@pytest.mark.parametrize("kind", ["date", "timestamp", "instant"])
def test_old_rows_do_not_pass_as_fresh(world: World, kind: str) -> None:
    """The newest row decides. What is loaded again or backfilled is old by definition."""
    column = {"type": "timestamp", "timezone": "UTC"} if kind == "instant" else {"type": kind}
    columns = {"id": {"type": "int64"}, "at": column}
    spec = gated({"freshness": {"column": "at", "max_age": "2d"}}, columns=columns, cursor="at")
    now = datetime.now(UTC).replace(microsecond=0)
    arrow = {
        "date": pa.date32(), "timestamp": pa.timestamp("us"), "instant": pa.timestamp("us", "UTC"),
    }[kind]  # fmt: skip

    def table(*ages: int | None) -> pa.Table:
        times = [None if age is None else now - timedelta(days=age) for age in ages]
        plain = [
            time if kind == "instant" or time is None else time.replace(tzinfo=None)
            for time in times
        ]
        return pa.table({"id": list(range(len(ages))), "at": pa.array(plain, arrow)})

    def publish(label: str, rows: pa.Table, **of_partition: Any) -> int:
        partition = make_partition(label, **of_partition)
        return world.publish(world.prepared(spec, partition, rows)).counts.inserted

    with pytest.raises(GateFailed, match=r"freshness at: the newest row is 4d.* old, allowed 2d"):
        publish("old", table(4, 5))
    with pytest.raises(GateFailed, match="freshness at: none of 2 rows has a value"):
        publish("none", table(None, None))
    assert publish("fresh", table(1, 30)) == 2
    assert publish("empty", table()) == 0
    assert publish("again", table(*range(10, 15)), refresh="r1") == 3  # ids 2, 3 and 4 are new


def test_missing_table_is_no_reference(world: World) -> None:
    """Before the other dataset was ever loaded its values are nowhere; no row needs none."""
    error = refused(world, gated(PARENTS), ROWS)
    assert "references cities (seen): there is no table analytics.cities yet" in error.message
    load(world, gated(PARENTS), [], "b")


def test_failed_gate_is_told_to_prefect(cities: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The event names gate, finding and partition; it has no value of a row."""
    told: list[Event] = []
    monkeypatch.setattr(load_stage, "emit", told.append)
    rows = [(1, "canary", 1), (2, "canary", 1)]
    spec = gated({"unique": ["name"]})
    ready = cities.prepared(spec, make_partition("a"), rows_table(rows))
    with pytest.raises(GateFailed) as raised:
        cities.publish(ready)
    load_stage.tell_of_refusal("dev", ready, raised.value)
    (event,) = told
    assert event.name == "etl.gate.failed"
    assert event.resource["prefect.resource.id"] == "etl.dataset.things"
    payload = event.model_dump(mode="json")
    assert payload["partition"] == "a"
    assert payload["gates"] == [
        {"gate": "unique (name)", "found": "1 values are in 2 rows, allowed is one row each"}
    ]
    assert "canary" not in json.dumps(payload)
