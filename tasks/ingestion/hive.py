"""Columns from the folders of a key: ``dt=2013-01-01/`` gives each row of the object a ``dt``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from urllib.parse import unquote

import pyarrow as pa

from tasks.ingestion.connector import RawBatch
from tasks.model.errors import ContractBroken

NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"


def hive_values(uri: str, names: Sequence[str]) -> dict[str, str | None]:
    """Return the values of the declared partitions in a key or a path.

    Raises:
        ContractBroken: It has no folder for one of them, or two.
    """
    folders = [folder.partition("=") for folder in uri.split("/")[:-1]]
    found: dict[str, str | None] = {}
    for name in names:
        values = [value for left, equals, value in folders if equals and unquote(left) == name]
        if len(values) != 1:
            raise ContractBroken(
                f"{uri}: {'no folder' if not values else 'more than one folder'} {name}=…",
                "narrow 'path' to the objects that have it, or correct 'hive_partitions'",
            )
        found[name] = None if values[0] == NULL_PARTITION else unquote(values[0])
    return found


def with_partitions(raw: RawBatch, values: Mapping[str, str | None], uri: str) -> RawBatch:
    """Return rows with the values of their object's partitions as columns.

    Raises:
        ContractBroken: The object has a column of that name itself.
    """
    batch = raw.batch
    if batch is None or not values:
        return raw
    for name, value in values.items():
        if name in batch.schema.names:
            raise ContractBroken(
                f"{uri}: has a column {name} itself",
                f"remove {name} from 'hive_partitions'; the column of the object is read",
            )
        column = (
            pa.nulls(batch.num_rows, pa.string())
            if value is None
            else pa.repeat(pa.scalar(value, pa.string()), batch.num_rows)
        )
        batch = batch.append_column(name, column)
    return replace(raw, batch=batch)
