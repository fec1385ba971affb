"""What ``--from`` names: files, objects, an API or a table."""

from __future__ import annotations

import glob
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import parse_qsl, urlsplit

from tasks.model.errors import ConfigError

_TABLE = re.compile(r"(?P<block>[a-z0-9-]+)/(?P<table>[^\s/]+)")
_SECRET = re.compile(r"key|token|secret|passw|signature|auth|credential", re.IGNORECASE)
_PACKED = (".gz", ".zst", ".bz2", ".xz")
HOW = (
    "write a path, a folder, s3://bucket/key, https://host/path, or block/table for a database whose "
    "connection is in the SourceDatabase block of that name"
)


@dataclass(frozen=True, slots=True)
class FileOrigin:
    """Files of this machine.

    Attributes:
        pattern: Their absolute path, maybe a glob.
        files: Those that there are now.
    """

    pattern: str
    files: tuple[Path, ...]

    @property
    def name(self) -> str:
        """What the dataset may be called."""
        return _stem(self.pattern)


@dataclass(frozen=True, slots=True)
class ObjectOrigin:
    """Objects of a bucket."""

    bucket: str
    path: str
    block: str

    @property
    def name(self) -> str:
        """What the dataset may be called."""
        return _stem(self.path)


@dataclass(frozen=True, slots=True)
class UrlOrigin:
    """Answers of an API."""

    base_url: str
    path: str
    params: tuple[tuple[str, str], ...]
    block: str
    block_is_given: bool

    @property
    def name(self) -> str:
        """What the dataset may be called."""
        return _stem(self.path) if self.path.strip("/") else self.block


@dataclass(frozen=True, slots=True)
class TableOrigin:
    """A table of a database."""

    block: str
    table: str

    @property
    def name(self) -> str:
        """What the dataset may be called."""
        return self.table.rpartition(".")[2]


Origin = FileOrigin | ObjectOrigin | UrlOrigin | TableOrigin


def parse_origin(text: str, block: str | None, folder: Path) -> Origin:
    """Say what a user means.

    Args:
        text: A path, a URL, or ``block/table``.
        block: Name of the block with the connection, if the user gave one.
        folder: What a relative path starts from.

    Raises:
        ConfigError: It is none of them, is not there, or has a credential in it.
    """
    scheme, separator, rest = text.partition("://")
    if separator:
        return _with_scheme(scheme.lower(), rest, text, block)
    if found := _files(text, folder):
        return found
    match = _TABLE.fullmatch(text)
    if match and PurePosixPath(text).suffix.lower() not in (".csv", ".json", ".parquet", ".txt"):
        return TableOrigin(match["block"], match["table"])
    if block and "/" not in text:
        return TableOrigin(block, text)
    raise ConfigError(f"there is no file {text}", HOW)


def _with_scheme(scheme: str, rest: str, text: str, block: str | None) -> Origin:
    if scheme in ("http", "https"):
        return _url(text, block)
    if scheme == "s3":
        bucket, _, key = rest.partition("/")
        if not bucket or not key:
            raise ConfigError(f"{text}: name a key or a pattern, e.g. s3://bucket/orders/*.csv")
        return ObjectOrigin(bucket, key, block or bucket)
    if scheme == "database" and (match := _TABLE.fullmatch(rest)):
        return TableOrigin(match["block"], match["table"])
    raise ConfigError(
        f"{scheme}:// is not read directly, so that no password ends up in a file or a history",
        "keep the connection in a SourceDatabase block (UI: Blocks, or "
        "SourceDatabase.from_url(…).save('shop')), and write shop/schema.table",
    )


def _url(text: str, block: str | None) -> UrlOrigin:
    parts = urlsplit(text)
    if not parts.hostname:
        raise ConfigError("the URL has no host", HOW)
    if "@" in parts.netloc:
        raise ConfigError(
            f"https://…@{parts.hostname}: user and password do not belong into a URL",
            "keep them in a RestApiCredentials block, and name it with --block",
        )
    params = tuple(parse_qsl(parts.query, keep_blank_values=True))
    for name, _ in params:
        if _SECRET.search(name):
            raise ConfigError(
                f"parameter {name!r} looks like a credential, which would end up in the dataset file",
                "keep it in a RestApiCredentials block (auth: api_key_query), and name it with --block",
            )
    named = re.sub(r"[^a-z0-9]+", "-", parts.netloc.lower()).strip("-")
    base = f"{parts.scheme}://{parts.netloc}"
    return UrlOrigin(base, parts.path or "/", params, block or named, block is not None)


def _files(text: str, folder: Path) -> FileOrigin | None:
    path = folder / text
    if path.is_file():
        return FileOrigin(str(path), (path,))
    if path.is_dir():
        return _of_folder(path)
    if not glob.has_magic(text):
        return None
    found = [Path(name) for name in sorted(glob.glob(str(path), recursive=True))]
    files = tuple(file for file in found if file.is_file())
    if not files:
        raise ConfigError(f"no file matches {text}")
    return FileOrigin(str(path), files)


def _of_folder(folder: Path) -> FileOrigin:
    """Take the files of the most frequent kind in a folder."""
    kinds: dict[str, list[Path]] = {}
    for file in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
        if file.is_file() and not hidden:
            kinds.setdefault(_suffix(file), []).append(file)
    if not kinds:
        raise ConfigError(f"{folder}: there is no file in this folder")
    suffix, files = max(kinds.items(), key=lambda kind: len(kind[1]))
    is_deep = any(file.parent != folder for file in files)
    return FileOrigin(f"{folder}/{'**/' if is_deep else ''}*{suffix}", tuple(files))


def _suffix(path: Path | PurePosixPath) -> str:
    if path.suffix in _PACKED:
        return "".join(path.suffixes[-2:])
    return path.suffix


def _stem(pattern: str) -> str:
    """Return the last part of a path that is a name: ``inbox/orders/*.csv`` is ``orders``."""
    path = PurePosixPath(pattern.rstrip("/"))
    stem = path.name.removesuffix(_suffix(path)) if path.name else ""
    stem = re.sub(r"[*?\[\]{}]|[-_]?\d{4}-?\d{2}-?\d{2}", "", stem).strip("-_.")
    if stem:
        return stem
    above = [part for part in path.parts[:-1] if not re.search(r"[*?\[{=]|^\d+$|^/$", part)]
    return above[-1] if above else "dataset"
