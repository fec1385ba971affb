"""Refuses loads that the mode of their dataset cannot take beside what is in the table."""

from __future__ import annotations

from collections.abc import Sequence

from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class in lower case

from tasks.loading.job import Load
from tasks.loading.modes.replace_partition import check_origins, roots_of
from tasks.loading.queries import query
from tasks.loading.schema import TargetColumn
from tasks.model.errors import ContractBroken
from tasks.model.load import ReplaceLoad, ReplacePartitionLoad
from tasks.model.replay import replay_of


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
    if isinstance(mode, ReplaceLoad):
        check_current(cursor, load)


def check_current(cursor: Cursor, load: Load) -> None:
    """Refuse to replay rows of a content that was replaced since.

    Raises:
        ContractBroken: They are; nothing is published.
    """
    replay = replay_of(load.partition)
    assert replay is not None, "partitions of a run are published together"
    (root,) = roots_of(cursor, [replay.load_id]).values()
    cursor.execute(query("is_of_current_content"), {"load_id": root})
    row = cursor.fetchone()
    if not (row and row[0]):
        raise ContractBroken(
            f"{load.spec.name}: {load.spec.load.table} was replaced since load {replay.load_id} "
            "refused rows of what was there before",
            "nothing was replayed; what is wrong with the newer rows is in the quarantine of their "
            "own load; discard the older ones: dpp quarantine discard",
        )
