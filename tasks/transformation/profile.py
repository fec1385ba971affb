"""Profiles the clean rows of a partition, out of the file that was just written.

Counts, distinct values, lengths and the bounds of numbers and times are of all rows. Quantiles, top
values and the bounds of texts are of a sample where there are many rows: they are what costs most.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from tasks.model.columns import ColumnSpec
from tasks.model.profile import DECILES, ColumnKind, ColumnProfile, Profile
from tasks.transformation.row_sample import MAX_TEXT
from tasks.transformation.sql import TEXT, identifier, literal

MAX_COLUMNS = 200
"""Columns that are profiled, the first ones: a profile travels with the manifest and stays small."""
TOP_VALUES = 10
LEAST_SHARE = 0.001
"""Of the values in the sample; what is rarer is not among the top values."""
PROVENANCE_PREFIX = "_"
SAMPLE = "clean_sample"
_NUMBERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER",
            "UBIGINT", "UHUGEINT", "FLOAT", "DOUBLE")  # fmt: skip
_TIMES = ("DATE", "TIMESTAMP", "TIMESTAMP WITH TIME ZONE", "TIMESTAMP_NS", "TIME", "INTERVAL")


def is_protected(column: ColumnSpec | None) -> bool:
    """Tell whether a column's values must not be shown anywhere but in the column itself."""
    return getattr(column, "pii", None) not in (None, "none")


def profile_clean_rows(
    connection: duckdb.DuckDBPyConnection,
    path: Path,
    sample: pa.Table,
    columns: Mapping[str, ColumnSpec],
) -> Profile:
    """Profile the rows of a clean file.

    Args:
        connection: A session that may open the file.
        path: The Parquet file; it has rows.
        sample: Some of its rows, or all.
        columns: The columns that the dataset file declares; a protected one shows no value.
    """
    source = f"read_parquet({literal(str(path))})"
    connection.register(SAMPLE, sample)
    kinds = dict(list(_kinds(connection, source, columns).items())[:MAX_COLUMNS])
    sampled_kinds = _kinds(connection, SAMPLE, columns)
    visible = {
        name: kind if sampled_kinds[name] == kind else "other"
        for name, kind in kinds.items()
        if not is_protected(columns.get(name))
    }
    rows, counted = _count(connection, source, kinds)
    quantiles, bounds = _quantiles(connection, visible), _text_bounds(connection, visible)
    top = _top_values(connection, visible)
    profiled = {}
    for name, kind in kinds.items():
        of_all = counted[name]
        profile = ColumnProfile(
            kind=kind,
            nulls=rows - of_all.present,
            distinct=min(of_all.distinct, of_all.present),
            protected=name not in visible,
            lengths=of_all.lengths,
        )
        if name in visible:
            low, high = bounds.get(name, (of_all.low, of_all.high))
            shown = {
                "min": low,
                "max": high,
                "quantiles": of_all.with_ends(quantiles.get(name, ())),
                "top": tuple(top[name]),
            }
            profile = profile.model_copy(update=shown)
        profiled[name] = profile
    return Profile(rows=rows, sampled=sample.num_rows, columns=profiled)


def _kinds(
    connection: duckdb.DuckDBPyConnection, source: str, columns: Mapping[str, ColumnSpec]
) -> dict[str, ColumnKind]:
    relation = connection.sql(f"FROM {source}")
    return {
        name: _kind(str(of_type), columns.get(name))
        for name, of_type in zip(relation.columns, relation.types, strict=True)
        if not name.startswith(PROVENANCE_PREFIX)
    }


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


@dataclass(frozen=True, slots=True)
class _Counted:
    """What all rows say about a column; bounds as text, and as numbers if it has such."""

    present: int
    distinct: int
    low: str | None
    high: str | None
    least: float | None
    most: float | None
    shortest: int | None
    mean: float | None
    longest: int | None

    @property
    def lengths(self) -> tuple[int, float, int] | None:
        if self.shortest is None or self.mean is None or self.longest is None:
            return None
        return self.shortest, self.mean, self.longest

    def with_ends(self, quantiles: tuple[float, ...]) -> tuple[float, ...]:
        """Give the quantiles of a sample the ends of all rows, unless these are no numbers."""
        if not quantiles or self.least is None or self.most is None:
            return quantiles
        first = self.least if math.isfinite(self.least) else quantiles[0]
        last = self.most if math.isfinite(self.most) else quantiles[-1]
        return (first, *quantiles[1:-1], last)


def _count(
    connection: duckdb.DuckDBPyConnection, source: str, kinds: Mapping[str, ColumnKind]
) -> tuple[int, dict[str, _Counted]]:
    aggregates = [aggregate for name, kind in kinds.items() for aggregate in _whole(name, kind)]
    row = _one(connection, f"SELECT {', '.join(['count(*)', *aggregates])} FROM {source}")
    width = len(fields(_Counted))
    return int(row[0]), {
        name: _Counted(*row[1 + width * position : 1 + width * (position + 1)])
        for position, name in enumerate(kinds)
    }


def _whole(name: str, kind: ColumnKind) -> list[str]:
    """Return the aggregates over all rows of a column: the fields of ``_Counted``."""
    column = identifier(name)
    nothing = "NULL"
    counted = [f"count({column})", f"approx_count_distinct({column})"]
    if kind in ("number", "time"):
        bounds = [f"min({column})", f"max({column})"]
        ends = [f"CAST({bound} AS {TEXT})" for bound in bounds]
        numbers = [_number(bound, kind) for bound in bounds]
        return [*counted, *ends, *numbers, nothing, nothing, nothing]
    if kind == "text":
        lengths = [f"{bound}(length({column}))" for bound in ("min", "avg", "max")]
        return [*counted, *[nothing] * 4, *lengths]
    return [*counted, *[nothing] * 7]


def _number(value: str, kind: ColumnKind) -> str:
    """Return SQL for a number or a time as a number that all are compared by."""
    return f"epoch({value})" if kind == "time" else f"CAST({value} AS DOUBLE)"


def _quantiles(
    connection: duckdb.DuckDBPyConnection, kinds: Mapping[str, ColumnKind]
) -> dict[str, tuple[float, ...]]:
    """Return the deciles of the columns that have an order, of finite values."""
    steps = ", ".join(str(step) for step in DECILES)
    asked = {
        name: _number(identifier(name), kind)
        for name, kind in kinds.items()
        if kind in ("number", "time")
    }
    if not asked:
        return {}
    selected = ", ".join(
        f"quantile_disc({number}, [{steps}]) FILTER (WHERE isfinite({number}))"
        for number in asked.values()
    )
    row = _one(connection, f"SELECT {selected} FROM {SAMPLE}")
    return {name: tuple(found or ()) for name, found in zip(asked, row, strict=True)}


def _text_bounds(
    connection: duckdb.DuckDBPyConnection, kinds: Mapping[str, ColumnKind]
) -> dict[str, tuple[str | None, str | None]]:
    asked = [name for name, kind in kinds.items() if kind == "text"]
    if not asked:
        return {}
    selected = ", ".join(f"min({identifier(name)}), max({identifier(name)})" for name in asked)
    row = _one(connection, f"SELECT {selected} FROM {SAMPLE}")
    return dict(zip(asked, zip(row[::2], row[1::2], strict=True), strict=True))


def _top_values(
    connection: duckdb.DuckDBPyConnection, kinds: Mapping[str, ColumnKind]
) -> dict[str, list[tuple[str, float]]]:
    """Return the frequent values of columns, as text, with their shares, the most frequent first.

    A value that occurs once is no frequent one, and columns of keys have nothing else.
    """
    asked = [
        f"(SELECT {literal(name)}, left(CAST({identifier(name)} AS {TEXT}), {MAX_TEXT}) AS value, "
        f"count(*) AS times, sum(times) OVER () AS of FROM {SAMPLE} "
        f"WHERE {identifier(name)} IS NOT NULL GROUP BY value "
        f"ORDER BY times DESC, value LIMIT {TOP_VALUES})"
        for name, kind in kinds.items()
        if kind != "other"
    ]
    found: dict[str, list[tuple[str, float]]] = {name: [] for name in kinds}
    if asked:
        for name, value, times, of in connection.execute(" UNION ALL ".join(asked)).fetchall():
            if times > 1 and times >= of * LEAST_SHARE:
                found[name].append((value, float(times / of)))
    return {
        name: sorted(values, key=lambda one: (-one[1], one[0])) for name, values in found.items()
    }


def _one(connection: duckdb.DuckDBPyConnection, sql: str) -> tuple[Any, ...]:
    row = connection.execute(sql).fetchone()
    assert row is not None, "the query always gives a row"
    return row
