"""Forms of a merge, and what a merge costs beside the size of its table.

    make bench-merging                                  forms, and targets of 1 and 10 million rows
    python -m benchmarks.merging --targets 1 10 50      50 million rows need 15 GB of disk

The rows have six of lineitem's columns, so that a large table is made in minutes. They are staged in
types of a load; what is timed is the statement that publishes. Every statement runs in a transaction
that is rolled back, after one that warmed the caches; WAL is what it wrote.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

from psycopg2 import sql
from rich.console import Console
from rich.table import Table
from sqlalchemy import text

from benchmarks.lineitem import KEY, LINES, lineitem
from benchmarks.warehouse import Bench, warehouse
from tasks.loading.modes.publication import statements_of
from tasks.loading.schema import create_table, target_columns
from tasks.loading.session import session
from tasks.loading.staging import STAGING

MILLION = 1_000_000
FORMS_AT = 10
"""Million rows of the largest target at which all forms are measured."""
NAMES = [*KEY, "l_quantity", "l_extendedprice", "l_shipdate", "l_comment"]
SPEC = lineitem("merge", "merged", NAMES)
COLUMNS = target_columns(SPEC, {}, ())
ROW = f"""
    n / {LINES}, n % {LINES}, n % 50 + 1, n % 10000000 / 100.0, date '1992-01-02' + (n % 2500)::int,
    substr('carefully final deposits sleep quickly among the furiously even requests; '
           || 'blithely regular ideas are', (n % 60)::int + 1, (n % 34)::int + 10), 1
"""
VALUES = [name for name in NAMES if name not in KEY]


def _columns(alias: str, names: list[str]) -> str:
    return ", ".join(f"{alias}.{name}" for name in names)


OURS = statements_of(SPEC, COLUMNS, 7)[0].sql
DIFFERS = f"({_columns('t', VALUES)}) IS DISTINCT FROM ({_columns('s', VALUES)})"
ON_KEY = " AND ".join(f"t.{name} = s.{name}" for name in KEY)
SET = ", ".join(f"{name} = s.{name}" for name in VALUES)
MERGE = (
    f"MERGE INTO bench.merged t USING (SELECT * FROM pg_temp.{STAGING} ORDER BY {', '.join(KEY)}) s "
    f"ON {ON_KEY} WHEN MATCHED AND {DIFFERS} THEN UPDATE SET {SET}, _load_id = 7 "
    f"WHEN NOT MATCHED THEN INSERT ({', '.join(NAMES)}, _load_id) VALUES ({_columns('s', NAMES)}, 7)"
)
EXCLUDED = ", ".join(f"{name} = excluded.{name}" for name in VALUES)
CONFLICT = (
    f"ON CONFLICT ({', '.join(KEY)}) DO UPDATE SET {EXCLUDED}, _load_id = excluded._load_id "
    f"WHERE ({_columns('t', VALUES)}) IS DISTINCT FROM ({_columns('excluded', VALUES)})"
)
INSERT = f"INSERT INTO bench.merged AS t ({', '.join(NAMES)}, _load_id) "
UNSORTED = f"{INSERT} SELECT {', '.join(NAMES)}, 7 FROM pg_temp.{STAGING} {CONFLICT}"
FILTERED = (
    f"{INSERT} SELECT {_columns('s', NAMES)}, 7 FROM pg_temp.{STAGING} s "
    f"LEFT JOIN bench.merged t ON {ON_KEY} WHERE t.{KEY[0]} IS NULL OR {DIFFERS} "
    f"ORDER BY {_columns('s', list(KEY))} {CONFLICT}"
)
DELETE_INSERT = (
    f"WITH gone AS (DELETE FROM bench.merged t USING pg_temp.{STAGING} s WHERE {ON_KEY} RETURNING 1) "
    f"SELECT count(*) FROM gone; {INSERT} SELECT {', '.join(NAMES)}, 7 FROM pg_temp.{STAGING}"
)
FORMS: dict[str, Any] = {
    "ours": None,
    "INSERT … ON CONFLICT, as staged": UNSORTED,
    "the same, sorted, rows that change nothing filtered before": FILTERED,
    "MERGE, sorted, only if changed": MERGE,
    "delete, then insert": DELETE_INSERT,
}
OVERLAPS = {
    "0 %": (1.0, 0), "50 %": (0.5, 1), "100 %, changed": (0.0, 1), "100 %, unchanged": (0.0, 0),
}  # fmt: skip


def fill(bench: Bench, millions: int) -> None:
    """Fill the table inside the server; its key is built after the rows, which is faster."""
    bench.run("CREATE SCHEMA IF NOT EXISTS bench; DROP TABLE IF EXISTS bench.merged")
    with session(bench.engine) as connection, connection.cursor() as cursor:
        cursor.execute(create_table(SPEC, COLUMNS))
        cursor.execute("ALTER TABLE bench.merged DROP CONSTRAINT merged_pkey")
        last = millions * MILLION - 1
        cursor.execute(f"INSERT INTO bench.merged SELECT {ROW} FROM generate_series(0, {last}) n")
        cursor.execute("SET LOCAL maintenance_work_mem = '512MB'")
        cursor.execute(f"ALTER TABLE bench.merged ADD PRIMARY KEY ({', '.join(KEY)})")
    with bench.engine.connect() as connection:
        outside = connection.execution_options(isolation_level="AUTOCOMMIT")
        outside.execute(text("VACUUM (ANALYZE) bench.merged"))


def timed(bench: Bench, staged: Any, form: Any, rounds: int = 2) -> tuple[float, float]:
    """Stage a file and publish it in one form; return the best time and the WAL in MB."""
    seconds, written = [], 0.0
    for _ in range(rounds):
        with session(bench.engine) as connection, connection.cursor() as cursor:
            cursor.execute(
                f"CREATE TEMP TABLE {STAGING} ON COMMIT DROP AS SELECT {', '.join(NAMES)} "
                f"FROM {staged}"
            )
            cursor.execute(f"ANALYZE pg_temp.{STAGING}")
            cursor.execute("SELECT pg_current_wal_insert_lsn()")
            before = cursor.fetchone()
            statement = sql.SQL(form) if form else OURS
            began = time.perf_counter()
            cursor.execute(statement)
            seconds.append(time.perf_counter() - began)
            cursor.execute("SELECT pg_current_wal_insert_lsn() - %s::pg_lsn", before)
            written = float((cursor.fetchone() or (0,))[0])
            connection.rollback()
    return min(seconds), written / 1e6


def main() -> None:
    """Measure ours at every target, and all forms at one of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--targets", type=int, nargs="+", default=[1, 10], help="million rows")
    parser.add_argument("--rows", type=int, default=100_000, help="rows of a batch")
    given = parser.parse_args()
    forms_at = max((size for size in given.targets if size <= FORMS_AT), default=0)
    console = Console(width=130)
    with warehouse() as bench:
        sizes = Table(title=f"ours: {given.rows:,} rows into a larger table", title_justify="left")
        for heading in ("rows in the table", *OVERLAPS):
            sizes.add_column(heading, justify="right")
        for millions in given.targets:
            console.print(f"[dim]filling {millions} million rows …[/]")
            fill(bench, millions)
            tables = batches(bench, millions, given.rows)
            cells = [timed(bench, tables[overlap], None) for overlap in OVERLAPS]
            sizes.add_row(
                f"{millions} million", *(f"{taken:.2f} s, {wal:.0f} MB" for taken, wal in cells)
            )
            if millions == forms_at:
                console.print(compare(bench, tables, given.rows))
        console.print(sizes)


def batches(bench: Bench, millions: int, rows: int) -> dict[str, str]:
    """Make a table per overlap whose rows are scattered over the keys of the target."""
    tables = {}
    for position, (overlap, (new, changed)) in enumerate(OVERLAPS.items()):
        name = f"bench.batch_{position}"
        fresh = int(rows * new)
        known = rows - fresh
        price = "l_extendedprice + 1" if changed else "l_extendedprice"
        shifted = [other(column, "l_orderkey", f"l_orderkey + {10**12}") for column in NAMES]
        moved = [other(column, "l_extendedprice", price) for column in NAMES]
        scattered = f"bench.merged WHERE l_orderkey % {millions * MILLION // rows} = 0"
        bench.run(f"DROP TABLE IF EXISTS {name}")
        bench.run(
            f"CREATE TABLE {name} AS (SELECT {', '.join(shifted)} FROM {scattered} LIMIT {fresh}) "
            f"UNION ALL (SELECT {', '.join(moved)} FROM {scattered} LIMIT {known})"
        )
        tables[overlap] = f"(SELECT * FROM {name} ORDER BY hashint8(l_orderkey)) batch"
    return tables


def other(column: str, which: str, value: str) -> str:
    """Return a column, or another value for it."""
    return f"{value} AS {column}" if column == which else column


def compare(bench: Bench, tables: dict[str, str], rows: int) -> Table:
    """Measure every form at every overlap."""
    table = Table(title=f"{rows:,} staged rows: seconds, WAL", title_justify="left")
    table.add_column("form")
    for overlap in OVERLAPS:
        table.add_column(overlap, justify="right")
    for label, form in FORMS.items():
        cells = [timed(bench, tables[overlap], form) for overlap in OVERLAPS]
        table.add_row(label, *(f"{taken:.2f} s, {wal:.0f} MB" for taken, wal in cells))
    return table


if __name__ == "__main__":
    main()
