"""The lake: files named after their content, and small JSON documents beside them."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import obstore
from obstore.exceptions import AlreadyExistsError, NotFoundError
from obstore.store import ObjectStore

READ_BYTES = 1 << 20
MISSING = (FileNotFoundError, NotFoundError)
"""A missing object: local stores raise the built-in error, remote ones may raise obstore's."""


FRESH = timedelta(days=1)
"""A file that was written so long ago is written again when it is needed: retention goes by age."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One object of the lake.

    Attributes:
        key: Its key.
        bytes: Its size.
        modified: When it was written.
    """

    key: str
    bytes: int
    modified: datetime


class Lake:
    """Object storage seen from the stages.

    Args:
        store: The storage.
        root: Its directory, when it is a local one; files are then read in place.
    """

    def __init__(self, store: ObjectStore, root: Path | None) -> None:
        self._store = store
        self._root = root

    def put_file(self, path: Path, key: str) -> None:
        """Store a file under a key that names its content; one that is there already is kept."""
        if not self._is_fresh(key, path):
            obstore.put(self._store, key, path)

    def take_file(self, path: Path, key: str) -> None:
        """Store a file as ``put_file`` does, and remove it; a local lake moves it, if it is near."""
        if self._root is not None and not self._is_fresh(key, path):
            target = self._root / key
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                path.replace(target)
            except OSError as error:
                if error.errno != errno.EXDEV:  # only another disk needs a copy
                    raise
            else:
                return
        self.put_file(path, key)
        path.unlink()

    def put_new(self, key: str, content: bytes) -> bool:
        """Store a document unless the key exists; return whether this call stored it."""
        try:
            obstore.put(self._store, key, content, mode="create", use_multipart=False)
        except AlreadyExistsError:
            return False
        return True

    def put(self, key: str, content: bytes) -> None:
        """Store a document, in place of the one that may be there."""
        obstore.put(self._store, key, content, use_multipart=False)

    def get(self, key: str) -> bytes | None:
        """Return a document, or None if there is none."""
        try:
            return bytes(obstore.get(self._store, key).bytes())
        except MISSING:
            return None

    def delete(self, key: str) -> None:
        """Remove a document, if it is there."""
        try:
            obstore.delete(self._store, key)
        except MISSING:
            return

    def size(self, key: str) -> int | None:
        """Return the size of a file in bytes, or None if there is none."""
        try:
            return int(obstore.head(self._store, key)["size"])
        except MISSING:
            return None

    def modified(self, key: str) -> datetime | None:
        """Return when a file was written, or None if there is none."""
        try:
            return obstore.head(self._store, key)["last_modified"]
        except MISSING:
            return None

    def _is_fresh(self, key: str, path: Path) -> bool:
        """Tell whether a file is there, and was written so lately that nobody takes it for old."""
        try:
            there = obstore.head(self._store, key)
        except MISSING:
            return False
        age = datetime.now(UTC) - there["last_modified"]
        return there["size"] == path.stat().st_size and age < FRESH

    def sha256(self, key: str) -> str | None:
        """Read a file and return its SHA-256, or None if there is none."""
        try:
            stream = obstore.get(self._store, key).stream(min_chunk_size=READ_BYTES)
        except MISSING:
            return None
        digest = hashlib.sha256()
        for chunk in stream:
            digest.update(memoryview(chunk))
        return digest.hexdigest()

    def keys(self, prefix: str) -> Iterator[str]:
        """Yield the keys below a prefix."""
        for batch in obstore.list(self._store, prefix):
            for entry in batch:
                yield entry["path"]

    def entries(self, prefix: str) -> Iterator[Entry]:
        """Yield the objects below a prefix."""
        for batch in obstore.list(self._store, prefix):
            for entry in batch:
                yield Entry(entry["path"], entry["size"], entry["last_modified"])

    def local_path(self, key: str, scratch: Path) -> Path:
        """Return a local file with the content of a key, fetched into scratch if it is remote.

        Raises:
            FileNotFoundError: The lake has no such file.
        """
        if self._root is not None:
            path = self._root / key
            if not path.is_file():
                raise FileNotFoundError(f"the lake has no file {key}")
            return path
        path = scratch / key.replace("/", "_")
        if not path.exists():
            try:
                stream = obstore.get(self._store, key).stream(min_chunk_size=READ_BYTES)
            except MISSING:
                raise FileNotFoundError(f"the lake has no file {key}") from None
            partial = path.with_suffix(".partial")
            with partial.open("wb") as file:
                for chunk in stream:
                    file.write(chunk)
            os.replace(partial, path)
        return path
