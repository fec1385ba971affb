"""Columns of a dataset: their declared types, how they are cleaned, and the checks they must pass."""

from __future__ import annotations

import re
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

SIMPLE_TYPES = (
    "boolean",
    "int16",
    "int32",
    "int64",
    "float",
    "string",
    "bytes",
    "date",
    "time",
    "timestamp",
    "uuid",
    "json",
)
_DECIMAL = re.compile(r"decimal\((\d{1,2}),\s*(\d{1,2})\)")
MAX_DECIMAL_PRECISION = 38
MAX_IDENTIFIER_BYTES = 63
_IDENTIFIER = re.compile(r"[a-z][a-z0-9_]*")


class Strict(BaseModel):
    """Base of everything a user writes: unknown keys are errors, values never change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


def _identifier(name: str) -> str:
    if not _IDENTIFIER.fullmatch(name) or len(name.encode()) > MAX_IDENTIFIER_BYTES:
        raise ValueError(
            f"{name!r} is no name for a column or dataset: small letters, digits and '_', "
            f"a letter first, at most {MAX_IDENTIFIER_BYTES} bytes"
        )
    return name


Identifier = Annotated[str, AfterValidator(_identifier)]
"""A name that PostgreSQL takes without surprises: ``[a-z][a-z0-9_]*``, at most 63 bytes."""


def decimal_digits(type_name: str) -> tuple[int, int] | None:
    """Return (precision, scale) of ``decimal(p,s)``, or None for any other type."""
    match = _DECIMAL.fullmatch(type_name)
    return (int(match[1]), int(match[2])) if match else None


def _column_type(name: str) -> str:
    digits = decimal_digits(name)
    if digits and 1 <= digits[0] <= MAX_DECIMAL_PRECISION and digits[1] <= digits[0]:
        return f"decimal({digits[0]},{digits[1]})"
    if name not in SIMPLE_TYPES:
        raise ValueError(
            f"{name!r} is not a column type; allowed: {', '.join(SIMPLE_TYPES)}, "
            f"decimal(p,s) with s <= p <= {MAX_DECIMAL_PRECISION}"
        )
    return name


ColumnType = Annotated[str, AfterValidator(_column_type)]

CleanStep = Literal["strip", "collapse_spaces", "upper", "lower", "nfc"]


class Checks(Strict):
    """Rules on one column; NULL passes every rule but ``nullable: false``."""

    between: tuple[float, float] | None = Field(
        None, description="Smallest and largest allowed value, both included."
    )
    one_of: tuple[str | int | float, ...] | None = Field(None, description="The allowed values.")
    pattern: str | None = Field(
        None, description="A regular expression (RE2) that the whole text must match."
    )
    max_length: int | None = Field(None, ge=1, description="Longest allowed text, in characters.")

    @field_validator("pattern")
    @classmethod
    def _pattern_compiles(cls, pattern: str | None) -> str | None:
        if pattern is not None:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{pattern!r} is not a regular expression: {error}") from None
        return pattern

    @field_validator("between")
    @classmethod
    def _between_is_ordered(cls, between: tuple[float, float] | None) -> tuple[float, float] | None:
        if between is not None and between[0] > between[1]:
            raise ValueError(f"the first bound {between[0]} is larger than the second {between[1]}")
        return between


class NumberFormat(Strict):
    """How numbers are written, where it is not ``-1234.5``."""

    decimal: str | None = Field(None, description="Character before the decimals; '.' without it.")
    thousands: str | None = Field(
        None, description="Character between groups of three digits; groups may also be left out."
    )
    negative: tuple[Literal["minus", "trailing_minus", "parentheses"], ...] = Field(
        ("minus",), min_length=1, description="Forms of a negative number: -12, 12-, (12)."
    )

    @model_validator(mode="after")
    def _marks_are_clear(self) -> NumberFormat:
        for name, mark in (("decimal", self.decimal), ("thousands", self.thousands)):
            if mark is not None and (len(mark) != 1 or mark.isalnum() or mark in "+-()"):
                raise ValueError(f"{name}: {mark!r} is not one character that separates digits")
        if self.decimal is not None and self.decimal == self.thousands:
            raise ValueError(f"decimal and thousands are both {self.decimal!r}")
        return self


_TWO_DIGIT_YEAR = re.compile(r"(?<!%)(?:%%)*%-?y")


class ColumnSpec(Strict):
    """One column of the target table, and how it comes out of the source."""

    type: ColumnType = Field(description="Type of the column in the warehouse.")
    source: str | None = Field(
        None, description="Name in the source, when it is another than the column's."
    )
    nullable: bool = Field(True, description="May the value be missing? A key column never may.")
    description: str | None = Field(None, description="Becomes the comment of the column.")
    null_values: tuple[str, ...] = Field(
        (), description="Texts that mean NULL in this column, beside the format's own."
    )
    clean: tuple[CleanStep, ...] = Field((), description="Steps applied to the text, in order.")
    replace: dict[str, str] = Field(
        default_factory=dict, description="Whole texts to be replaced, after cleaning."
    )
    default: str | None = Field(None, description="Text used where the value is missing.")
    format: str | tuple[str, ...] | NumberFormat | None = Field(
        None,
        description="Of a date, time or timestamp: its strptime format, or several; ISO 8601 without "
        "it. A text that two formats read differently is refused. Of a number: its separators.",
    )
    pivot: int | None = Field(
        None,
        ge=0,
        le=100,
        description="For formats with %y: two-digit years below it are 20xx, the others 19xx.",
    )
    timezone: str | None = Field(
        None,
        description="Makes a timestamp an instant. Texts with an offset keep their instant; "
        "texts without one are local times of this zone.",
    )
    ambiguous: Literal["quarantine", "earlier", "later"] = Field(
        "quarantine",
        description="What a local time that occurs twice (end of daylight saving) means.",
    )
    nonexistent: Literal["quarantine", "shift_forward"] = Field(
        "quarantine",
        description="What a local time that is skipped (start of daylight saving) means; "
        "shift_forward adds the hour that was skipped: 02:30 becomes 03:30.",
    )
    checks: Checks = Field(default_factory=Checks)
    pii: Literal["none", "mask", "token"] = Field(
        "none",
        description="Personal data: outside the table (quarantine, previews, exports) the value is "
        "masked, or a token stands for it that is the same for the same value.",
    )

    @field_validator("timezone")
    @classmethod
    def _timezone_exists(cls, timezone: str | None) -> str | None:
        if timezone is not None:
            try:
                ZoneInfo(timezone)
            except (KeyError, ValueError, OSError):
                raise ValueError(
                    f"{timezone!r} is not a time zone of the IANA database, e.g. Europe/Berlin"
                ) from None
        return timezone

    @model_validator(mode="after")
    def _options_fit_the_type(self) -> ColumnSpec:
        temporal = self.type in ("date", "time", "timestamp")
        textual = self.type == "string"
        numeric = self.type.startswith(("int", "decimal", "float"))
        if self.formats and not temporal:
            raise ValueError(
                f"a text 'format' is for dates, times and timestamps, not for {self.type}"
            )
        if self.number and not numeric:
            raise ValueError(f"'format' with separators is for numbers, not for {self.type}")
        if self.number and self.type.startswith("int"):
            if self.number.decimal is not None:
                raise ValueError(f"'decimal' is for numbers with decimals, not for {self.type}")
        elif self.number and self.number.thousands == "." and self.number.decimal is None:
            raise ValueError("'thousands' is '.', so say what 'decimal' is, e.g. ','")
        self._years_are_clear()
        if self.timezone and self.type != "timestamp":
            raise ValueError(f"'timezone' is for timestamps, not for {self.type}")
        if self.checks.between and not numeric:
            raise ValueError(f"check 'between' is for numbers, not for {self.type}")
        if (self.checks.pattern or self.checks.max_length) and not textual:
            raise ValueError(
                f"checks 'pattern' and 'max_length' are for strings, not for {self.type}"
            )
        if self.checks.one_of and not (textual or numeric):
            raise ValueError(f"check 'one_of' is for strings and numbers, not for {self.type}")
        return self

    def _years_are_clear(self) -> None:
        two_digits = [text for text in self.formats if _TWO_DIGIT_YEAR.search(text)]
        if two_digits and self.pivot is None:
            raise ValueError(
                f"'format' {two_digits[0]!r} has years of two digits; say with 'pivot' which century "
                "they mean, e.g. pivot: 70 for 1970 to 2069"
            )
        if self.pivot is not None and not two_digits:
            raise ValueError("'pivot' is for formats with %y")
        for text in self.formats:
            if "%Z" in text or "%z" in text.removesuffix("%z"):
                raise ValueError(f"'format' {text!r}: an offset is read as %z at the end only")
            if text.endswith("%z") and not self.timezone:
                raise ValueError(
                    f"'format' {text!r} reads an offset, which makes an instant; declare 'timezone'"
                )

    @property
    def formats(self) -> tuple[str, ...]:
        """The strptime formats of a date, time or timestamp; none for ISO 8601."""
        if isinstance(self.format, str):
            return (self.format,)
        return self.format if isinstance(self.format, tuple) else ()

    @property
    def number(self) -> NumberFormat | None:
        """How the number is written, None for the plain form."""
        return self.format if isinstance(self.format, NumberFormat) else None
