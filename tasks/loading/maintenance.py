"""What a table needs beside its loads: partitions ahead, retention, indexes that are missing."""

from __future__ import annotations

import structlog
from sqlalchemy import Engine

from tasks.loading.build import build_indexes
from tasks.loading.commit import wait_for_turn
from tasks.loading.index import build_search_index
from tasks.loading.indexes import declared_indexes
from tasks.loading.partitions import largest_points, make_partitions
from tasks.loading.retention import Dropped, drop_old
from tasks.loading.schema import existing_columns
from tasks.loading.session import session
from tasks.loading.state import table_state
from tasks.model.dataset import DatasetSpec
from tasks.model.value import Value

log = structlog.get_logger("dpp.loading")


class Maintained(Value):
    """What was done for one table."""

    dataset: str
    table: str
    exists: bool
    made: tuple[str, ...] = ()
    """Partitions that were made ahead."""
    dropped: tuple[Dropped, ...] = ()
    built: tuple[str, ...] = ()
    """Indexes that were built."""


def maintain(engine: Engine, spec: DatasetSpec, run: str) -> Maintained:
    """Bring a table up to date beside its loads; safe at any time, and to do again.

    Args:
        engine: The warehouse, with a ledger.
        spec: The dataset.
        run: Who does it, for the record of what is dropped.
    """
    with session(engine) as connection, connection.cursor() as cursor:
        if not existing_columns(cursor, spec):
            return Maintained(dataset=spec.name, table=spec.load.table, exists=False)
        made: list[str] = []
        if spec.load.partition_by:
            wait_for_turn(cursor, spec.load.table)
            made = make_partitions(cursor, spec, largest_points(cursor, spec))
    return Maintained(
        dataset=spec.name,
        table=spec.load.table,
        exists=True,
        made=tuple(made),
        dropped=tuple(drop_old(engine, spec, run)),
        built=tuple(build_missing(engine, spec)),
    )


def build_missing(engine: Engine, spec: DatasetSpec) -> list[str]:
    """Build the declared indexes of a table that are not there, beside its loads.

    Only the owner of a table can; ``dpp check`` shows what a person is to do elsewhere.

    Returns:
        Names of the indexes that this call built, those of the search included.
    """
    with session(engine, read_only=True) as connection, connection.cursor() as cursor:
        state = table_state(cursor, spec)
    if state is None:
        return []
    missing = [index for index in declared_indexes(spec) if not state.indexes.get(index.name)]
    if missing and not state.owned:
        log.warning("index.not_ours", table=spec.load.table, owner=state.owner)
        missing = []
    built = build_indexes(engine, spec, missing)
    for name in built:
        log.info("index.built", index=name)
    return [*built, *build_search_index(engine, spec)]
