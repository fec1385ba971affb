"""Deletes rows that are gone from the source: their keys are not among those that are staged."""

from __future__ import annotations

from collections.abc import Sequence

from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class in lower case

from tasks.loading.schema import LOAD_ID, TargetColumn, same_values, target
from tasks.loading.session import one_row
from tasks.loading.staging import STAGING
from tasks.model.database_source import DatabaseSource
from tasks.model.dataset import DatasetSpec
from tasks.model.errors import ContractBroken, GateFailed
from tasks.model.manifest import Manifest


def check_keys(spec: DatasetSpec, manifest: Manifest) -> None:
    """Refuse keys of which one could not be read: the row that has it would be taken for gone.

    Raises:
        ContractBroken: Some are in quarantine.
    """
    if manifest.rows_quarantined:
        reason = manifest.reasons[0]
        raise ContractBroken(
            f"{spec.name}: {manifest.rows_quarantined} keys of the source cannot be compared, the "
            f"first at {reason.source_uri} row {reason.source_row}: {reason.column or 'row'} "
            f"{reason.message}",
            "nothing was deleted; correct these keys in the source, or remove source.deletes",
        )


def delete_missing(
    cursor: Cursor,
    spec: DatasetSpec,
    key: Sequence[TargetColumn],
    up_to: int,
    *,
    has_rows: bool,
) -> int:
    """Delete the rows whose key is not staged.

    Args:
        cursor: In the transaction of the load.
        spec: The dataset.
        key: Its key columns.
        up_to: Rows of later loads are let be: they may be younger than the keys.
        has_rows: Is there a staging table?

    Returns:
        The number of rows deleted.

    Raises:
        GateFailed: They are more than may be deleted at once; the transaction must be rolled back.
    """
    assert isinstance(spec.source, DatabaseSource)
    assert spec.source.deletes is not None
    cursor.execute(sql.SQL("SELECT count(*) FROM {}").format(target(spec)))
    total = int(one_row(cursor)[0])
    if not has_rows:
        if total:
            raise GateFailed(
                f"{spec.name}: the source gave no key, and {spec.load.table} has {total} rows",
                "nothing was deleted; is the source empty, or cannot its role see the rows? Truncate "
                "the table yourself if that is what is meant",
            )
        return 0
    cursor.execute(missing_statement(spec, key, up_to))
    deleted = int(cursor.rowcount)
    most = spec.source.deletes.max_share
    if deleted > most * total:
        raise GateFailed(
            f"{spec.name}: {deleted} of {total} rows of {spec.load.table} ({deleted / total:.1%}) "
            f"have no key in the source, allowed {most:.1%}",
            "nothing was deleted; look at the source, and raise source.deletes.max_share if it is "
            "right",
        )
    return deleted


def missing_statement(spec: DatasetSpec, key: Sequence[TargetColumn], up_to: int) -> sql.Composed:
    """Return the statement that deletes the rows whose key is not staged."""
    return sql.SQL(
        "DELETE FROM {target} AS t WHERE t.{load_id} <= {up_to} AND NOT EXISTS "
        "(SELECT FROM {staging} AS s WHERE {same})"
    ).format(
        target=target(spec),
        load_id=sql.Identifier(LOAD_ID),
        up_to=sql.Literal(up_to),
        staging=sql.Identifier("pg_temp", STAGING),
        same=same_values(key),
    )
