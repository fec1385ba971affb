"""Files of a local directory; a file's version is the hash of its content."""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

import structlog

from tasks.ingestion.connector import PlanLimits, RawBatch
from tasks.ingestion.formats import read_object
from tasks.ingestion.packing import new_items, pack
from tasks.model.classify import classify
from tasks.model.dated_paths import DatedPath
from tasks.model.errors import ConfigError, PipelineError, SourceRejected
from tasks.model.partition import Partition, SourceItem
from tasks.model.request import SourceState
from tasks.model.source import FilesSource

log = structlog.get_logger("dpp.ingestion")


class FilesConnector:
    """Reads files.

    Args:
        dataset: Name of the dataset.
        source: Its declaration.
        base: Folder that relative paths start from.
        limits: Bounds of partitions, batches and values.
        expected_columns: Number of columns that the dataset declares.
    """

    def __init__(
        self,
        dataset: str,
        source: FilesSource,
        base: Path,
        limits: PlanLimits,
        expected_columns: int,
    ) -> None:
        self._dataset = dataset
        self._source = source
        self._pattern = DatedPath.parse(source.path)
        self._base = base
        self._limits = limits
        self._expected_columns = expected_columns

    def plan(self, state: SourceState) -> list[Partition]:
        """Return partitions of the files whose content is new, in a backfill of its dates only."""
        if state.window and not self._pattern.formats:
            raise ConfigError(
                f"{self._dataset}: source.path {self._source.path!r} tells no date, so the files of "
                "a span of time cannot be told from the others",
                "write where the date is, e.g. inbox/{date:%Y-%m-%d}/*.csv",
            )
        names = self._named(state.objects) if state.objects else self._names()
        files = _once(self._base / name for name in names)
        if not files and state.objects:
            return []
        if not files and not glob.has_magic(self._pattern.glob):
            where = self._base / self._source.path
            if where.is_dir():
                raise SourceRejected(
                    f"{self._dataset}: {where} is a folder, no file",
                    f"write {self._source.path}/* for the files in it",
                )
            raise SourceRejected(f"{self._dataset}: no file {where}")
        if not files and not self._folder().is_dir():
            raise ConfigError(
                f"{self._dataset}: source.path: there is no folder {self._folder()}",
                "correct the path; relative ones start from the project's folder",
            )
        if window := state.window:
            files = [
                path
                for path in files
                if self._pattern.overlaps(self._uri(path), window.start, window.end)
            ]
        new = new_items(map(self._item, files), state, same_content_is_known=True)
        return pack(self._dataset, new, self._limits)

    def _named(self, names: tuple[str, ...]) -> list[str]:
        """Return some files without looking for others; those that are gone are left out."""
        for name in names:
            if not self._pattern.matches(name):
                raise ConfigError(
                    f"{self._dataset}: file {name} is none of source.path {self._source.path!r}",
                    "name files as the path does, relative to the project or absolute",
                )
        there = [name for name in dict.fromkeys(names) if (self._base / name).is_file()]
        for name in sorted({*names}.difference(there)):
            log.warning("ingestion.object_is_gone", uri=name)
        return there

    def _names(self) -> list[str]:
        names = sorted(glob.glob(self._pattern.glob, root_dir=self._base, recursive=True))
        for name in names:
            try:
                name.encode()
            except UnicodeEncodeError:
                shown = os.fsencode(name).decode(errors="backslashreplace")
                raise SourceRejected(
                    f"{self._dataset}: the name of the file {shown} is not UTF-8", "rename it"
                ) from None
        if self._pattern.formats:  # [0-9] stands for any digits, the date must be one
            return [name for name in names if self._pattern.span(name)]
        return names

    def read(self, partition: Partition) -> Iterator[RawBatch]:
        """Stream the files of a partition, each of them only if it is and stays what was planned."""
        for item in partition.items:
            try:
                yield from self._read(item)
            except OSError as error:
                raise classify(error, f"{self._dataset}: {item.uri}") from None

    def _read(self, item: SourceItem) -> Iterator[RawBatch]:
        path = self._base / item.uri
        with _unchanged(path, item):
            yield from read_object(
                self._source.format,
                item.uri,
                self._limits,
                self._expected_columns,
                open_binary=lambda: cast(BinaryIO, _Hashed(path, item)),
                local_path=lambda: _checked(path, item),
            )

    def _folder(self) -> Path:
        """Return the deepest folder that the pattern names without a wildcard."""
        parts = Path(self._pattern.glob).parts[:-1]
        fixed = parts[: _first_magic(parts)]
        return self._base.joinpath(*fixed)

    def _uri(self, path: Path) -> str:
        return str(path.relative_to(self._base)) if path.is_relative_to(self._base) else str(path)

    def _item(self, path: Path) -> SourceItem:
        uri = self._uri(path)
        try:
            with path.open("rb") as file:
                version = hashlib.file_digest(file, "sha256").hexdigest()
                return SourceItem(uri=uri, version=version, bytes=file.tell())
        except OSError as error:
            raise classify(error, f"{self._dataset}: {uri}") from None


def _first_magic(parts: tuple[str, ...]) -> int:
    return next((n for n, part in enumerate(parts) if glob.has_magic(part)), len(parts))


def _once(paths: Iterator[Path]) -> list[Path]:
    """Return the files among some paths, each under its shortest name: links can make a circle.

    Raises:
        SourceRejected: A link leads nowhere.
    """
    found: dict[tuple[int, int], Path] = {}
    for path in sorted(paths, key=lambda path: (len(path.parts), path)):
        if path.is_file():
            stat = path.stat()
            found.setdefault((stat.st_dev, stat.st_ino), path)
        elif path.is_symlink() and not path.is_dir():
            raise SourceRejected(
                f"{path}: is a link that leads nowhere, or in a circle", "correct or remove it"
            )
    return sorted(found.values())


def _changed(item: SourceItem) -> SourceRejected:
    return SourceRejected(
        f"{item.uri}: changed after it was planned", "run again; it is planned anew"
    )


@contextmanager
def _unchanged(path: Path, item: SourceItem) -> Iterator[None]:
    """Refuse a file that is written to while it is read, whatever else seems wrong with it then."""
    before = _state(path)
    try:
        yield
    except PipelineError:
        if _state(path) != before:
            raise _changed(item) from None
        raise
    if _state(path) != before:
        raise _changed(item)


def _state(path: Path) -> tuple[int, ...]:
    stat = path.stat()
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def _checked(path: Path, item: SourceItem) -> Path:
    """Return a path whose content is what was planned."""
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != item.version:
            raise _changed(item)
    return path


class _Hashed:
    """A file that is hashed as it is read: at its end the bytes must have been those planned."""

    def __init__(self, path: Path, item: SourceItem) -> None:
        self._file = path.open("rb", buffering=0)
        self._item = item
        self._hash = hashlib.sha256()

    def __enter__(self) -> _Hashed:
        if os.fstat(self._file.fileno()).st_size != self._item.bytes:
            self._file.close()
            raise _changed(self._item)
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes.

        Raises:
            SourceRejected: It was the end, and the bytes were others than those planned.
        """
        piece = self._file.read(size)
        self._hash.update(piece)
        if not piece and size:
            self._check()
        return piece

    def readinto(self, buffer: memoryview) -> int:
        """Fill a buffer with the next bytes, without a copy of them on the way.

        Raises:
            SourceRejected: It was the end, and the bytes were others than those planned.
        """
        count = self._file.readinto(buffer) or 0
        self._hash.update(buffer[:count])
        if not count and len(buffer):
            self._check()
        return count

    def _check(self) -> None:
        if self._hash.hexdigest() != self._item.version:
            raise _changed(self._item)
