"""The target table: made, compared, evolved."""

from __future__ import annotations

import threading

import pyarrow as pa
import pytest

from tasks.loading.ledger import ensure_ledger
from tasks.model.errors import ContractBroken, GateFailed, PipelineError
from tests.integration.loading.support import (
    SMALL,
    World,
    make_partition,
    make_spec,
    rows_table,
)


def test_added_column_is_text_in_the_table(world: World) -> None:
    """Under evolve, a new column of the source is added; rows loaded before have NULL there."""
    spec = make_spec(contract="evolve")
    world.load(spec, "a", [(1, "one", 1)])
    table = rows_table([(2, "two", 1)]).append_column("color", pa.array(["red"]))
    world.publish(world.prepared(spec, make_partition("b"), table, columns_added=("color",)))
    assert world.rows(spec, "id, color") == [(1, None), (2, "red")]
    world.load(spec, "c", [(3, "three", 1)])
    assert world.broken(spec) == set()


def test_declared_column_is_added_to_the_table(world: World) -> None:
    """A column that the dataset file gained is added to the table that is there."""
    world.load(make_spec(contract="evolve"), "a", [(1, "one", 1)])
    spec = make_spec({**SMALL, "size": {"type": "float"}}, contract="evolve")
    table = rows_table([(2, "two", 1)]).append_column("size", pa.array([1.5]))
    world.publish(world.prepared(spec, make_partition("b"), table))
    assert world.rows(spec, "id, size") == [(1, None), (2, 1.5)]


# What is in the table, what the dataset says, words of the refusal.
DIFFERENCES = [
    ("id bigint PRIMARY KEY, name text, _load_id bigint NOT NULL", "freeze", ["seen", "missing"]),
    (
        "id text PRIMARY KEY, name text, seen bigint, _load_id bigint NOT NULL",
        "evolve",
        ["id", "text", "bigint"],
    ),
    ("id bigint PRIMARY KEY, name text, seen bigint", "evolve", ["_load_id"]),
    (
        "id bigint PRIMARY KEY, name text, seen bigint, _load_id bigint NOT NULL, x int NOT NULL",
        "evolve",
        ["x", "NOT NULL"],
    ),
    (
        "id bigint, name text, seen bigint, _load_id bigint NOT NULL",
        "evolve",
        ["key", "id"],
    ),
    (
        "id bigint, name text, seen bigint, _load_id bigint NOT NULL, PRIMARY KEY (id, seen)",
        "evolve",
        ["key", "id"],
    ),
]


@pytest.mark.parametrize(("columns", "contract", "words"), DIFFERENCES)
def test_other_table_is_refused_by_name(
    world: World, columns: str, contract: str, words: list[str]
) -> None:
    """A table that is not as the dataset says is never altered; the error names the difference."""
    world.sql(f"CREATE SCHEMA analytics; CREATE TABLE analytics.things ({columns})")
    with pytest.raises(ContractBroken) as raised:
        world.load(make_spec(contract=contract), "a", [(1, "one", 1)])
    for word in ["analytics.things", *words]:
        assert word in raised.value.message
    assert raised.value.remedy


def test_required_column_cannot_be_added(world: World) -> None:
    """NOT NULL cannot be added to a table with rows."""
    world.load(make_spec(contract="evolve"), "a", [(1, "one", 1)])
    spec = make_spec({**SMALL, "size": {"type": "float", "nullable": False}}, contract="evolve")
    table = rows_table([(2, "two", 1)]).append_column("size", pa.array([1.5]))
    with pytest.raises(ContractBroken, match="size"):
        world.publish(world.prepared(spec, make_partition("b"), table))


def test_looked_up_column_has_the_type_of_its_source(world: World) -> None:
    """An enriched column takes its type from the dataset that is looked up."""
    planes = make_spec(
        {"id": {"type": "int64"}, "year": {"type": "int16"}}, name="planes", cursor=None
    )
    spec = make_spec(enrich=[{"lookup": "planes", "by": {"seen": "id"}, "take": {"built": "year"}}])
    table = rows_table([(1, "one", 1)]).append_column("built", pa.array([1999], pa.int16()))
    world.publish(world.prepared(spec, make_partition("a"), table, lookups={"planes": planes}))
    assert world.sql("SELECT pg_typeof(built)::text, built FROM analytics.things") == [
        ("smallint", 1999)
    ]


def test_comments_and_constraints(world: World) -> None:
    """Key, NOT NULL and comments are those of the dataset file."""
    columns = {**SMALL, "name": {"type": "string", "description": 'It\'s 100 % "quoted"'}}
    world.load(make_spec(columns), "a", [(1, "one", 1)])
    assert world.sql(
        "SELECT obj_description('analytics.things'::regclass), "
        "col_description('analytics.things'::regclass, 2)"
    ) == [("A dataset of the tests", 'It\'s 100 % "quoted"')]
    with pytest.raises(PipelineError):
        world.sql("INSERT INTO analytics.things (id, _load_id) VALUES (NULL, 1)")


def test_names_that_are_words_of_sql(world: World) -> None:
    """Reserved words are good names."""
    columns = {"select": {"type": "int64"}, "user": {"type": "string"}}
    spec = make_spec(columns, name="order", key=("select",), cursor=None, search=("user",))
    table = pa.table({"select": pa.array([1]), "user": ["x"]})
    for label in "ab":
        world.publish(world.prepared(spec, make_partition(label, "order"), table))
    assert world.sql('SELECT "select", "user" FROM analytics."order"') == [(1, "x")]
    assert world.broken(spec) == set()


def test_first_loads_of_a_schema_at_once(world: World) -> None:
    """Several tables of one new schema are made at the same time; so is the ledger."""
    specs = [make_spec(name=f"things{number}") for number in range(5)]
    errors: list[BaseException] = []
    barrier = threading.Barrier(len(specs))

    def first_load(number: int) -> None:
        try:
            barrier.wait(10)
            ensure_ledger(world.engine)
            world_of_my_own = World(world.engine, world.lake, world.root / str(number))
            world_of_my_own.load(specs[number], "a", [(1, "one", 1)])
        except BaseException as error:
            errors.append(error)

    for number in range(len(specs)):
        (world.root / str(number)).mkdir()
    threads = [threading.Thread(target=first_load, args=(n,)) for n in range(len(specs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_role_without_rights_to_create_can_load(world: World) -> None:
    """Once ledger and table are there, the loader needs no right to create anything but TEMP."""
    from sqlalchemy import create_engine

    spec = make_spec()
    fence = world.open(spec)
    world.load(spec, "a", [(1, "one", 1)], fence=fence)
    world.sql("DROP ROLE IF EXISTS loader")
    world.sql("CREATE ROLE loader LOGIN PASSWORD 'x'")
    world.sql(
        "GRANT USAGE ON SCHEMA etl, analytics TO loader; "
        "GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA etl, analytics TO loader; "
        "GRANT USAGE ON ALL SEQUENCES IN SCHEMA etl TO loader"
    )
    engine = create_engine(world.engine.url.set(username="loader", password="x"))
    limited = World(engine, world.lake, world.root)
    limited.load(spec, "b", [(2, "two", 1)])
    engine.dispose()
    world.sql("DROP OWNED BY loader; DROP ROLE loader")
    assert len(world.rows(spec)) == 2


# Gate, rows (name may be NULL), refused rows, words of the evidence; None where the gate holds.
GATES = [
    ({"rows_between": [2, 3]}, 2, 0, None),
    ({"rows_between": [2, 3]}, 1, 0, "rows_between: 1 rows, allowed 2 to 3"),
    ({"rows_between": [2, 3]}, 4, 0, "rows_between: 4 rows"),
    ({"rows_between": [1, 3]}, 0, 0, "rows_between: 0 rows"),
    ({"null_rate": {"name": 0.25}}, 4, 0, None),
    ({"null_rate": {"name": 0.2}}, 4, 0, "null_rate name: NULL in 25.0% of 4 rows, allowed 20.0%"),
    ({"null_rate": {"name": 0.2}}, 0, 0, None),
    ({"quarantine_rate": 0.5}, 1, 1, None),
    ({"quarantine_rate": 0.4}, 1, 1, "quarantine_rate: 50.0% of 2 rows, allowed 40.0%"),
    ({"quarantine_rate": 0.4}, 0, 1, "quarantine_rate: 100.0%"),
]


@pytest.mark.parametrize(("gate", "rows", "bad", "evidence"), GATES)
def test_gate_holds_or_nothing_is_published(
    world: World, gate: dict[str, object], rows: int, bad: int, evidence: str | None
) -> None:
    """A gate that does not hold leaves no row, and says what was found and what is allowed."""
    spec = make_spec(quality={"gates": [gate]})
    staged = [(number, None if number == 0 else "x", 1) for number in range(rows)]
    refusals = {"range": bad} if bad else {}
    if evidence is None:
        assert world.load(spec, "a", staged, bad=refusals).counts.read == rows + bad
        return
    with pytest.raises(GateFailed) as raised:
        world.load(spec, "a", staged, bad=refusals)
    assert evidence in raised.value.message
    assert world.sql("SELECT count(*) FROM etl.loads") == [(0,)]
