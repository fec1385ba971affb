"""``append``: every staged row is added, in the order of the files."""

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
    inserted = insert_staged(spec, columns, load_id, order=_order(spec)) + sql.SQL(" RETURNING 1")
    return [Statement(counted(inserted), INSERTED)]


def _order(spec: DatasetSpec) -> tuple[str, ...]:
    """Return the key if an index begins with it: sorted rows fill that page by page.

    Without one, sorting would be a third of the work for nothing.
    """
    sorted_by_key = any(index.columns[0] in spec.key[:1] for index in spec.load.indexes)
    return spec.key if sorted_by_key else ()
