"""Where a dataset's rows come from: the declarations under ``source:`` of a dataset file."""

from __future__ import annotations

import codecs
from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag, field_validator, model_validator

from tasks.model.columns import Identifier, Strict
from tasks.model.database_source import DatabaseSource
from tasks.model.dated_paths import DatedPath
from tasks.model.plugins import PluginSource, plugin_kinds


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


Encoding = Annotated[str, AfterValidator(_encoding)]


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


class JsonLinesFormat(Strict):
    """One JSON object per line."""

    kind: Literal["jsonl"]


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
    CsvFormat | JsonLinesFormat | ParquetFormat | AvroFormat | ExcelFormat | FixedWidthFormat,
    Field(discriminator="kind"),
]


class FilesSource(Strict):
    """Files of a local directory."""

    kind: Literal["files"]
    path: str = Field(
        description="Glob pattern, relative to the project or absolute. {date:%Y-%m-%d} in it tells "
        "where a file's date is, for backfills."
    )
    format: Format

    @field_validator("path")
    @classmethod
    def _date_is_readable(cls, path: str) -> str:
        DatedPath.parse(path)
        return path


class S3Source(Strict):
    """Objects of an S3 bucket."""

    kind: Literal["s3"]
    block: str = Field(description="Name of the S3Bucket block with bucket and credentials.")
    path: str = Field(description="Glob pattern of the keys; what precedes the first * is listed.")
    format: Format


class PageNumbers(Strict):
    """Pages are counted: ``?page=1``, ``?page=2``, … until the last one."""

    kind: Literal["page"]
    page_param: str = "page"
    size_param: str = "page_size"
    size: int = Field(1000, ge=1)
    first: int = 1
    pages: str | None = Field(
        None, description="Key of the body that says how many pages there are, e.g. 'pages'."
    )


class NextLink(Strict):
    """The body names the URL of the next page, null on the last one."""

    kind: Literal["next"]
    key: str = Field("next", description="Key of the body that holds the URL.")


Pagination = Annotated[PageNumbers | NextLink, Field(discriminator="kind")]


class TimeWindows(Strict):
    """Cuts the source into partitions of time, half open: ``from <= t < to``."""

    start: datetime = Field(description="Start of the first window; UTC unless it says otherwise.")
    end: datetime | None = Field(None, description="End of the last window; now, if not given.")
    every: Literal["hour", "day", "month"] = "day"
    from_param: str = "from"
    to_param: str = "to"


class RestSource(Strict):
    """A REST API that answers in JSON."""

    kind: Literal["rest"]
    block: str = Field(description="Name of the RestApiCredentials block with URL and credentials.")
    path: str = Field(description="Path below the block's base URL.")
    params: dict[str, str | int] = Field(default_factory=dict)
    records: str | None = Field(
        None, description="Key of the body that holds the list of records; dots go deeper."
    )
    pagination: Pagination | None = None
    max_pages: int = Field(10_000, ge=1, description="More pages than this are an error.")
    windows: TimeWindows | None = None


_OwnSource = Annotated[
    FilesSource | S3Source | RestSource | DatabaseSource, Field(discriminator="kind")
]


BRANCHES = frozenset({"<own>", "<plugin>"})
"""Parts of the location of a mistake that no dataset file has."""


def _who_brings(source: object) -> str:
    kind = source.get("kind") if isinstance(source, dict) else getattr(source, "kind", None)
    return "<plugin>" if kind in plugin_kinds() else "<own>"


Source = Annotated[
    Annotated[_OwnSource, Tag("<own>")] | Annotated[PluginSource, Tag("<plugin>")],
    Discriminator(_who_brings),
]


class Lookup(Strict):
    """Columns taken from another dataset's table, found by its key."""

    lookup: Identifier = Field(description="Name of the dataset that is looked up.")
    by: dict[str, str] = Field(
        description="Column of this dataset: column of the other one's key. "
        "A list stands for equal names."
    )
    take: dict[str, str] = Field(
        description="New column: column of the other dataset. A list stands for equal names."
    )
    missing: Literal["null", "quarantine"] = Field(
        "null", description="What happens to a row that finds nothing."
    )

    @field_validator("by", "take", mode="before")
    @classmethod
    def _list_means_equal_names(cls, names: object) -> object:
        return {name: name for name in names} if isinstance(names, list) else names
