"""Sheets of Excel workbooks, read row by row; every cell is the text of its value."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import pyarrow as pa
from openpyxl import load_workbook
from openpyxl.utils import get_column_letter
from openpyxl.utils.exceptions import InvalidFileException

from tasks.ingestion.compression import AGAIN
from tasks.ingestion.connector import PlanLimits, RawBatch, Reject
from tasks.ingestion.excel_workbook import MergedCells, check_workbook, merged_ranges
from tasks.ingestion.provenance import RAW_SHOWN, check_names, with_origin
from tasks.model.errors import ConfigError, ContractBroken, SourceRejected
from tasks.model.formats import ExcelFormat

BATCH_ROWS = 5_000
MAX_ROWS = 1_048_576
DIGITS = 15
"""Excel computes with floats and shows this many digits: 0.1 + 0.2 is 0.3."""


def read_excel(
    path: Path, uri: str, declared: ExcelFormat, limits: PlanLimits
) -> Iterator[RawBatch]:
    """Stream one sheet of a workbook.

    Args:
        path: The workbook.
        uri: Its name, for provenance and messages.
        declared: Its format.
        limits: Bounds of batches and values.

    Raises:
        ConfigError: It has no sheet of the declared name or number.
        ContractBroken: The header cannot be one.
        SourceRejected: It is no workbook, damaged, or a bomb.
    """
    check_workbook(path, uri, limits)
    try:
        workbook = load_workbook(path, read_only=True, data_only=True, keep_links=False)
    except (
        InvalidFileException,
        BadZipFile,
        KeyError,
        ValueError,
        TypeError,
        SyntaxError,
        OSError,
    ):
        raise SourceRejected(f"{uri}: cannot be read as an Excel workbook", AGAIN) from None
    try:
        sheet = _sheet(workbook, declared, uri)
        merged = MergedCells(merged_ranges(path, sheet._worksheet_path, uri))
        yield from _Sheet(sheet, uri, declared, limits, merged).batches()
    finally:
        workbook.close()


def _sheet(workbook: Any, declared: ExcelFormat, uri: str) -> Any:
    sheets = workbook.worksheets
    names = [sheet.title for sheet in sheets]
    wanted = 1 if declared.sheet is None else declared.sheet
    if isinstance(wanted, int) and 1 <= wanted <= len(sheets):
        return sheets[wanted - 1]
    if wanted in names:
        return sheets[names.index(wanted)]
    raise ConfigError(
        f"{uri}: has no sheet {wanted!r}; it has {', '.join(names) or 'none with cells'}",
        "correct 'sheet' of the format",
    )


class _Sheet:
    """Reads the rows of a sheet."""

    def __init__(
        self, sheet: Any, uri: str, declared: ExcelFormat, limits: PlanLimits, merged: MergedCells
    ) -> None:
        self._sheet = sheet
        self._uri = uri
        self._declared = declared
        self._most = limits.max_value_bytes
        self._batch_bytes = limits.batch_bytes
        self._merged = merged
        self._above: dict[tuple[int, int], str | None] = {}
        self._names: list[str] = list(declared.header or ())
        self._nulls = frozenset(declared.null_values)

    def batches(self) -> Iterator[RawBatch]:
        """Yield the rows below the header; those without any value are no rows."""
        rows: list[tuple[int, list[str | None]]] = []
        rejects: list[Reject] = []
        size = 0
        for number, cells in self._rows():
            if number <= self._declared.skip_rows:
                continue
            values, error = self._values(number, cells)
            if all(value is None for value in values) and error is None:
                continue
            if not self._names:
                self._names = self._header(values, number)
                continue
            refused = error or self._refusal(number, values)
            if refused:
                shown = json.dumps(
                    [value and value[:RAW_SHOWN] for value in values], ensure_ascii=False
                )
                rejects.append(Reject(self._uri, number, *refused, shown))
            else:
                width = len(self._names)
                rows.append((number, (values + [None] * width)[:width]))
                size += sum(len(value) for value in values if value)
            if len(rows) + len(rejects) >= BATCH_ROWS or size >= self._batch_bytes:
                yield self._batch(rows, rejects)
                rows, rejects, size = [], [], 0
        if rows or rejects:
            yield self._batch(rows, rejects)

    def _rows(self) -> Iterator[tuple[int, Sequence[Any]]]:
        self._sheet.reset_dimensions()  # they may be wrong, and cut rows off
        try:
            for number, cells in enumerate(self._sheet.iter_rows(), 1):
                if number > MAX_ROWS:
                    raise SourceRejected(f"{self._uri}: has more than {MAX_ROWS} rows")
                yield number, cells
        except (BadZipFile, KeyError, ValueError, TypeError, SyntaxError, EOFError, OSError):
            raise SourceRejected(
                f"{self._uri}: damaged sheet {self._sheet.title!r}", AGAIN
            ) from None

    def _values(
        self, number: int, cells: Sequence[Any]
    ) -> tuple[list[str | None], tuple[str, str] | None]:
        """Return the texts of a row, and why it is refused, as far as its cells tell."""
        values: list[str | None] = []
        error: tuple[str, str] | None = None
        for cell in cells:
            value = cell.value
            if value is None:
                values.append(None)
                continue
            if cell.data_type == "e":
                error = error or ("cell_error", f"{cell.coordinate}: {value}")
            text = cell_text(value, cell)
            values.append(None if text in self._nulls else text)
        while values and values[-1] is None:
            values.pop()
        for merged in self._merged.at(number):
            if self._declared.merged == "quarantine":
                error = error or ("merged_cells", f"the cells {merged.name} are merged")
                continue
            corner = merged.first_row, merged.first_column
            if number == merged.first_row and merged.first_column <= len(values):
                self._above[corner] = values[merged.first_column - 1]
            values += [None] * (merged.last_column - len(values))
            for column in range(merged.first_column, merged.last_column + 1):
                values[column - 1] = self._above.get(corner)
            if number == merged.last_row:
                self._above.pop(corner, None)
        return values, error

    def _header(self, values: Sequence[str | None], row: int) -> list[str]:
        names = [value or "" for value in values]
        if "" in names:
            cell = f"{get_column_letter(names.index('') + 1)}{row}"
            raise ContractBroken(f"{self._uri}: the header's cell {cell} is empty")
        folded = Counter(name.casefold() for name in names)
        if twice := [name for name in names if folded[name.casefold()] > 1]:
            raise ContractBroken(
                f"{self._uri}: column names that are not different: {', '.join(twice)}"
            )
        check_names(names, self._uri)
        return names

    def _refusal(self, number: int, values: Sequence[str | None]) -> tuple[str, str] | None:
        if len(values) > len(self._names):
            cell = f"{get_column_letter(len(values))}{number}"
            message = f"{cell}: has a value, but the header ends with {len(self._names)} columns"
            return "ragged_row", message
        for column, value in enumerate(values, 1):
            if (
                value is not None
                and len(value) * 4 > self._most
                and len(value.encode()) > self._most
            ):
                cell = f"{get_column_letter(column)}{number}"
                return "value_too_long", f"{cell}: is longer than {self._most} bytes"
        return None

    def _batch(
        self, rows: Sequence[tuple[int, list[str | None]]], rejects: Sequence[Reject]
    ) -> RawBatch:
        columns = [
            pa.array([values[position] for _, values in rows], pa.string())
            for position in range(len(self._names))
        ]
        made = with_origin(self._names, columns, self._uri, [number for number, _ in rows])
        return RawBatch(made, tuple(rejects))


def cell_text(value: Any, cell: Any) -> str:
    """Return the text of a cell's value: digits of numbers, ISO of dates, text as it is."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return format(Decimal(f"{value:.{DIGITS}g}"), "f")
    if isinstance(value, datetime):
        with_time = value.time() != time() or "h" in cell.number_format.lower()
        return value.isoformat() if with_time else value.date().isoformat()
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        seconds = Decimal(value // timedelta(microseconds=1)).scaleb(-6)
        hours, rest = divmod(abs(seconds), 3600)
        minutes, rest = divmod(rest, 60)
        sign = "-" if seconds < 0 else ""
        fraction = f"{rest.normalize():f}".partition(".")[2]
        clock = f"{sign}{int(hours):02}:{int(minutes):02}:{int(rest):02}"
        return f"{clock}.{fraction}" if fraction else clock
    return str(value)
