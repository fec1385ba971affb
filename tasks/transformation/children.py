"""Child tables: the lists of the rows that were kept, item by item, through a query of their own.

    clean rows ⋈ raw lists ─► raw items ─► the child's query ─► clean items, refused items

An item is transformed as a row is. It is counted in the account of its child table; the items of
rows that were refused, or gave way to another version, stay in the list that these rows carry.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.json_tokens import items, members, token_text
from tasks.model.child_dataset import (
    PARENT,
    carried_columns,
    child_datasets,
    parents_columns,
)
from tasks.model.children import POSITION, ChildTable
from tasks.model.dataset import DatasetSpec
from tasks.model.errors import ContractBroken
from tasks.quarantine import RefusedRow
from tasks.transformation.columns import PROVENANCE
from tasks.transformation.items import ItemWriter
from tasks.transformation.nested import Opener, Wanted, broken_table, register_nested, sound_list
from tasks.transformation.query import TransformQuery
from tasks.transformation.session import Session, column_types, stream
from tasks.transformation.sql import identifier, literals

ROWS_AT_ONCE = 8192
BATCH_BYTES = 8 << 20
"""About how much of lists is held at once, beside the one list that may be longer."""
_LIST = "list"
Refuse = Callable[[list[RefusedRow]], None]
"""Is given rows that are refused."""
Broken = Mapping[str, Mapping[tuple[str, int], str]]
"""By child: the origins of rows that have a bad item, with what is wrong with the first of them."""


def kept_items(
    spec: DatasetSpec,
    name: str,
    raw_files: Sequence[str],
    clean_file: Path,
    session: Session,
    refuse: Refuse,
) -> ItemWriter:
    """Write the items of the rows that were kept; each carries the key of its row.

    Args:
        spec: The dataset.
        name: The child.
        raw_files: The raw rows, with their lists.
        clean_file: The rows that were kept.
        session: Where and how to work.
        refuse: Is given the items that cannot be taken apart.

    Raises:
        ContractBroken: A connector gave two rows one origin, so that lists cannot be told apart.
    """
    files = [str(clean_file), *raw_files]
    with (
        session.open_beside_items(files) as connection,
        _writer(spec.children[name], session.scratch / f"items-{name}", refuse) as writer,
    ):
        if not _has_lists(connection, spec, name, raw_files):
            return writer
        keys = ", ".join(
            f"c.{identifier(name)} AS {identifier(PARENT + name)}"
            for name in sorted(carried_columns(spec))
        )
        origin = ", ".join(f"c.{column}" for column in PROVENANCE)
        same = " AND ".join(f"c.{column} = r.{column}" for column in PROVENANCE)
        lists = _lists(spec, name, raw_files)
        found = 0
        sql = (
            f"SELECT {origin}, {keys}, r.{_LIST}\n"
            f"FROM read_parquet({_quoted(str(clean_file))}) c JOIN ({lists}) r ON {same}"
        )
        for batch in stream(connection, sql, _rows_at_once(raw_files)):
            found += batch.num_rows
            writer.add(batch.select(batch.schema.names[:-1]), batch.column(_LIST))
    if found > pq.read_metadata(clean_file).num_rows:
        raise ContractBroken(
            f"{spec.name}: two rows of the source have the same origin, so that the items of "
            f"{name} cannot be told apart",
            "the connector must number the rows of each object; report it",
        )
    return writer


def broken_rows(
    spec: DatasetSpec,
    name: str,
    raw_files: Sequence[str],
    session: Session,
    judge: Callable[[DatasetSpec, Sequence[str], Refuse], None],
) -> dict[tuple[str, int], str]:
    """Return origin → what is wrong with the first bad item, of each row that has one.

    Args:
        spec: The dataset.
        name: A child whose bad items refuse their rows.
        raw_files: The raw rows, with their lists.
        session: Where and how to work.
        judge: Runs the query of a dataset over files; what it refuses is given to the function.
    """
    broken: dict[tuple[str, int], str] = {}

    def refuse(rows: Sequence[RefusedRow]) -> None:
        for row in rows:
            broken.setdefault((row.source_uri, row.source_row), row.failures)

    with (
        session.open_beside_items(raw_files) as connection,
        _writer(spec.children[name], session.scratch / f"judged-{name}", refuse) as writer,
    ):
        if _has_lists(connection, spec, name, raw_files):
            for batch in stream(
                connection, _lists(spec, name, raw_files), _rows_at_once(raw_files)
            ):
                writer.add(batch.select(batch.schema.names[:-1]), batch.column(_LIST))
    if writer.paths:
        judge(_without_parent(child_datasets(spec)[name]), writer.paths, refuse)
    for path in writer.paths:
        Path(path).unlink()
    return broken


def register_broken(
    connection: duckdb.DuckDBPyConnection, spec: DatasetSpec, broken: Broken
) -> None:
    """Give a session the rows that are refused for one of their items."""
    schema = pa.schema([("uri", pa.string()), ("number", pa.int64())])
    for name, child in spec.children.items():
        if child.refuse == "parent":
            origins = [{"uri": uri, "number": number} for uri, number in broken.get(name, {})]
            connection.register(broken_table(name), pa.Table.from_pylist(origins, schema))


def preview_items(
    spec: DatasetSpec, name: str, batch: pa.RecordBatch, most: int
) -> list[dict[str, str | None]]:
    """Return the first items of the lists of raw rows, as texts by their keys.

    Args:
        spec: The dataset.
        name: The child.
        batch: Raw rows.
        most: Most items to return.
    """
    path = spec.children[name].list_path(name)
    if path.column not in batch.schema.names:
        return []
    opener = Opener((Wanted(name, path.inner, "list"),))
    found: list[dict[str, str | None]] = []
    for text in batch.column(path.column).cast(pa.string()).to_pylist():
        ((token, flawed),) = opener.open(None if text is None else text.encode())
        if token is None or flawed:
            continue
        for place, item in enumerate(items(token.encode()), 1):
            if len(found) == most:
                return found
            found.append({POSITION: str(place), **_fields(item)})
    return found


def _fields(item: bytes) -> dict[str, str | None]:
    try:
        return {key: token_text(value) for key, value in members(item).items()}
    except ValueError:
        return {"$": item.decode()}


def with_items_named(rows: Sequence[RefusedRow], broken: Broken) -> list[RefusedRow]:
    """Return refused rows that say which of their items is bad, and why."""
    named = []
    for row in rows:
        for name, origins in broken.items():
            if found := origins.get((row.source_uri, row.source_row)):
                row = replace(row, failures=f"{row.failures}; {name}: {found}")  # noqa: PLW2901
        named.append(row)
    return named


def without(query: TransformQuery, names: frozenset[str]) -> TransformQuery:
    """Return a query some of whose columns are not kept."""
    return replace(query, columns=tuple(name for name in query.columns if name not in names))


def _without_parent(child: DatasetSpec) -> DatasetSpec:
    """Return a child whose items are only judged: no key, nothing of the parent."""
    linked = parents_columns(child)
    columns = {name: kind for name, kind in child.columns.items() if name not in linked}
    kept = {
        column: kind.model_copy(update={"nullable": False}) if column in child.key else kind
        for column, kind in columns.items()
    }
    return child.model_copy(update={"columns": kept, "key": (), "cursor": None})


def _writer(child: ChildTable, stem: Path, refuse: Refuse) -> ItemWriter:
    return ItemWriter(stem, keys=child.needs_keys, whole=child.needs_item, refuse=refuse)


def _has_lists(
    connection: duckdb.DuckDBPyConnection, spec: DatasetSpec, name: str, raw_files: Sequence[str]
) -> bool:
    register_nested(connection, spec)
    return spec.children[name].list_path(name).column in column_types(connection, raw_files)


def _lists(spec: DatasetSpec, name: str, raw_files: Sequence[str]) -> str:
    value = sound_list(name, spec.children[name].list_path(name).column)
    origin = ", ".join(PROVENANCE)
    return (
        f"SELECT {origin}, {value} AS {_LIST}\n"
        f"FROM read_parquet([{literals(raw_files)}], union_by_name = true)"
    )


def _quoted(path: str) -> str:
    return f"[{literals([path])}]"


def _rows_at_once(raw_files: Sequence[str]) -> int:
    """Return how many rows are read at once, from the size of the files before compression."""
    rows = size = 0
    for path in raw_files:
        metadata = pq.read_metadata(path)
        rows += metadata.num_rows
        size += sum(
            metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups)
        )
    return max(1, min(ROWS_AT_ONCE, BATCH_BYTES * rows // max(size, 1)))
