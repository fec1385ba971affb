"""Any name in a dataset file is refused, or is what the table has: never anything else."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from blocks.warehouse import WarehouseCredentials
from tasks.loading.evolution import prepare_target
from tasks.loading.ledger import ensure_ledger
from tasks.loading.schema import create_schema, target_columns
from tests.histories import MODES, History
from tests.integration.loading.support import World, make_spec

WORDS = [
    "select",
    "user",
    "table",
    "order",
    "desc",
    "null",
    "xmin",
    "oid",
    "current_user",
    "public",
]
NAME = st.one_of(
    st.from_regex(r"[a-z][a-z0-9_]{0,62}", fullmatch=True),
    st.sampled_from([*WORDS, "a" * 63, "a" * 64, "Name", "a b", "a.b", 'a"; DROP SCHEMA etl; --']),
    st.text(max_size=8),
)


@given(column=NAME, table=NAME, schema=NAME, index=st.one_of(st.none(), st.none(), NAME))
@example(column="order", table="table", schema="select", index=None)
@example(column="a" * 63, table="t" * 63, schema="s" * 63, index=None)
@example(column="name", table="t", schema="s", index='name") ; DROP SCHEMA etl; --')
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_name_is_refused_or_is_what_the_table_has(
    world: World, column: str, table: str, schema: str, index: str | None
) -> None:
    ensure_ledger(world.engine)
    columns: dict[str, Any] = {"id": {"type": "int64"}, column: {"type": "string"}}
    load = {
        "table": f"{schema}.{table}",
        "mode": "merge",
        "indexes": [{"columns": [index or column]}],
    }
    try:
        spec = make_spec(columns, cursor=None, load=load)
    except ValidationError:
        return
    connection = world.engine.raw_connection()
    try:
        with connection.cursor() as cursor:
            before = counts(cursor)
            existed = schema == "public"
            cursor.execute(create_schema(spec))
            prepare_target(cursor, spec, target_columns(spec, {}, ()))
            after = counts(cursor)
            assert after == (before[0] + (not existed), before[1] + 1, before[2] + 2)
            cursor.execute(
                "SELECT n.nspname, c.relname, array_agg(a.attname::text ORDER BY attnum) "
                "FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
                "JOIN pg_attribute a ON a.attrelid = c.oid AND attnum > 0 "
                "WHERE nspname = %s AND relname = %s GROUP BY 1, 2",
                (schema, table),
            )
            assert cursor.fetchall() == [(schema, table, [*spec.columns, "_load_id"])]
            # The same names are found again: a second load has nothing to alter.
            assert prepare_target(cursor, spec, target_columns(spec, {}, ())).changes == ()
            assert counts(cursor) == after
    finally:
        connection.rollback()
        connection.close()


# Words of SQL, the longest names, and names that the statements of the modes have for their own parts.
COLUMNS = [("order", "user", "desc", "x" * 63), ("t", "s", "value", "excluded"), ("e", "is_new", "n", "p")]  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
def test_names_of_columns_are_of_no_matter_to_a_mode(
    world: World, warehouse: WarehouseCredentials, mode: str
) -> None:
    """Nor is a pool of one connection: a load needs no second one while it holds the first."""
    engine = warehouse.model_copy(update={"pool_size": 1, "pool_timeout": 3}).get_engine("one")
    narrow = World(engine, world.lake, world.root)
    for seed, names in enumerate(COLUMNS):
        history = History(seed, mode, names[1] if seed else None, names)
        for loads in history.prepared(world):
            history.publish(narrow, loads)
        assert history.rows(world) == history.truth(), names
        assert world.broken(history.spec) == set(), names
    engine.dispose()


def counts(cursor: Any) -> tuple[int, int, int]:
    """Return the numbers of schemas, tables and indexes."""
    cursor.execute(
        "SELECT (SELECT count(*) FROM pg_namespace WHERE nspname !~ '^pg_t'), "
        "(SELECT count(*) FROM pg_class WHERE relkind IN ('r', 'p')), "
        "(SELECT count(*) FROM pg_class c WHERE relkind IN ('i', 'I') "
        "AND relnamespace <> 'pg_toast'::regnamespace)"
    )
    return tuple(cursor.fetchone())  # type: ignore[return-value]
