"""Rows that a lookup reads from a source of its own: ingested and transformed as a dataset's are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import pyarrow as pa

from blocks.lake import Lake
from tasks.ingestion.connector import Connector
from tasks.ingestion.read import ingest_partition
from tasks.lookups.sorted_file import store_sorted
from tasks.model.columns import MAX_IDENTIFIER_BYTES
from tasks.model.contract import Contract
from tasks.model.dataset import DatasetSpec
from tasks.model.errors import ContractBroken
from tasks.model.load import MergeLoad
from tasks.model.lookup import Lookup
from tasks.model.manifest import LakeFile, Manifest
from tasks.model.partition import Partition
from tasks.model.rest_source import RestSource
from tasks.transformation.execute import BATCH_ROWS, transform_partition
from tasks.transformation.session import duckdb_session, stream
from tasks.transformation.sql import arrow_type, identifier, literals


def rows_of(owner: str, lookup: Lookup) -> DatasetSpec:
    """Return the rows of a lookup as a dataset, which no table is made of."""
    source = lookup.source
    if lookup.api:
        source = RestSource(kind="rest", block=lookup.api.block, path=lookup.api.path)
    assert source is not None
    name = f"{owner}_{lookup.lookup}"[:MAX_IDENTIFIER_BYTES]
    return DatasetSpec(
        name=name,
        description=f"What {owner} looks up in {lookup.lookup}",
        source=source,
        key=lookup.key,
        columns=lookup.columns,
        contract=Contract(unknown="ignore"),
        load=MergeLoad(table=f"lookups.{name}", mode="merge"),
    )


def take_rows(
    spec: DatasetSpec,
    columns: Sequence[str],
    connector: Connector,
    partitions: Iterable[Partition],
    lake: Lake,
    scratch: Path,
    *,
    memory_bytes: int,
    deadline_seconds: float | None = None,
) -> LakeFile:
    """Read partitions of a lookup, clean and check them, and write one file in the order of the key.

    Args:
        spec: The rows as a dataset; see ``rows_of``.
        columns: Which columns are looked up, its key first.
        connector: Reads them.
        partitions: What to read.
        lake: Where files are and go.
        scratch: Folder for unfinished files.
        memory_bytes: What DuckDB may take.
        deadline_seconds: After so many seconds each step is given up.

    Raises:
        ContractBroken: A row is refused, or has the key of another one: half a lookup is none.
        PipelineError: What the connector raises.
    """
    files: list[LakeFile] = []
    lookup = spec.name
    for number, partition in enumerate(partitions):
        folder = scratch / f"{lookup}-{number}"
        folder.mkdir()
        raw = ingest_partition(
            connector, partition, spec, lake, folder, deadline_seconds=deadline_seconds
        )
        clean = transform_partition(
            spec,
            raw,
            {},
            lake,
            folder,
            memory_bytes=memory_bytes,
            deadline_seconds=deadline_seconds,
        )
        _refuse_incomplete(lookup, spec, clean)
        files += clean.files
    schema = pa.schema([(name, arrow_type(spec.columns[name])) for name in columns])
    path = scratch / f"{lookup}.parquet"
    if not files:
        return store_sorted(lake, lookup, (), schema, spec.key, path)
    local = [str(lake.local_path(file.key, scratch)) for file in files]
    query = (
        f"SELECT {', '.join(map(identifier, columns))} FROM read_parquet([{literals(local)}]) "  # noqa: S608
        f"ORDER BY {', '.join(map(identifier, spec.key))}"
    )
    with duckdb_session(local, scratch, memory_bytes, deadline_seconds) as connection:
        rows = (batch.cast(schema) for batch in stream(connection, query, BATCH_ROWS))
        return store_sorted(lake, lookup, rows, schema, spec.key, path)


def _refuse_incomplete(lookup: str, spec: DatasetSpec, clean: Manifest) -> None:
    if clean.rows_quarantined:
        reason = clean.reasons[0]
        about = f"{reason.column}: " if reason.column else ""
        raise ContractBroken(
            f"lookup {lookup}: {clean.rows_quarantined} of {clean.rows_read} rows are refused, "
            f"the most by rule {reason.rule} ({about}{reason.message})",
            "correct the lookup's source, or its columns in the dataset file",
        )
    if clean.rows_deduplicated:
        raise ContractBroken(
            f"lookup {lookup}: {clean.rows_deduplicated} rows have the {', '.join(spec.key)} of "
            "another row, so it cannot be told which one is meant",
            "look up by columns that tell its rows apart, or remove rows from the source",
        )
