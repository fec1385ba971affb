"""Compiles a dataset's query without data, so that a wrong rule is found before anything runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.model.dataset import DatasetSpec
from tasks.model.errors import ConfigError
from tasks.transformation.enrich import LookupTable
from tasks.transformation.functions import register
from tasks.transformation.query import TransformQuery, compile_query, declared_types
from tasks.transformation.session import column_types
from tasks.transformation.snapshot import lookup_columns
from tasks.transformation.sql import TEXT, arrow_type
from tasks.transformation.user_code import load_object, load_schema


def explain_query(spec: DatasetSpec, lookups: Mapping[str, DatasetSpec]) -> TransformQuery:
    """Return the query of a dataset, with names of files that stand for any."""
    tables = {name: LookupTable(f"lookups/{name}.parquet", {}) for name in lookups}
    return compile_query(spec, declared_types(spec), ["raw.parquet"], tables)


def check_query(spec: DatasetSpec, lookups: Mapping[str, DatasetSpec], scratch: Path) -> None:
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
            columns = lookup_columns(lookup, [spec])
            _write_empty(path, [(c, arrow_type(lookup.columns[c])) for c in columns])
            tables[name] = LookupTable(str(path), column_types(connection, [str(path)]))
        types = dict.fromkeys(declared_types(spec), TEXT)
        query = compile_query(spec, types, [str(raw_path)], tables)
        register(connection, spec)
        load_schema(spec)
        if spec.custom:
            load_object(spec, "custom", spec.custom.function)
        try:
            connection.execute(query.sql).fetchall()
        except duckdb.Error as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(
                f"{spec.name}: the query of this dataset is wrong: {reason}"
            ) from None


def _write_empty(path: Path, fields: list[tuple[str, pa.DataType]]) -> None:
    pq.write_table(pa.schema(fields).empty_table(), path)
