"""The keys by which a partition looks something up in an API."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from blocks.lake import Lake
from tasks.model.dataset import DatasetSpec
from tasks.model.manifest import Manifest
from tasks.transformation.columns import PROVENANCE
from tasks.transformation.execute import BATCH_ROWS
from tasks.transformation.functions import register
from tasks.transformation.query import values_query
from tasks.transformation.session import column_types, duckdb_session, stream
from tasks.transformation.widening import widened_columns


def different_values(
    spec: DatasetSpec,
    raw: Manifest,
    column: str,
    lake: Lake,
    scratch: Path,
    *,
    memory_bytes: int,
    deadline_seconds: float | None = None,
) -> Iterator[str]:
    """Yield the values that a column has in a partition, cleaned and cast, each once and sorted.

    Args:
        spec: The dataset.
        raw: What ingestion made of the partition.
        column: A declared column, or a derived one.
        lake: Where the raw files are.
        scratch: Folder for spilled data.
        memory_bytes: What DuckDB may take.
        deadline_seconds: After so many seconds it is given up.
    """
    if not raw.rows:
        return
    files = [str(lake.local_path(file.key, scratch)) for file in raw.files]
    with duckdb_session(files, scratch, memory_bytes, deadline_seconds) as connection:
        kinds = column_types(connection, files)
        types = {name: kind for name, kind in kinds.items() if name not in PROVENANCE}
        register(connection, spec)
        wide = widened_columns(connection, spec, types, files)
        spec = spec.model_copy(update={"columns": {**spec.columns, **wide}})
        for batch in stream(connection, values_query(spec, types, files, column), BATCH_ROWS):
            yield from batch.column(0).to_pylist()
