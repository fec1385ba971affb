"""Runs the user's function on clean rows, and holds what it returns to the contract."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from tasks.model.dataset import DatasetSpec
from tasks.model.errors import ContractBroken
from tasks.transformation.sql import arrow_type

Function = Callable[[pd.DataFrame], pd.DataFrame]
REMEDY = "nothing of the partition was published; correct the function and run again"


def run_custom(
    spec: DatasetSpec, function: Function, columns: Sequence[str], batch: pa.RecordBatch
) -> pa.RecordBatch:
    """Return a batch as the function makes it: the same rows, with the declared columns.

    Args:
        spec: The dataset; it declares ``custom``.
        function: The function.
        columns: Columns that it is given; all others are kept from it.
        batch: Clean rows.

    Raises:
        ContractBroken: The function failed; or it lost, added or reordered rows, changed a key, or
            returned columns or types that are not declared.
    """
    assert spec.custom is not None
    where = f"{spec.name}: custom: {spec.custom.function}"
    given = batch.select(list(columns))
    made = _called(where, function, given, batch)
    added = {name: arrow_type(column) for name, column in spec.custom.columns.items()}
    kinds = {name: given.schema.field(name).type for name in columns} | added
    missing = [name for name in kinds if name not in made.columns]
    unknown = [str(name) for name in made.columns if name not in kinds]
    if missing or unknown:
        words = [f"does not return {name}" for name in missing]
        words += [f"returns {name}, which is not declared" for name in unknown]
        raise ContractBroken(f"{where}: {'; '.join(words)}", "declare it under custom.columns")
    arrays = {name: _array(where, made[name], name, kind) for name, kind in kinds.items()}
    for name in spec.key:
        if name in columns and not arrays[name].equals(given.column(name)):
            raise ContractBroken(f"{where}: changes {name}, which is part of the key", REMEDY)
    rest = [name for name in batch.schema.names if name not in columns]
    return pa.record_batch(
        [*arrays.values(), *(batch.column(name) for name in rest)], names=[*arrays, *rest]
    )


def _frame(batch: pa.RecordBatch) -> pd.DataFrame:
    frame: pd.DataFrame = batch.to_pandas(types_mapper=pd.ArrowDtype)
    return frame


def _called(
    where: str, function: Function, given: pa.RecordBatch, batch: pa.RecordBatch
) -> pd.DataFrame:
    try:
        made = function(_frame(given))
    except Exception as error:  # whatever a user's function does
        row = _first_offending(function, given)
        place = "the rows together; each alone passes"
        if row is not None:
            place = f"{batch['_source_uri'][row].as_py()} row {batch['_source_row'][row].as_py()}"
        last = traceback.extract_tb(error.__traceback__)[-1]
        raise ContractBroken(
            f"{where}: {type(error).__name__}: {error} ({last.filename}:{last.lineno}); first "
            f"offending: {place}",
            REMEDY,
        ) from None
    if not isinstance(made, pd.DataFrame):
        raise ContractBroken(f"{where}: returns a {type(made).__name__}, not a DataFrame", REMEDY)
    if not made.index.equals(pd.RangeIndex(given.num_rows)):
        raise ContractBroken(
            f"{where}: was given {given.num_rows} rows and returns {len(made)}, or in another order "
            "or under another index",
            "return a row for each row that was given, under its index; rows are refused by rules",
        )
    return made


def _first_offending(function: Function, given: pa.RecordBatch) -> int | None:
    """Return the first row on which the function fails by itself, None if it fails on none."""
    start, end = 0, given.num_rows
    while end - start > 1:
        middle = (start + end) // 2
        if _fails(function, given.slice(start, middle - start)):
            end = middle
        elif _fails(function, given.slice(middle, end - middle)):
            start = middle
        else:
            return None
    return start


def _fails(function: Function, given: pa.RecordBatch) -> bool:
    try:
        function(_frame(given))
    except Exception:  # whatever a user's function does
        return True
    return False


def _array(where: str, series: pd.Series, name: str, kind: pa.DataType) -> pa.Array:
    try:
        if isinstance(series.dtype, pd.ArrowDtype):
            array = pa.array(series.array).cast(kind)
        else:
            array = pa.array(series, kind, from_pandas=True)
    except (pa.ArrowException, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0][:100] if isinstance(error, pa.ArrowException) else ""
        raise ContractBroken(
            f"{where}: {name} is {series.dtype}, which is no {kind} without a loss: {reason}",
            REMEDY,
        ) from None
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    if pa.types.is_string(kind) and pc.any(pc.match_substring(array, "\0")).as_py():
        raise ContractBroken(
            f"{where}: {name} has a NUL character, which PostgreSQL cannot store", REMEDY
        )
    return array
