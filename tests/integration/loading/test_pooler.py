"""Behind a real PgBouncer that gives a server connection per transaction, nothing changes."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from blocks.warehouse import WarehouseCredentials
from tasks.loading.index import build_search_index
from tasks.loading.session import session
from tasks.model.errors import LoadConflict, WarehouseRejected
from tests.faults.campaign import check_exact, load_all
from tests.integration.loading.support import (
    World,
    make_lake,
    make_partition,
    make_spec,
    rows_table,
)
from tests.integration.loading.test_connections import SETTINGS
from tests.pgbouncer import SERVER_CONNECTIONS, pgbouncer


@pytest.fixture
def through(warehouse: WarehouseCredentials) -> Iterator[WarehouseCredentials]:
    with pgbouncer(warehouse) as pooled:
        yield pooled


@pytest.fixture
def pooled(through: WarehouseCredentials, tmp_path: Path) -> Iterator[World]:
    engine = through.get_engine("pooled")
    yield World(engine, make_lake(tmp_path / "lake"), tmp_path)
    engine.dispose()


def test_loads_through_a_pooler(pooled: World, through: WarehouseCredentials) -> None:
    """A whole history of loads, gates, six clients on two server connections; settings, fence, index."""
    with session(pooled.engine) as connection, connection.cursor() as cursor:
        cursor.execute(SETTINGS)
        assert cursor.fetchone() == ("20s", "1min", "20s", "pg_catalog", "UTC")
    load_all(pooled, "first")
    load_all(pooled, "again")  # nothing is left to do
    check_exact(pooled)
    spec = make_spec(
        name="words",
        search=("name",),
        quality={"gates": [{"unique": ["id"]}, {"sql": "SELECT 1 FROM staged WHERE id < 0"}]},
    )
    fence = pooled.open(spec, "many")
    errors: list[BaseException] = []

    def load(number: int) -> None:
        try:
            mine = World(pooled.engine, pooled.lake, pooled.root / f"{number}")
            rows = [(key, f"word {number}", number) for key in range(number, number + 20)]
            mine.publish(
                mine.prepared(
                    spec, make_partition(f"{number}", "words"), rows_table(rows), fence=fence
                )
            )
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=load, args=(number,)) for number in range(6)]
    for number, thread in enumerate(threads):
        (pooled.root / f"{number}").mkdir()
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    rows = pooled.rows(spec)
    assert [row[0] for row in rows] == list(range(25))
    assert all(row[2] == min(row[0], 5) for row in rows)
    servers = pooled.sql(
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE datname = current_database() AND backend_type = 'client backend'"
    )
    assert servers[0][0] <= SERVER_CONNECTIONS
    direct = through.get_direct_engine("index")
    assert len(build_search_index(direct, spec)) > 0
    # No lock of a session is left anywhere, and no setting on a server connection of the pooler.
    deadline = time.monotonic() + 10  # the session of the build is ending
    while pooled.sql("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") != [(0,)]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    stale = pooled.prepared(
        spec, make_partition("late", "words"), rows_table([(1, "x", 9)]), fence=fence
    )
    pooled.open(spec, "newer")
    with pytest.raises(LoadConflict):
        pooled.publish(stale)
    ((there,),) = pooled.sql("SELECT setting FROM pg_settings WHERE name = 'search_path'")
    assert there == "pg_catalog"
    with pooled.engine.raw_connection().dbapi_connection.cursor() as cursor:  # type: ignore[union-attr]
        cursor.connection.autocommit = True
        cursor.execute("SHOW search_path")
        assert cursor.fetchone() == ('"$user", public',)


def test_index_behind_an_undeclared_pooler_is_refused(through: WarehouseCredentials) -> None:
    """A build has settings and a lock of its session; it says how to go past the pooler."""
    lost = through.model_copy(update={"direct_port": None}).get_direct_engine("index")
    with pytest.raises(WarehouseRejected, match="pooler refuses") as raised, session(lost):
        pass
    assert "direct_host or direct_port" in str(raised.value)
