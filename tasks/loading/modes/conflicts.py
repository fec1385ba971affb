"""Refuses loads that the mode of their dataset cannot take beside what is in the table."""

from __future__ import annotations

from collections.abc import Sequence

from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class in lower case

from tasks.loading.job import Load
from tasks.loading.modes.replace_partition import check_origins
from tasks.loading.schema import TargetColumn
from tasks.model.load import ReplacePartitionLoad


def check_conflicts(cursor: Cursor, load: Load, columns: Sequence[TargetColumn]) -> None:
    """Check that a load does not undo another one.

    Args:
        cursor: In the transaction of the load, when it is our turn.
        load: The load; its rows are staged.
        columns: Columns of the table.

    Raises:
        ContractBroken: It would; nothing is published.
    """
    mode = load.spec.load
    if isinstance(mode, ReplacePartitionLoad):
        check_origins(cursor, load, mode, columns)
