"""Finds what rows said in the source, for rows that are refused when nothing of that is left.

The query keeps the original values of the rows that it refuses itself. What pandera refuses has been
cast, converted, and changed by the user's function by then: replayed as it is, it would be converted
twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import duckdb
import pyarrow as pa

from tasks.quarantine import RefusedRow
from tasks.transformation.session import stream
from tasks.transformation.sql import TEXT, identifier, literal, literals

_WANTED = "wanted originals"
_SCHEMA = pa.schema([("uri", pa.string()), ("number", pa.int64())])
ROWS_AT_ONCE = 5000


def with_originals(
    connection: duckdb.DuckDBPyConnection,
    raw_files: Sequence[str],
    names: Sequence[str],
    rows: Sequence[RefusedRow],
) -> Iterator[list[RefusedRow]]:
    """Yield the rows with their original values, in batches; each of them once.

    Args:
        connection: A session that can read the raw files; no query runs in it.
        raw_files: The raw files.
        names: Columns of the source.
        rows: Rows without their original values.
    """
    if not rows:
        return
    waiting: dict[tuple[str, int], list[RefusedRow]] = {}
    for row in rows:
        waiting.setdefault((row.source_uri, row.source_row), []).append(row)
    wanted = pa.Table.from_pylist(
        [{"uri": uri, "number": number} for uri, number in waiting], _SCHEMA
    )
    fields = ", ".join(f"{literal(name)}: r.{identifier(name)}" for name in names)
    connection.register(_WANTED, wanted)
    found = stream(
        connection,
        f"SELECT r._source_uri AS uri, r._source_row AS number,\n"
        f"  CAST(to_json({{{fields}}}) AS {TEXT}) AS raw\n"
        f"FROM read_parquet([{literals(raw_files)}], union_by_name = true) r\n"
        f"JOIN {identifier(_WANTED)} w ON w.uri = r._source_uri AND w.number = r._source_row",
        ROWS_AT_ONCE,
    )
    for batch in found:
        refused = []
        for original in batch.to_pylist():
            same = waiting.get((original["uri"], original["number"]))
            if same:
                refused.append(replace(same.pop(), raw=original["raw"]))
        yield refused
    connection.unregister(_WANTED)
    yield [row for left in waiting.values() for row in left]
