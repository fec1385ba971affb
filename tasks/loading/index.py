"""The search index: PostgreSQL full text with a fallback that forgives typing errors (trigrams)."""

from __future__ import annotations

import hashlib
import time
from typing import Any

import structlog
from psycopg2 import sql
from psycopg2.extensions import connection as Connection  # noqa: N812 - a class in lower case
from psycopg2.extensions import cursor as Cursor  # noqa: N812
from sqlalchemy import Engine

from tasks.loading.ledger import session
from tasks.loading.queries import query
from tasks.loading.schema import SEARCH, searched_text, target
from tasks.model.classify import classify
from tasks.model.columns import MAX_IDENTIFIER_BYTES
from tasks.model.dataset import DatasetSpec
from tasks.model.errors import ConfigError, PipelineError, WarehouseUnavailable
from tasks.model.load import SearchIndex

EXTENSION_SCHEMA = "public"
TURN_SECONDS = 3600
ASK_AGAIN_SECONDS = 0.2
SIMILAR_ENOUGH = "0.4"
"""PostgreSQL's default of 0.6 does not find 'francisco' when 'fransisco' is typed (0.54)."""
log = structlog.get_logger("dpp.loading")


def build_search_index(engine: Engine, spec: DatasetSpec) -> list[str]:
    """Build the search indexes of a dataset's table that are not there yet.

    They are built without locking the table; what a killed build left behind is dropped first.

    Returns:
        Names of the indexes that this call built.

    Raises:
        ConfigError: The extension pg_trgm cannot be had.
    """
    if spec.load.index is None:
        return []
    _ensure_trigrams(engine)
    built = []
    for name, definition in _definitions(spec, spec.load.index).items():
        if _build(engine, spec, name, definition):
            built.append(name)
            log.info("index.built", index=name)
    return built


def index_name(spec: DatasetSpec, suffix: str) -> str:
    """Return the name of an index of a dataset's table, within PostgreSQL's 63 bytes."""
    name = f"{spec.table_name}_{suffix}"
    if len(name) <= MAX_IDENTIFIER_BYTES:
        return name
    # Cut, two tables whose names begin alike would share an index, and the second have none.
    suffix = f"{hashlib.sha256(spec.table_name.encode()).hexdigest()[:8]}_{suffix}"
    return f"{spec.table_name[: MAX_IDENTIFIER_BYTES - len(suffix) - 1]}_{suffix}"


def _definitions(spec: DatasetSpec, index: SearchIndex) -> dict[str, sql.Composed]:
    return {
        index_name(spec, "search"): sql.SQL("gin ({})").format(sql.Identifier(SEARCH)),
        index_name(spec, "trigram"): sql.SQL("gin (({}) {})").format(
            searched_text(index.search), sql.Identifier(EXTENSION_SCHEMA, "gin_trgm_ops")
        ),
    }


def _ensure_trigrams(engine: Engine) -> None:
    try:
        with session(engine) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended('etl:pg_trgm', 0))")
            cursor.execute(
                sql.SQL("CREATE EXTENSION IF NOT EXISTS pg_trgm SCHEMA {}").format(
                    sql.Identifier(EXTENSION_SCHEMA)
                )
            )
    except PipelineError as error:
        if error.exit_code == ConfigError.exit_code or "pg_trgm" not in error.message:
            raise
        raise ConfigError(
            f"the search index needs PostgreSQL's extension pg_trgm: {error.message}",
            "have an administrator run CREATE EXTENSION pg_trgm SCHEMA public",
        ) from None


def _build(engine: Engine, spec: DatasetSpec, name: str, definition: sql.Composed) -> bool:
    try:
        pooled = engine.raw_connection()
    except Exception as error:
        raise classify(error) from None
    connection: Connection = pooled.dbapi_connection  # type: ignore[assignment]
    try:
        connection.autocommit = True  # CONCURRENTLY works outside of transactions only
        with connection.cursor() as cursor:
            return _build_alone(cursor, spec, name, definition)
    except Exception as error:
        raise classify(error) from None
    finally:
        pooled.invalidate()  # its settings and its lock go with it
        pooled.close()


def _build_alone(cursor: Cursor, spec: DatasetSpec, name: str, definition: sql.Composed) -> bool:
    """Build an index unless it is there."""
    index = f"{spec.schema_name}.{name}"
    # Building waits for every older transaction of the database, other datasets' loads included.
    cursor.execute("SET lock_timeout = 0")
    _wait_for_other_builds(cursor)
    cursor.execute(query("index_is_valid"), {"index": index})
    row = cursor.fetchone()
    if row and row[0]:
        return False
    if row:
        cursor.execute(
            sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(
                sql.Identifier(spec.schema_name, name)
            )
        )
    cursor.execute(
        sql.SQL("CREATE INDEX CONCURRENTLY IF NOT EXISTS {} ON {} USING {}").format(
            sql.Identifier(name), target(spec), definition
        )
    )
    cursor.execute(sql.SQL("ANALYZE {}").format(target(spec)))
    return True


def _wait_for_other_builds(cursor: Cursor) -> None:
    """Make this the only build of the database: two at once wait for each other, and deadlock.

    By asking again and again: one long statement that waits is a transaction that a build waits for.
    """
    deadline = time.monotonic() + TURN_SECONDS
    while time.monotonic() < deadline:
        cursor.execute("SELECT pg_try_advisory_lock(hashtextextended('etl:index', 0))")
        if cursor.fetchone() == (True,):
            return
        time.sleep(ASK_AGAIN_SECONDS)
    raise WarehouseUnavailable(f"warehouse: no turn to build an index within {TURN_SECONDS} s")


def search(engine: Engine, spec: DatasetSpec, text: str, limit: int = 20) -> list[dict[str, Any]]:
    """Return the rows that match a text, the best first.

    Words are found by full text search; where they are misspelt, by the similarity of trigrams.

    Raises:
        ConfigError: The dataset declares no search index.
    """
    if spec.load.index is None:
        raise ConfigError(f"{spec.name}: no search index", "declare load.index.search")
    searched = searched_text(spec.load.index.search)
    statement = sql.SQL(
        "SELECT *, ts_rank({search}, websearch_to_tsquery({language}::regconfig, %(text)s)) "
        "+ {schema}.word_similarity(%(text)s, {searched}) AS _rank FROM {target} "
        "WHERE {search} @@ websearch_to_tsquery({language}::regconfig, %(text)s) "
        "OR %(text)s OPERATOR({schema}.<%%) ({searched}) "
        "ORDER BY _rank DESC LIMIT %(limit)s"
    ).format(
        search=sql.Identifier(SEARCH),
        language=sql.Literal(f"pg_catalog.{spec.load.index.language}"),
        schema=sql.Identifier(EXTENSION_SCHEMA),
        searched=searched,
        target=target(spec),
    )
    with session(engine, read_only=True) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT set_config('pg_trgm.word_similarity_threshold', %s, true)", (SIMILAR_ENOUGH,)
        )
        cursor.execute(statement, {"text": text, "limit": limit})
        names = [column.name for column in cursor.description or ()]
        return [
            {name: value for name, value in zip(names, row, strict=True) if name != SEARCH}
            for row in cursor.fetchall()
        ]
