"""``contract: {changed: evolve}``: the narrowest types that hold the values of a partition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import duckdb

from tasks.model.column_types import MAX_DECIMAL_PRECISION, SIGNED, UNSIGNED, decimal_digits
from tasks.model.columns import ColumnSpec
from tasks.model.dataset import DatasetSpec
from tasks.transformation.columns import cleaned_type, cleaned_value
from tasks.transformation.normalize import cast_expression, plain_number
from tasks.transformation.sql import TEXT, identifier, literal, literals

_PLAIN = r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)"
_INEXACT = ("DOUBLE", "FLOAT")


def widened_columns(
    connection: duckdb.DuckDBPyConnection,
    spec: DatasetSpec,
    raw_types: Mapping[str, str],
    raw_files: Sequence[str],
) -> dict[str, ColumnSpec]:
    """Return the declared columns whose type must be wider for the values that are there.

    Whole numbers go up to the widest of their kind, decimals to 38 digits. Nothing becomes a text,
    and a value that no wider type holds is left to quarantine.
    """
    asked = {name: column for name, column in spec.columns.items() if _may_widen(column)}
    if spec.contract.changed != "evolve" or not asked:
        return {}
    values, measures, counts = [], [], []
    for name, column in asked.items():
        raw_type = cleaned_type(name, column, raw_types)
        values.append(f"{cleaned_value(name, column, raw_types)} AS {identifier(name)}")
        wanted = _measures(identifier(name), raw_type, column)
        measures += wanted
        counts.append(len(wanted))
    (row,) = connection.execute(
        f"WITH cleaned AS (SELECT {', '.join(values)} "
        f"FROM read_parquet([{literals(raw_files)}], union_by_name = true)) "
        f"SELECT {', '.join(measures)} FROM cleaned"
    ).fetchall()
    found = list(row)
    wide: dict[str, ColumnSpec] = {}
    for (name, column), count in zip(asked.items(), counts, strict=True):
        measured, found = found[:count], found[count:]
        kind = _type_for(column.type, measured)
        if kind != column.type:
            wide[name] = column.model_copy(update={"type": kind})
    return wide


def _may_widen(column: ColumnSpec) -> bool:
    """Tell whether a wider type would change nothing but what fits; rounding is asked for."""
    if column.unit or column.round:
        return False
    return bool(_wider_integers(column.type) or decimal_digits(column.type))


def _wider_integers(kind: str) -> tuple[str, ...]:
    for ladder in (SIGNED, UNSIGNED):
        if kind in ladder:
            return ladder[ladder.index(kind) + 1 :]
    return ()


def _measures(value: str, raw_type: str, column: ColumnSpec) -> list[str]:
    if decimal_digits(column.type):
        return _digits_needed(value, raw_type, column)
    declared = cast_expression(value, raw_type, column)
    measures = []
    for kind in _wider_integers(column.type):
        wide = cast_expression(value, raw_type, column.model_copy(update={"type": kind}))
        measures.append(f"count(*) FILTER (({declared}) IS NULL AND ({wide}) IS NOT NULL)")
    return measures


def _digits_needed(value: str, raw_type: str, column: ColumnSpec) -> list[str]:
    """Return SQL for the most digits before and after the point; NULL where none can be told."""
    if raw_type in _INEXACT:  # the digits of a binary fraction are not those that were meant
        return ["NULL", "NULL"]
    text = value if raw_type == TEXT else f"CAST({value} AS {TEXT})"
    if column.number and raw_type == TEXT:
        text = plain_number(text, column.number, column.number.decimal or ".")
    whole = f"length(regexp_extract({text}, '^[+-]?0*([0-9]*)', 1))"
    scale = rf"length(rtrim(regexp_extract({text}, '\.([0-9]*)$', 1), '0'))"
    fits = f"regexp_full_match({text}, {literal(_PLAIN)})"
    fits = f"{fits} AND {whole} + {scale} <= {MAX_DECIMAL_PRECISION}"
    return [f"max({count}) FILTER ({fits})" for count in (whole, scale)]


def _type_for(declared: str, measured: Sequence[int | None]) -> str:
    digits = decimal_digits(declared)
    if digits is None:
        most = measured[-1]
        kinds = zip(_wider_integers(declared), measured, strict=True)
        return next(kind for kind, count in kinds if count == most) if most else declared
    whole = max(digits[0] - digits[1], measured[0] or 0)
    scale = max(digits[1], measured[1] or 0)
    if whole + scale > MAX_DECIMAL_PRECISION:
        return declared
    return f"decimal({whole + scale},{scale})"
