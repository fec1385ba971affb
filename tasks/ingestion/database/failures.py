"""What an error of a source database means: what is wrong there, and what to do about it.

A driver's own text can hold a password, a query or the values of a row. So messages are made of
codes, of names that the dataset file has, and of what servers say about names alone.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg2
import sqlalchemy as sa

from tasks.model.classify import classify
from tasks.model.errors import (
    ConfigError,
    CredentialsRejected,
    PipelineError,
    SourceRejected,
    SourceUnavailable,
)

GRANT = "grant the role SELECT on it, and USAGE on its schema"
RENAME = "correct 'source' in the dataset file, or grant the role the right to see it"
SLOWER = "raise statement_timeout in the block, lower partition_bytes, or index the cursor column"
LATER = "it is tried again; if it stays so, see the server's log"
LOGIN = "check username and password in the block"


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a code of a server stands for."""

    kind: type[PipelineError]
    words: str
    remedy: str


_POSTGRES = {
    "28P01": Meaning(CredentialsRejected, "the password was refused", LOGIN),
    "28000": Meaning(CredentialsRejected, "the login was refused", LOGIN),
    "3D000": Meaning(SourceRejected, "there is no such database", "correct it in the block"),
    "42P01": Meaning(SourceRejected, "there is no such table", RENAME),
    "3F000": Meaning(SourceRejected, "there is no such schema", RENAME),
    "42703": Meaning(SourceRejected, "there is no such column", RENAME),
    "42702": Meaning(
        SourceRejected, "a column name is there twice", "rename one with AS in source.query"
    ),
    "42601": Meaning(SourceRejected, "the query is no valid SQL", "correct source.query"),
    "42501": Meaning(SourceRejected, "permission denied", GRANT),
    "57014": Meaning(SourceUnavailable, "a statement took longer than it may", SLOWER),
    "55P03": Meaning(SourceUnavailable, "somebody else holds a lock on it", LATER),
    "25006": Meaning(
        SourceRejected, "the query writes; the source is only read", "let the query only read"
    ),
}
"""SQLSTATEs of PostgreSQL whose meaning for a source is another than for the warehouse."""

_MYSQL = {
    1045: Meaning(CredentialsRejected, "user or password was refused", LOGIN),
    1698: Meaning(CredentialsRejected, "user or password was refused", LOGIN),
    1044: Meaning(SourceRejected, "permission denied on the database", GRANT),
    1142: Meaning(SourceRejected, "permission denied", GRANT),
    1143: Meaning(SourceRejected, "permission denied on a column", GRANT),
    1227: Meaning(SourceRejected, "permission denied", GRANT),
    1049: Meaning(SourceRejected, "there is no such database", "correct it in the block"),
    1146: Meaning(SourceRejected, "there is no such table", RENAME),
    1054: Meaning(SourceRejected, "there is no such column", RENAME),
    1060: Meaning(
        SourceRejected, "a column name is there twice", "rename one with AS in source.query"
    ),
    1064: Meaning(SourceRejected, "the query is no valid SQL", "correct source.query"),
    1792: Meaning(
        SourceRejected, "the query writes; the source is only read", "let the query only read"
    ),
    1040: Meaning(SourceUnavailable, "it has too many connections", LATER),
    1205: Meaning(SourceUnavailable, "somebody else holds a lock on it", LATER),
    1213: Meaning(SourceUnavailable, "a deadlock", LATER),
    1317: Meaning(SourceUnavailable, "the statement was cancelled", LATER),
    1053: Meaning(SourceUnavailable, "the server is shutting down", LATER),
    1969: Meaning(SourceUnavailable, "a statement took longer than it may", SLOWER),
    3024: Meaning(SourceUnavailable, "a statement took longer than it may", SLOWER),
    2003: Meaning(SourceUnavailable, "cannot connect", "check host and port in the block"),
    2005: Meaning(SourceUnavailable, "unknown host", "check host in the block"),
    2006: Meaning(SourceUnavailable, "the connection was lost", LATER),
    2013: Meaning(SourceUnavailable, "the connection was lost", LATER),
}
"""Error numbers of MySQL and MariaDB."""

_SQLITE = (
    (
        "unable to open database file",
        Meaning(SourceRejected, "cannot open the file", "correct 'database' in the block"),
    ),
    ("file is not a database", Meaning(SourceRejected, "the file is no SQLite database", RENAME)),
    ("malformed", Meaning(SourceRejected, "the file is damaged", "restore it from a backup")),
    ("no such table", Meaning(SourceRejected, "there is no such table", RENAME)),
    ("no such column", Meaning(SourceRejected, "there is no such column", RENAME)),
    ("is locked", Meaning(SourceUnavailable, "somebody else holds a lock on it", LATER)),
    (
        "readonly database",
        Meaning(SourceRejected, "the query writes; the source is only read", "let it only read"),
    ),
    ("syntax error", Meaning(SourceRejected, "the query is no valid SQL", "correct source.query")),
    ("interrupted", Meaning(SourceUnavailable, "a statement took longer than it may", SLOWER)),
)


@contextmanager
def failures_named(where: str) -> Iterator[None]:
    """Turn what a driver raises into an error of ours that names the source.

    Args:
        where: The block and the table, for the message.
    """
    try:
        yield
    except (sa.exc.SQLAlchemyError, psycopg2.Error, OSError) as error:
        raise source_error(error, where) from None


def source_error(error: BaseException, where: str) -> PipelineError:
    """Say what an error of a source database means.

    Args:
        error: What the driver or SQLAlchemy raised.
        where: The block and the table, for the message.
    """
    if isinstance(error, PipelineError):
        return error
    if isinstance(error, sa.exc.DBAPIError) and error.orig is not None:
        return source_error(error.orig, where)
    meaning = _meaning(error)
    if meaning is not None:
        return meaning.kind(f"{where}: {meaning.words}{_named(error)}", meaning.remedy)
    if isinstance(error, psycopg2.Error) and "could not translate host name" in str(error):
        return SourceUnavailable(f"{where}: unknown host", "check host in the block")
    if type(error) is psycopg2.DatabaseError and error.pgcode is None:
        # What psycopg2 makes of a COPY whose connection ends in the middle.
        return SourceUnavailable(f"{where}: the connection was lost", LATER)
    if isinstance(error, sa.exc.CompileError | sa.exc.ArgumentError):
        return ConfigError(f"{where}: {type(error).__name__}", "report it: a type is not known")
    known = classify(error, where)
    if isinstance(known, SourceUnavailable) and known.remedy is None:
        return SourceUnavailable(known.message, "check host and port in the block; " + LATER)
    return known


def _meaning(error: BaseException) -> Meaning | None:
    if isinstance(error, psycopg2.Error):
        return _POSTGRES.get(error.pgcode or "")
    if isinstance(error, sqlite3.Error):
        text = str(error)
        return next((meaning for part, meaning in _SQLITE if part in text), None)
    if _is_mysql(error):
        number = error.args[0] if error.args else None
        if number == 2003 and "Name or service" in str(error) + repr(error.__context__):  # noqa: PLR2004
            return _MYSQL[2005]
        if number in (0, "(0, '')"):  # PyMySQL, when the socket was closed under it
            return _MYSQL[2013]
        return _MYSQL.get(number) if isinstance(number, int) else None
    return None


def _is_mysql(error: BaseException) -> bool:
    return type(error).__module__.partition(".")[0] in ("pymysql", "MySQLdb", "mysql", "mariadb")


def _named(error: BaseException) -> str:
    """Return what the server says about names, where such a message has no values."""
    if isinstance(error, psycopg2.Error) and (error.pgcode or "").startswith(("42", "3D", "3F")):
        return f": {error.diag.message_primary}" if error.diag.message_primary else ""
    if isinstance(error, sqlite3.Error) and str(error).startswith("no such "):
        return f": {error}"
    if _is_mysql(error) and error.args[0] in (1146, 1054, 1049, 1142, 1143, 1044, 1060):
        return f": {error.args[1]}"
    return ""
