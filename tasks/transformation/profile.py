"""Profiles the clean rows of a partition, out of the file that was just written.

Counts, bounds, distinct values and lengths are of all rows. Quantiles and top values are of a sample
where there are many rows: exact ones would cost more than all the rest together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import duckdb

from tasks.model.columns import ColumnSpec
from tasks.model.profile import DECILES, ColumnKind, ColumnProfile, Profile
from tasks.transformation.session import column_types, duckdb_session
from tasks.transformation.sql import TEXT, identifier, literal

SAMPLE_ROWS = 20_000
"""Rows of the sample, about; up to twice as many are taken whole."""
MAX_COLUMNS = 200
"""Columns that are profiled, the first ones: a profile travels with the manifest and stays small."""
MAX_TEXT = 64
"""Characters that are kept of a value."""
TOP_VALUES = 10
LEAST_SHARE = 0.001
"""Of the values in the sample; what is rarer is not among the top values."""
PROVENANCE_PREFIX = "_"
_NUMBERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER",
            "UBIGINT", "UHUGEINT", "FLOAT", "DOUBLE")  # fmt: skip
_TIMES = ("DATE", "TIMESTAMP", "TIMESTAMP WITH TIME ZONE", "TIMESTAMP_NS", "TIME", "INTERVAL")


def is_protected(column: ColumnSpec | None) -> bool:
    """Tell whether a column's values must not be shown anywhere but in the column itself."""
    return getattr(column, "pii", None) not in (None, "none")


def profile_clean_rows(
    path: Path,
    columns: Mapping[str, ColumnSpec],
    scratch: Path,
    *,
    memory_bytes: int,
    deadline_seconds: float | None = None,
) -> Profile:
    """Profile the rows of a clean file.

    Args:
        path: The Parquet file.
        columns: The columns that the dataset file declares; a protected one shows no value.
        scratch: Folder for spilled data.
        memory_bytes: Hard limit of DuckDB's buffers.
        deadline_seconds: Seconds after which it is interrupted.
    """
    with duckdb_session([str(path)], scratch, memory_bytes, deadline_seconds) as connection:
        types = {
            name: _kind(kind, columns.get(name))
            for name, kind in column_types(connection, [str(path)]).items()
            if not name.startswith(PROVENANCE_PREFIX)
        }
        kinds = dict(list(types.items())[:MAX_COLUMNS])
        return _profile(connection, str(path), kinds, columns)


def _kind(duckdb_type: str, column: ColumnSpec | None) -> ColumnKind:
    if column is not None and column.type == "json":
        return "other"
    if duckdb_type in _NUMBERS or (
        duckdb_type.startswith("DECIMAL") and not duckdb_type.endswith("]")
    ):
        return "number"
    if duckdb_type in _TIMES:
        return "time"
    if duckdb_type == "BOOLEAN":
        return "boolean"
    return "text" if duckdb_type == TEXT else "other"


def _profile(
    connection: duckdb.DuckDBPyConnection,
    path: str,
    kinds: Mapping[str, ColumnKind],
    columns: Mapping[str, ColumnSpec],
) -> Profile:
    source = f"read_parquet({literal(path)})"
    aggregates = [aggregate for name, kind in kinds.items() for aggregate in _whole(name, kind)]
    row = _one(connection, f"SELECT count(*), {', '.join(aggregates)} FROM {source}")
    rows = int(row[0])
    visible = [name for name in kinds if not is_protected(columns.get(name))]
    sampled = _take_sample(connection, source, rows, {name: kinds[name] for name in visible})
    profiled = {}
    for position, (name, kind) in enumerate(kinds.items()):
        present, distinct, low, high, least, most, short, mean, long = row[
            1 + 9 * position : 10 + 9 * position
        ]
        profile = ColumnProfile(
            kind=kind,
            nulls=rows - present,
            distinct=min(int(distinct), present),
            protected=name not in visible,
            lengths=None if short is None else (int(short), float(mean), int(long)),
        )
        if name in visible:
            values = _of_sample(connection, name, kind)
            quantiles = values["quantiles"]
            if quantiles:  # the ends are those of all rows, unless they are no numbers
                ends = [float(end) for end in (least, most)]
                first, last = (
                    end if math.isfinite(end) else of_sample
                    for end, of_sample in zip(ends, (quantiles[0], quantiles[-1]), strict=True)
                )
                quantiles = (first, *quantiles[1:-1], last)
            shown = {"min": low, "max": high, "quantiles": quantiles, "top": values["top"]}
            profile = profile.model_copy(update=shown)
        profiled[name] = profile
    return Profile(rows=rows, sampled=sampled, columns=profiled)


def _whole(name: str, kind: ColumnKind) -> list[str]:
    """Return the aggregates over all rows of a column, always nine."""
    column = identifier(name)
    nothing = "NULL"
    counted = [f"count({column})", f"approx_count_distinct({column})"]
    if kind in ("number", "time"):
        bounds = [f"min({column})", f"max({column})"]
        ends = [f"CAST({bound} AS {TEXT})" for bound in bounds]
        numbers = [_number(bound, kind) for bound in bounds]
        return [*counted, *ends, *numbers, nothing, nothing, nothing]
    if kind == "text":
        ends = [f"left({bound}({column}), {MAX_TEXT})" for bound in ("min", "max")]
        lengths = [f"{bound}(length({column}))" for bound in ("min", "avg", "max")]
        return [*counted, *ends, nothing, nothing, *lengths]
    return [*counted, *[nothing] * 7]


def _number(value: str, kind: ColumnKind) -> str:
    """Return SQL for a number or a time as a number that all are compared by."""
    return f"epoch({value})" if kind == "time" else f"CAST({value} AS DOUBLE)"


def _take_sample(
    connection: duckdb.DuckDBPyConnection, source: str, rows: int, kinds: Mapping[str, ColumnKind]
) -> int:
    """Put what quantiles and top values are taken from into a table; return its rows.

    Row by row, because neighbours are often alike; the seed makes it repeatable.
    """
    selected = []
    for name, kind in kinds.items():
        if kind in ("number", "time"):
            selected.append(f"{_number(identifier(name), kind)} AS {identifier(f'{name} number')}")
        if kind != "other":
            value = f"left(CAST({identifier(name)} AS {TEXT}), {MAX_TEXT})"
            selected.append(f"{value} AS {identifier(name)}")
    if not selected or not rows:
        return 0
    share = f" USING SAMPLE {100 * SAMPLE_ROWS / rows:.6f}% (bernoulli, 1)"
    limit = share if rows > 2 * SAMPLE_ROWS else ""
    connection.execute(
        f"CREATE TEMP TABLE sample AS SELECT {', '.join(selected)} FROM (FROM {source}{limit})"
    )
    return int(_one(connection, "SELECT count(*) FROM sample")[0])


def _of_sample(
    connection: duckdb.DuckDBPyConnection, name: str, kind: ColumnKind
) -> dict[str, tuple[Any, ...]]:
    found: dict[str, tuple[Any, ...]] = {"quantiles": (), "top": ()}
    if kind == "other" or not _has_sample(connection):
        return found
    if kind in ("number", "time"):
        number = identifier(f"{name} number")
        steps = ", ".join(str(step) for step in DECILES)
        row = _one(
            connection,
            f"SELECT quantile_disc({number}, [{steps}]) FROM sample WHERE isfinite({number})",
        )
        found["quantiles"] = tuple(row[0] or ())
    column = identifier(name)
    top = connection.execute(
        f"SELECT {column}, count(*), sum(count(*)) OVER () FROM sample WHERE {column} IS NOT NULL "
        f"GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT {TOP_VALUES}"
    ).fetchall()
    # A value that occurs once is no frequent one, and columns of keys have nothing else.
    found["top"] = tuple(
        (str(v), float(n / of)) for v, n, of in top if n > 1 and n >= of * LEAST_SHARE
    )
    return found


def _has_sample(connection: duckdb.DuckDBPyConnection) -> bool:
    return bool(
        _one(connection, "SELECT count(*) FROM duckdb_tables() WHERE table_name = 'sample'")[0]
    )


def _one(connection: duckdb.DuckDBPyConnection, sql: str) -> tuple[Any, ...]:
    row = connection.execute(sql).fetchone()
    assert row is not None, "the query always gives a row"
    return row
