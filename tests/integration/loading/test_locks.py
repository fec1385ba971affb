"""Writers that are none of ours hold locks: a load waits, goes on when they are done, or names them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from structlog.testing import capture_logs

from blocks.warehouse import WarehouseCredentials
from tasks.model.errors import WarehouseUnavailable
from tasks.model.report import LoadReceipt
from tests.integration.loading.support import (
    World,
    make_lake,
    make_partition,
    make_spec,
    rows_table,
)

SPEC = make_spec()
FIRST, SECOND = [(1, "one", 1), (2, "two", 1)], [(1, "uno", 2), (3, "three", 2)]
TOOK = "loading.copied"


@pytest.fixture
def impatient(warehouse: WarehouseCredentials, tmp_path: Path) -> Iterator[World]:
    """A world that waits three seconds for locks, with the first partition in its table."""
    engine = warehouse.model_copy(update={"lock_timeout": 3}).get_engine("impatient")
    world = World(engine, make_lake(tmp_path / "lake"), tmp_path)
    world.load(SPEC, "first", FIRST)
    yield world
    engine.dispose()


@contextmanager
def foreign(warehouse: WarehouseCredentials, statement: str, name: str = "psql") -> Iterator[Any]:
    """A session of somebody else that has run a statement, and does not end its transaction."""
    with closing(
        psycopg2.connect(
            host=warehouse.host,
            port=warehouse.port,
            dbname=warehouse.database,
            user=warehouse.username,
            password=warehouse.password.get_secret_value(),
            application_name=name,
        )
    ) as session:
        with session.cursor() as cursor:
            cursor.execute(statement)
        yield session


# What somebody holds, and whether the load then alters the table.
HELD = [
    ("UPDATE analytics.things SET name = 'CANARY' WHERE id = 1", False),
    ("LOCK TABLE analytics.things IN SHARE MODE -- CANARY", False),
    ("SELECT 'CANARY', count(*) FROM analytics.things", True),
]


@pytest.mark.parametrize(("held", "alters"), HELD)
def test_who_holds_the_lock_is_named(
    impatient: World, warehouse: WarehouseCredentials, held: str, alters: bool
) -> None:
    """Process, program, age and query, without a value in it; what to do; and nothing is published."""
    spec, columns = SPEC, ()
    rows = rows_table(SECOND)
    if alters:
        spec = make_spec(contract={"unknown": "evolve"})
        rows = rows.append_column("more", rows.column("name"))
        columns = ("more",)
    load = impatient.prepared(spec, make_partition("second"), rows, columns_added=columns)
    with (
        foreign(warehouse, "SELECT count(*) FROM analytics.things", "reader")
        if not alters
        else foreign(warehouse, "SELECT 1", "idle"),
        foreign(warehouse, held) as holder,
        pytest.raises(WarehouseUnavailable) as raised,
    ):
        pid = holder.info.backend_pid
        impatient.publish(load)
    message = raised.value.message
    assert message.startswith("things: analytics.things was locked for 3 s by ")
    by = message.split(" by ", 1)[1]
    assert by.startswith(
        f"pid {pid} (application 'psql', idle in transaction, transaction open for"
    )
    assert held.split(" ", 1)[0] in by and "analytics.things" in by
    assert "CANARY" not in str(raised.value)
    assert f"pg_terminate_backend({pid})" in str(raised.value)
    assert impatient.rows(SPEC) == FIRST
    impatient.publish(load)
    assert [row[:1] for row in impatient.rows(SPEC)] == [(1,), (2,), (3,)]


def test_load_goes_on_when_the_lock_is_gone(
    impatient: World, warehouse: WarehouseCredentials
) -> None:
    """It is not copied again; of the two writers of a row the newer cursor wins."""
    steps: list[str] = []
    with (
        capture_logs() as said,
        foreign(
            warehouse, "UPDATE analytics.things SET name = 'x', seen = 0 WHERE id = 1"
        ) as other,
    ):
        timer = threading.Timer(2.3, other.commit)  # in the second turn

        def on_step(step: str) -> None:
            steps.append(step)
            if step == "evolved":
                timer.start()

        load = impatient.prepared(SPEC, make_partition("second"), rows_table(SECOND))
        receipt = impatient.publish(load, on_step)
        timer.join()
    assert (receipt.counts.inserted, receipt.counts.updated) == (1, 1)
    assert impatient.rows(SPEC) == [(1, "uno", 2), (2, "two", 1), (3, "three", 2)]
    assert [line["event"] for line in said].count("loading.table_locked") == 1
    assert steps.count("copied") == 1


def test_waiting_for_a_lock_holds_up_no_reader(
    impatient: World, warehouse: WarehouseCredentials
) -> None:
    """A load that has to alter the table leaves the queue of its locks again and again."""
    spec = make_spec(contract={"unknown": "evolve"})
    rows = rows_table(SECOND)
    load = impatient.prepared(
        spec,
        make_partition("second"),
        rows.append_column("more", rows.column("name")),
        columns_added=("more",),
    )
    done: list[LoadReceipt | WarehouseUnavailable] = []

    def publish() -> None:
        try:
            done.append(impatient.publish(load))
        except WarehouseUnavailable as error:
            done.append(error)

    with foreign(warehouse, "SELECT count(*) FROM analytics.things"):
        loader = threading.Thread(target=publish)
        loader.start()
        while not impatient.sql(
            "SELECT 1 FROM pg_locks WHERE NOT granted AND relation = 'analytics.things'::regclass"
        ):
            time.sleep(0.02)
        began = time.monotonic()
        with foreign(warehouse, "SELECT count(*) FROM analytics.things", "late"):
            waited = time.monotonic() - began
        loader.join()
    assert waited < 2.5  # a turn; without turns it is lock_timeout
    assert isinstance(done[0], WarehouseUnavailable)
