"""The search index: PostgreSQL full text with a fallback that forgives typing errors (trigrams)."""

from __future__ import annotations

from typing import Any

import structlog
from psycopg2 import sql
from sqlalchemy import Engine

from tasks.loading.build import build_index
from tasks.loading.ledger import session
from tasks.loading.schema import SEARCH, TableIndex, searched_text, target
from tasks.model.dataset import DatasetSpec
from tasks.model.errors import ConfigError, PipelineError
from tasks.model.names import name_beside

EXTENSION_SCHEMA = "public"
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
    for index in search_indexes(spec):
        if build_index(engine, spec, index):
            built.append(index.name)
            log.info("index.built", index=index.name)
    return built


def search_indexes(spec: DatasetSpec) -> list[TableIndex]:
    """Return the indexes of the search, none if the dataset declares none."""
    if spec.load.index is None:
        return []
    words = sql.SQL("gin ({})").format(sql.Identifier(SEARCH))
    trigrams = sql.SQL("gin (({}) {})").format(
        searched_text(spec.load.index.search), sql.Identifier(EXTENSION_SCHEMA, "gin_trgm_ops")
    )
    return [
        TableIndex(name_beside(spec.table_name, "search"), words),
        TableIndex(name_beside(spec.table_name, "trigram"), trigrams),
    ]


def create_trigrams() -> sql.Composed:
    """Return the DDL of the extension that the search needs."""
    return sql.SQL("CREATE EXTENSION IF NOT EXISTS pg_trgm SCHEMA {}").format(
        sql.Identifier(EXTENSION_SCHEMA)
    )


def _ensure_trigrams(engine: Engine) -> None:
    try:
        with session(engine) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended('etl:pg_trgm', 0))")
            cursor.execute(create_trigrams())
    except PipelineError as error:
        if error.exit_code == ConfigError.exit_code or "pg_trgm" not in error.message:
            raise
        raise ConfigError(
            f"the search index needs PostgreSQL's extension pg_trgm: {error.message}",
            "have an administrator run CREATE EXTENSION pg_trgm SCHEMA public",
        ) from None


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
