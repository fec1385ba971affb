"""Which format a file has, by its content; its name only decides where the content does not."""

from __future__ import annotations

import io
import json
import zipfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

from openpyxl import load_workbook

from tasks.inference.dialect import find_dialect, find_encoding
from tasks.inference.fixed import find_fixed_width
from tasks.inference.json_shape import find_records
from tasks.ingestion.archives import ZIP_MAGIC
from tasks.ingestion.streams import decompressed
from tasks.model.errors import ConfigError, SourceRejected

LOOKED_AT = 4 << 20
"""Bytes of a file that tell its format."""
MOST_DOCUMENT = 64 << 20
"""A JSON document up to this size is looked through for its records; of a larger one the beginning."""
SHEET_ROWS = 30


@dataclass(slots=True)
class FoundFormat:
    """What a dataset file says under ``format:``, and what of it was not certain."""

    keys: dict[str, Any]
    doubts: dict[str, str] = field(default_factory=dict)


def find_format(path: Path, name: str) -> FoundFormat:
    """Say which format a file has.

    Args:
        path: The file.
        name: Its name, for messages.

    Raises:
        ConfigError: It is empty, or of no format that can be read.
    """
    with path.open("rb") as file:
        begin = file.read(8)
        if begin[:4] == ZIP_MAGIC:
            return _zip(path, name)
        file.seek(0)
        return find_text_format(beginning(cast(BinaryIO, file), name), name)


def beginning(raw: BinaryIO, name: str) -> bytes:
    """Return the first bytes of a file, decompressed; as many as there are of a cut one."""
    content = bytearray()
    try:
        stream = decompressed(raw, name)
        while len(content) < LOOKED_AT and (piece := stream.read(1 << 16)):
            content += piece
    except SourceRejected:
        if not content:
            raise
    return bytes(content)


def find_text_format(content: bytes, name: str) -> FoundFormat:
    """Say which format a file has that begins so.

    Args:
        content: Its first bytes, decompressed.
        name: Its name, for messages.
    """
    if content[:4] == b"PAR1":
        return FoundFormat({"kind": "parquet"})
    if content[:4] == b"Obj\x01":
        return FoundFormat({"kind": "avro"})
    if content[:4] == b"\xd0\xcf\x11\xe0":
        raise ConfigError(f"{name}: is an old .xls workbook, or has a password", "save it as .xlsx")
    encoding, doubt = find_encoding(content)
    text = content.decode(encoding, errors="replace").lstrip("\ufeff")
    if not text.strip():
        raise ConfigError(f"{name}: is empty, so nothing tells its format")
    if "\0" in text:
        raise ConfigError(
            f"{name}: of no format that is known here",
            "csv, jsonl, json, parquet, avro, excel (.xlsx) and fixed are; see docs/sources/files.md",
        )
    if len(content) >= LOOKED_AT:  # the last line is cut
        text = text[: text.rfind("\n") + 1] or text
    found = _json(text, name, whole=len(content) < LOOKED_AT)
    if found is None:
        found = _delimited(text)
    if encoding != "utf-8":
        found.keys["encoding"] = encoding
        if doubt:
            found.doubts["encoding"] = doubt
    return found


def _delimited(text: str) -> FoundFormat:
    dialect = find_dialect(text)
    if "kind" in dialect.doubts and (fixed := find_fixed_width(text)):
        return FoundFormat(*fixed)
    return FoundFormat({"kind": "csv", **dialect.keys}, dialect.doubts)


def _json(text: str, name: str, *, whole: bool) -> FoundFormat | None:
    first, _, rest = text.lstrip().partition("\n")
    if first[:1] not in "{[" or not first:
        return None
    if first.startswith("{") and _is_json(first):
        is_lines = bool(rest.strip())
        if is_lines or find_records(json.loads(first))[0] is None:
            return FoundFormat({"kind": "jsonl"})
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        if first.startswith("[") and _begins_with_objects(text):
            return FoundFormat({"kind": "json"})
        if whole or not first.startswith("{"):
            return None
        raise ConfigError(
            f"{name}: a JSON document of more than {LOOKED_AT >> 20} MB with its records inside",
            "say where they are: --records data.items",
        ) from None
    best, others = find_records(body)
    if best is None:
        raise ConfigError(f"{name}: a JSON document without a list of objects")
    made = FoundFormat({"kind": "json"})
    if best.path is not None:
        made.keys["records"] = best.path
        if others:
            listed = ", ".join(other.path or "the top" for other in others)
            made.doubts["records"] = f"the longest list; there are also {listed}"
    return made


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _begins_with_objects(text: str) -> bool:
    try:
        item, _ = json.JSONDecoder().raw_decode(text.lstrip()[1:].lstrip())
    except (ValueError, RecursionError):
        return False
    return isinstance(item, dict)


def _zip(path: Path, name: str) -> FoundFormat:
    try:
        with zipfile.ZipFile(path) as archive:
            members = [info for info in archive.infolist() if not info.is_dir()]
            if any(info.filename == "[Content_Types].xml" for info in members):
                return _excel(path, name)
            if not members:
                raise ConfigError(f"{name}: the archive is empty")
            suffixes = Counter(PurePosixPath(info.filename).suffix for info in members)
            suffix, count = suffixes.most_common(1)[0]
            chosen = next(i for i in members if PurePosixPath(i.filename).suffix == suffix)
            with archive.open(chosen) as member:
                content = beginning(cast(BinaryIO, io.BufferedReader(member)), chosen.filename)
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError):
        raise ConfigError(f"{name}: the archive is damaged or has a password") from None
    found = find_text_format(content, f"{name}!{chosen.filename}")
    if len(members) > 1:
        found.keys["member"] = f"*{suffix}"
        found.doubts["member"] = f"{count} of the {len(members)} members of the archive"
    return found


def _excel(path: Path, name: str) -> FoundFormat:
    made = FoundFormat({"kind": "excel"})
    try:
        book = load_workbook(path, read_only=True, data_only=True)
    except Exception:
        raise ConfigError(f"{name}: the workbook is damaged or has a password") from None
    try:
        for number, sheet in enumerate(book.worksheets):
            rows = [
                [cell for cell in row if cell not in (None, "")]
                for row in sheet.iter_rows(max_row=SHEET_ROWS, values_only=True)
            ]
            if not any(rows):
                continue
            if number:
                made.keys["sheet"] = sheet.title
            if len(book.worksheets) > 1:
                others = ", ".join(s.title for s in book.worksheets if s.title != sheet.title)
                made.doubts["sheet"] = f"the first sheet with rows; there are also {others}"
            width = max(map(len, rows))
            header = next(n for n, row in enumerate(rows) if len(row) == width)
            if header:
                made.keys["skip_rows"] = header
                made.doubts["skip_rows"] = "rows before the widest one are taken for a title"
            return made
    finally:
        book.close()
    raise ConfigError(f"{name}: no sheet of the workbook has rows")
