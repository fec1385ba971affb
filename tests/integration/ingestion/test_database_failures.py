"""Databases that refuse, vanish or change: what is wrong is named, and nothing is lost or doubled.

Rows of the catalogue of bad inputs: 68 (rows that change while they are read), B40 (connection lost
in the middle, a lock held for ever, a view that fails on row 70,000), B42 (rights).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from blocks.lake import Lake
from blocks.source_database import SourceDatabase
from blocks.warehouse import WarehouseCredentials
from tasks.connections import Connections
from tasks.ingestion.connector import PlanLimits
from tasks.ingestion.connectors.database import DatabaseConnector, slice_version
from tasks.ingestion.database.snapshots import Snapshots
from tasks.ingestion.read import ingest_partition
from tasks.model.database_source import DatabaseSource
from tasks.model.dataset import DatasetSpec
from tasks.model.errors import (
    ConfigError,
    ContractBroken,
    CredentialsRejected,
    ErrorKind,
    PipelineError,
    SourceRejected,
    SourceUnavailable,
)
from tasks.model.request import SourceState
from tests.integration.ingestion.database_support import (
    connector,
    dispose_readers,
    insert_many,
    read,
    statements,
)
from tests.tcp_cut import CuttingProxy

SECRET = "CANARY-password"
SMALL = PlanLimits(partition_bytes=40_000, batch_bytes=20_000)


@pytest.fixture(autouse=True)
def _readers() -> Iterator[None]:
    yield
    dispose_readers()


@pytest.fixture
def postgres(warehouse: WarehouseCredentials) -> Iterator[sa.Engine]:
    made = sa.create_engine(warehouse.url())
    yield made
    made.dispose()


@pytest.fixture
def mysql(mariadb: sa.URL) -> Iterator[sa.Engine]:
    made = sa.create_engine(mariadb)
    yield made
    made.dispose()


def fill(engine: sa.Engine, rows: int = 5000) -> None:
    statements(engine, "CREATE TABLE things (id integer PRIMARY KEY, name varchar(40), v integer)")
    insert_many(engine, rows, "id, name, v", lambda i: f"({i}, '{'x' * 30}', {i})")


def made_by(url: sa.URL, **block: Any) -> DatabaseConnector:
    text = url.render_as_string(hide_password=False)
    given = SourceDatabase.from_url(text).model_copy(update=block)
    source = DatabaseSource(kind="database", block="b", table="things")
    engine = given.get_engine()
    return DatabaseConnector("things", source, engine, PlanLimits(), snapshots=Snapshots())


def refusal(url: sa.URL, **block: Any) -> PipelineError:
    made = made_by(url, **block)
    with pytest.raises(PipelineError) as raised:
        read(made, *made.plan(SourceState()))
    made._engine.dispose()
    assert SECRET not in str(raised.value)
    assert "database block 'b', things" in raised.value.message
    assert raised.value.remedy
    return raised.value


# --- refusals ---------------------------------------------------------------------------------------


def test_wrong_password_of_postgresql(postgres: sa.Engine) -> None:
    error = refusal(postgres.url.set(password=SECRET))
    assert isinstance(error, CredentialsRejected)
    assert "the password was refused" in error.message


def test_wrong_password_of_mysql(mysql: sa.Engine) -> None:
    error = refusal(mysql.url.set(password=SECRET))
    assert isinstance(error, CredentialsRejected)
    assert "user or password was refused" in error.message


@pytest.mark.parametrize("driver", ["postgresql+psycopg2", "mysql+pymysql"])
def test_unknown_host(driver: str) -> None:
    error = refusal(sa.make_url(f"{driver}://u:{SECRET}@no-such-host.invalid/d"))
    assert error.kind is ErrorKind.TRANSIENT
    assert "unknown host" in error.message
    assert "check host in the block" in str(error.remedy)


@pytest.mark.parametrize(
    ("driver", "words"),
    [("postgresql+psycopg2", "Connection refused"), ("mysql+pymysql", "cannot connect")],
)
def test_database_that_is_not_there(driver: str, words: str) -> None:
    error = refusal(sa.make_url(f"{driver}://u:{SECRET}@127.0.0.1:1/d"))
    assert isinstance(error, SourceUnavailable)
    assert words in error.message
    assert "host and port" in str(error.remedy)


def test_missing_database(postgres: sa.Engine, mysql: sa.Engine) -> None:
    assert 'database "nope" does not exist' in refusal(postgres.url.set(database="nope")).message
    assert "there is no such database" in refusal(mysql.url.set(database="nope")).message


def test_file_of_sqlite_that_is_missing_is_not_created(tmp_path: Path) -> None:
    error = refusal(sa.make_url(f"sqlite:///{tmp_path}/missing.db"))
    assert "cannot open the file" in error.message
    assert not (tmp_path / "missing.db").exists()
    (tmp_path / "text.db").write_text("this is no database, but a text of some length")
    assert "no SQLite database" in refusal(sa.make_url(f"sqlite:///{tmp_path}/text.db")).message


def test_permission_denied(postgres: sa.Engine, mysql: sa.Engine) -> None:
    """B42: the role, the table and the right are named."""
    fill(postgres, 5)
    fill(mysql, 5)
    statements(postgres, f"CREATE ROLE nobody_{postgres.url.database} LOGIN PASSWORD 'p'")
    error = refusal(postgres.url.set(username=f"nobody_{postgres.url.database}", password="p"))
    assert isinstance(error, SourceRejected)
    assert "permission denied: permission denied for table things" in error.message
    assert "SELECT" in str(error.remedy)
    statements(postgres, f"DROP ROLE nobody_{postgres.url.database}")
    statements(
        mysql, "CREATE USER nobody IDENTIFIED BY 'p'",
        f"CREATE VIEW {mysql.url.database}.open_view AS SELECT 1 AS x",
        f"GRANT SELECT ON {mysql.url.database}.open_view TO nobody",
    )  # fmt: skip
    try:
        error = refusal(mysql.url.set(username="nobody", password="p"))
        assert isinstance(error, SourceRejected)
        assert "permission denied" in error.message
        assert "things" in error.message
    finally:
        statements(mysql, "DROP USER nobody")


def test_missing_driver_is_named() -> None:
    block = SourceDatabase(drivername="mysql+nodriver", host="h")
    from tasks.environments import load_environment

    environment = load_environment("dev")
    with pytest.raises(
        ConfigError, match=r"the driver of 'mysql\+nodriver' is not installed.*mysql"
    ):
        Connections(environment, load=lambda *_: block).database("shop")


# --- time limits and locks --------------------------------------------------------------------------


def test_statement_that_takes_too_long(postgres: sa.Engine) -> None:
    statements(
        postgres, "CREATE VIEW things AS SELECT pg_sleep(9)::text AS x FROM generate_series(1, 3)"
    )
    error = refusal(postgres.url, statement_timeout=1)
    assert error.kind is ErrorKind.TRANSIENT
    assert "a statement took longer than it may" in error.message
    assert "statement_timeout" in str(error.remedy)


def test_lock_that_is_held_for_ever(postgres: sa.Engine, mysql: sa.Engine) -> None:
    """B40: a migration that never ends does not hang the run."""
    for engine, lock in (
        (postgres, "LOCK TABLE things IN ACCESS EXCLUSIVE MODE"),
        (mysql, "LOCK TABLES things WRITE"),
    ):
        fill(engine, 5)
        with engine.connect() as holder:
            holder.exec_driver_sql(lock)
            error = refusal(engine.url, lock_timeout=1)
            holder.invalidate()
        assert error.kind is ErrorKind.TRANSIENT
        assert "somebody else holds a lock" in error.message


def test_view_that_fails_in_the_middle(postgres: sa.Engine) -> None:
    """B40: the value that fails is not in the message."""
    statements(
        postgres,
        "CREATE VIEW things AS SELECT 1 / (70000 - i) AS x FROM generate_series(1, 80000) i",
    )
    made = connector(postgres)
    with pytest.raises(ContractBroken, match="database block 'b', things: SQLSTATE 22012"):
        read(made, *made.plan(SourceState()))


# --- only reading -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql", "mysql"])
def test_source_is_only_read(dialect: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """Even with a role that may write, a query that writes is refused."""
    if dialect == "postgresql":
        engine = request.getfixturevalue("postgres")
        fill(engine, 3)
        statements(
            engine,
            "CREATE FUNCTION wipe() RETURNS integer LANGUAGE sql AS 'DELETE FROM things; SELECT 1'",
        )
    elif dialect == "mysql":
        engine = request.getfixturevalue("mysql")
        fill(engine, 3)
        statements(
            engine,
            "CREATE FUNCTION wipe() RETURNS integer MODIFIES SQL DATA BEGIN DELETE FROM things; RETURN 1; END",
        )
    else:
        engine = sa.create_engine(f"sqlite:///{tmp_path}/a.db", poolclass=sa.NullPool)
        statements(
            engine, "CREATE TABLE things (id integer)", "INSERT INTO things VALUES (1), (2), (3)"
        )
    if dialect == "sqlite":
        reader = SourceDatabase.from_url(str(engine.url)).get_engine()
        with (
            reader.connect() as connection,
            pytest.raises(sa.exc.OperationalError, match="readonly"),
        ):
            connection.exec_driver_sql("DELETE FROM things")
        reader.dispose()
    else:
        made = connector(engine, table=None, query="SELECT wipe() AS x")
        with pytest.raises(SourceRejected, match="the query writes; the source is only read"):
            read(made, *made.plan(SourceState()))
    with engine.connect() as connection:
        assert connection.scalar(sa.text("SELECT count(*) FROM things")) == 3


def test_no_connection_is_left_in_a_transaction(postgres: sa.Engine) -> None:
    fill(postgres)
    snapshots = Snapshots()
    made = connector(postgres, limits=SMALL, snapshots=snapshots)
    partitions = made.plan(SourceState())
    open_now = sa.text(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'etl/source' "
        "AND state LIKE 'idle in transaction%' AND datname = current_database()"
    )
    with postgres.connect() as connection:
        assert connection.scalar(open_now) == 1, "the shared snapshot"
        for partition in partitions:
            read(made, partition)
        next(iter(made.read(partitions[0])))  # a reader that gives up in the middle
        connection.rollback()
        assert connection.scalar(open_now) == 0


# --- a connection that is cut -----------------------------------------------------------------------


def dataset() -> DatasetSpec:
    return DatasetSpec.model_validate(
        {
            "name": "things",
            "description": "Things",
            "source": {"kind": "database", "block": "b", "table": "things"},
            "key": ["id"],
            "columns": {"id": {"type": "int64"}},
            "load": {"table": "a.things", "mode": "merge"},
        }
    )


@pytest.mark.parametrize("dialect", ["postgres", "mysql"])
def test_connection_cut_half_way_is_read_again_from_the_start(
    dialect: str, request: pytest.FixtureRequest, lake: Lake, tmp_path: Path
) -> None:
    """B40: the rows that came before the cut are not there twice."""
    engine = request.getfixturevalue(dialect)
    fill(engine, 20_000)
    assert engine.url.port is not None
    proxy = CuttingProxy(engine.url.port, after=300_000)
    made = made_by(engine.url.set(port=proxy.port))
    (partition,) = made.plan(SourceState())
    (tmp_path / "first").mkdir()
    with pytest.raises(SourceUnavailable, match="database block 'b', things") as raised:
        ingest_partition(made, partition, dataset(), lake, tmp_path / "first")
    assert proxy.cuts == 1
    assert raised.value.kind is ErrorKind.TRANSIENT
    (tmp_path / "second").mkdir()
    manifest = ingest_partition(made, partition, dataset(), lake, tmp_path / "second")
    assert (manifest.rows_read, manifest.rows_quarantined) == (20_000, 0)
    made._engine.dispose()
    proxy.close()


# --- snapshots --------------------------------------------------------------------------------------


def change(engine: sa.Engine) -> None:
    """Move a row from the last range to the first, delete one, insert one, change all."""
    statements(
        engine,
        "UPDATE things SET id = -1 WHERE id = 4999",
        "DELETE FROM things WHERE id = 0",
        "INSERT INTO things VALUES (6000, 'new', 6000)",
        "UPDATE things SET name = 'changed'",
    )


def test_partitions_see_the_state_of_the_plan(postgres: sa.Engine) -> None:
    """68: readers one after the other, and in threads, with changes between them."""
    fill(postgres)
    snapshots = Snapshots()
    made = connector(postgres, limits=SMALL, snapshots=snapshots)
    partitions = made.plan(SourceState())
    assert len(partitions) > 3
    change(postgres)
    found: list[dict[str, Any]] = []
    threads = [
        threading.Thread(target=lambda part=part: found.extend(read(made, part)[0]))
        for part in partitions
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(row["id"] for row in found) == list(range(5000))
    assert {row["name"] for row in found} == {"x" * 30}
    assert snapshots.find("things", slice_version(partitions[0])) is None, "let go after the last"


def test_partition_retried_after_the_snapshot_went_reads_its_own(postgres: sa.Engine) -> None:
    fill(postgres)
    made = connector(postgres, limits=SMALL)
    partitions = made.plan(SourceState())
    statements(
        postgres,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE state LIKE 'idle in tr%'",
        "UPDATE things SET name = 'changed'",
    )
    rows, _ = read(made, *partitions)
    assert sorted(row["id"] for row in rows) == list(range(5000))
    assert {row["name"] for row in rows} == {"changed"}


def test_required_snapshot_that_is_gone_refuses_the_partition(postgres: sa.Engine) -> None:
    fill(postgres)
    planner = connector(postgres, limits=SMALL, snapshot="require")
    partitions = planner.plan(SourceState())
    other_process = connector(postgres, limits=SMALL, snapshot="require", snapshots=Snapshots())
    with pytest.raises(
        SourceRejected, match=r"snapshot in which .* was planned is gone.*run the data"
    ):
        read(other_process, partitions[0])
    assert len(read(planner, *partitions)[0]) == 5000


def test_newer_plan_takes_the_place_of_an_older_snapshot(postgres: sa.Engine) -> None:
    fill(postgres)
    snapshots = Snapshots()
    made = connector(postgres, limits=SMALL, snapshots=snapshots)
    first = made.plan(SourceState())
    later = connector(
        postgres, limits=SMALL, snapshots=snapshots, now=made._now() + timedelta(days=1)
    )
    second = later.plan(SourceState())
    assert snapshots.find("things", slice_version(first[0])) is None
    assert snapshots.find("things", slice_version(second[0])) is not None
    read(later, *second)


def test_snapshot_expires() -> None:
    from contextlib import ExitStack

    snapshots, session, closed = Snapshots(), ExitStack(), threading.Event()
    session.callback(closed.set)
    snapshots.hold("things", "s", ["f"], session, seconds=0.05)
    assert snapshots.find("things", "f") == "s"
    assert closed.wait(5)
    assert snapshots.find("things", "f") is None


def test_only_postgresql_shares_snapshots(mysql: sa.Engine) -> None:
    fill(mysql, 5)
    with pytest.raises(ConfigError, match="only PostgreSQL can share a snapshot"):
        connector(mysql, snapshot="require").plan(SourceState())


def test_partition_of_mysql_sees_one_state(mysql: sa.Engine) -> None:
    fill(mysql)
    made = connector(mysql, limits=PlanLimits(batch_bytes=5_000))
    (partition,) = made.plan(SourceState())
    batches = made.read(partition)
    first = next(batches).batch
    assert first is not None
    statements(mysql, "UPDATE things SET name = 'changed'")
    rest = [
        name for raw in batches if raw.batch is not None for name in raw.batch.to_pydict()["name"]
    ]
    assert len(rest) + first.num_rows == 5000
    assert set(rest) == {"x" * 30}
