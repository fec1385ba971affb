"""The search index: built beside the loads, and forgiving."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from tasks.loading import search_column
from tasks.loading.index import build_search_index
from tasks.loading.search import search
from tasks.loading.session import session
from tasks.model.dataset import DatasetSpec
from tasks.model.errors import ConfigError, ErrorKind, PipelineError
from tasks.model.load import MergeLoad
from tasks.model.search import SearchIndex
from tests.integration.loading.support import (
    SMALL,
    SMALL_ARROW,
    World,
    make_partition,
    make_spec,
    rows_table,
)

NAMES = ["Boston", "San Francisco", "Santa Fe", "New York", "Newark", '100 % "sure" it\'s_\\']


@pytest.fixture
def searchable(world: World) -> World:
    """A loaded world with a search index."""
    spec = make_spec(search=("name",))
    world.load(spec, "a", [(number, name, 1) for number, name in enumerate(NAMES)])
    build_search_index(world.engine, spec)
    return world


# What is typed, and the best row.
QUERIES = [
    ("boston", "Boston"),
    ("francisco san", "San Francisco"),
    ("Bostn", "Boston"),  # a letter is missing
    ("fransisco", "San Francisco"),  # a letter is wrong
    ("york", "New York"),
]


@pytest.mark.parametrize(("text", "best"), QUERIES)
def test_best_row_is_first(searchable: World, text: str, best: str) -> None:
    """Words are found, also misspelt."""
    found = search(searchable.engine, make_spec(search=("name",)), text, 3)
    assert found[0]["name"] == best


# Texts that mean something to SQL, to LIKE, to the search parser or to the driver.
@pytest.mark.parametrize("text", ["", "'", '"', "%", "%s", "a & | !", "\\", "x" * 5000, "'; --"])
def test_any_text_can_be_searched(searchable: World, text: str) -> None:
    """No text is an error."""
    assert isinstance(search(searchable.engine, make_spec(search=("name",)), text, 3), list)


def test_both_indexes_are_used(searchable: World) -> None:
    """The indexes fit the very expressions of the search."""
    searchable.sql(
        "INSERT INTO analytics.things SELECT g, md5(g::text), 1, 1 FROM generate_series(100, 20000) g"
    )
    searchable.sql("ANALYZE analytics.things")
    with session(searchable.engine) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT indexdef FROM pg_indexes WHERE tablename = 'things' ORDER BY 1")
        definitions = " ".join(row[0] for row in cursor.fetchall())
        cursor.execute("SET LOCAL enable_seqscan = off")
        cursor.execute(
            "EXPLAIN SELECT * FROM analytics.things WHERE _search @@ "
            "websearch_to_tsquery('pg_catalog.simple'::regconfig, 'boston') "
            "OR 'bostn' OPERATOR(public.<%) (coalesce(name, ''))"
        )
        plans = [row[0] for row in cursor.fetchall()]
    assert "_search" in definitions and "gin_trgm_ops" in definitions
    assert "things_search" in str(plans) and "things_trigram" in str(plans)


def test_new_rows_are_found_without_building_again(searchable: World) -> None:
    """The index follows the table."""
    spec = make_spec(search=("name",))
    searchable.load(spec, "b", [(0, "Chicago", 2)])
    assert search(searchable.engine, spec, "chicago")[0]["id"] == 0
    assert not [row for row in search(searchable.engine, spec, "boston") if row["id"] == 0]
    assert build_search_index(searchable.engine, spec) == []


def test_leftover_of_a_killed_build_is_replaced(searchable: World) -> None:
    """An index whose building was interrupted is invalid, and built anew."""
    searchable.sql(
        "UPDATE pg_index SET indisvalid = false "
        "WHERE indexrelid = 'analytics.things_search'::regclass"
    )
    assert build_search_index(searchable.engine, make_spec(search=("name",))) == ["things_search"]
    assert searchable.sql("SELECT bool_and(indisvalid) FROM pg_index") == [(True,)]


def declared(**index: object) -> DatasetSpec:
    """Return the dataset with another declaration of its index."""
    return make_spec().model_copy(
        update={
            "load": MergeLoad(table="analytics.things", mode="merge", index=SearchIndex(**index))
        }  # type: ignore[arg-type]
    )


def found(world: World, spec: DatasetSpec, text: str) -> list[tuple[object, int]]:
    """Return the ids that a search gives, with the whole part of their ranks."""
    return [(row["id"], int(row["_rank"])) for row in search(world.engine, spec, text)]


def test_index_that_is_declared_later_finds_the_rows_that_are_there(world: World) -> None:
    """A table that was made without an index gets one; later rows are found too, nothing is loaded."""
    world.load(make_spec(), "a", [(number, name, 1) for number, name in enumerate(NAMES)])
    loaded = world.sql("SELECT id, name, seen, _load_id FROM analytics.things ORDER BY id")
    spec = make_spec(search=("name",))
    assert set(build_search_index(world.engine, spec)) == {"things_search", "things_trigram"}
    assert found(world, spec, "boston") == [(0, 1)]
    world.load(spec, "b", [(0, "Chicago", 2), (77, "Boston", 2)])
    assert found(world, spec, "boston") == [(77, 1)]
    assert found(world, spec, "chicago") == [(0, 1)]
    assert loaded[1:] == world.sql(
        "SELECT id, name, seen, _load_id FROM analytics.things WHERE id BETWEEN 1 AND 70 ORDER BY id"
    )
    assert build_search_index(world.engine, spec) == []


def test_changed_declaration_takes_the_old_ones_place(searchable: World) -> None:
    """Searches see the old index until the new one is whole; then nothing of the old one is left."""
    spec = declared(
        search={"name": {"weight": "A", "language": "english"}}, fuzzy=(), exact=("id",)
    )
    searchable.load(make_spec(search=("name",)), "b", [(50, "running horses", 1)])
    assert found(searchable, make_spec(search=("name",)), "run horse") == [(50, 0)]  # by similarity
    assert build_search_index(searchable.engine, spec) == ["things_search", "things_id_exact"]
    assert found(searchable, spec, "run horse") == [(50, 1)]
    assert found(searchable, spec, "50") == [(50, 2)]
    assert found(searchable, spec, "Bostn") == []
    searchable.load(spec, "c", [(51, "a horse that runs", 1)])
    assert {row for row, _ in found(searchable, spec, "running horse")} == {50, 51}
    assert searchable.sql(
        "SELECT indexrelid::regclass::text FROM pg_index "
        "WHERE indrelid = 'analytics.things'::regclass ORDER BY 1"
    ) == [(f"analytics.{name}",) for name in ("things_id_exact", "things_pkey", "things_search")]
    assert searchable.sql(
        "SELECT tgname::text FROM pg_trigger WHERE tgrelid = 'analytics.things'::regclass"
    ) == [("_search",)]
    assert searchable.sql("SELECT count(*) FROM pg_proc WHERE proname LIKE 'fill_search%'") == [
        (1,)
    ]
    assert build_search_index(searchable.engine, spec) == []


def test_weights_decide_who_is_first(world: World) -> None:
    """A word in a heavier column counts more."""
    columns = {**SMALL, "body": {"type": "string"}}
    spec = make_spec(columns)
    spec = spec.model_copy(update={"load": declared(search={"name": "A", "body": "D"}).load})
    arrow = SMALL_ARROW.append(pa.field("body", pa.string()))
    rows = [(1, "stone", 1, "a horse"), (2, "horse", 1, "a stone")]
    world.publish(world.prepared(spec, make_partition("a"), rows_table(rows, arrow)))
    build_search_index(world.engine, spec)
    assert [row for row, _ in found(world, spec, "horse")] == [2, 1]
    assert [row for row, _ in found(world, spec, "stone")] == [1, 2]


def test_build_that_is_killed_while_it_fills_is_taken_up_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was filled stays filled; nobody searches in a half filled column."""
    world.load(make_spec(), "a", [(number, f"name {number}", 1) for number in range(3000)])
    spec = make_spec(search=("name",))
    pieces = iter(range(3))
    together = search_column._together

    def killed(*arguments: Any, turn: str | None = None) -> None:
        if turn and next(pieces, None) is None:
            raise KeyboardInterrupt
        together(*arguments, turn=turn)

    monkeypatch.setattr(search_column, "BLOCKS_AT_ONCE", 5)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(search_column, "_together", killed)
        build_search_index(world.engine, spec)
    ((filled,),) = world.sql("SELECT count(*) FROM analytics.things WHERE _search_next IS NOT NULL")
    assert 0 < filled < 3000
    with pytest.raises(ConfigError, match="not built yet"):
        search(world.engine, spec, "name")
    world.load(spec, "b", [(1, "one", 2)])  # a load goes on, in the table as it is
    build_search_index(world.engine, spec)
    assert world.sql("SELECT count(*) FROM analytics.things WHERE _search IS NULL") == [(0,)]
    assert found(world, spec, "one") == [(1, 1)]
    assert found(world, spec, "name 2999")[0] == (2999, 1)


def test_build_does_not_hold_readers_up_behind_a_long_transaction(
    searchable: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What needs the table alone gives up soon, and may be tried again; the old index stays."""
    monkeypatch.setattr(search_column, "LOCK_SECONDS", 1)
    with session(searchable.engine) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM analytics.things LIMIT 1")
        with pytest.raises(PipelineError) as raised:
            build_search_index(searchable.engine, declared(search={"name": "A"}))
    assert raised.value.kind is ErrorKind.TRANSIENT
    assert found(searchable, make_spec(search=("name",)), "boston") == [(0, 1)]


def test_every_index_can_be_built_anew(searchable: World) -> None:
    """A rebuild leaves the same names, in other files."""
    files = "SELECT relfilenode FROM pg_class WHERE relname IN ('things_search', 'things_trigram')"
    before = searchable.sql(files)
    spec = make_spec(search=("name",))
    assert len(build_search_index(searchable.engine, spec, rebuild=True)) == 2
    assert not set(before) & set(searchable.sql(files))
    assert found(searchable, spec, "boston") == [(0, 1)]


def test_function_is_there_for_everybody_who_speaks_sql(searchable: World) -> None:
    """``etl.search_<table>`` gives ranked rows, the best first, and no more than asked for."""
    assert searchable.sql("SELECT (hit).name FROM etl.search_things('francisco OR santa')") == [
        ("San Francisco",), ("Santa Fe",),
    ]  # fmt: skip
    assert len(searchable.sql("SELECT * FROM etl.search_things('san OR new OR santa', 2)")) == 2


def test_text_of_any_length_can_be_loaded_and_found(world: World) -> None:
    """A tsvector holds 1 MB; of a longer text the beginning is searched, and the load goes on."""
    spec = declared(search=["name"], exact=["name"])
    long = " ".join(f"word{number}" for number in range(300_000))
    world.load(spec, "a", [(1, long, 1), (2, "short", 1)])
    build_search_index(world.engine, spec)
    assert found(world, spec, "word17") == [(1, 1)]
    assert found(world, spec, "short")[0] == (2, 2)


def test_unknown_language_and_foreign_function_are_named(searchable: World) -> None:
    """What cannot be built is said before anything is."""
    with pytest.raises(ConfigError, match="no language 'klingon'"):
        build_search_index(searchable.engine, declared(search=["name"], language="klingon"))
    other = declared(search=["name"]).load.model_copy(update={"table": "other.things"})
    spec = make_spec().model_copy(update={"load": other})
    world = searchable
    world.load(spec, "z", [(1, "one", 1)])
    with pytest.raises(ConfigError, match=r"etl\.search_things is that of analytics\.things"):
        build_search_index(world.engine, spec)


def test_view_that_needs_the_old_column_is_named(searchable: World) -> None:
    """A changed declaration must not take a column away from a view; the old index stays."""
    searchable.sql("CREATE VIEW analytics.everything AS SELECT * FROM analytics.things")
    with pytest.raises(ConfigError, match="a view or a function uses column _search"):
        build_search_index(searchable.engine, declared(search={"name": "A"}))
    assert found(searchable, make_spec(search=("name",)), "boston") == [(0, 1)]
    searchable.sql("DROP VIEW analytics.everything")
    build_search_index(searchable.engine, declared(search={"name": "A"}))
    assert found(searchable, declared(search={"name": "A"}), "boston") == [(0, 1)]
