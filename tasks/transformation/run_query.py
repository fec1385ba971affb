"""Runs the compiled query of a dataset over files of raw rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow.parquet as pq

from tasks.model.columns import ColumnSpec
from tasks.model.dataset import DatasetSpec
from tasks.model.errors import ContractBroken
from tasks.transformation.children import register_broken, without
from tasks.transformation.columns import PROVENANCE
from tasks.transformation.enrich import LookupTable
from tasks.transformation.functions import register
from tasks.transformation.originals import with_originals
from tasks.transformation.output import Output
from tasks.transformation.query import compile_query
from tasks.transformation.session import Session, column_types, duckdb_session, stream
from tasks.transformation.widening import widened_columns

QUERY_ROWS, QUERY_VALUES, QUERY_BYTES = 16_384, 500_000, 3 << 20
"""What the query hands over at once at most: rows, values, and bytes as the raw rows have them."""
AROUND_QUERY = 176 << 20
"""What rows take outside the query's own memory: batches under way, their validation and writing.
The allocator keeps an eighth besides; the query is given the rest of the budget."""
LEAST_OF_QUERY = 128 << 20
"""The query is given so much at least, or all of a smaller budget: wide rows of long texts need it."""


def run_files(
    spec: DatasetSpec,
    raw_files: Sequence[str],
    lookup_files: Mapping[str, str],
    session: Session,
    output: Output,
) -> tuple[tuple[str, ...], dict[str, ColumnSpec]]:
    """Run the query of a dataset over local files.

    Args:
        spec: The dataset.
        raw_files: Its raw rows.
        lookup_files: Snapshot of each dataset that is looked up.
        session: Where and how to work.
        output: Takes what comes out.

    Returns:
        Names of the columns that only the source knows, and the types that the data decided.

    Raises:
        ContractBroken: The columns do not fit the dataset file.
    """
    _check_names(spec, raw_files)
    files = [*raw_files, *lookup_files.values(), str(output.path)]
    memory = session.memory_bytes
    memory = max(min(LEAST_OF_QUERY, memory), memory - memory // 8 - AROUND_QUERY)
    with duckdb_session(files, session.scratch, memory, session.deadline_seconds) as connection:
        types = column_types(connection, raw_files)
        raw_types = {name: kind for name, kind in types.items() if name not in PROVENANCE}
        register(connection, spec)
        register_broken(connection, spec, output.broken)
        wide = widened_columns(connection, spec, raw_types, raw_files)
        spec = spec.model_copy(update={"columns": {**spec.columns, **wide}})
        output.spec = spec
        lookups = {
            name: LookupTable(path, column_types(connection, [path]))
            for name, path in lookup_files.items()
        }
        query = without(compile_query(spec, raw_types, raw_files, lookups), output.left_out)
        if query.preparation:
            connection.execute(query.preparation)
        at_once = _rows_at_once(raw_files, len(raw_types) + len(query.columns))
        for batch in stream(connection, query.sql, at_once):
            output.write(query, batch)
        for clean in output.contenders.resolve(connection):
            output.add_clean(query, clean)
        output.flush(query)
        for rows in with_originals(connection, raw_files, list(raw_types), output.unexplained):
            output.quarantine.append(rows)
        output.finish(connection)
    return query.columns_added, {**query.column_types, **wide}


def _check_names(spec: DatasetSpec, raw_files: Sequence[str]) -> None:
    """Refuse columns that differ only by case: to DuckDB they would be one."""
    folded: dict[str, str] = {}
    for path in raw_files:
        for name in pq.read_schema(path).names:
            other = folded.setdefault(name.casefold(), name)
            if other != name:
                raise ContractBroken(
                    f"{spec.name}: the source has columns that differ only by case: {other}, {name}",
                    "rename one of them in the source",
                )


def _rows_at_once(raw_files: Sequence[str], columns: int) -> int:
    """Return how many rows the query hands over at once: fewer of wide ones."""
    files = [pq.read_metadata(path) for path in raw_files]
    rows: int = sum(file.num_rows for file in files)
    held: int = sum(
        file.row_group(group).total_byte_size
        for file in files
        for group in range(file.num_row_groups)
    )
    return max(1, min(QUERY_ROWS, QUERY_VALUES // columns, QUERY_BYTES * rows // max(held, 1)))
