"""What a table must hold, by the clean files of the lake: every load applied again, in its order.

Rows are not compared whole but by three numbers: a hash of the key, the place of the cursor, and a
hash of all values. So it needs about fifty bytes a row, on disk, whatever the rows hold.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class in lower case
from sqlalchemy import Engine

from blocks.lake import Lake
from tasks.loading.encoding import staged_schema
from tasks.loading.layout import Layout, duckdb_versions
from tasks.loading.schema import TargetColumn, staged_value
from tasks.loading.session import session
from tasks.loading.staging import STAGING, clean_batches, copy_into_staging, create_staging
from tasks.model.manifest import LakeFile

MEMORY = "512MB"


@dataclass(frozen=True, slots=True)
class LoadFiles:
    """The clean rows of one load.

    Attributes:
        load_id: The load.
        files: Its clean files.
        deletes_up_to: Where its rows are the keys of all rows of the source: the last load whose rows
            it deletes when their key is not among them.
    """

    load_id: int
    files: tuple[LakeFile, ...]
    deletes_up_to: int | None = None


@dataclass
class Expected:
    """The rows that a table must hold; tables ``versions`` and ``expected`` of a DuckDB session.

    Both have the columns ``k`` (hash of the key), ``cur`` (place of the cursor), ``load`` and ``h``
    (hash of the row).
    """

    connection: duckdb.DuckDBPyConnection
    engine: Engine
    lake: Lake
    scratch: Path
    layout: Layout
    _deletes: list[tuple[int, int]] = field(default_factory=list)

    def add(self, load: LoadFiles) -> None:
        """Take in the rows of a load."""
        if load.deletes_up_to is not None:
            self._deletes.append((load.load_id, load.deletes_up_to))
        for file in load.files:
            path = self.lake.local_path(file.key, self.scratch)
            try:
                self._add_file(load, path)
            finally:
                if path.is_relative_to(self.scratch):
                    path.unlink()

    def _add_file(self, load: LoadFiles, path: Path) -> None:
        only_keys = load.deletes_up_to is not None
        layout = Layout(self.layout.key, self.layout.key) if only_keys else self.layout
        table = "gone_from" if only_keys else "versions"
        held = self.types_of(path)
        query = duckdb_versions(layout, held)
        if query is None:
            self._add_by_postgres(load, path, layout, table)
            return
        self.connection.execute(
            f"INSERT INTO {table} SELECT {query} FROM read_parquet(?)",
            [load.load_id, str(path)],
        )

    def types_of(self, path: Path) -> dict[str, str]:
        """Return the DuckDB types of a file's columns."""
        described = self.connection.execute("DESCRIBE SELECT * FROM read_parquet(?)", [str(path)])
        return {str(row[0]): str(row[1]) for row in described.fetchall()}

    def _add_by_postgres(self, load: LoadFiles, path: Path, layout: Layout, table: str) -> None:
        """Have PostgreSQL make the hashes, by the casts of a load: it alone knows its ``jsonb``."""
        schema = staged_schema(pq.read_schema(path))
        with session(self.engine) as connection, connection.cursor() as cursor:
            create_staging(cursor, schema)
            copy_into_staging(cursor, schema, clean_batches([path], schema), lambda: None)
            values = {
                column.name: staged_value(
                    TargetColumn(column.name, column.type, staged=column.name in schema.names)
                )
                for column in layout.columns
            }
            statement = sql.SQL("SELECT {}, {}, {}::bigint, {} FROM {}").format(
                layout.key_hash(values),
                layout.order_of(values),
                sql.Literal(load.load_id),
                layout.row_hash(values),
                sql.Identifier("pg_temp", STAGING),
            )
            fetch_into(cursor, statement, self.connection, table, layout.order, self.scratch)

    def fold(self) -> None:
        """Apply all loads, in the order of their ids, and leave what is left in ``expected``."""
        self.connection.execute("CREATE OR REPLACE TABLE expected AS FROM versions WHERE false")
        if not self.layout.key:
            self.connection.execute("INSERT INTO expected FROM versions")
            return
        since = 0
        for load_id, up_to in [*sorted(self._deletes), (None, None)]:
            until = "" if load_id is None else f"AND load < {load_id}"
            self.connection.execute(
                "CREATE OR REPLACE TEMP TABLE input AS FROM expected UNION ALL "
                f"FROM versions WHERE load > {since} {until}"
            )
            left = FIRST if self.layout.first_wins else NEWEST
            self.connection.execute(f"CREATE OR REPLACE TABLE expected AS {left}")
            if load_id is not None:
                self.connection.execute(
                    f"DELETE FROM expected WHERE load <= {up_to} AND k NOT IN "
                    f"(SELECT k FROM gone_from WHERE load = {load_id})"
                )
                since = load_id
        self.connection.execute("DROP TABLE IF EXISTS input")

    def counting(self, keys: str) -> str:
        """Return the query that says what each load did with some keys, if nothing was ever deleted.

        Args:
            keys: Name of a table of the session with their hashes, ``k``.
        """
        input_rows = f"(SELECT * FROM versions WHERE k IN (SELECT k FROM {keys}))"
        accepted = "newest_before IS NULL OR cur >= newest_before"
        changed = "false" if self.layout.first_wins else f"({accepted}) AND h_before <> h"
        return f"""
WITH seen AS (
    SELECT *, row_number() OVER by_load AS nth,
           max(cur) OVER (by_load ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS newest_before
    FROM {input_rows} WINDOW by_load AS (PARTITION BY k ORDER BY load)),
accepted AS (
    SELECT *, lag(h) OVER (PARTITION BY k ORDER BY load) AS h_before FROM seen WHERE {accepted})
SELECT v.load, count(*) FILTER (WHERE nth = 1), count(*) FILTER (WHERE nth > 1 AND {changed}),
       count(*) FILTER (WHERE nth > 1 AND ({changed}) IS NOT TRUE)
FROM (SELECT k, load, nth, newest_before, cur, h, h_before FROM accepted
      UNION ALL
      SELECT k, load, nth, newest_before, cur, h, h FROM seen
      WHERE ({accepted}) IS NOT TRUE) v
GROUP BY v.load
"""

    def forget(self, load_id: int) -> None:
        """Take the rows of a load out again."""
        self.connection.execute("DELETE FROM versions WHERE load = ?", [load_id])
        self._deletes = [delete for delete in self._deletes if delete[0] != load_id]

    def sums(self) -> dict[int, tuple[int, int]]:
        """Return the number of rows and their checksum, by load."""
        found = self.connection.execute(
            "SELECT load, count(*), sum(h) FROM expected GROUP BY load"
        ).fetchall()
        return {int(load): (int(rows), int(total)) for load, rows, total in found}


NEWEST = """
WITH repeated AS (SELECT k FROM input GROUP BY k HAVING count(*) > 1),
seen AS (
    SELECT *, max(cur) OVER (PARTITION BY k ORDER BY load
                             ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS newest_before
    FROM input WHERE k IN (FROM repeated)),
accepted AS (
    SELECT *, lag(h) OVER (PARTITION BY k ORDER BY load) AS h_before
    FROM seen WHERE newest_before IS NULL OR cur >= newest_before),
changed AS (SELECT * FROM accepted WHERE h_before IS NULL OR h <> h_before)
SELECT k, cur, load, h FROM input WHERE k NOT IN (FROM repeated)
UNION ALL
SELECT k, arg_max_null(cur, load), max(load), arg_max(h, load) FROM changed GROUP BY k
"""
"""What a merge leaves of some rows: an older cursor is refused, and a row that does not change the
values keeps the load that wrote them."""

FIRST = """
SELECT k, arg_min_null(cur, load) AS cur, min(load) AS load, arg_min(h, load) AS h
FROM input GROUP BY k
"""
"""What is left where the first row of a key stays."""


def fetch_into(
    cursor: Cursor,
    statement: sql.Composable,
    connection: duckdb.DuckDBPyConnection,
    table: str,
    order: str,
    scratch: Path,
) -> None:
    """Copy the result of a query of PostgreSQL, (k, cur, load, h), into a table of DuckDB."""
    path = scratch / "fetched.csv"
    with path.open("wb") as file:
        copy = sql.SQL("COPY ({}) TO STDOUT WITH (FORMAT csv)").format(statement)
        cursor.copy_expert(copy.as_string(cursor), file)
    connection.execute(
        f"INSERT INTO {table} SELECT k::UUID, cur::{order}, load, h FROM read_csv(?, header = false, "
        "auto_detect = false, delim = ',', quote = '\"', escape = '\"', nullstr = '', "
        "allow_quoted_nulls = false, "
        "columns = {'k': 'VARCHAR', 'cur': 'VARCHAR', 'load': 'BIGINT', 'h': 'BIGINT'})",
        [str(path)],
    )
    path.unlink()


@contextmanager
def expected_session(engine: Engine, lake: Lake, layout: Layout) -> Iterator[Expected]:
    """Open a session on disk in which a table can be compared; nothing is expected of it yet."""
    with tempfile.TemporaryDirectory(prefix="dpp-expected-") as folder:
        scratch = Path(folder)
        config: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": MEMORY,
            "temp_directory": str(scratch / "spill"),
            "preserve_insertion_order": False,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
        }
        connection = duckdb.connect(str(scratch / "expected.duckdb"), config=config)
        try:
            connection.execute("SET TimeZone = 'UTC'")
            for table in ("versions", "gone_from", "actual", "expected"):
                connection.execute(
                    f"CREATE TABLE {table} (k UUID, cur {layout.order}, load BIGINT, h BIGINT)"
                )
            yield Expected(connection, engine, lake, scratch, layout)
        finally:
            connection.close()


@contextmanager
def expected_content(
    engine: Engine, lake: Lake, layout: Layout, loads: Sequence[LoadFiles]
) -> Iterator[Expected]:
    """Apply the loads of a table again, from the lake's clean files.

    Args:
        engine: The warehouse, for types that only PostgreSQL knows.
        lake: Where the files are.
        layout: How rows are compared.
        loads: All loads whose rows the table may hold.

    Yields:
        What the table must hold.
    """
    with expected_session(engine, lake, layout) as expected:
        for load in loads:
            expected.add(load)
        expected.fold()
        yield expected
