"""Reads a bounded sample of a source, with the connectors that will read it later."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import obstore
from obstore.exceptions import BaseError
from prefect_aws import S3Bucket

from tasks.connections import Connections
from tasks.inference.formats import LOOKED_AT, FoundFormat, beginning, find_format, find_text_format
from tasks.inference.found import Found, Sample, take, together
from tasks.inference.origins import FileOrigin, ObjectOrigin
from tasks.ingestion.archives import ZIP_MAGIC
from tasks.ingestion.connector import PlanLimits, RawBatch
from tasks.ingestion.connectors.s3_keys import KeyPattern
from tasks.ingestion.formats import read_object
from tasks.ingestion.registry import connector_for
from tasks.model.classify import classify
from tasks.model.dataset import DatasetSpec
from tasks.model.errors import ConfigError
from tasks.model.formats import Format
from tasks.model.run import SourceState
from tasks.model.source import FilesSource

MOST_FILES = 3
"""Files of a folder that are looked into: the first, the last, and one between them."""
SMALL_BATCH = 1 << 20
"""A sample is read in smaller batches than a partition."""
MOST_COPIED = 64 << 20
"""An object of a format that is not read in one pass is fetched up to this size."""
ANY_COLUMNS = 1
_PLACEHOLDER: dict[str, Any] = {"x": {"type": "string"}}


def sample_limits() -> PlanLimits:
    """Return the bounds of reading a sample."""
    return PlanLimits(batch_bytes=SMALL_BATCH)


def provisional(source: dict[str, Any]) -> DatasetSpec:
    """Return a dataset of this source, to have a connector made for it."""
    return DatasetSpec.model_validate(
        {
            "name": "sample",
            "description": "",
            "source": source,
            "columns": _PLACEHOLDER,
            "load": {"table": "analytics.sample", "mode": "append"},
        }
    )


def read_planned(
    source: dict[str, Any], connections: Connections, scratch: Path, rows: int
) -> Sample:
    """Read a sample as a run would."""
    connector = connector_for(provisional(source), connections, sample_limits(), scratch)
    partitions = connector.plan(SourceState())
    samples: list[Sample] = []
    for partition in partitions:
        samples.append(take(connector.read(partition), rows - sum(s.rows for s in samples)))
        if not samples[-1].whole or sum(s.rows for s in samples) >= rows:
            break
    return together(samples, whole=len(samples) == len(partitions))


def find_files(origin: FileOrigin, root: Path, rows: int, records: str | None) -> Found:
    """Look into files of this machine.

    Args:
        origin: The files.
        root: The project's folder; a path in it is written relative to it.
        rows: Rows of the sample.
        records: Where in a JSON document the records are, if the user said so.
    """
    pattern = Path(origin.pattern)
    inside = pattern.is_relative_to(root)
    path = str(pattern.relative_to(root)) if inside else str(pattern)
    source: dict[str, Any] = {"kind": "files", "path": path}
    with _readable(origin.files[0].name):
        found = _format_of(origin.files[0], records)
        source["format"] = found.keys
        declared = FilesSource.model_validate(source).format
        picked = _some(origin.files)
        samples = [
            take(_read(declared, file, file.name), max(1, rows // len(picked))) for file in picked
        ]
    sample = together(samples, whole=len(picked) == len(origin.files))
    made = Found(source, sample, found.doubts)
    if not inside:
        made.notes.append("The path is outside of the project, so it must be there on each worker.")
    return made


def _format_of(path: Path, records: str | None) -> FoundFormat:
    if records is not None:
        return FoundFormat({"kind": "json", "records": records})
    return find_format(path, path.name)


def _some(files: tuple[Path, ...]) -> list[Path]:
    if len(files) <= MOST_FILES:
        return list(files)
    return [files[0], files[len(files) // 2], files[-1]]


def _read(declared: Format, path: Path, uri: str) -> Iterator[RawBatch]:
    return read_object(
        declared,
        uri,
        sample_limits(),
        ANY_COLUMNS,
        open_binary=lambda: cast(BinaryIO, path.open("rb")),
        local_path=lambda: path,
    )


@contextmanager
def _readable(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise classify(error, name) from None


def find_objects(
    origin: ObjectOrigin, connections: Connections, scratch: Path, rows: int, records: str | None
) -> Found:
    """Look into objects of a bucket.

    Args:
        origin: The objects.
        connections: Opens the block of the bucket.
        scratch: Folder for what must be read from a file.
        rows: Rows of the sample.
        records: Where in a JSON document the records are, if the user said so.
    """
    block: S3Bucket = connections.load(S3Bucket, origin.block)
    if block.bucket_name != origin.bucket:
        raise ConfigError(
            f"block {origin.block!r} is of the bucket {block.bucket_name!r}, not of {origin.bucket!r}",
            "name the right S3Bucket block with --block",
        )
    folder = block.bucket_folder.strip("/")
    path = origin.path.removeprefix(f"{folder}/") if folder else origin.path
    path = f"{path}**" if path.endswith("/") else path
    store = connections.object_store(origin.block)
    key, size = _first_object(store, path, origin)
    if records is not None:
        found = FoundFormat({"kind": "json", "records": records})
    else:
        found = _format_of_object(store, key, size, scratch)
    source = {"kind": "s3", "block": origin.block, "path": path, "format": found.keys}
    sampled = {**source, "path": key}  # not the whole listing: one object is enough
    sample = read_planned(sampled, connections, scratch, rows)
    sample.whole = sample.whole and key == path
    return Found(source, sample, found.doubts)


def _first_object(store: Any, path: str, origin: ObjectOrigin) -> tuple[str, int]:
    pattern = KeyPattern(path)
    where = f"s3 block {origin.block!r}"
    try:
        if pattern.single is not None:
            return path, int(obstore.head(store, path)["size"])
        for page in obstore.list(store, pattern.folders(None)[0] or None):
            for entry in page:
                if pattern.match(entry["path"], None) and entry["size"]:
                    return str(entry["path"]), int(entry["size"])
    except FileNotFoundError:
        pass
    except (BaseError, OSError) as error:
        raise classify(error, where) from None
    raise ConfigError(f"{where}: no object matches {path}")


def _format_of_object(store: Any, key: str, size: int, scratch: Path) -> FoundFormat:
    try:
        head = bytes(obstore.get_range(store, key, start=0, end=min(size, LOOKED_AT)))
        if not head.startswith(ZIP_MAGIC):
            return find_text_format(beginning(cast(BinaryIO, _Bytes(head)), key), key)
        if size > MOST_COPIED:
            raise ConfigError(
                f"{key}: an archive of {size:,} bytes is not fetched to be looked into",
                "name a smaller one, and write the pattern into the dataset file afterwards",
            )
        copied = scratch / "object"
        copied.write_bytes(bytes(obstore.get(store, key).bytes()))
    except (BaseError, OSError) as error:
        raise classify(error, key) from None
    return find_format(copied, key)


class _Bytes:
    """Bytes as a file."""

    def __init__(self, content: bytes) -> None:
        self._left = content

    def read(self, size: int = -1) -> bytes:
        piece, self._left = (
            (self._left, b"") if size < 0 else (self._left[:size], self._left[size:])
        )
        return piece
