"""The search index of a table: made, changed and made anew while everybody reads and loads.

Whatever takes long (filling a column, building an index) locks nobody out; what must be changed at
once is names, in one short transaction. Everything carries the signature of its definition as a
comment, so an index that is not as declared any more is found, and a killed build is taken up again.
"""

from __future__ import annotations

import psycopg2.errors
import structlog
from psycopg2 import sql
from psycopg2.extensions import connection as Connection  # noqa: N812 - a class in lower case
from psycopg2.extensions import cursor as Cursor  # noqa: N812
from sqlalchemy import Engine

from tasks.loading.build import building, create_index, drop_index
from tasks.loading.queries import query
from tasks.loading.schema import TableIndex, target
from tasks.loading.search_column import (
    column_statements,
    fill_next_column,
    limit_lock_wait,
)
from tasks.loading.search_sql import (
    EXTENSION_SCHEMA,
    NEXT,
    SEARCH,
    SIGNED,
    IndexDefinition,
    function_definition,
    function_name,
    function_signature,
    index_definitions,
    languages,
    words_index,
)
from tasks.loading.session import session
from tasks.model.dataset import DatasetSpec
from tasks.model.errors import ConfigError, PipelineError
from tasks.model.names import named_within_limit
from tasks.model.search import SearchIndex

log = structlog.get_logger("dpp.loading")


def build_search_index(engine: Engine, spec: DatasetSpec, *, rebuild: bool = False) -> list[str]:
    """Make the search index of a dataset's table as it is declared, unless it is.

    Searches and loads go on meanwhile; a search sees the index as it was until the new one is whole.

    Args:
        engine: The warehouse.
        spec: The dataset; its table is there.
        rebuild: Build every index anew, also those that are as declared.

    Returns:
        Names of what this call built.

    Raises:
        ConfigError: The extension pg_trgm or a language is missing, or a view needs the old column.
        WarehouseUnavailable: Another build, or a lock on the table, took too long; try again.
    """
    index = spec.load.index
    if index is None:
        return []
    if index.fuzzy_columns:
        _ensure_trigrams(engine)
    with building(engine) as connection, connection.cursor() as cursor:
        _check_languages(cursor, spec, index)
        _check_function(cursor, spec)
        built = _build(connection, cursor, spec, index, rebuild=rebuild)
    for name in built:
        log.info("index.built", index=name)
    return built


def _build(
    connection: Connection, cursor: Cursor, spec: DatasetSpec, index: SearchIndex, *, rebuild: bool
) -> list[str]:
    definitions = index_definitions(spec, index)
    statements: list[sql.Composable] = []
    there = _indexes(cursor, spec)
    if fill_next_column(connection, cursor, spec, index):
        statements += column_statements(connection, spec, index)
        words = next(iter(definitions))
        definitions[words] = words_index(index, NEXT)
        there.pop(words, None)
    built = []
    for name, definition in definitions.items():
        if there.get(name) != definition.signature:
            statements += _build_beside(cursor, spec, name, definition)
            built.append(name)
        elif rebuild:
            cursor.execute(_index_sql("REINDEX INDEX CONCURRENTLY {}", spec, name))
            built.append(name)
    if _function_comment(cursor, spec) != function_signature(spec, index):
        statements += function_statements(connection, spec, index)
    if statements:
        _swap(cursor, spec, statements)
    for name, comment in _indexes(cursor, spec).items():
        if comment.startswith(SIGNED) and name not in definitions:
            drop_index(cursor, spec, name)
    if built:
        cursor.execute(sql.SQL("ANALYZE {}").format(target(spec)))
    return built


def _build_beside(
    cursor: Cursor, spec: DatasetSpec, name: str, definition: IndexDefinition
) -> list[sql.Composable]:
    """Build an index under another name; return the statements that put it in its place."""
    beside = named_within_limit(name, "next")
    drop_index(cursor, spec, beside)
    create_index(cursor, spec, TableIndex(beside, definition.using))
    return [
        _index_sql("DROP INDEX IF EXISTS {}", spec, name),
        sql.SQL("ALTER INDEX {} RENAME TO {}").format(
            sql.Identifier(spec.schema_name, beside), sql.Identifier(name)
        ),
        _signed(spec, name, definition),
    ]


def _signed(spec: DatasetSpec, name: str, definition: IndexDefinition) -> sql.Composed:
    return sql.SQL("COMMENT ON INDEX {} IS {}").format(
        sql.Identifier(spec.schema_name, name), sql.Literal(definition.signature)
    )


def search_statements(
    connection: Connection, cursor: Cursor, spec: DatasetSpec, *, partitioned: bool
) -> list[sql.Composable]:
    """Return the DDL of what is missing of the search of a table whose search column is current."""
    index = spec.load.index
    if index is None:
        return []
    there = _indexes(cursor, spec)
    found: list[sql.Composable] = [create_trigrams()] if index.fuzzy_columns else []
    for name, definition in index_definitions(spec, index).items():
        if there.get(name) != definition.signature:
            made = TableIndex(name, definition.using)
            table = (spec.schema_name, spec.table_name)
            found += [
                made.create(table, concurrently=not partitioned),
                _signed(spec, name, definition),
            ]
    if _function_comment(cursor, spec) != function_signature(spec, index):
        found += function_statements(connection, spec, index)
    return found if len(found) > bool(index.fuzzy_columns) else []


def function_statements(
    connection: Connection, spec: DatasetSpec, index: SearchIndex
) -> list[sql.Composable]:
    """Return the statements that make the search function of a table, or make it anew."""
    function = sql.Identifier("etl", function_name(spec))
    return [
        # Its result is of the table's row type: if that is another table now, it cannot be replaced.
        sql.SQL("DROP FUNCTION IF EXISTS {}(text, integer)").format(function),
        function_definition(spec, index, connection),
        sql.SQL("COMMENT ON FUNCTION {}(text, integer) IS {}").format(
            function, sql.Literal(function_signature(spec, index))
        ),
    ]


def _swap(cursor: Cursor, spec: DatasetSpec, statements: list[sql.Composable]) -> None:
    """Put what was built in its place, all of it or nothing."""
    cursor.execute("BEGIN")
    try:
        limit_lock_wait(cursor)
        for statement in statements:
            cursor.execute(statement)
        cursor.execute("COMMIT")
    except psycopg2.errors.DependentObjectsStillExist:
        cursor.execute("ROLLBACK")
        raise ConfigError(
            f"{spec.load.table}: a view or a function uses column {SEARCH}, "
            f"or the function etl.{function_name(spec)}",
            "drop it, run again, and create it anew; a view should name its columns",
        ) from None


def _indexes(cursor: Cursor, spec: DatasetSpec) -> dict[str, str]:
    """Return the indexes of the table whose building ended, with their comments."""
    cursor.execute(query("indexes"), {"table": spec.load.table})
    return {str(name): comment or "" for name, is_valid, comment in cursor.fetchall() if is_valid}


def _index_sql(text: str, spec: DatasetSpec, name: str) -> sql.Composed:
    return sql.SQL(text).format(sql.Identifier(spec.schema_name, name))


def _function_comment(cursor: Cursor, spec: DatasetSpec) -> str | None:
    name = sql.Identifier("etl", function_name(spec)).as_string(cursor)
    cursor.execute(query("function_comment"), {"function": f"{name}(text, integer)"})
    row = cursor.fetchone()
    return (row[0] or "") if row else None


def _check_function(cursor: Cursor, spec: DatasetSpec) -> None:
    comment = _function_comment(cursor, spec)
    if comment is not None and not comment.endswith(f" {spec.load.table}"):
        other = comment.rsplit(" ", 1)[-1] or "something else"
        raise ConfigError(
            f"{spec.name}: the search function etl.{function_name(spec)} is that of {other}",
            "give one of the two tables another name, or leave load.index out of one",
        )


def _check_languages(cursor: Cursor, spec: DatasetSpec, index: SearchIndex) -> None:
    cursor.execute(query("text_search_configurations"))
    known = [str(row[0]) for row in cursor.fetchall()]
    for language in languages(index):
        if language not in known:
            raise ConfigError(
                f"{spec.name}: load.index: the warehouse has no language {language!r}",
                f"it has {', '.join(known)}",
            )


def create_trigrams() -> sql.Composed:
    """Return the DDL of the extension that misspelt words are found with."""
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
