"""Every row's origin: which object, page or table it came from, and which row of it it was."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tasks.ingestion.connector import SOURCE_ROW, SOURCE_URI
from tasks.model.errors import ContractBroken

RAW_SHOWN = 10_000
"""Characters of a refused record, or of one of its fields, that are kept."""


def check_names(names: Sequence[str], uri: str) -> None:
    """Refuse columns that a raw file could not tell from ours.

    Raises:
        ContractBroken: The source has a column of the name of one of ours.
    """
    for name in (SOURCE_URI, SOURCE_ROW):
        if name in names:
            raise ContractBroken(
                f"{uri}: a column is called {name}, which is a name of the product",
                "rename it in the source, e.g. by a query",
            )


def with_origin(
    names: Sequence[str],
    columns: Sequence[pa.Array],
    uri: str | pa.Array,
    numbers: Sequence[int] | npt.NDArray[np.int64],
) -> pa.RecordBatch:
    """Return the columns as a batch, each row with its origin.

    Args:
        names: Names of the columns; ``check_names`` has seen them.
        columns: Their values.
        uri: Where all these rows are from, or where each of them is.
        numbers: The rows' numbers there, one a row.
    """
    uris = one_origin(uri, len(numbers)) if isinstance(uri, str) else uri
    return pa.record_batch(
        [*columns, uris, pa.array(numbers, pa.int64())],
        names=[*names, SOURCE_URI, SOURCE_ROW],
    )


def one_origin(uri: str, rows: int) -> pa.DictionaryArray:
    """Return where rows are from that are all from one place; its name is kept once, not with each."""
    return pa.DictionaryArray.from_arrays(pa.repeat(pa.scalar(0, pa.int32()), rows), [uri])


def shown_bytes(raw: bytes) -> str:
    """Return the text of a refused record, without its line end, cut to what is kept of it."""
    return raw[: 4 * RAW_SHOWN].rstrip(b"\r\n").decode(errors="backslashreplace")[:RAW_SHOWN]


def shown(batch: pa.RecordBatch, row: int) -> str:
    """Return a row as JSON, each value cut to what is kept of it."""
    values = {
        name: None if (text := column[row].as_py()) is None else str(text)[:RAW_SHOWN]
        for name, column in zip(batch.schema.names, batch.columns, strict=True)
    }
    return json.dumps(values, ensure_ascii=False)


def long_values(column: pa.Array, most: int) -> list[int]:
    """Return the rows whose text or bytes are longer than ``most`` bytes."""
    if column.nbytes <= most:
        return []
    found: list[int] = pc.indices_nonzero(pc.greater(pc.binary_length(column), most)).to_pylist()
    return found
