"""Files of a local directory; a file's version is the hash of its content."""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Iterator
from pathlib import Path

from tasks.ingestion.connector import PlanLimits, RawBatch
from tasks.ingestion.formats import read_object
from tasks.ingestion.packing import new_items, pack
from tasks.model.classify import classify
from tasks.model.errors import ConfigError, SourceRejected
from tasks.model.run import Partition, SourceItem, SourceState
from tasks.model.source import FilesSource


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
        self._base = base
        self._limits = limits
        self._expected_columns = expected_columns

    def plan(self, state: SourceState) -> list[Partition]:
        """Return partitions of the files whose content is new."""
        paths = [
            self._base / name
            for name in sorted(glob.glob(self._source.path, root_dir=self._base, recursive=True))
        ]
        files = [path for path in paths if path.is_file()]
        if not files and not glob.has_magic(self._source.path):
            raise SourceRejected(f"{self._dataset}: no file {self._base / self._source.path}")
        if not files and not self._folder().is_dir():
            raise ConfigError(
                f"{self._dataset}: source.path: there is no folder {self._folder()}",
                "correct the path; relative ones start from the project's folder",
            )
        items = (self._item(path) for path in files)
        new = new_items(items, state, same_content_is_known=True)
        return pack(self._dataset, new, self._limits)

    def read(self, partition: Partition) -> Iterator[RawBatch]:
        """Stream the files of a partition."""
        for item in partition.items:
            path = self._base / item.uri
            try:
                if _sha256(path) != item.version:
                    raise SourceRejected(
                        f"{item.uri}: changed after it was planned", "run again; it is planned anew"
                    )
                yield from read_object(
                    self._source.format,
                    item.uri,
                    self._limits,
                    self._expected_columns,
                    open_binary=lambda path=path: path.open("rb"),  # type: ignore[misc]
                    local_path=lambda path=path: path,  # type: ignore[misc]
                )
            except OSError as error:
                raise classify(error, self._dataset) from None

    def _folder(self) -> Path:
        """Return the deepest folder that the pattern names without a wildcard."""
        parts = Path(self._source.path).parts[:-1]
        fixed = parts[: _first_magic(parts)]
        return self._base.joinpath(*fixed)

    def _item(self, path: Path) -> SourceItem:
        uri = str(path.relative_to(self._base)) if path.is_relative_to(self._base) else str(path)
        return SourceItem(uri=uri, version=_sha256(path), bytes=path.stat().st_size)


def _first_magic(parts: tuple[str, ...]) -> int:
    return next((n for n, part in enumerate(parts) if glob.has_magic(part)), len(parts))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
