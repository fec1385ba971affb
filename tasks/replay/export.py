"""Writes refused rows as a CSV file to correct by hand, and reads the corrected file."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO

from tasks.model.dataset import DatasetSpec
from tasks.model.errors import ConfigError
from tasks.model.replay import RowId
from tasks.protection import Protection
from tasks.replay.cells import from_cell, to_cell
from tasks.replay.select import SelectedRow

ROW = "dpp:row"
ABOUT = (ROW, "dpp:rule", "dpp:column", "dpp:why", "dpp:source", "dpp:text")
"""Columns that say what is wrong; on the way back only the first of them is read."""
MAX_CELL = 1 << 30


@dataclass(frozen=True, slots=True)
class Correction:
    """One row of a corrected file."""

    row: RowId
    line: int
    values: Mapping[str, str | None]


def source_columns(spec: DatasetSpec) -> list[str]:
    """Return the declared columns by the names of the source."""
    return list(spec.source_columns)


def write_export(
    file: IO[str],
    spec: DatasetSpec,
    rows: Callable[[], Iterator[SelectedRow]],
    protection: Protection,
    *,
    reveal: bool,
) -> int:
    """Write refused rows as CSV; return how many.

    Args:
        file: Where to; opened with ``newline=""``.
        spec: The dataset.
        rows: Gives the rows; it is called twice, so that all columns are known before the first row.
        protection: Protects the columns marked ``pii``.
        reveal: Write what they really say?
    """

    def values_of(row: SelectedRow) -> dict[str, str | None] | None:
        raw = protection.reveal(row.kept.raw, row.kept.sealed) if reveal else row.kept.raw
        return row.kept.values(raw)

    columns = dict.fromkeys(source_columns(spec))
    for row in rows():
        columns.update(dict.fromkeys(values_of(row) or ()))
    writer = csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\r\n")
    writer.writerow([*ABOUT, *map(to_cell, columns)])
    count = 0
    for row in rows():
        count += 1
        kept, values = row.kept, values_of(row)
        text = None
        if values is None:
            text = protection.reveal(kept.raw, kept.sealed) if reveal else kept.raw
        about = (
            row.row_id,
            kept.rule,
            kept.column or "",
            kept.failures,
            f"{kept.source_uri} row {kept.source_row}",
            "" if text is None else _printable(text),
        )
        cells = [(values or {}).get(name) for name in columns]
        writer.writerow([*map(to_cell, about), *map(to_cell, cells)])
    return count


def _printable(text: str) -> str:
    """Return a text that could not be read as far as a file can hold it."""
    return text.encode("utf-8", "backslashreplace").decode()


def read_export(content: bytes, name: str) -> list[Correction]:
    """Read a corrected file.

    Raises:
        ConfigError: It is no such file; the message names the line.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"{name} line {line}: not UTF-8", "save it as 'CSV UTF-8 (comma delimited)'"
        ) from None
    csv.field_size_limit(MAX_CELL)
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=_delimiter(text, name), strict=True
    )
    try:
        return list(_corrections(reader, name))
    except csv.Error as error:
        raise ConfigError(
            f"{name} line {reader.line_num}: {error}",
            "open it as text and look at the quotes there",
        ) from None


def _delimiter(text: str, name: str) -> str:
    """Return what stands after the first column's name: spreadsheets write ; in some countries."""
    first = text.lstrip('"')[len(ROW) :].lstrip('"')[:1]
    if not text.lstrip('"').startswith(ROW) or first not in (",", ";", "\t"):
        raise ConfigError(
            f"{name} line 1: the first column is not {ROW}",
            "keep the header of 'dpp quarantine export' as it is, also the first column",
        )
    return first


def _corrections(reader: Iterator[list[str]], name: str) -> Iterator[Correction]:
    header = next(reader)
    columns = [from_cell(cell) or "" for cell in header]
    _check_header(columns, name)
    lines: dict[str, int] = {}
    line = 2
    for cells in reader:
        start, line = line, reader.line_num + 1  # type: ignore[attr-defined]
        if not any(cells):
            continue
        if len(cells) != len(header):
            raise ConfigError(
                f"{name} line {start}: {len(cells)} cells, the header has {len(header)}",
                "each line must have as many cells as the header; quote a value with a comma in it",
            )
        row = _row_id(cells[0], f"{name} line {start}")
        if str(row) in lines:
            raise ConfigError(
                f"{name} line {start}: row {row} is in line {lines[str(row)]} already",
                "delete one of the two lines",
            )
        lines[str(row)] = start
        named = zip(columns, cells, strict=True)
        values = {column: from_cell(cell) for column, cell in named if column not in ABOUT}
        yield Correction(row, start, values)


def _check_header(columns: Sequence[str], name: str) -> None:
    twice = {column for column in columns if columns.count(column) > 1}
    if twice:
        raise ConfigError(
            f"{name} line 1: column {min(twice)!r} is there twice", "delete one of the two"
        )


def _row_id(cell: str, where: str) -> RowId:
    try:
        return RowId.parse(from_cell(cell) or "")
    except ValueError:
        raise ConfigError(
            f"{where}: {cell!r} is no row of quarantine in column {ROW}",
            "keep that column as it was exported, e.g. 12-345; rows cannot be added",
        ) from None
