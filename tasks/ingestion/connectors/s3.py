"""Objects of an S3 bucket; an object's version is its ETag, and it is read only while it has it."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import obstore
from obstore.exceptions import BaseError, PreconditionError
from obstore.store import ObjectStore

from tasks.ingestion.connector import PlanLimits, RawBatch
from tasks.ingestion.formats import read_object
from tasks.ingestion.packing import new_items, pack
from tasks.model.classify import classify
from tasks.model.errors import SourceRejected
from tasks.model.run import Partition, SourceItem, SourceState
from tasks.model.source import S3Source

WHOLE_BYTES = 8 << 20
"""Objects up to this size are fetched in one go, others streamed."""


class S3Connector:
    """Reads objects.

    Args:
        dataset: Name of the dataset.
        source: Its declaration.
        store: The bucket.
        scratch: Folder for objects that must be read from a file.
        limits: Bounds of partitions, batches and values.
        expected_columns: Number of columns that the dataset declares.
    """

    def __init__(
        self,
        dataset: str,
        source: S3Source,
        store: ObjectStore,
        scratch: Path,
        limits: PlanLimits,
        expected_columns: int,
    ) -> None:
        self._dataset = dataset
        self._source = source
        self._store = store
        self._scratch = scratch
        self._limits = limits
        self._expected_columns = expected_columns
        self._where = f"s3 block {source.block!r}"

    def plan(self, state: SourceState) -> list[Partition]:
        """Return partitions of the objects that are new or changed."""
        listed = self._list()
        if not listed and not re.search(r"[*?]", self._source.path):
            raise SourceRejected(
                f"{self._dataset}: {self._where} has no object {self._source.path}"
            )
        new = new_items(listed, state, same_content_is_known=False)
        return pack(self._dataset, new, self._limits)

    def _list(self) -> list[SourceItem]:
        matches = key_pattern(self._source.path)
        found: list[SourceItem] = []
        try:
            for page in obstore.list(self._store, literal_prefix(self._source.path) or None):
                for entry in page:
                    key = entry["path"]
                    if matches.fullmatch(key) and not key.endswith("/"):
                        version = f"{(entry['e_tag'] or '').strip(chr(34))}-{entry['size']}"
                        found.append(SourceItem(uri=key, version=version, bytes=entry["size"]))
        except (BaseError, OSError) as error:
            raise classify(error, self._where) from None
        return sorted(found, key=lambda item: item.uri)

    def read(self, partition: Partition) -> Iterator[RawBatch]:
        """Stream the objects of a partition, each in the version that was planned."""
        for item in partition.items:
            yield from read_object(
                self._source.format,
                item.uri,
                self._limits,
                self._expected_columns,
                open_binary=lambda item=item: self._open(item),  # type: ignore[misc]
                local_path=lambda item=item: self._fetch(item),  # type: ignore[misc]
            )

    def _get(self, item: SourceItem) -> Any:
        etag = item.version.rsplit("-", 1)[0]
        try:
            return obstore.get(self._store, item.uri, options={"if_match": f'"{etag}"'})
        except FileNotFoundError:
            raise SourceRejected(
                f"{self._where}: object {item.uri} was deleted after it was listed",
                "run again; it is planned anew",
            ) from None
        except PreconditionError:
            raise SourceRejected(
                f"{self._where}: object {item.uri} was overwritten after it was listed",
                "run again; it is planned anew",
            ) from None
        except (BaseError, OSError) as error:
            raise classify(error, f"{self._where}: {item.uri}") from None

    def _open(self, item: SourceItem) -> BinaryIO:
        answer = self._get(item)
        if item.bytes <= WHOLE_BYTES:
            try:
                return io.BytesIO(memoryview(answer.bytes()))
            except (BaseError, OSError) as error:
                raise classify(error, f"{self._where}: {item.uri}") from None
        stream = _ObjectStream(answer.stream(min_chunk_size=1 << 20), f"{self._where}: {item.uri}")
        return cast(BinaryIO, io.BufferedReader(stream, 1 << 20))

    def _fetch(self, item: SourceItem) -> Path:
        path = self._scratch / "object.parquet"
        with self._open(item) as source, path.open("wb") as target:
            while piece := source.read(1 << 20):
                target.write(piece)
        return path


class _ObjectStream(io.RawIOBase):
    """The chunks of an object as a file."""

    def __init__(self, chunks: Any, where: str) -> None:
        self._chunks = iter(chunks)
        self._where = where
        self._left = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._left:
            try:
                self._left = memoryview(next(self._chunks))
            except StopIteration:
                return 0
            except (BaseError, OSError) as error:
                raise classify(error, self._where) from None
        taken = self._left[: len(buffer)]
        buffer[: len(taken)] = taken
        self._left = self._left[len(taken) :]
        return len(taken)


def literal_prefix(pattern: str) -> str:
    """Return the folder that all keys of a pattern are in; only it is listed."""
    fixed = re.split(r"[*?\[]", pattern, maxsplit=1)[0]
    return fixed if fixed == pattern else fixed.rpartition("/")[0]


def key_pattern(pattern: str) -> re.Pattern[str]:
    """Return a regular expression for a glob: ``**`` crosses slashes, ``*`` and ``?`` do not."""
    parts = []
    for part in re.split(r"(\*\*/|\*\*|\*|\?)", pattern):
        wildcard = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}.get(part)
        parts.append(re.escape(part) if wildcard is None else wildcard)
    return re.compile("".join(parts), re.DOTALL)
