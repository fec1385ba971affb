"""Sheets arrive as what a person sees in them; cells that hold an error are refused with their address."""

from __future__ import annotations

import zipfile
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import openpyxl
import pytest

from tasks.ingestion.connector import PlanLimits, Reject
from tasks.ingestion.excel_format import read_excel
from tasks.model.errors import ConfigError, ContractBroken, PipelineError, SourceRejected
from tasks.model.formats import ExcelFormat


def workbook(path: Path, rows: list[list[Any]], merge: str | None = None, **formats: str) -> Path:
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    for row in rows:
        sheet.append(row)
    for cell, number_format in formats.items():
        sheet[cell].number_format = number_format
    if merge:
        sheet.merge_cells(merge)
    book.create_sheet("second").append(["x"])
    book.save(path / "book.xlsx")
    return path / "book.xlsx"


def read(
    path: Path, limits: PlanLimits | None = None, **declared: Any
) -> tuple[list[list[Any]], list[Reject]]:
    spec = ExcelFormat.model_validate({"kind": "excel", **declared})
    rows: list[list[Any]] = []
    rejects: list[Reject] = []
    for raw in read_excel(path, "u", spec, limits or PlanLimits()):
        assert raw.batch is not None
        rows += [list(row.values()) for row in raw.batch.drop_columns(["_source_uri"]).to_pylist()]
        rejects += raw.rejects
    return rows, rejects


@pytest.mark.parametrize(
    ("value", "number_format", "text"),
    [
        (0.1 + 0.2, "General", "0.3"),
        (1e-7, "General", "0.0000001"),
        (1234567890.12, "#,##0.00", "1234567890.12"),
        (123456789012345, "0", "123456789012345"),
        (1e21, "General", "1000000000000000000000"),
        (True, "General", "true"),
        ("00123", "General", "00123"),
        ("1e5", "General", "1e5"),
        ("", "General", None),  # Excel has no empty text in a cell
        (date(2013, 1, 31), "yyyy-mm-dd", "2013-01-31"),
        (datetime(2013, 1, 31), "yyyy-mm-dd hh:mm", "2013-01-31T00:00:00"),
        (datetime(2013, 1, 31, 5, 30, 15), "yyyy-mm-dd", "2013-01-31T05:30:15"),
        (time(5, 30), "hh:mm", "05:30:00"),
        (timedelta(hours=36, minutes=5), "[h]:mm", "36:05:00"),
        ("=1+1", "General", None),
    ],
)
def test_cell_is_the_text_of_its_value(
    tmp_path: Path, value: Any, number_format: str, text: str | None
) -> None:
    path = workbook(tmp_path, [["k", "v"], ["a", value]], B2=number_format)
    if value == "=1+1":
        with pytest.raises(SourceRejected, match="formulas without values"):
            read(path)
        return
    assert read(path) == ([["a", text, 2]], [])


def test_cell_with_an_error_is_refused_with_its_address(tmp_path: Path) -> None:
    path = workbook(tmp_path, [["k", "v"], ["a", "#DIV/0!"], ["b", 1], [None, None], ["c", None]])
    rows, (reject,) = read(path)
    assert rows == [["b", "1", 3], ["c", None, 5]]
    assert (reject.source_row, reject.rule, reject.message) == (2, "cell_error", "B2: #DIV/0!")
    assert reject.raw == '["a", "#DIV/0!"]'


ROWS = [["title"], ["k", "v"], ["a", "1"], [None, "2"], ["c", "3"]]


def test_merged_cells_are_refused_or_filled_as_declared(tmp_path: Path) -> None:
    path = workbook(tmp_path, ROWS, merge="A3:A4")
    rows, rejects = read(path, skip_rows=1)
    assert rows == [["c", "3", 5]]
    assert [(r.source_row, r.rule, r.message) for r in rejects] == [
        (3, "merged_cells", "the cells A3:A4 are merged"),
        (4, "merged_cells", "the cells A3:A4 are merged"),
    ]
    assert read(path, skip_rows=1, merged="fill") == (
        [["a", "1", 3], ["a", "2", 4], ["c", "3", 5]],
        [],
    )


def test_merged_title_above_the_header_is_no_matter(tmp_path: Path) -> None:
    rows, rejects = read(workbook(tmp_path, ROWS, merge="A1:B1"), skip_rows=1)
    assert (len(rows), rejects) == (3, [])


def test_value_beyond_the_header_is_refused(tmp_path: Path) -> None:
    _, (reject,) = read(workbook(tmp_path, [["k"], ["a", None, "x"]]))
    assert (reject.rule, reject.message[:3]) == ("ragged_row", "C2:")


def test_sheet_is_found_by_name_or_number(tmp_path: Path) -> None:
    path = workbook(tmp_path, [["k"], ["a"]])
    assert read(path, sheet="second", header=["n"])[0] == [["x", 1]]
    assert read(path, sheet=2, header=["n"])[0] == [["x", 1]]
    with pytest.raises(ConfigError, match="no sheet 'third'; it has Sheet, second"):
        read(path, sheet="third")


@pytest.mark.parametrize(
    ("header", "words"),
    [(["a", "A"], "not different: a, A"), (["a", None, "b"], "cell B1 is empty")],
)
def test_b10_header_that_is_none_is_refused(tmp_path: Path, header: list[Any], words: str) -> None:
    with pytest.raises(ContractBroken, match=words):
        read(workbook(tmp_path, [header, ["1", "2", "3"]]))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\xd0\xcf\x11\xe0" + bytes(600), "old .xls workbook"),
        (b"id,text\n", "damaged zip"),
        (b"", "damaged zip"),
    ],
)
def test_what_is_no_workbook_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(PipelineError, match=words):
        read(tmp_path / "x")


def test_truncated_workbook_is_refused(tmp_path: Path) -> None:
    path = workbook(tmp_path, ROWS)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(SourceRejected, match="damaged zip"):
        read(path)


def test_damaged_sheet_is_refused(tmp_path: Path) -> None:
    path = workbook(tmp_path, ROWS)
    with zipfile.ZipFile(path) as archive:
        parts = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, part in parts.items():
            archive.writestr(name, part[:-100] if name == "xl/worksheets/sheet1.xml" else part)
    with pytest.raises(SourceRejected, match=r"damaged sheet|cannot be read"):
        read(path)


def test_47_workbook_that_grows_too_much_is_refused(tmp_path: Path) -> None:
    path = workbook(tmp_path, ROWS)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/media/zeros", bytes(20 << 20))
    with pytest.raises(SourceRejected, match="bomb"):
        read(path, PlanLimits(ratio_from_bytes=1 << 20, decoded_ratio=100))


def test_row_number_beyond_a_sheet_ends(tmp_path: Path) -> None:
    path = workbook(tmp_path, [["k"], ["a"]])
    with zipfile.ZipFile(path) as archive:
        parts = {info.filename: archive.read(info) for info in archive.infolist()}
    name = "xl/worksheets/sheet1.xml"
    parts[name] = (
        parts[name].replace(b'r="2"', b'r="99999999999"').replace(b'"A2"', b'"A99999999999"')
    )
    with zipfile.ZipFile(path, "w") as archive:
        for part, content in parts.items():
            archive.writestr(part, content)
    with pytest.raises(SourceRejected, match=r"more than 1048576 rows|damaged sheet"):
        read(path)
