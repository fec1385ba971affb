"""The indexes that a dataset file declares: what they are called, and how they are made. Pure."""

from __future__ import annotations

import re

from psycopg2 import sql

from tasks.loading.schema import TableIndex
from tasks.model.dataset import DatasetSpec
from tasks.model.index_expression import IndexExpression
from tasks.model.names import named_within_limit, short_hash
from tasks.model.table import IndexSpec

_READABLE_CHARACTERS = 30
_DECLARED = re.compile(r"_x[0-9a-f]{8}$")


def declared_indexes(spec: DatasetSpec) -> list[TableIndex]:
    """Return the indexes of ``load.indexes``.

    The name of each ends with a hash of what it is made of, so the name alone tells whether an index
    is the one that the dataset file means; another definition is another index.
    """
    return [_index(spec, index) for index in spec.load.indexes]


def was_declared(name: str) -> bool:
    """Tell whether an index has the name of one that was declared once."""
    return _DECLARED.search(name) is not None


def _index(spec: DatasetSpec, index: IndexSpec) -> TableIndex:
    known = spec.all_columns
    parts = index.expressions(known)
    text = f"{index.method} ({', '.join(map(_part, parts))})"
    if condition := index.condition(known):
        text += f" WHERE {condition.sql}"
    columns = "_".join(dict.fromkeys(name for part in parts for name in part.columns))
    readable = columns[:_READABLE_CHARACTERS].rstrip("_")
    digest = short_hash(f"{'unique ' if index.unique else ''}{text}")
    name = named_within_limit(spec.table_name, f"{readable}_x{digest}")
    return TableIndex(name, sql.SQL(text), index.unique)  # quoted when the expressions were read


def _part(part: IndexExpression) -> str:
    return part.sql if part.is_column else f"({part.sql})"
