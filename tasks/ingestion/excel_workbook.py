"""An Excel workbook as a zip archive: what must be known of a sheet before its rows are read."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile, ZipFile

from openpyxl.utils.cell import range_boundaries

from tasks.ingestion.archives import check_growth, open_archive
from tasks.ingestion.compression import AGAIN
from tasks.ingestion.connector import PlanLimits
from tasks.model.errors import SourceRejected

OLE_MAGIC = b"\xd0\xcf\x11\xe0"
SHARED_STRINGS = "xl/sharedStrings.xml"
MAX_SHARED_STRINGS = 256 << 20
"""openpyxl holds the texts of a workbook in memory."""
MAX_MERGED = 100_000
_READ_BYTES = 1 << 20
_OVERLAP = 1 << 15
_PREFIX = rb"<(?:\w+:)?"
_MERGED = re.compile(_PREFIX + rb'mergeCell\s[^>]*?ref="([A-Z0-9:$]+)"')
_FORMULA = _PREFIX + rb"f(?:\s[^>]*)?(?:/>|>[^<]*</(?:\w+:)?f>)\s*"
_NO_VALUE = rb"(?:<(?:\w+:)?v\s*/>|<(?:\w+:)?v></(?:\w+:)?v>)?\s*</(?:\w+:)?c>"
_NOT_COMPUTED = re.compile(_PREFIX + rb"c(\s[^>]*)?>\s*" + _FORMULA + _NO_VALUE)
_CELLS_END = re.compile(rb"</(?:\w+:)?sheetData>|<(?:\w+:)?sheetData\s*/>")


def check_workbook(path: Path, uri: str, limits: PlanLimits) -> None:
    """Refuse what is no workbook, or one that grows too much.

    Raises:
        SourceRejected: It is so.
    """
    with path.open("rb") as file:
        if file.read(4) == OLE_MAGIC:
            raise SourceRejected(
                f"{uri}: is an old .xls workbook, or one with a password",
                "save it as .xlsx without a password",
            )
    with open_archive(path, uri) as archive:
        infos = archive.infolist()
        check_growth(infos, uri, limits)
        for info in infos:
            if info.filename == SHARED_STRINGS and info.file_size > MAX_SHARED_STRINGS:
                raise SourceRejected(
                    f"{uri}: its texts take {info.file_size} bytes, more than "
                    f"{MAX_SHARED_STRINGS}, which do not fit into memory",
                    "deliver it as CSV, or in several workbooks",
                )
        if "[Content_Types].xml" not in archive.namelist():
            raise SourceRejected(f"{uri}: is a zip archive, but no Excel workbook")


@dataclass(frozen=True, slots=True)
class Merged:
    """A range of merged cells; columns and rows from 1, both ends included."""

    name: str
    first_column: int
    first_row: int
    last_column: int
    last_row: int


def merged_ranges(path: Path, sheet_part: str, uri: str) -> list[Merged]:
    """Return the merged cells of a sheet, which stand behind its rows.

    Raises:
        SourceRejected: The sheet is damaged, or has formulas that nobody has computed.
    """
    try:
        with ZipFile(path) as archive, archive.open(sheet_part.lstrip("/")) as sheet:
            names = list(_scan(iter(lambda: sheet.read(_READ_BYTES), b""), uri))
    except (BadZipFile, KeyError, EOFError, OSError):
        raise SourceRejected(f"{uri}: damaged sheet {sheet_part}", AGAIN) from None
    if len(names) > MAX_MERGED:
        raise SourceRejected(f"{uri}: more than {MAX_MERGED} merged ranges in {sheet_part}")
    made = []
    for name in names:
        left, top, right, bottom = range_boundaries(name.decode())
        made.append(Merged(name.decode(), left or 1, top or 1, right or 1, bottom or 1))
    return sorted(made, key=lambda merged: merged.first_row)


def _scan(pieces: Iterable[bytes], uri: str) -> Iterator[bytes]:
    kept = b""
    behind = False
    for piece in pieces:
        text = kept + piece
        if not behind:
            # A formula whose value is the empty text has none either, and says so by its type.
            if any(b't="str"' not in (found[1] or b"") for found in _NOT_COMPUTED.finditer(text)):
                raise SourceRejected(
                    f"{uri}: has formulas without values",
                    "open it in a spreadsheet program, which computes them, and save it",
                )
            end = _CELLS_END.search(text)
            if end is None:
                kept = text[-_OVERLAP:]
                continue
            behind, text = True, text[end.end() :]
        last = text.rfind(b">") + 1
        for found in _MERGED.finditer(text, 0, last):
            yield found[1]
        kept = text[last:]


class MergedCells:
    """The merged ranges that a sheet's rows are in, as the rows go by from top to bottom."""

    def __init__(self, ranges: Iterable[Merged]) -> None:
        self._coming = deque(ranges)
        self._open: list[Merged] = []

    def at(self, row: int) -> list[Merged]:
        """Return the ranges that include a row; rows must be asked for in their order."""
        if self._open:
            self._open = [merged for merged in self._open if merged.last_row >= row]
        while self._coming and self._coming[0].first_row <= row:
            merged = self._coming.popleft()
            if merged.last_row >= row:
                self._open.append(merged)
        return self._open
