"""What a database says of a table itself: types and primary key."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from tasks.model.classify import classify


@dataclass(frozen=True, slots=True)
class TableFacts:
    """What is certain of a table.

    Attributes:
        key: Columns of its primary key.
        required: Columns that are never NULL.
        texts: Columns whose type is text, whatever their values look like.
    """

    key: tuple[str, ...] = ()
    required: frozenset[str] = frozenset()
    texts: frozenset[str] = frozenset()


def table_facts(engine: sa.Engine, table: str, block: str) -> TableFacts:
    """Ask a database about a table; a table that is not there is told by whoever reads it.

    Args:
        engine: The database.
        table: Table or schema.table.
        block: Name of its block, for messages.
    """
    schema, _, name = table.rpartition(".")
    try:
        inspected = sa.inspect(engine)
        columns = inspected.get_columns(name, schema or None)
        key = inspected.get_pk_constraint(name, schema or None)["constrained_columns"]
    except sa.exc.NoSuchTableError:
        return TableFacts()
    except (sa.exc.SQLAlchemyError, OSError) as error:
        raise classify(error, f"database block {block!r}") from None
    return TableFacts(
        key=tuple(key),
        required=frozenset(c["name"] for c in columns if not c["nullable"]),
        texts=frozenset(c["name"] for c in columns if isinstance(c["type"], sa.String)),
    )
