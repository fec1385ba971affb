"""``replace_partition``: the staged rows take the place of those with the same value in a column."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class in lower case

from tasks.loading.job import Load
from tasks.loading.modes.statements import DELETED, INSERTED, Statement, counted, insert_staged
from tasks.loading.queries import query
from tasks.loading.schema import LOAD_ID, TargetColumn, staged_value, target
from tasks.loading.staging import STAGING
from tasks.model.dataset import DatasetSpec
from tasks.model.errors import ContractBroken
from tasks.model.load import ReplacePartitionLoad
from tasks.model.partition import Partition
from tasks.model.replay import replay_of


def replace_partition_statements(
    spec: DatasetSpec,
    load: ReplacePartitionLoad,
    columns: Sequence[TargetColumn],
    load_id: int,
    *,
    is_replay: bool,
) -> list[Statement]:
    """Return the statements that publish the staged rows; the arguments are ``statements_of``'s."""
    inserted = insert_staged(spec, columns, load_id, order=[load.by]) + sql.SQL(" RETURNING 1")
    added = Statement(counted(inserted), INSERTED)
    if is_replay:  # rows that were refused before are a part of what is there
        return [added]
    removed = sql.SQL("DELETE FROM {target} AS t USING {same} RETURNING 1").format(
        target=target(spec), same=_same_value(load, columns)
    )
    return [Statement(counted(removed), DELETED), added]


def _same_value(load: ReplacePartitionLoad, columns: Sequence[TargetColumn]) -> sql.Composed:
    column = next(column for column in columns if column.name == load.by)
    return sql.SQL(
        "(SELECT DISTINCT {value} AS value FROM {staging}) AS s WHERE t.{by} = s.value"
    ).format(
        value=staged_value(column),
        staging=sql.Identifier("pg_temp", STAGING),
        by=sql.Identifier(load.by),
    )


def index_statement(spec: DatasetSpec) -> sql.Composed | None:
    """Return the DDL of the index that finds the rows to replace; None if none is needed."""
    load = spec.load
    if not isinstance(load, ReplacePartitionLoad) or spec.table_key[:1] == (load.by,):
        return None
    return sql.SQL("CREATE INDEX ON {} ({})").format(target(spec), sql.Identifier(load.by))


@dataclass(slots=True)
class Origin:
    """Where rows of the table are from.

    Attributes:
        label: The partition that they were loaded with, in words.
        items: Its objects, or parts of objects; none if the source has no objects.
    """

    label: str
    items: set[tuple[str, str]] = field(default_factory=set)

    def is_covered_by(self, partition: Partition) -> bool:
        """Tell whether a partition is a newer delivery of all of it."""
        whole = {item.uri for item in partition.items if item.part is None}
        parts = {(item.uri, str(item.part)) for item in partition.items if item.part is not None}
        if not self.items:
            return self.label == partition.label or self.label in whole
        return all(uri in whole or (part and (uri, part) in parts) for uri, part in self.items)


def check_origins(
    cursor: Cursor, load: Load, by: ReplacePartitionLoad, columns: Sequence[TargetColumn]
) -> None:
    """Refuse to replace rows of another object, and to replay into what was replaced meanwhile.

    Two objects with rows of one value would replace each other's, and the table would depend on which
    of them came last.

    Args:
        cursor: In the transaction of the load, when it is our turn.
        load: The load.
        by: Its mode.
        columns: Columns of the table.

    Raises:
        ContractBroken: It would; nothing is published.
    """
    cursor.execute(
        sql.SQL("SELECT DISTINCT t.{} FROM {} AS t, {}").format(
            sql.Identifier(LOAD_ID), target(load.spec), _same_value(by, columns)
        )
    )
    load_ids = [int(row[0]) for row in cursor.fetchall()]
    replay = replay_of(load.partition)
    if replay is not None:
        _check_replay(cursor, load, by, replay.load_id, load_ids)
        return
    origins = _origins(cursor, load_ids).values()
    foreign = [origin for origin in origins if not origin.is_covered_by(load.partition)]
    if foreign:
        raise ContractBroken(
            f"{load.spec.name}: {load.partition.label} has rows of a {by.by} that {_named(foreign)} "
            f"has rows of too; each would replace the other's in {load.spec.load.table}",
            f"nothing of the partition was published; let all rows of a {by.by} be in one object that "
            "keeps its name, or use mode merge with a key",
        )


def _check_replay(
    cursor: Cursor, load: Load, by: ReplacePartitionLoad, origin_id: int, load_ids: list[int]
) -> None:
    roots = roots_of(cursor, [origin_id, *load_ids])
    if {roots[load_id] for load_id in load_ids} - {roots[origin_id]}:
        raise ContractBroken(
            f"{load.spec.name}: the rows of a {by.by} were replaced since load {origin_id} refused "
            "some of them",
            "nothing was replayed; what is wrong with the newer rows is in the quarantine of their "
            "own load; discard the older ones: dpp quarantine discard",
        )


def roots_of(cursor: Cursor, load_ids: list[int]) -> dict[int, int]:
    """Return, for loads, those that they come from: themselves, or of replays the first."""
    cursor.execute(query("load_origins"), {"load_ids": load_ids})
    return {int(row[0]): int(row[1]) for row in cursor.fetchall()}


def _origins(cursor: Cursor, load_ids: list[int]) -> dict[int, Origin]:
    cursor.execute(query("load_origins"), {"load_ids": load_ids})
    origins: dict[int, Origin] = {}
    for _, root, label, uri, part in cursor.fetchall():
        origin = origins.setdefault(root, Origin(label))
        if uri is not None:
            origin.items.add((uri, part))
    return origins


def _named(origins: Iterable[Origin]) -> str:
    labels = sorted({origin.label for origin in origins})
    more = f" and {len(labels) - 1} more" if len(labels) > 1 else ""
    return f"{labels[0]}{more}"
