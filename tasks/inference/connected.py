"""Looks into tables of databases and answers of APIs."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import sqlalchemy as sa

from blocks.rest_api import ApiClient, RestApiCredentials
from tasks.connections import Connections
from tasks.inference.columns import Guess
from tasks.inference.found import Found, Sample, take
from tasks.inference.json_shape import find_records
from tasks.inference.origins import TableOrigin, UrlOrigin
from tasks.inference.sources import read_planned, sample_limits
from tasks.ingestion.http.answers import Answer
from tasks.ingestion.http.guard import HostGuard
from tasks.ingestion.http.reader import ApiReader
from tasks.ingestion.json_batches import RecordBatcher
from tasks.ingestion.json_select import records_at
from tasks.model.classify import classify
from tasks.model.columns import MAX_DECIMAL_PRECISION
from tasks.model.errors import ConfigError

_NEXT_KEYS = ("next", "next_url", "next_page_url", "links.next", "paging.next", "meta.next")
_CURSOR_KEYS = ("next_cursor", "cursor", "next_page_token", "nextPageToken", "meta.next_cursor")
_COUNT_KEYS = ("pages", "total_pages", "page_count", "total", "count", "meta.pages", "meta.total")
_CHANGED = ("updated_at", "modified_at", "changed_at", "last_modified", "updated", "modified")


def find_table(origin: TableOrigin, connections: Connections, scratch: Path, rows: int) -> Found:
    """Look into a table of a database; its types and its key are those of the database.

    Args:
        origin: The table.
        connections: Opens the block of the database.
        scratch: Folder for intermediate files.
        rows: Rows of the sample.
    """
    source = {"kind": "database", "block": origin.block, "table": origin.table}
    engine = connections.database(origin.block)
    schema, _, table = origin.table.rpartition(".")
    try:
        inspected = sa.inspect(engine)
        columns = inspected.get_columns(table, schema or None)
        key = tuple(inspected.get_pk_constraint(table, schema or None)["constrained_columns"])
    except sa.exc.NoSuchTableError:
        raise ConfigError(
            f"database block {origin.block!r}: there is no table {origin.table}",
            "write schema.table, or grant SELECT",
        ) from None
    except (sa.exc.SQLAlchemyError, OSError) as error:
        raise classify(error, f"database block {origin.block!r}") from None
    made = Found(source, read_planned(source, connections, scratch, rows), key=key, reads_all=True)
    for column in columns:
        guess = _of_database(column["type"])
        if guess is not None:
            options = {} if column["nullable"] else {"nullable": False}
            made.types[column["name"]] = Guess(guess.type, {**guess.options, **options})
    names = [str(column["name"]) for column in columns]
    moving = next((name for name in names if name.lower() in _CHANGED), None)
    made.notes.append(
        f"Every run reads the whole table. 'cursor: {moving}' under source reads what changed only, if "
        "it grows with every change."
        if moving
        else "Every run reads the whole table; a column that grows with every change is a 'cursor'."
    )
    return made


def _of_database(kind: sa.types.TypeEngine[Any]) -> Guess | None:
    """Return the type of a column of a database; None if the sample must tell."""
    if isinstance(kind, sa.Numeric) and not isinstance(kind, sa.Float):
        if kind.precision and kind.precision <= MAX_DECIMAL_PRECISION:
            return Guess(f"decimal({kind.precision},{kind.scale or 0})")
        return None
    if isinstance(kind, sa.DateTime):
        return Guess("timestamp", {"timezone": "UTC"} if kind.timezone else {})
    known = (
        (sa.Boolean, "boolean"),
        (sa.SmallInteger, "int16"),
        (sa.Integer, "int64"),
        (sa.Float, "float"),
        (sa.Date, "date"),
        (sa.Time, "time"),
        (sa.LargeBinary, "bytes"),
        (sa.JSON, "json"),
        (sa.Uuid, "uuid"),
        (sa.String, "string"),
    )
    return next((Guess(name) for each, name in known if isinstance(kind, each)), None)


def block_of_url(origin: UrlOrigin, connections: Connections) -> tuple[RestApiCredentials, bool]:
    """Return the block of an API, and whether it is still to be saved.

    One that the user named must be there; otherwise one without credentials is made.
    """
    try:
        block: RestApiCredentials = connections.load(RestApiCredentials, origin.block)
    except ConfigError:
        if origin.block_is_given:
            raise
        host = urlsplit(origin.base_url).hostname or ""
        made = RestApiCredentials(base_url=origin.base_url, allow_private=_is_here(host))
        return made, True
    return block, False


def _is_here(host: str) -> bool:
    """Tell whether a user named this machine or a private address itself."""
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return host == "localhost"


def find_answers(
    origin: UrlOrigin, block: RestApiCredentials, rows: int, records: str | None
) -> Found:
    """Look into the first answer of an API.

    Args:
        origin: What is asked.
        block: Where the API is, and its credentials.
        rows: Rows of the sample.
        records: Where in the answer the records are, if the user said so.
    """
    base = urlsplit(block.base_url)
    asked = urlsplit(origin.base_url)
    if (base.hostname, base.port) != (asked.hostname, asked.port):
        raise ConfigError(
            f"block {origin.block!r} is of the host {base.netloc}, not of {asked.netloc}",
            "name the right RestApiCredentials block with --block",
        )
    path = "/" + origin.path.removeprefix(base.path.rstrip("/")).lstrip("/")
    client: ApiClient = block.get_client()
    with client:
        answer = ApiReader(client, HostGuard()).get(path, dict(origin.params))
    source: dict[str, Any] = {"kind": "rest", "block": origin.block, "path": path}
    if origin.params:
        source["params"] = dict(origin.params)
    made = Found(source, Sample(None, [], whole=False), reads_all=True)
    place = _place(answer.body, records, made)
    if place is not None:
        source["records"] = place
    _paging(answer, made)
    batcher = RecordBatcher(path, sample_limits())
    found = (records_at(answer.body, place) or [])[:rows]
    batches = [full for record in found if (full := batcher.add(record)) is not None]
    if left := batcher.flush():
        batches.append(left)
    made.sample = take(iter(batches), rows)
    made.sample.whole = False
    return made


def _place(body: Any, records: str | None, made: Found) -> str | None:
    if records is not None:
        if records_at(body, records) is None:
            raise ConfigError(f"the answer has no list of records at {records}")
        return records
    best, others = find_records(body)
    if best is None:
        raise ConfigError(
            "the answer has no list of objects", "say where the records are: --records data.items"
        )
    if others:
        listed = ", ".join(other.path or "the top" for other in others)
        made.doubts["records"] = f"the longest list of the answer; there are also {listed}"
    return best.path


def _paging(answer: Answer, made: Found) -> None:
    if "next" in answer.links:
        made.source["pagination"] = {"kind": "link"}
        return
    for key in _NEXT_KEYS:
        value = _at(answer.body, key)
        if isinstance(value, str) and value.startswith(("http", "/", "?")):
            made.source["pagination"] = {"kind": "next", "key": key}
            made.doubts["pagination"] = f"guessed: {key!r} of the answer is a link"
            return
    hints = [key for key in (*_CURSOR_KEYS, *_COUNT_KEYS) if _at(answer.body, key) is not None]
    listed = ", ".join(map(repr, hints))
    hint = f" The answer has {listed}: is it one page of several?" if hints else ""
    made.notes.append(
        f"No pagination was found: one answer is taken for all.{hint} See docs/sources/rest.md."
    )


def _at(body: Any, path: str) -> Any:
    for key in path.split("."):
        body = body.get(key) if isinstance(body, dict) else None
    return body
