"""A table beside a dataset's, in which its past is applied again: what the table must hold.

It is made, compared and dropped in one transaction; nobody else ever sees it, and a crash leaves
nothing of it. It takes as much disk as the table while it is there.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class in lower case

from blocks.lake import Lake
from tasks.loading.canonical import ComparedColumn
from tasks.loading.companion import SCHEMA, companion, companion_exists, companion_name
from tasks.loading.expected import Expected, fetch_into
from tasks.loading.layout import Layout
from tasks.loading.listed import listed
from tasks.loading.modes.merge import TOMBSTONES
from tasks.loading.modes.scd2 import MARKS
from tasks.loading.past import Past, apply_past
from tasks.loading.queries import query
from tasks.loading.reapply import Done, Reapplied
from tasks.loading.schema import LOAD_ID, existing_columns, target
from tasks.model.child_dataset import child_tables
from tasks.model.dataset import DatasetSpec, LookedUp

PATIENCE = "1h"
"""How long the transaction may be silent while files of the lake are read; it holds no lock."""
COMPANIONS = (TOMBSTONES, MARKS)


@dataclass(frozen=True, slots=True)
class Shadow:
    """What the tables of a dataset must hold.

    Attributes:
        spec: The dataset, with the tables in which that is.
        done: What each load did.
    """

    spec: DatasetSpec
    done: Mapping[int, Done]

    def tables(self, spec: DatasetSpec) -> Iterator[tuple[DatasetSpec, DatasetSpec]]:
        """Yield each table of the dataset with the one beside it, the dataset's own first."""
        yield spec, self.spec
        beside = child_tables(self.spec)
        for name, child in child_tables(spec).items():
            yield child, beside[name]


def shadow_spec(spec: DatasetSpec) -> DatasetSpec:
    """Return a dataset like another one, with tables of its own that have nothing but rows and keys."""
    name = f"again_{uuid.uuid4().hex[:16]}"
    plain = {"index": None, "indexes": (), "grants": None, "partition_by": None}
    load = spec.load.model_copy(update={"table": f"{spec.schema_name}.{name}", **plain})
    children = {
        child: declared.model_copy(update={"table": f"{spec.schema_name}.{name}_{number}"})
        for number, (child, declared) in enumerate(spec.children.items())
    }
    return spec.model_copy(update={"name": name, "load": load, "children": children})


@contextmanager
def shadow(
    cursor: Cursor,
    spec: DatasetSpec,
    lookups: Mapping[str, LookedUp],
    lake: Lake,
    past: Past,
) -> Iterator[Shadow]:
    """Apply the past of a dataset into tables beside its own; they are dropped at the end.

    Args:
        cursor: In a transaction that may write.
        spec: The dataset.
        lookups: What it looks up.
        lake: Where the clean files are.
        past: What is applied.

    Raises:
        ContractBroken: It cannot be, under the dataset file as it is now.
    """
    cursor.execute(
        "SELECT set_config('idle_in_transaction_session_timeout', %s, true)", (PATIENCE,)
    )
    beside = shadow_spec(spec)
    done = apply_past(Reapplied(cursor, beside, lookups, lake), beside, past)
    made = Shadow(beside, done)
    yield made
    for _, table in made.tables(spec):
        cursor.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(target(table)))
    for kind in COMPANIONS:
        cursor.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(companion(kind, beside)))


def shadow_layout(cursor: Cursor, spec: DatasetSpec, own: Cursor, beside: DatasetSpec) -> Layout:
    """Return how a table is compared with the one beside it: by all columns that loads fill.

    Args:
        cursor: Where the table is seen.
        spec: The dataset that it is of.
        own: Where the one beside it is.
        beside: The dataset that has that.
    """
    there = existing_columns(cursor, spec)
    filled = set(existing_columns(own, beside)) - {LOAD_ID}
    columns = {
        name: ComparedColumn(name, column.type) for name, column in there.items() if name in filled
    }
    key = tuple(columns[name] for name in spec.table_key if name in columns)
    return Layout(tuple(columns.values()), key if len(key) == len(spec.table_key) else ())


def fill_expected(cursor: Cursor, beside: DatasetSpec, expected: Expected) -> None:
    """Put the hashes of all rows of a table beside into the session's table ``expected``."""
    layout = expected.layout
    values = {
        column.name: sql.SQL("{}::{}").format(
            sql.Identifier("s", column.name), sql.SQL(column.type)
        )
        for column in layout.columns
    }
    statement = sql.SQL("SELECT {}, NULL, s.{}, {} FROM {} s").format(
        layout.key_hash(values),
        sql.Identifier(LOAD_ID),
        layout.row_hash(values),
        target(beside),
    )
    fetch_into(cursor, statement, expected.connection, "expected", layout.order, expected.scratch)


def restore_companions(cursor: Cursor, spec: DatasetSpec, beside: DatasetSpec) -> None:
    """Make what a mode remembers of keys what the tables beside remember."""
    for kind in COMPANIONS:
        if not companion_exists(cursor, kind, spec):
            continue
        mine = companion(kind, spec)
        cursor.execute(sql.SQL("DELETE FROM {}").format(mine))
        if companion_exists(cursor, kind, beside):
            cursor.execute(
                query("plain_columns"), {"table": f"{SCHEMA}.{companion_name(kind, spec)}"}
            )
            names = listed([row[0] for row in cursor.fetchall()])
            cursor.execute(
                sql.SQL("INSERT INTO {} ({names}) SELECT {names} FROM {}").format(
                    mine, companion(kind, beside), names=names
                )
            )
