"""``insert_only``: rows with a new key are added; those that are there stay as they are."""

from __future__ import annotations

from collections.abc import Sequence

from psycopg2 import sql

from tasks.loading.listed import listed
from tasks.loading.modes.statements import INSERTED, Statement, counted, insert_staged
from tasks.loading.schema import TargetColumn
from tasks.model.dataset import DatasetSpec


def insert_only_statements(
    spec: DatasetSpec, columns: Sequence[TargetColumn], load_id: int
) -> list[Statement]:
    """Return the statements that publish the staged rows; the arguments are ``statements_of``'s."""
    inserted = insert_staged(spec, columns, load_id, order=spec.key) + sql.SQL(
        " ON CONFLICT ({}) DO NOTHING RETURNING 1"
    ).format(listed(spec.key))
    return [Statement(counted(inserted), INSERTED)]
