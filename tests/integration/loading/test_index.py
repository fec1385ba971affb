"""The search index: built beside the loads, and forgiving."""

from __future__ import annotations

import threading

import pytest

from tasks.loading.index import build_search_index, search
from tasks.loading.ledger import session
from tasks.model.errors import ConfigError
from tests.integration.loading.support import World, make_spec

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


def test_two_builders_at_once(world: World) -> None:
    """A second builder leaves the first one's unfinished index alone."""
    spec = make_spec(search=("name",))
    world.load(spec, "a", [(number, f"name {number}", 1) for number in range(5000)])
    errors: list[BaseException] = []

    def build() -> None:
        try:
            build_search_index(world.engine, spec)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=build) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    build_search_index(world.engine, spec)
    assert errors == []
    assert world.sql(
        "SELECT count(*) FROM pg_index WHERE indrelid = 'analytics.things'::regclass AND indisvalid"
    ) == [(3,)]


def test_search_without_an_index_is_the_users_mistake(world: World) -> None:
    """Only a dataset with a search index can be searched."""
    with pytest.raises(ConfigError, match="no search index"):
        search(world.engine, make_spec(), "x")


def test_extension_that_may_not_be_created_is_named(world: World) -> None:
    """Where the role may not create pg_trgm, the error says so and whom to ask."""
    from sqlalchemy import create_engine

    spec = make_spec(search=("name",))
    world.load(spec, "a", [(1, "one", 1)])
    world.sql("DROP ROLE IF EXISTS searcher")
    world.sql("CREATE ROLE searcher LOGIN PASSWORD 'x'")
    engine = create_engine(world.engine.url.set(username="searcher", password="x"))
    try:
        with pytest.raises(ConfigError, match="pg_trgm"):
            build_search_index(engine, spec)
    finally:
        engine.dispose()
        world.sql("DROP ROLE searcher")
