"""Objects of an S3 bucket; an object's version is its ETag, and it is read only while it has it."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO

import obstore
import pyarrow as pa
import pyarrow.parquet as pq
import structlog
from obstore.store import ObjectStore

from tasks.ingestion.connector import PlanLimits, RawBatch
from tasks.ingestion.connectors.s3_errors import CLIENT_ERRORS, meaning
from tasks.ingestion.connectors.s3_keys import KeyPattern
from tasks.ingestion.connectors.s3_reads import PIECE_BYTES, ItemReader, PinnedObjects, item_of
from tasks.ingestion.csv_small import SMALL_BYTES, is_plain, read_small_csv
from tasks.ingestion.hive import hive_values, with_partitions
from tasks.ingestion.item_reader import read_item
from tasks.ingestion.packing import new_items, pack
from tasks.ingestion.ranged_file import RangedFile
from tasks.ingestion.splitting import missing_parts
from tasks.model.errors import ConfigError, SourceRejected
from tasks.model.formats import CsvFormat
from tasks.model.partition import Partition, SourceItem
from tasks.model.request import SourceState, Window
from tasks.model.source import S3Source

PAGE_KEYS = 1000
LISTINGS = 8
"""Folders that are listed at the same time."""
FOOTER_TAIL = 8
"""Bytes at the end of a Parquet file that say where its footer begins."""


log = structlog.get_logger("dpp.ingestion")


def _now() -> datetime:
    return datetime.now(UTC)


class S3Connector:
    """Reads objects.

    Args:
        dataset: Name of the dataset.
        source: Its declaration.
        store: The bucket.
        scratch: Folder for objects that must be read from a file.
        limits: Bounds of partitions, batches and values.
        expected_columns: Number of columns that the dataset declares.
        clock: Gives the time, for paths with dates; an argument so that tests can set it.
    """

    def __init__(
        self,
        dataset: str,
        source: S3Source,
        store: ObjectStore,
        scratch: Path,
        limits: PlanLimits,
        expected_columns: int,
        clock: Callable[[], datetime] = _now,
    ) -> None:
        self._dataset = dataset
        self._source = source
        self._store = store
        self._scratch = scratch
        self._limits = limits
        self._columns = expected_columns - len(source.hive_partitions)
        self._clock = clock
        self._where = f"s3 block {source.block!r}"
        self._keys = KeyPattern(source.path)
        self._objects = PinnedObjects(store, self._where)

    def plan(self, state: SourceState) -> list[Partition]:
        """Return partitions of the objects, and the parts of objects, that are new or changed.

        Raises:
            ConfigError: A window is asked for, and the keys do not say which time they are of.
            ContractBroken: A key lacks a declared Hive partition.
            PipelineError: What the server says.
        """
        listed = (
            self._named(state.objects) if state.objects else self._list(self._span(state.window))
        )
        for item in listed:
            hive_values(item.uri, self._source.hive_partitions)
        new = new_items(listed, state, same_content_is_known=False)
        parts = missing_parts(new, state, self._source.format, self._limits, self._objects.open)
        return pack(self._dataset, parts, self._limits)

    def _span(self, window: Window | None) -> Window | None:
        """Return the time whose objects are listed, None for all."""
        if window is not None:
            if not self._keys.dated:
                raise ConfigError(
                    f"{self._dataset}: a time is asked for, and source.path does not say which time "
                    "an object is of",
                    'declare the date in the path, e.g. path: "in/{date:%Y/%m/%d}/*.csv"',
                )
            return window
        source, now = self._source, self._clock()
        tomorrow = now + timedelta(days=1)  # it has begun somewhere on Earth
        if source.lookback_days is not None:
            today = now.replace(hour=0, minute=0, second=0, microsecond=0)
            return Window(start=today - timedelta(days=source.lookback_days), end=tomorrow)
        if source.start is not None:
            start = datetime.combine(source.start, datetime.min.time(), UTC)
            return Window(start=start, end=max(tomorrow, start + timedelta(days=1)))
        return None

    def _named(self, keys: Sequence[str]) -> list[SourceItem]:
        """Return some objects without listing any folder; those that are gone are left out."""
        for key in keys:
            if not self._keys.match(key):
                raise ConfigError(
                    f"{self._dataset}: object {key} is none of source.path {self._source.path!r}",
                    "name objects as they are called in the bucket, below the block's folder",
                )
        with ThreadPoolExecutor(LISTINGS) as pool:
            found = list(pool.map(self._head_if_there, dict.fromkeys(keys)))
        return sorted((item for item in found if item), key=lambda item: item.uri)

    def _head_if_there(self, key: str) -> SourceItem | None:
        try:
            entry = obstore.head(self._store, key)
        except FileNotFoundError:
            log.warning("ingestion.object_is_gone", uri=key)
            return None
        except CLIENT_ERRORS as error:
            raise meaning(error, self._where, key) from None
        return item_of(key, entry["e_tag"], entry["last_modified"], entry["size"])

    def _list(self, span: Window | None) -> list[SourceItem]:
        if self._keys.single is not None:
            return [self._head(self._keys.single)]
        folders = self._keys.folders(span)
        if len(folders) == 1:
            found = [self._list_folder(folders[0], span)]
        else:
            with ThreadPoolExecutor(LISTINGS) as pool:
                found = list(pool.map(lambda folder: self._list_folder(folder, span), folders))
        return sorted((item for items in found for item in items), key=lambda item: item.uri)

    def _list_folder(self, folder: str, span: Window | None) -> list[SourceItem]:
        found: list[SourceItem] = []
        try:
            for page in obstore.list(self._store, folder or None, chunk_size=PAGE_KEYS):
                found += [
                    item_of(entry["path"], entry["e_tag"], entry["last_modified"], entry["size"])
                    for entry in page
                    if self._keys.match(entry["path"], span)
                ]
        except CLIENT_ERRORS as error:
            raise meaning(error, self._where) from None
        return found

    def _head(self, key: str) -> SourceItem:
        item = self._head_if_there(key)
        if item is None:
            raise SourceRejected(f"{self._dataset}: {self._where} has no object {key}")
        return item

    def read(self, partition: Partition) -> Iterator[RawBatch]:
        """Stream the items of a partition, each in the version that was planned."""
        ranges = [(item, *_range(item)) for item in partition.items]
        with ItemReader(self._objects, ranges) as ahead:
            for values, group in self._groups(partition.items):
                contents = [ahead.open_next(*_range(item)) for item in group]
                if len(group) > 1:
                    texts = [content.read() for content in contents]
                    if together := self._read_together(group, texts):
                        yield with_partitions(together, values, group[0].uri)
                        continue
                    contents = [io.BytesIO(text) for text in texts]
                for item, content in zip(group, contents, strict=True):
                    for raw in self._read(item, content):
                        yield with_partitions(raw, values, item.uri)

    def _groups(
        self, items: Sequence[SourceItem]
    ) -> Iterator[tuple[dict[str, str | None], list[SourceItem]]]:
        """Yield the items in their order, small texts of one folder a batch at a time."""
        declared = self._source.format
        plain = isinstance(declared, CsvFormat) and is_plain(declared)
        group: list[SourceItem] = []
        shared: dict[str, str | None] = {}
        for item in items:
            values = hive_values(item.uri, self._source.hive_partitions)
            small = plain and item.part is None and item.bytes <= SMALL_BYTES
            size = sum(each.bytes for each in group) + item.bytes
            if group and not (small and values == shared and size < self._limits.batch_bytes):
                yield shared, group
                group = []
            group, shared = [*group, item], values
            if not small:
                yield shared, group
                group = []
        if group:
            yield shared, group

    def _read_together(self, group: Sequence[SourceItem], texts: list[bytes]) -> RawBatch | None:
        assert isinstance(self._source.format, CsvFormat)
        named = [(item.origin, text) for item, text in zip(group, texts, strict=True)]
        return read_small_csv(named, self._source.format, self._limits, self._columns)

    def _read(self, item: SourceItem, content: BinaryIO) -> Iterator[RawBatch]:
        start, end = _range(item)

        def open_range(first: int, last: int) -> BinaryIO:
            return (
                content if (first, last) == (start, end) else self._objects.open(item, first, last)
            )

        def local_path() -> Path:
            path = self._scratch / "object"
            with path.open("wb") as target, self._objects.open(item, start, end) as source:
                _copy(source, target)
            return path

        def parquet() -> Path | BinaryIO:
            if item.part is None and item.bytes <= PIECE_BYTES:
                return content
            return self._local_parquet(item, content)

        yield from read_item(
            self._source.format,
            item,
            self._limits,
            self._columns,
            open_range=open_range,
            local_path=local_path,
            parquet=parquet,
        )

    def _local_parquet(self, item: SourceItem, content: BinaryIO) -> Path:
        """Write an object, or what a part of it needs, to a file in which all is at its place."""
        path = self._scratch / "object.parquet"
        with path.open("wb") as target:
            if item.part is None:
                _copy(content, target)
                return path
            size = int(item.version.rpartition("-")[2])
            target.truncate(size)
            for start, end in self._needed(item, size):
                target.seek(start)
                with self._objects.open(item, start, end) as source:
                    _copy(source, target)
        return path

    def _needed(self, item: SourceItem, size: int) -> list[tuple[int, int]]:
        """Return where the row groups of a part and the footer are."""
        assert item.part is not None
        file = RangedFile(lambda start, end: self._objects.open(item, start, end), size)
        try:
            footer = pq.read_metadata(pa.PythonFile(file, mode="r"))
        except pa.ArrowException:
            raise SourceRejected(f"{item.uri}: cannot be read as Parquet") from None
        file.seek(-FOOTER_TAIL, os.SEEK_END)
        length = int.from_bytes(file.read(4), "little")
        starts, ends = [], []
        for number in range(item.part.start, item.part.end):
            group = footer.row_group(number)
            for column in map(group.column, range(group.num_columns)):
                first = column.data_page_offset
                if column.has_dictionary_page:
                    first = min(first, column.dictionary_page_offset or first)
                starts.append(first)
                ends.append(first + column.total_compressed_size)
        tail = size - FOOTER_TAIL - length
        return [(min(starts, default=tail), max(ends, default=tail)), (tail, size)]


def _range(item: SourceItem) -> tuple[int, int]:
    """Return the bytes of an item that are read in one pass, none of row groups."""
    if item.part is None:
        return 0, item.bytes
    return (item.part.start, item.part.end) if item.part.unit == "bytes" else (0, 0)


def _copy(source: BinaryIO, target: BinaryIO) -> None:
    while piece := source.read(1 << 20):
        target.write(piece)
