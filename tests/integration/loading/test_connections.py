"""Connections: how many there are, under which settings they work, and what is said when none is free."""

from __future__ import annotations

import time

import pytest
import structlog

from blocks.pool import WatchedPool
from blocks.warehouse import WarehouseCredentials
from tasks.loading.session import session
from tasks.model.errors import WarehouseUnavailable

SETTINGS = (
    "SELECT current_setting('lock_timeout'), current_setting('statement_timeout'), "
    "current_setting('idle_in_transaction_session_timeout'), current_setting('search_path'), "
    "current_setting('TimeZone')"
)


def test_every_transaction_has_its_settings(warehouse: WarehouseCredentials) -> None:
    """Whatever the one before has done; reading ones too, and those of SQLAlchemy."""
    engine = warehouse.model_copy(update={"pool_size": 1}).get_engine("settings")
    expected = ("20s", "1min", "20s", "pg_catalog", "UTC")
    for read_only in (False, True, False):
        with session(engine, read_only=read_only) as connection, connection.cursor() as cursor:
            cursor.execute(SETTINGS)
            assert cursor.fetchone() == expected
            cursor.execute(
                "SET lock_timeout = 0; SET TimeZone = 'Asia/Tokyo'; SET search_path = public"
            )
    with engine.begin() as sqlalchemy:
        assert tuple(sqlalchemy.exec_driver_sql(SETTINGS).one()) == expected
    with session(engine) as connection, connection.cursor("named") as named:
        named.execute("SELECT n FROM generate_series(1, 5) n")
        assert named.fetchmany(2) == [(1,), (2,)]
        assert named.fetchall() == [(3,), (4,), (5,)]
    engine.dispose()
    direct = warehouse.get_direct_engine("direct")
    with session(direct) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute(SETTINGS)
        assert cursor.fetchone() == expected


def test_full_pool_says_who_holds_it(warehouse: WarehouseCredentials) -> None:
    """After its time limit, with the work and the age of each; then connections are free again."""
    engine = warehouse.model_copy(update={"pool_size": 2, "pool_timeout": 1}).get_engine("full")
    assert isinstance(engine.pool, WatchedPool)
    with structlog.contextvars.bound_contextvars(
        stage="loading", dataset="flights", partition="ab12"
    ):
        first = engine.raw_connection()
    second = engine.raw_connection()
    began = time.monotonic()
    with pytest.raises(WarehouseUnavailable) as raised, session(engine):
        pass
    assert 0.9 < time.monotonic() - began < 5
    assert (
        "warehouse: no free connection within 1 s: the 2 of this process are held by "
        "loading flights ab12 for 1 s, thread MainThread for 1 s" in raised.value.message
    )
    first.close()
    second.invalidate()
    second.close()
    assert engine.pool.holders() == []
    with session(engine):
        assert len(engine.pool.holders()) == 1
    engine.dispose()
