"""The SQL of a search index: its column, its indexes, and the function that ranks. Pure.

A search has three parts, the better before the worse: whole values of ``exact`` columns, words of the
full text, and misspelt words by the similarity of trigrams, which are asked for only where the
others leave room. Ranks: 2 to 3 where a whole value matched, 1 to 2 by words, below 1 by similarity.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg2 import sql
from psycopg2.extensions import connection as Connection  # noqa: N812 - a class in lower case

from tasks.model.dataset import DatasetSpec
from tasks.model.names import named_within_limit
from tasks.model.search import SearchIndex
from tasks.model.value import json_digest

SEARCH = "_search"
"""The column with the words of a row; it is generated, or filled by a trigger if it came later."""
NEXT = "_search_next"
"""The column that is being filled to take its place."""
EXTENSION_SCHEMA = "public"
SIMILAR_ENOUGH = "0.4"
"""PostgreSQL's default of 0.6 does not find 'francisco' when 'fransisco' is typed (0.54)."""
SEARCHED_CHARACTERS = 250_000
"""Of a row's texts so much is searched: a tsvector holds 1 MB, a character at most 4 bytes."""
ASKED_CHARACTERS = 1_000
VERSION = 1
"""Of the SQL in this module: another one makes every index anew."""
SIGNED = "search of data-processing-pipeline:"
"""How the comments of what belongs to a search begin."""


def function_name(spec: DatasetSpec) -> str:
    """Return the name of the dataset's search function in the schema ``etl``."""
    return named_within_limit("search", spec.table_name)


def words(index: SearchIndex, *row: str) -> sql.Composed:
    """Return SQL for the tsvector of a row: each column in its language, with its weight."""
    most = SEARCHED_CHARACTERS // len(index.search)
    return sql.SQL(" || ").join(
        sql.SQL("setweight(to_tsvector({}::regconfig, left(coalesce({}, ''), {})), {})").format(
            configuration(column.language or index.language),
            sql.Identifier(*row, name),
            sql.Literal(most),
            sql.Literal(column.weight),
        )
        for name, column in index.search.items()
    )


def _table(spec: DatasetSpec) -> sql.Identifier:
    return sql.Identifier(spec.schema_name, spec.table_name)


def configuration(language: str) -> sql.Composable:
    """Return a text search configuration as a literal; those of PostgreSQL itself only."""
    return sql.Literal(f"pg_catalog.{language}")


def languages(index: SearchIndex) -> list[str]:
    """Return the configurations that an index uses, each once."""
    used = [column.language or index.language for column in index.search.values()]
    return list(dict.fromkeys(used))


def similar_text(names: Sequence[str], alias: str | None = None) -> sql.Composed:
    """Return SQL for the text whose trigrams are compared: the columns, separated by spaces."""
    return sql.SQL(" || ' ' || ").join(
        sql.SQL("coalesce({}, '')").format(sql.Identifier(*([alias] if alias else []), name))
        for name in names
    )


def search_column(index: SearchIndex) -> sql.Composed:
    """Return the column as CREATE TABLE has it."""
    return sql.SQL("{} tsvector GENERATED ALWAYS AS ({}) STORED").format(
        sql.Identifier(SEARCH), words(index)
    )


@dataclass(frozen=True, slots=True)
class IndexDefinition:
    """One index of a search.

    Attributes:
        using: What comes after USING.
        signature: The comment by which it is known to be as declared.
    """

    using: sql.Composed
    signature: str


def index_definitions(spec: DatasetSpec, index: SearchIndex) -> dict[str, IndexDefinition]:
    """Return every index of a search by name; the first is that of the words."""
    found = {
        named_within_limit(spec.table_name, "search"): words_index(index, SEARCH),
    }
    if index.fuzzy_columns:
        text = sql.SQL("({})").format(similar_text(index.fuzzy_columns))
        operators = sql.Identifier(EXTENSION_SCHEMA, "gin_trgm_ops")
        found[named_within_limit(spec.table_name, "trigram")] = IndexDefinition(
            sql.SQL("gin ({} {})").format(text, operators),
            _signature("trigram", index.fuzzy_columns),
        )
    for column in index.exact:
        # A hash takes values of any length; an entry of a B-tree has at most 2,704 bytes.
        found[named_within_limit(spec.table_name, f"{column}_exact")] = IndexDefinition(
            sql.SQL("hash (({}::text))").format(sql.Identifier(column)),
            _signature("exact", column),
        )
    return found


def words_index(index: SearchIndex, column: str) -> IndexDefinition:
    """Return the index of the full text, on the column or on the one that takes its place."""
    return IndexDefinition(
        sql.SQL("gin ({})").format(sql.Identifier(column)), column_signature(index)
    )


def function_definition(
    spec: DatasetSpec, index: SearchIndex, connection: Connection
) -> sql.Composed:
    """Return the statement that makes the search function; it is replaced whole, or not at all."""
    body = _function_body(spec, index).as_string(connection)
    return sql.SQL(
        "CREATE OR REPLACE FUNCTION {name}(search_for text, max_rows integer DEFAULT 20) "
        "RETURNS TABLE (rank real, hit {target}) LANGUAGE plpgsql STABLE "
        "SET search_path = pg_catalog, pg_temp {threshold} AS {body}"
    ).format(
        name=sql.Identifier("etl", function_name(spec)),
        target=_table(spec),
        threshold=sql.SQL("SET pg_trgm.word_similarity_threshold = {}").format(
            sql.Literal(SIMILAR_ENOUGH)
        )
        if index.fuzzy_columns
        else sql.SQL(""),
        body=sql.Literal(body),
    )


def _function_body(spec: DatasetSpec, index: SearchIndex) -> sql.Composed:
    matches = sql.SQL("coalesce(t.{} @@ asked OR {}, false)").format(
        sql.Identifier(SEARCH), _whole_value(index)
    )
    similar: sql.Composable = sql.SQL("")
    if index.fuzzy_columns:
        similar = sql.SQL(
            "GET DIAGNOSTICS given = ROW_COUNT; "
            "IF given < max_rows THEN RETURN QUERY "
            "SELECT {schema}.word_similarity(typed, {text})::real, t FROM {target} t "
            "WHERE typed OPERATOR({schema}.<%) ({text}) AND NOT {matches} "
            "ORDER BY 1 DESC{ties} LIMIT max_rows - given; END IF; "
        ).format(
            schema=sql.Identifier(EXTENSION_SCHEMA),
            text=similar_text(index.fuzzy_columns, "t"),
            target=_table(spec),
            matches=matches,
            ties=_ties(spec),
        )
    return sql.SQL(
        "DECLARE typed text := left(search_for, {most}); asked tsquery := {asked}; "
        "given bigint := 0; "
        "BEGIN RETURN QUERY "
        "SELECT (CASE WHEN {whole} THEN 2 ELSE 1 END + coalesce(ts_rank(t.{words}, asked, 32), 0))"
        "::real, t FROM {target} t WHERE t.{words} @@ asked OR {whole} "
        "ORDER BY 1 DESC{ties} LIMIT max_rows; {similar}END"
    ).format(
        most=sql.Literal(ASKED_CHARACTERS),
        asked=sql.SQL(" || ").join(
            sql.SQL("websearch_to_tsquery({}::regconfig, left(search_for, {}))").format(
                configuration(language), sql.Literal(ASKED_CHARACTERS)
            )
            for language in languages(index)
        ),
        whole=_whole_value(index),
        words=sql.Identifier(SEARCH),
        target=_table(spec),
        ties=_ties(spec),
        similar=similar,
    )


def _whole_value(index: SearchIndex) -> sql.Composable:
    if not index.exact:
        return sql.SQL("false")
    return sql.SQL("({})").format(
        sql.SQL(" OR ").join(
            sql.SQL("t.{}::text = search_for").format(sql.Identifier(name)) for name in index.exact
        )
    )


def _ties(spec: DatasetSpec) -> sql.Composable:
    """Return what orders rows of one rank, so that a search gives the same rows twice."""
    if not spec.key:
        return sql.SQL("")
    return sql.SQL("").join(sql.SQL(", t.{}").format(sql.Identifier(name)) for name in spec.key)


def trigger_statements(
    spec: DatasetSpec, index: SearchIndex, column: str, connection: Connection
) -> list[sql.Composed]:
    """Return the statements that keep a search column filled which was added to a table later.

    PostgreSQL can only add a generated column by writing the whole table anew under a lock that
    keeps readers out; a trigger does the same work row by row.
    """
    function = fill_function(spec, column)
    body = sql.SQL("BEGIN {} := {}; RETURN new; END").format(
        sql.Identifier("new", column), words(index, "new")
    )
    return [
        sql.SQL(
            "CREATE OR REPLACE FUNCTION {}() RETURNS trigger LANGUAGE plpgsql "
            "SET search_path = pg_catalog, pg_temp AS {}"
        ).format(function, sql.Literal(body.as_string(connection))),
        sql.SQL(
            "CREATE OR REPLACE TRIGGER {} BEFORE INSERT OR UPDATE ON {} "
            "FOR EACH ROW EXECUTE FUNCTION {}()"
        ).format(sql.Identifier(column), _table(spec), function),
    ]


def fill_function(spec: DatasetSpec, column: str) -> sql.Identifier:
    """Return the name of the function of the trigger that fills a search column."""
    return sql.Identifier("etl", named_within_limit(f"fill{column}", spec.table_name))


def column_signature(index: SearchIndex) -> str:
    """Return what is kept as a comment to tell later whether the words are as declared."""
    searched = {name: column.model_dump() for name, column in index.search.items()}
    return _signature("words", [*searched.items()], index.language)


def function_signature(spec: DatasetSpec, index: SearchIndex) -> str:
    """Return what is kept as the comment of the search function; it ends with its table's name."""
    return f"{_signature('function', index.model_dump(), spec.key)} {spec.load.table}"


def _signature(*parts: object) -> str:
    digest = json_digest([VERSION, *parts])
    return f"{SIGNED} {digest[:16]}"
