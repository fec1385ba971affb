"""Items that were refused before, on their own: added to the version of their parent that they are of.

Such an item never replaces one that is there. It is not added, and counts as unchanged, if its parent
is gone, or has another version now: its set of items is that version's.
"""

from __future__ import annotations

from collections.abc import Sequence

from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class in lower case

from tasks.loading.account import Changes
from tasks.loading.children.staged import StagedChild
from tasks.loading.children.versions import name_moments_of_items, publish_versions
from tasks.loading.job import Load
from tasks.loading.listed import listed
from tasks.loading.modes.conflicts import check_current
from tasks.loading.modes.statements import counted, insert_staged
from tasks.loading.queries import query
from tasks.loading.schema import LOAD_ID, TargetColumn, staged_value, target
from tasks.model.load import AppendLoad, InsertOnlyLoad, ReplaceLoad, Scd2Load
from tasks.model.replay import replay_of


def publish_replayed(
    cursor: Cursor,
    load: Load,
    child: StagedChild,
    columns: Sequence[TargetColumn],
    load_id: int,
) -> Changes:
    """Publish the staged items of a replay; of the other children nothing is staged.

    Args:
        cursor: In the transaction of the load.
        load: The replay.
        child: The items.
        columns: Columns of the child table, in the types that it has.
        load_id: Id of the load.

    Raises:
        ContractBroken: The parents' table was replaced since; nothing is published.
    """
    if not child.staging:
        return Changes()
    mode = load.spec.load
    if isinstance(mode, Scd2Load):
        name_moments_of_items(cursor, load.spec, child, columns)
        return publish_versions(cursor, child, columns, load_id, is_whole=False)
    if isinstance(mode, ReplaceLoad):
        check_current(cursor, load)
    added = insert_staged(
        child.spec,
        columns,
        load_id,
        order=child.spec.key,
        where=_of_parent_that_is_there(cursor, load, child, columns),
        staging=child.staging,
    )
    if child.spec.table_key:
        added += sql.SQL(" ON CONFLICT ({}) DO NOTHING").format(listed(child.spec.key))
    cursor.execute(counted(added + sql.SQL(" RETURNING 1")))
    return Changes(inserted=(cursor.fetchone() or (0,))[0])


def _of_parent_that_is_there(
    cursor: Cursor, load: Load, child: StagedChild, columns: Sequence[TargetColumn]
) -> sql.Composed:
    """Return the condition that the parent of a staged item ``s`` has the version it was read with."""
    conditions: list[sql.Composable] = [child.linked_staged(columns)]
    mode = load.spec.load
    if not isinstance(mode, AppendLoad):
        # What a later load wrote is another version; one that was as it is now kept its load.
        is_same: sql.Composable = sql.SQL("=" if isinstance(mode, InsertOnlyLoad) else "<=")
        conditions.append(
            sql.SQL("p.{} {} {}").format(
                sql.Identifier(LOAD_ID), is_same, sql.Literal(_load_of_parents(cursor, load))
            )
        )
    if child.version:
        conditions.append(
            sql.SQL("p.{} IS NOT DISTINCT FROM {}").format(
                sql.Identifier(str(load.spec.cursor)), staged_value(child.version, "s")
            )
        )
    return sql.SQL("EXISTS (SELECT FROM {} AS p WHERE {})").format(
        target(load.spec), sql.SQL(" AND ").join(conditions)
    )


def _load_of_parents(cursor: Cursor, load: Load) -> int:
    """Return the load that read the parents: the first of which these items were refused."""
    replay = replay_of(load.partition)
    assert replay is not None, "only replays come here"
    cursor.execute(query("load_of_parents"), {"load_id": replay.load_id, "child": replay.child})
    row = cursor.fetchone()
    return int(row[0]) if row else replay.load_id
