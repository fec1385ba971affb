"""Finding rows by what their texts say."""

from __future__ import annotations

from typing import Any

from psycopg2 import sql
from sqlalchemy import Engine

from tasks.loading.queries import query
from tasks.loading.search_sql import NEXT, SEARCH, function_name
from tasks.loading.session import session
from tasks.model.dataset import DatasetSpec
from tasks.model.errors import ConfigError

RANK = "_rank"


def search(engine: Engine, spec: DatasetSpec, text: str, limit: int = 20) -> list[dict[str, Any]]:
    """Return the rows that match a text, the best first, each with its rank under ``_rank``.

    Rows with a whole value of an ``exact`` column come first (rank 2 to 3), then those with the
    words (1 to 2), then those with similar ones (below 1).

    Raises:
        ConfigError: The dataset declares no search index, or it was never built.
    """
    if spec.load.index is None:
        raise ConfigError(f"{spec.name}: no search index", "declare load.index.search")
    function = sql.Identifier("etl", function_name(spec))
    with session(engine, read_only=True) as connection, connection.cursor() as cursor:
        signature = f"{function.as_string(cursor)}(text, integer)"
        cursor.execute(query("function_comment"), {"function": signature})
        if cursor.fetchone() is None:
            raise ConfigError(
                f"{spec.name}: the search index is not built yet", f"dpp index {spec.name}"
            )
        cursor.execute(
            sql.SQL("SELECT rank AS {}, (hit).* FROM {}(%s, %s)").format(
                sql.Identifier(RANK), function
            ),
            (text.replace("\0", " "), limit),
        )
        names = [column.name for column in cursor.description or ()]
        return [
            {
                name: value
                for name, value in zip(names, row, strict=True)
                if name not in (SEARCH, NEXT)
            }
            for row in cursor.fetchall()
        ]
