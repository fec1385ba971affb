"""Indexes, comments, grants: made with the table, kept in step, and shown where they differ."""

from __future__ import annotations

import io
import subprocess
import uuid
from collections.abc import Iterator
from typing import Any

import psycopg2
import pytest
from rich.console import Console
from sqlalchemy import Engine, create_engine

from cli.tables import differences_table
from embedded.postgres import binaries
from tasks.loading.index import build_search_index
from tasks.loading.indexes import declared_indexes
from tasks.loading.ledger import ensure_ledger
from tasks.loading.maintenance import build_missing, maintain
from tasks.loading.search import search
from tasks.loading.session import session
from tasks.loading.table_check import check_table, ddl_script, table_report
from tasks.model.dataset import DatasetSpec
from tasks.model.errors import ConfigError, ContractBroken
from tests.integration.loading.support import SMALL, World, make_spec
from tests.integration.loading.test_partitions import THIS_MONTH, spec_of
from tests.integration.loading.test_partitions import load as load_days

INDEXES = [
    {"columns": ["name", "seen"]},
    {"columns": ["lower(name) || '%s'"], "where": "seen > 0 AND name IS NOT NULL"},
    {"columns": ["seen"], "method": "brin"},
    {"columns": ["name"], "method": "hash"},
]


def spec_with(**load: Any) -> DatasetSpec:
    return make_spec(load={"table": "analytics.things", "mode": "merge", **load})


@pytest.fixture
def role(world: World) -> Iterator[str]:
    """A role with a name that must be quoted."""
    name = f"Reporting \"{uuid.uuid4().hex[:8]}'"
    quoted = '"' + name.replace('"', '""') + '"'
    world.sql(f"CREATE ROLE {quoted} LOGIN PASSWORD 'x'")
    yield name
    world.sql(f"DROP OWNED BY {quoted}; DROP ROLE {quoted}")


def as_role(world: World, role: str) -> Engine:
    return create_engine(
        world.engine.url.set(username=role, password="x"),
        connect_args={"options": "-c search_path=pg_catalog"},
    )


def shown(world: World, spec: DatasetSpec, engine: Engine | None = None) -> list[tuple[str, str]]:
    """Return what differs, and who does something about it."""
    report = table_report(engine or world.engine, spec, {})
    return [(one.column, "refused" if one.refusal else one.when) for one in report.differences]


def test_indexes_are_made_with_the_table_and_later_beside_the_loads(world: World) -> None:
    rows = [(1, "one", 1), (2, "two", 2)]
    world.load(spec_with(indexes=INDEXES[:1]), "a", rows)
    spec = spec_with(indexes=INDEXES)
    names = [index.name for index in declared_indexes(spec)]
    assert [column for column, _ in shown(world, spec)] == [f"index {name}" for name in names[1:]]
    assert {who for _, who in shown(world, spec)} == {"after"}
    world.load(spec, "b", [(3, "three", 3)])  # a load goes on without them
    assert build_missing(world.engine, spec) == names[1:]
    assert build_missing(world.engine, spec) == []
    assert shown(world, spec) == []
    found = dict(world.sql("SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'things'"))
    assert found[names[0]].endswith("USING btree (name, seen)")
    assert found[names[1]].endswith(
        "USING btree (((lower(name) || '%s'::text))) WHERE ((seen > 0) AND (name IS NOT NULL))"
    )
    assert found[names[2]].endswith("USING brin (seen)")
    assert found[names[3]].endswith("USING hash (name)")
    # What is not declared any more is told, and stays.
    assert shown(world, spec_with(indexes=INDEXES[1:])) == [(f"index {names[0]}", "hand")]
    assert build_missing(world.engine, spec_with()) == []
    assert len(world.sql("SELECT 1 FROM pg_indexes WHERE tablename = 'things'")) == 5


def test_unique_index_refuses_what_is_there_twice(world: World) -> None:
    unique = spec_with(indexes=[{"columns": ["name"], "unique": True}])
    world.load(unique, "a", [(1, "one", 1)])
    with pytest.raises(ContractBroken, match=r"things_name_x[0-9a-f]{8}"):
        world.load(unique, "b", [(2, "one", 1)])
    world.sql("DROP TABLE analytics.things")
    world.load(spec_with(), "c", [(1, "one", 1), (2, "one", 1)])
    with pytest.raises(ContractBroken, match="there is a value twice"):
        build_missing(world.engine, unique)
    # What was left of it would go on to refuse rows.
    world.load(spec_with(), "d", [(3, "one", 1)])
    world.sql("DELETE FROM analytics.things WHERE id > 1")
    assert len(build_missing(world.engine, unique)) == 1


def test_leftover_of_a_killed_build_is_built_anew(world: World) -> None:
    spec = spec_with(indexes=INDEXES[:1])
    world.load(spec, "a", [(1, "one", 1)])
    (index,) = declared_indexes(spec)
    world.sql(
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = to_regclass(%s)",
        f"analytics.{index.name}",
    )
    assert shown(world, spec) == [(f"index {index.name}", "after")]
    assert build_missing(world.engine, spec) == [index.name]
    assert shown(world, spec) == []


def test_index_of_a_partitioned_table_reaches_all_partitions(world: World) -> None:
    """It is built beside the loads, partition by partition; those that come later have it."""
    plain = spec_of()
    load_days(world, plain, "a", [(1, THIS_MONTH, "x", 1)])
    load = plain.load.model_dump() | {
        "indexes": [{"columns": ["name"]}],
        "index": {"search": ["name"]},
    }
    spec = DatasetSpec.model_validate({**plain.model_dump(by_alias=True), "load": load})
    built = maintain(world.engine, spec, "tidy").built
    assert [name.split("_")[1] for name in built] == ["name", "search", "trigram"]
    load_days(world, spec, "b", [(2, THIS_MONTH.replace(year=2001), "y", 1)])
    assert world.sql(
        "SELECT count(*) FROM pg_class c JOIN pg_index i ON i.indrelid = c.oid "
        "WHERE c.relispartition AND i.indisvalid AND c.relkind = 'r'"
    ) == [(4 * len(world.sql("SELECT 1 FROM pg_class WHERE relispartition AND relkind = 'r'")),)]
    assert world.sql("SELECT bool_and(indisvalid) FROM pg_index") == [(True,)]
    assert maintain(world.engine, spec, "again").built == ()
    assert [row["id"] for row in search(world.engine, spec, "y")] == [2]
    assert build_search_index(world.engine, spec, rebuild=True)


# What somebody declares, and what is wrong with it in the eyes of the warehouse.
UNFIT = [
    ({"columns": ["nosuch(name)"]}, r"load.indexes.0: .*function nosuch\(text\) does not exist"),
    ({"columns": ["name"], "method": "gin"}, r"load.indexes.0: .*no default operator class"),
    ({"columns": ["random() * seen"]}, r"load.indexes.0: .*must be marked IMMUTABLE"),
]


@pytest.mark.parametrize(("index", "words"), UNFIT)
def test_unfit_index_is_found_before_anything_runs(
    world: World, index: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        check_table(world.engine, spec_with(indexes=[index]), {})
    check_table(world.engine, spec_with(indexes=INDEXES), {})
    assert world.sql("SELECT count(*) FROM pg_class WHERE relname LIKE '%%things%%'") == [(0,)]


def test_grants_are_made_kept_and_never_taken_away(world: World, role: str) -> None:
    spec = spec_with(grants={role: ["select"]})
    world.load(spec, "a", [(1, "one", 1)])
    engine = as_role(world, role)
    with session(engine) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT name FROM analytics.things")
        assert cursor.fetchall() == [("one",)]
        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
            cursor.execute("DELETE FROM analytics.things")
        connection.rollback()
    engine.dispose()
    more = spec_with(grants={role: ["select", "insert"], "public": ["select"]})
    assert shown(world, more) == [
        ("schema analytics", "load"), (f"grant to {role}", "load"), ("grant to public", "load"),
    ]  # fmt: skip
    world.load(more, "b", [(1, "one", 1)])
    assert shown(world, more) == []
    assert shown(world, spec) == [(f"grant to {role}", "hand"), ("grant to public", "hand")]
    assert shown(world, spec_with()) == []  # without 'grants' others look after them
    ddl = table_report(world.engine, spec, {}).ddl
    assert [one.text for one in ddl if "public" in one.text] == [
        'REVOKE SELECT ON "analytics"."things" FROM "public"'
    ]


def test_role_that_is_not_there_is_the_users_mistake(world: World) -> None:
    spec = spec_with(grants={"nobody_here": ["select"]})
    with pytest.raises(ConfigError, match="no role nobody_here in the warehouse"):
        check_table(world.engine, spec, {})
    with pytest.raises(ConfigError, match="no role nobody_here in the warehouse"):
        world.load(spec, "a", [(1, "one", 1)])
    world.load(spec_with(), "a", [(1, "one", 1)])
    with pytest.raises(ContractBroken, match=r"role nobody_here of load\.grants is not there"):
        world.load(spec, "b", [(1, "one", 1)])


def test_comments_follow_the_dataset_file(world: World) -> None:
    world.load(spec_with(), "a", [(1, "one", 1)])
    columns = {**SMALL, "name": {"type": "string", "description": "50 % 'quoted' {x}"}}
    spec = make_spec(columns, description="Another text")
    assert shown(world, spec) == [("comment", "load"), ("comment of name", "load")]
    world.load(spec, "b", [(1, "one", 1)])
    assert world.sql(
        "SELECT obj_description('analytics.things'::regclass), "
        "col_description('analytics.things'::regclass, 2)"
    ) == [("Another text", "50 % 'quoted' {x}")]
    assert shown(world, spec) == []


def test_table_is_compared_in_all_that_is_declared(world: World) -> None:
    world.sql(
        "CREATE SCHEMA analytics; CREATE TABLE analytics.things (id bigint PRIMARY KEY, "
        "name text NOT NULL, seen bigint, old text, _load_id bigint NOT NULL)"
    )
    ensure_ledger(world.engine)
    columns = {**SMALL, "seen": {"type": "int64", "nullable": False}}
    frozen, evolving = make_spec(columns), make_spec(columns, contract={"changed": "evolve"})
    expected = [("name", "hand"), ("seen", "hand"), ("old", "hand"), ("comment", "load")]
    assert shown(world, frozen) == expected
    assert shown(world, evolving) == [("name", "load"), *expected[1:]]
    world.load(evolving, "a", [(1, None, 1)])
    assert world.rows(evolving) == [(1, None, 1)]
    assert world.sql("SELECT column_name, from_type, to_type, kind FROM etl.schema_changes") == [
        ("name", "text NOT NULL", "text", "null allowed")
    ]
    report = table_report(world.engine, evolving, {})
    assert [(one.text.split(" ", 3)[3], one.why) for one in report.ddl] == [
        (
            'ALTER COLUMN "seen" SET NOT NULL',
            "PostgreSQL reads the whole table under a lock, and refuses if it has a NULL",
        ),
        (
            'DROP COLUMN "old"',
            "its values would be lost; loads leave it as it is, NULL in new rows",
        ),
    ]
    text = io.StringIO()
    Console(file=text, width=120).print(differences_table(report.differences))
    assert "leaves it" in text.getvalue()


def test_table_of_another_owner_is_left_to_them(world: World, role: str) -> None:
    """What only the owner may do is shown as such; a load needs none of it."""
    quoted = '"' + role.replace('"', '""') + '"'
    world.load(spec_with(), "a", [(1, "one", 1)])
    world.sql(
        f"GRANT USAGE ON SCHEMA etl, analytics TO {quoted}; "
        f"GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA etl TO {quoted}; "
        f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA etl TO {quoted}; "
        f"GRANT SELECT ON analytics.things TO {quoted}"
    )
    spec = make_spec(
        {**SMALL, "more": {"type": "string"}},
        contract="evolve",
        description="Another text",
        load={"table": "analytics.things", "mode": "merge", "indexes": INDEXES[:1]},
    )
    (index,) = declared_indexes(spec)
    engine = as_role(world, role)
    assert shown(world, spec, engine) == [
        ("more", "refused"),
        ("right to insert", "refused"),
        ("right to update", "refused"),
        ("comment", "hand"),
        (f"index {index.name}", "hand"),
    ]
    why = {one.why for one in table_report(engine, spec, {}).ddl}
    assert f"role {role} does not own analytics.things, etl does" in why
    world.sql(f"GRANT INSERT, UPDATE ON analytics.things TO {quoted}")
    world.sql("ALTER TABLE analytics.things ADD COLUMN more text")
    limited = World(engine, world.lake, world.root)
    spec_now = spec.model_copy(update={"columns": {**spec_with().columns}})
    fence = world.open(spec_now)
    limited.load(spec_now, "b", [(2, "two", 1)], fence=fence)
    assert build_missing(engine, spec_now) == []
    engine.dispose()
    assert world.rows(spec_now) == [(1, "one", 1), (2, "two", 1)]


CATALOG = """
SELECT 'column', c.oid::regclass::text, a.attname, format_type(a.atttypid, a.atttypmod),
       a.attnotnull, col_description(c.oid, a.attnum), pg_get_expr(d.adbin, d.adrelid)
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
WHERE c.relnamespace IN ('analytics'::regnamespace, 'etl'::regnamespace) AND c.relkind IN ('r', 'p')
UNION ALL
SELECT 'table', c.oid::regclass::text, c.relkind::text, obj_description(c.oid, 'pg_class'),
       c.relispartition, c.relacl::text, pg_get_expr(c.relpartbound, c.oid)
FROM pg_class c WHERE c.relnamespace IN ('analytics'::regnamespace, 'etl'::regnamespace)
UNION ALL
SELECT 'index', indexrelid::regclass::text, pg_get_indexdef(indexrelid), NULL, indisvalid, NULL, NULL
FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
WHERE c.relnamespace IN ('analytics'::regnamespace, 'etl'::regnamespace)
UNION ALL
SELECT 'constraint', conrelid::regclass::text, conname, pg_get_constraintdef(oid), convalidated, NULL,
       NULL FROM pg_constraint
WHERE connamespace IN ('analytics'::regnamespace, 'etl'::regnamespace)
UNION ALL
SELECT 'function', p.oid::regprocedure::text, prosrc, obj_description(p.oid, 'pg_proc'), NULL, NULL,
       NULL FROM pg_proc p WHERE pronamespace = 'etl'::regnamespace
UNION ALL
SELECT 'schema', nspname, obj_description(oid, 'pg_namespace'), nspacl::text, NULL, NULL, NULL
FROM pg_namespace WHERE nspname IN ('analytics', 'etl')
"""


def test_script_makes_what_the_first_load_makes(world: World, role: str) -> None:
    """``dpp check --dry-run`` in an empty database, and loads in another: one catalog."""
    days = spec_of(outside="default").model_dump(by_alias=True)
    days["load"] |= {"grants": {role: ["select"]}, "indexes": [{"columns": ["name", "day"]}]}
    partitioned = DatasetSpec.model_validate({**days, "name": "order"})
    searched = spec_with(
        table="analytics.searched",
        indexes=INDEXES,
        index={"search": ["name"]},
        grants={role: ["select", "references"]},
    )
    script = ddl_script(world.engine, [(partitioned, {}), (searched, {})])
    again = ddl_script(world.engine, [(partitioned, {}), (searched, {})])
    assert script == again  # it changed nothing
    url = world.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    psql = [str(binaries() / "psql"), url, "--no-psqlrc", "--quiet", "-v", "ON_ERROR_STOP=1"]
    done = subprocess.run(psql, input=script, text=True, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    made = world.sql(f"SELECT * FROM ({CATALOG}) AS c ORDER BY c::text")
    nothing = ddl_script(world.engine, [(partitioned, {}), (searched, {})])
    assert "CREATE" not in nothing and nothing.count("is as the dataset file says") == 2
    world.sql(
        "DROP SCHEMA etl CASCADE; DROP SCHEMA analytics CASCADE; DROP EXTENSION pg_trgm CASCADE"
    )
    load_days(world, partitioned, "a", [(1, THIS_MONTH, "x", 1)])
    world.load(searched, "a", [(1, "one", 1)])
    build_search_index(world.engine, searched)
    assert world.sql(f"SELECT * FROM ({CATALOG}) AS c ORDER BY c::text") == made
