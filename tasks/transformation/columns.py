"""The columns of the query: its own, and SQL for those of a raw row, as it came, cleaned and typed."""

from __future__ import annotations

from collections.abc import Mapping

from tasks.model.columns import ColumnSpec
from tasks.model.dataset import DatasetSpec
from tasks.transformation.clean import clean_expression, is_cleaned
from tasks.transformation.contract import source_name
from tasks.transformation.nested import nested_flaws, nested_value
from tasks.transformation.normalize import cast_expression
from tasks.transformation.sql import TEXT, duckdb_type, identifier, literal

PROVENANCE = ("_source_uri", "_source_row")
OUTCOME, FAILURES, WARNINGS, RAW = "_outcome", "_failures", "_warnings", "_raw"


def text_name(name: str) -> str:
    """Name of a column's value before the cast; the space keeps it apart from every real name."""
    return identifier(f"{name} text")


def raw_name(name: str) -> str:
    """Name of a column as the source has it; the space keeps it apart from every real name."""
    return identifier(f"raw {name}")


def cleaned_columns(
    spec: DatasetSpec, raw_types: Mapping[str, str], added: Mapping[str, tuple[str, ColumnSpec]]
) -> str:
    """Return the select list over the raw rows: what they say, and the columns before the cast."""
    selected = list(PROVENANCE)
    selected += [f"{identifier(name)} AS {raw_name(name)}" for name in raw_types]
    selected += nested_flaws(spec, raw_types)
    for name, column in spec.columns.items():
        selected.append(f"{cleaned_value(name, column, raw_types)} AS {text_name(name)}")
    selected += [
        f"CAST({identifier(name)} AS {duckdb_type(kind)}) AS {identifier(column)}"
        for name, (column, kind) in added.items()
    ]
    return ",\n    ".join(selected)


def cleaned_value(name: str, column: ColumnSpec, raw_types: Mapping[str, str]) -> str:
    """Return SQL for a column's value as it is before the cast."""
    source = source_name(name, column)
    value = identifier(source) if source in raw_types else "NULL"
    if column.value_path and source in raw_types:
        value = nested_value(name, source)
    if is_cleaned(column) or source not in raw_types:
        return clean_expression(f"CAST({value} AS {TEXT})", column)
    return value


def cleaned_type(name: str, column: ColumnSpec, raw_types: Mapping[str, str]) -> str:
    """Return the DuckDB type of a column's value before the cast."""
    is_text = is_cleaned(column) or column.value_path
    return TEXT if is_text else raw_types.get(source_name(name, column), TEXT)


def typed_columns(spec: DatasetSpec, raw_types: Mapping[str, str]) -> str:
    """Return the select list of the declared columns in their types, over the cleaned ones."""
    selected = []
    for name, column in spec.columns.items():
        value = cast_expression(text_name(name), cleaned_type(name, column, raw_types), column)
        selected.append(f"{value} AS {identifier(name)}")
    return ",\n    ".join(selected)


def original_values(raw_types: Mapping[str, str]) -> str:
    """Return SQL for what a refused row said in the source, as JSON."""
    fields = ", ".join(f"{literal(name)}: {raw_name(name)}" for name in raw_types)
    return f"CASE WHEN {FAILURES} IS NOT NULL THEN CAST(to_json({{{fields}}}) AS {TEXT}) END"


def declared_types(spec: DatasetSpec) -> dict[str, str]:
    """Return the source columns as a text source would have them, to show a query without data."""
    typed = spec.source.kind == "database"
    return {
        source_name(name, column): duckdb_type(column) if typed and not column.path else TEXT
        for name, column in spec.columns.items()
    }
