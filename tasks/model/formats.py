"""How the rows of one object are written: the declarations under ``format:`` of a dataset file."""

from __future__ import annotations

import codecs
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from tasks.model.columns import Strict
from tasks.model.json_path import parse_records_path


class Packed(Strict):
    """A format of one object that may be delivered inside a zip archive."""

    member: str | None = Field(
        None,
        description="Glob pattern of the members of a zip archive to read; '*' is all of them. "
        "Without it an archive must have one member. Names are compared, never used as paths.",
    )


def _single_byte(name: str, mark: str | None) -> None:
    if mark is not None and (len(mark) != 1 or not mark.isascii() or mark in "\r\n\0"):
        raise ValueError(f"{name}: {mark!r} is not one ASCII character")


def _encoding(name: str) -> str:
    try:
        found = codecs.lookup(name)
    except LookupError:
        raise ValueError(f"{name!r} is not an encoding, e.g. utf-8, utf-16 or cp1252") from None
    if not found._is_text_encoding:
        raise ValueError(f"{name!r} is not an encoding of text")
    return name


def _records_at(path: str) -> str:
    parse_records_path(path)
    return path


Encoding = Annotated[str, AfterValidator(_encoding)]
RecordsAt = Annotated[str, AfterValidator(_records_at)]


class CsvFormat(Packed):
    """Delimited text (RFC 4180), with a header line or without."""

    kind: Literal["csv"]
    delimiter: str = Field(",", description='One ASCII character; a tab is "\\t".')
    quote: str | None = Field('"', description="Encloses fields; null if quotes mean nothing.")
    escape: str | None = Field(
        None,
        description="Makes the character after it stand for itself, such as \\; without one only "
        "a doubled quote is a quote.",
    )
    comment: str | None = Field(None, description="Lines that begin with it are no records.")
    skip_lines: int = Field(0, ge=0, description="Lines before the header to leave out.")
    encoding: Encoding = Field("utf-8", description="Encoding of the text; a BOM is skipped.")
    null_values: tuple[str, ...] = Field(
        (), description="Unquoted texts that mean NULL. '' is a value unless it is listed here."
    )
    header: tuple[str, ...] | None = Field(
        None, min_length=1, description="Column names, for files without a header line."
    )
    newlines_in_values: bool = Field(
        True,
        description="Whether quoted values may hold line ends. If not, large objects are split "
        "without being read by the plan.",
    )

    @model_validator(mode="after")
    def _marks_are_different(self) -> CsvFormat:
        marks = {
            "delimiter": self.delimiter,
            "quote": self.quote,
            "escape": self.escape,
            "comment": self.comment,
        }
        for name, mark in marks.items():
            _single_byte(name, mark)
        used = [mark for mark in marks.values() if mark is not None]
        if len(set(used)) < len(used):
            raise ValueError("delimiter, quote, escape and comment must be different characters")
        return self


class Flatten(Strict):
    """Makes columns of the fields of nested objects; lists and what is deeper stay JSON texts."""

    separator: str = Field(
        "_", min_length=1, description="Between the keys in a column's name, e.g. address_city."
    )
    depth: int = Field(1, ge=1, le=20, description="Levels of objects that are unfolded.")
    columns: tuple[str, ...] | None = Field(
        None, description="Unfold only these fields of the record; all objects without it."
    )


class _JsonFormat(Packed):
    encoding: Encoding = Field("utf-8", description="Encoding of the text; a BOM is skipped.")
    flatten: Flatten | None = Field(
        None, description="Make columns of nested objects; without it they are JSON texts."
    )


class JsonLinesFormat(_JsonFormat):
    """One JSON object per line."""

    kind: Literal["jsonl"]


class JsonArrayFormat(_JsonFormat):
    """One JSON document with a list of objects, at its top or at a path."""

    kind: Literal["json"]
    records: RecordsAt | None = Field(
        None,
        description="Where the records are: keys with dots ('data.items'), or JSONPath with wildcards "
        "('$.data[*].items[*]'). Without it the document is the list.",
    )


class ParquetFormat(Strict):
    """Apache Parquet; types come from the file."""

    kind: Literal["parquet"]


class AvroFormat(Packed):
    """Apache Avro container files; types come from the file."""

    kind: Literal["avro"]


class ExcelFormat(Strict):
    """One sheet of an Excel workbook (.xlsx); every cell is read as the text of its value."""

    kind: Literal["excel"]
    sheet: str | int | None = Field(
        None, description="Name of the sheet, or its number from 1; the first one without it."
    )
    skip_rows: int = Field(0, ge=0, description="Rows of the sheet before the header to leave out.")
    header: tuple[str, ...] | None = Field(
        None, min_length=1, description="Column names, for sheets without a header row."
    )
    merged: Literal["quarantine", "fill"] = Field(
        "quarantine",
        description="Rows with merged cells: refuse them, or give each cell the merged value.",
    )
    null_values: tuple[str, ...] = Field(
        (), description="Texts that mean NULL, beside the empty cell."
    )


class FixedColumn(Strict):
    """A field of a fixed width, in characters."""

    name: str = Field(min_length=1)
    width: int = Field(ge=1)
    start: int | None = Field(
        None, ge=1, description="Its first character, from 1; after the field before, if not given."
    )


class FixedWidthFormat(Packed):
    """Lines whose fields have fixed widths."""

    kind: Literal["fixed"]
    columns: tuple[FixedColumn, ...] = Field(min_length=1)
    length: int | None = Field(
        None, ge=1, description="Characters of a line; the end of the last field, if not given."
    )
    trim: Literal["both", "right", "left", "none"] = Field(
        "both", description="On which side of a field spaces are padding."
    )
    skip_lines: int = Field(0, ge=0, description="Lines to leave out at the start.")
    encoding: Encoding = Field("utf-8", description="Encoding of the text; a BOM is skipped.")
    null_values: tuple[str, ...] = Field(
        (), description="Texts, after trimming, that mean NULL; '' for a field of spaces only."
    )

    @model_validator(mode="after")
    def _fields_fit_the_line(self) -> FixedWidthFormat:
        names = [column.name for column in self.columns]
        if len(set(names)) < len(names):
            raise ValueError("two columns have the same name")
        if self.length is not None and self.length < max(end for _, end in self.spans):
            raise ValueError(f"the fields end after the line, which has {self.length} characters")
        return self

    @property
    def spans(self) -> tuple[tuple[int, int], ...]:
        """Start and end of each field, counted from 0, the end not included."""
        spans: list[tuple[int, int]] = []
        for column in self.columns:
            start = column.start - 1 if column.start else (spans[-1][1] if spans else 0)
            spans.append((start, start + column.width))
        return tuple(spans)

    @property
    def line_length(self) -> int:
        """Characters of a line."""
        return self.length or max(end for _, end in self.spans)


Format = Annotated[
    CsvFormat
    | JsonLinesFormat
    | JsonArrayFormat
    | ParquetFormat
    | AvroFormat
    | ExcelFormat
    | FixedWidthFormat,
    Field(discriminator="kind"),
]
