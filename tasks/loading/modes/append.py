"""``append``: every staged row is added."""

from __future__ import annotations

from collections.abc import Sequence

from psycopg2 import sql

from tasks.loading.modes.statements import INSERTED, Statement, counted, insert_staged
from tasks.loading.schema import TargetColumn
from tasks.model.dataset import DatasetSpec


def append_statements(
    spec: DatasetSpec, columns: Sequence[TargetColumn], load_id: int
) -> list[Statement]:
    """Return the statements that publish the staged rows; the arguments are ``statements_of``'s."""
    # In key order rows of one key lie beside each other.
    inserted = insert_staged(spec, columns, load_id, order=spec.key) + sql.SQL(" RETURNING 1")
    return [Statement(counted(inserted), INSERTED)]
