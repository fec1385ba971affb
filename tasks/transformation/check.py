"""Compiles a dataset's query without data, so that a wrong rule is found before anything runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.model.child_dataset import child_datasets
from tasks.model.dataset import DatasetSpec, LookedUp
from tasks.model.errors import ConfigError
from tasks.transformation.children import register_broken
from tasks.transformation.columns import declared_types
from tasks.transformation.enrich import LookupTable, default_value, lookup_columns
from tasks.transformation.functions import register
from tasks.transformation.query import TransformQuery, compile_query
from tasks.transformation.session import column_types
from tasks.transformation.sql import TEXT, arrow_type, duckdb_type
from tasks.transformation.user_code import load_object, load_schema


def explain_query(spec: DatasetSpec, lookups: Mapping[str, LookedUp]) -> TransformQuery:
    """Return the query of a dataset, with names of files that stand for any."""
    tables = {
        name: LookupTable(
            f"lookups/{name}.parquet",
            {column: duckdb_type(kind) for column, kind in looked_up.columns.items()},
        )
        for name, looked_up in lookups.items()
    }
    return compile_query(spec, declared_types(spec), ["raw.parquet"], tables)


def check_query(spec: DatasetSpec, lookups: Mapping[str, LookedUp], scratch: Path) -> None:
    """Let DuckDB bind the query of a dataset to empty files.

    Raises:
        ConfigError: A rule names a column that is not there, or is no condition.
    """
    raw_path = scratch / f"{spec.name}-raw.parquet"
    raw = [(name, pa.string()) for name in declared_types(spec)]
    _write_empty(raw_path, [*raw, ("_source_uri", pa.string()), ("_source_row", pa.int64())])
    tables = {}
    with duckdb.connect(":memory:") as connection:
        for name, lookup in lookups.items():
            path = scratch / f"{spec.name}-{name}.parquet"
            columns = lookup_columns(name, lookup, [spec])
            _write_empty(path, [(c, arrow_type(lookup.columns[c])) for c in columns])
            tables[name] = LookupTable(str(path), column_types(connection, [str(path)]))
        _check_defaults(connection, spec, tables)
        types = dict.fromkeys(declared_types(spec), TEXT)
        query = compile_query(spec, types, [str(raw_path)], tables)
        register(connection, spec)
        register_broken(connection, spec, {})
        load_schema(spec)
        if spec.custom:
            load_object(spec, "custom", spec.custom.function)
        try:
            if query.preparation:
                connection.execute(query.preparation)
            connection.execute(query.sql).fetchall()
        except duckdb.Error as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(
                f"{spec.name}: the query of this dataset is wrong: {reason}"
            ) from None
    for child in child_datasets(spec).values():
        check_query(child, {}, scratch)


def _check_defaults(
    connection: duckdb.DuckDBPyConnection, spec: DatasetSpec, tables: Mapping[str, LookupTable]
) -> None:
    for lookup in spec.enrich:
        defaults = lookup.missing if isinstance(lookup.missing, dict) else {}
        for column, value in defaults.items():
            kind = tables[lookup.lookup].types[lookup.take[column]]
            try:
                connection.execute(f"SELECT {default_value(value, kind)}")
            except duckdb.Error:
                raise ConfigError(
                    f"{spec.name}: enrich {lookup.lookup}: missing: {column}: {value!r} is no {kind}"
                ) from None


def _write_empty(path: Path, fields: list[tuple[str, pa.DataType]]) -> None:
    pq.write_table(pa.schema(fields).empty_table(), path)
