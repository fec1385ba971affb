"""A load taken back where hashes of rows say what is left: by the keys that it had, and no others."""

from __future__ import annotations

from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class in lower case

from tasks.loading.content import KEYED, table_values
from tasks.loading.expected import Expected, fetch_into
from tasks.loading.restore import send_affected
from tasks.loading.schema import LOAD_ID, target
from tasks.model.dataset import DatasetSpec


def without(expected: Expected, load_id: int) -> dict[int, dict[str, int]]:
    """Apply all loads but one; return by how much the others' counts change."""
    connection = expected.connection
    connection.execute("CREATE TABLE affected AS SELECT k FROM versions WHERE load = ?", [load_id])
    before = _counts(expected)
    expected.forget(load_id)
    expected.fold()
    after = _counts(expected)
    changed = {
        load: {name: after[load][name] - counts[name] for name in counts}
        for load, counts in before.items()
        if load in after and after[load] != counts
    }
    return {load: counts for load, counts in changed.items() if load != load_id}


def _counts(expected: Expected) -> dict[int, dict[str, int]]:
    """Return what each load did with the affected keys."""
    found = expected.connection.execute(expected.counting("affected")).fetchall()
    return {
        int(load): {"inserted": int(new), "updated": int(changed), "unchanged": int(same)}
        for load, new, changed, same in found
    }


def find_differences(cursor: Cursor, spec: DatasetSpec, expected: Expected) -> None:
    """Compare the affected rows of the table with what they are without the load."""
    layout, connection = expected.layout, expected.connection
    affected = send_affected(cursor, expected, "SELECT k FROM affected")
    values = table_values([column.name for column in layout.columns])
    statement = sql.SQL(
        "SELECT {key}, {order}, t.{load}, {row} FROM {table} t WHERE {key}::uuid IN "
        "(SELECT k FROM {affected})"
    ).format(
        key=layout.key_hash(values),
        order=layout.order_of(values),
        load=sql.Identifier(LOAD_ID),
        row=layout.row_hash(values),
        table=target(spec),
        affected=affected,
    )
    connection.execute("DELETE FROM actual")
    fetch_into(cursor, statement, connection, "actual", layout.order, expected.scratch)
    connection.execute("DELETE FROM expected WHERE k NOT IN (SELECT k FROM affected)")
    connection.execute("CREATE OR REPLACE TABLE differing AS SELECT DISTINCT load FROM expected")
    connection.execute(f"CREATE OR REPLACE TABLE differences AS {KEYED}")
