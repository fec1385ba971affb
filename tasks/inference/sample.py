"""A bounded sample of a source, read by the connector that will load it."""

from __future__ import annotations

import glob
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast
from urllib.parse import parse_qsl, urlsplit

import obstore
import pyarrow as pa

from tasks.connections import Connections
from tasks.inference.content import guess_format, records_path
from tasks.inference.draft import Draft
from tasks.inference.tables import TableFacts, table_facts
from tasks.ingestion.archives import ZIP_MAGIC
from tasks.ingestion.connector import PlanLimits, RawBatch
from tasks.ingestion.connectors.s3_keys import literal_prefix
from tasks.ingestion.formats import read_object
from tasks.ingestion.registry import connector_for
from tasks.json_records import parse_json
from tasks.model.classify import classify
from tasks.model.dataset import DatasetSpec
from tasks.model.errors import ConfigError, SourceRejected
from tasks.model.request import SourceState
from tasks.model.source import FilesSource, S3Source

MOST_OBJECTS = 10_000
"""Keys of a bucket that are looked at to find one object."""
BEGIN_BYTES = 4 << 20
"""Bytes of an object that tell its format."""
MOST_ARCHIVE = 64 << 20
"""An archive's directory is at its end, so it is fetched whole, up to this size."""
_CREDENTIAL = re.compile(r"key|token|secret|passw|signature|auth|credential", re.IGNORECASE)


def draft_of(
    name: str,
    whence: str,
    block: str | None,
    rows: int,
    connections: Connections,
    scratch: Path,
    base: Path,
) -> Draft:
    """Read a sample of a source, and say how the source is declared.

    Args:
        name: Name of the dataset.
        whence: A path or glob, ``s3://bucket/path``, ``https://…``, or a table of a block.
        block: Name of the block with the connection, for all but paths.
        rows: Rows of the sample.
        connections: Opens the block.
        scratch: Folder for unfinished files.
        base: Folder that relative paths start from.

    Raises:
        ConfigError: It cannot be told what is meant.
        PipelineError: What the source says.
    """
    if whence.startswith("s3://"):
        source, sampled, doubts = _objects(
            whence, _required(block, "an S3Bucket block"), connections
        )
    elif whence.startswith(("http://", "https://")):
        required = _required(block, "an ETL REST API Credentials block")
        source, sampled, doubts = _api(whence, required, connections)
    elif block is not None:
        source = {"kind": "database", "block": block, "table": whence}
        sampled, doubts = source, []
    else:
        source, newest, doubts = _files(whence, base)
        sample = _rows(_of_file(source, newest), whence, rows)
        return Draft(name, whence, source, sample, doubts)
    spec = _provisional(name, sampled)
    connector = connector_for(spec, connections, PlanLimits(), scratch)
    batches = (raw for part in connector.plan(SourceState())[:1] for raw in connector.read(part))
    sample, facts = _rows(batches, whence, rows), TableFacts()
    if source["kind"] == "database":
        facts = table_facts(connections.database(source["block"]), whence, source["block"])
    return Draft(name, whence.partition("?")[0], source, sample, doubts, facts)


def _of_file(source: dict[str, Any], path: Path) -> Iterator[RawBatch]:
    """Read a file from its beginning; the connector would hash all of it first."""
    try:
        yield from read_object(
            FilesSource.model_validate(source).format,
            path.name,
            PlanLimits(),
            1,
            open_binary=lambda: cast(BinaryIO, path.open("rb")),
            local_path=lambda: path,
        )
    except OSError as error:
        raise classify(error, path.name) from None


def _required(block: str | None, what: str) -> str:
    if block is None:
        raise ConfigError(f"--from needs --block: the name of {what} with the connection")
    return block


Declared = tuple[dict[str, Any], dict[str, Any], list[str]]
"""How the source is declared, how the sample of it is, and what is unsure."""


def _files(whence: str, base: Path) -> tuple[dict[str, Any], Path, list[str]]:
    pattern = whence
    if (base / whence).is_dir():
        pattern = f"{whence.rstrip('/')}/*"
    found = sorted(glob.glob(pattern, root_dir=base, recursive=True))
    files = [base / path for path in found if (base / path).is_file()]
    if not files:
        raise ConfigError(
            f"--from {whence}: no such file",
            "give a path, a glob in quotes, s3://…, https://…, or a table with --block",
        )
    newest = max(files, key=lambda path: (path.stat().st_size > 0, path.name))
    guess = guess_format(lambda: newest.open("rb"), str(newest))
    source = {"kind": "files", "path": pattern, "format": guess.declared}
    return source, newest, guess.doubts


def _objects(whence: str, block: str, connections: Connections) -> Declared:
    path = whence.removeprefix("s3://").partition("/")[2]
    if not path:
        raise ConfigError(f"--from {whence}: say which objects, e.g. {whence.rstrip('/')}/in/*.csv")
    pattern = f"{path}**" if path.endswith("/") else path
    declared = {"kind": "s3", "block": block, "path": pattern, "format": {"kind": "csv"}}
    store = connections.object_store(S3Source.model_validate(declared))
    from tasks.ingestion.connectors.s3_keys import KeyPattern

    keys, key, looked = KeyPattern(pattern), None, 0
    for page in obstore.list(store, literal_prefix(pattern) or None, chunk_size=1000):
        looked += len(page)
        key = next((entry["path"] for entry in page if keys.match(entry["path"])), None)
        if key or looked > MOST_OBJECTS:
            break
    if keys.single is not None:
        key = keys.single
    if key is None:
        raise SourceRejected(
            f"--from {whence}: no object like {pattern} in the bucket of {block!r}"
        )
    guess = guess_format(_opener(store, key), key)
    source = {**declared, "format": guess.declared}
    return source, {**source, "path": key}, guess.doubts


def _opener(store: Any, key: str) -> Callable[[], BinaryIO]:
    import io

    size = int(obstore.head(store, key)["size"])
    content = bytes(obstore.get_range(store, key, start=0, end=min(size, BEGIN_BYTES)))
    if content.startswith(ZIP_MAGIC) and size > len(content):
        if size > MOST_ARCHIVE:
            raise ConfigError(
                f"{key}: an archive of {size >> 20} MB is not fetched to be looked into",
                "infer from a smaller one, and correct the path afterwards",
            )
        content = bytes(obstore.get(store, key).bytes())
    return lambda: io.BytesIO(content)


def _api(whence: str, block: str, connections: Connections) -> Declared:
    parts = urlsplit(whence)
    _refuse_credentials(parts.netloc, [name for name, _ in parse_qsl(parts.query)])
    client = connections.rest_client(block)
    if (parts.scheme, parts.netloc) != (client.base_url.scheme, client.base_url.netloc.decode()):
        raise ConfigError(
            f"--from {parts.scheme}://{parts.netloc} is not the server of block {block!r}",
            f"its base_url is {client.base_url}",
        )
    path = "/" + parts.path.removeprefix(client.base_url.path.rstrip("/")).lstrip("/")
    params = dict(parse_qsl(parts.query))
    response = client.get(path, params=params)
    if not response.is_success:
        raise SourceRejected(f"GET {path}: HTTP {response.status_code}", "check path and block")
    try:
        body = parse_json(response.text)
    except ValueError:
        raise SourceRejected(f"GET {path}: the answer is no JSON") from None
    source: dict[str, Any] = {"kind": "rest", "block": block, "path": path}
    if params:
        source["params"] = params
    records = None if isinstance(body, list) else records_path(body)
    if records:
        source["records"] = records
    paging, doubts = _paging(body, "next" in response.links)
    sampled = dict(source)
    if paging:
        source["pagination"] = paging
    return source, sampled, doubts


def _refuse_credentials(netloc: str, params: Iterable[str]) -> None:
    """Keep a credential in a URL out of the dataset file."""
    secret = next((name for name in params if _CREDENTIAL.search(name)), None)
    if "@" in netloc or secret:
        what = f"parameter {secret!r}" if secret else "the part before @"
        raise ConfigError(
            f"--from: {what} of the URL looks like a credential, which would be in the dataset file",
            "keep it in the block, e.g. with auth: api_key_query, and leave it out here",
        )


def _paging(body: Any, has_link: bool) -> tuple[dict[str, Any] | None, list[str]]:
    keys = body if isinstance(body, dict) else {}
    link = next((key for key in ("next", "next_url", "next_page") if key in keys), None)
    if has_link:
        return {"kind": "link"}, ["A Link header names the next page."]
    if link and (keys[link] is None or str(keys[link]).startswith(("http", "/"))):
        return {"kind": "next", "key": link}, [f"{link!r} seems to be the URL of the next page."]
    cursor = next((key for key in ("next_cursor", "cursor", "next_token") if key in keys), None)
    if cursor:
        doubt = f"{cursor!r} seems to be a cursor; say in 'param' how it is sent."
        return {"kind": "cursor", "key": cursor, "param": "cursor"}, [doubt]
    pages = next((key for key in ("pages", "total_pages", "page_count") if key in keys), None)
    if pages:
        doubt = "It seems to count pages; say in page_param and size_param what they are called."
        return {"kind": "page", "pages": pages, "size": 100}, [doubt]
    return None, ["No paging was recognised: if there are more pages, declare 'pagination'."]


def _provisional(name: str, source: dict[str, Any]) -> DatasetSpec:
    return DatasetSpec.model_validate(
        {
            "name": name,
            "description": "A sample",
            "source": source,
            "columns": {"provisional": {"type": "string"}},
            "load": {"table": f"analytics.{name}", "mode": "append"},
        }
    )


def _rows(batches: Iterable[RawBatch], whence: str, most: int) -> pa.Table:
    found: list[pa.Table] = []
    count = 0
    for raw in batches:
        if raw.batch is not None and raw.batch.num_rows:
            found.append(pa.Table.from_batches([raw.batch.slice(0, most - count)]))
            count += found[-1].num_rows
        if count >= most:
            break
    if not found:
        raise SourceRejected(f"--from {whence}: has no rows to infer from")
    return pa.concat_tables(found, promote_options="default")
