"""Columns of a dataset: their declared types, how they are cleaned, and the checks they must pass."""

from __future__ import annotations

import re
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from tasks.model.column_types import ColumnType, decimal_digits, is_integer, is_numeric
from tasks.model.json_path import ValuePath, parse_value_path
from tasks.model.units import Unit

MAX_IDENTIFIER_BYTES = 63
SYSTEM_COLUMNS = frozenset(["cmax", "cmin", "ctid", "tableoid", "xmax", "xmin"])
"""Names that no column of a table of PostgreSQL can have."""
_IDENTIFIER = re.compile(r"[a-z][a-z0-9_]*")


class Strict(BaseModel):
    """Base of everything a user writes: unknown keys are errors, values never change after reading."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, hide_input_in_errors=True, serialize_by_alias=True
    )


def check_identifier(name: str) -> str:
    """Return a name of a column or dataset as it is.

    Raises:
        ValueError: PostgreSQL would not take it without surprises.
    """
    if not _IDENTIFIER.fullmatch(name) or len(name.encode()) > MAX_IDENTIFIER_BYTES:
        raise ValueError(
            f"{name!r} is no name for a column or dataset: small letters, digits and '_', "
            f"a letter first, at most {MAX_IDENTIFIER_BYTES} bytes"
        )
    return name


Identifier = Annotated[str, AfterValidator(check_identifier)]
"""A name that PostgreSQL takes without surprises: ``[a-z][a-z0-9_]*``, at most 63 bytes."""


CleanStep = Literal[
    "strip", "collapse_spaces", "drop_control", "upper", "lower", "title", "nfc", "nfkc"
]


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
    severity: Literal["quarantine", "warn", "fail"] = Field(
        "quarantine",
        description="What becomes of a row that breaks a check: it is refused; kept and counted; or "
        "the whole partition is refused.",
    )

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


class Clip(Strict):
    """Cuts long texts."""

    length: int = Field(ge=1, description="Longest text, in characters, the mark included.")
    mark: str = Field("", description="Ends a text that was cut, e.g. '…'.")

    @model_validator(mode="after")
    def _mark_fits(self) -> Clip:
        if len(self.mark) >= self.length:
            raise ValueError(f"the mark {self.mark!r} is as long as the text may be")
        return self


def _value_path(text: str) -> str:
    parse_value_path(text)
    return text


PathToValue = Annotated[str, AfterValidator(_value_path)]
"""``customer.address.city``, or JSONPath without wildcards."""

_TWO_DIGIT_YEAR = re.compile(r"(?<!%)(?:%%)*%-?y")


class ColumnSpec(Strict):
    """One column of the target table, and how it comes out of the source."""

    type: ColumnType = Field(description="Type of the column in the warehouse.")
    source: str | None = Field(
        None, description="Name in the source, when it is another than the column's."
    )
    path: PathToValue | None = Field(
        None,
        description="Where the value is inside of a nested field: customer.address.city, or JSONPath "
        "as in $.customer['first.name'] and $.tags[0]. A name that has a dot itself is a 'source'.",
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
    nul: Literal["quarantine", "replace"] = Field(
        "quarantine",
        description="NUL characters, which PostgreSQL cannot store: refuse the row, or put U+FFFD.",
    )
    clip: Clip | None = Field(None, description="Cut long texts; without it none is.")
    values: tuple[str, ...] = Field((), description="Of an enum: its values.")
    canonical: Literal["email", "phone", "url"] | None = Field(
        None,
        description="Write the text in its one canonical form: a phone number as E.164, an e-mail "
        "address and a URL normalised. What is none is refused.",
    )
    region: str | None = Field(
        None,
        pattern="^[A-Z]{2}$",
        description="Country of phone numbers without a country code, e.g. DE.",
    )
    unit: Unit | None = Field(None, description="Convert a measure, e.g. {from: mi, to: km}.")
    round: Literal["half_even"] | None = Field(
        None,
        description="Round decimals with more places than the type has; without it the row is "
        "refused.",
    )
    non_finite: Literal["keep", "null", "quarantine"] | None = Field(
        None,
        description="NaN and infinities of a float. Without it they stay where the source has them "
        "as numbers, and their words are refused where it is text.",
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
    def _is_in_one_place(self) -> ColumnSpec:
        if self.path is not None and self.source is not None:
            raise ValueError("give 'path', which begins with the name in the source, or 'source'")
        return self

    @model_validator(mode="after")
    def _options_fit_the_type(self) -> ColumnSpec:
        temporal = self.type in ("date", "time", "timestamp")
        textual = self.type == "string"
        numeric = is_numeric(self.type)
        if self.formats and not temporal:
            raise ValueError(
                f"a text 'format' is for dates, times and timestamps, not for {self.type}"
            )
        if self.number and not numeric:
            raise ValueError(f"'format' with separators is for numbers, not for {self.type}")
        if self.number and is_integer(self.type):
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
        self._special_options_fit_the_type()
        return self

    def _special_options_fit_the_type(self) -> None:
        if (self.type == "enum") != bool(self.values):
            raise ValueError("an enum has 'values', and nothing else has")
        fits = {
            "clip": self.type == "string",
            "canonical": self.type == "string",
            "region": self.canonical == "phone",
            "unit": is_numeric(self.type),
            "round": decimal_digits(self.type) is not None,
            "non_finite": self.type == "float",
        }
        for name, fit in fits.items():
            if getattr(self, name) is not None and not fit:
                raise ValueError(f"'{name}' is not for {self.type}")

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
    def value_path(self) -> ValuePath | None:
        """The way to a value inside of a column of the source; None if it is all of one."""
        path = parse_value_path(self.path) if self.path is not None else None
        return path if path is not None and path.is_nested else None

    def source_column(self, name: str) -> str:
        """Return the column of the source that has the value; ``name`` is the column's own name."""
        return parse_value_path(self.path).column if self.path is not None else self.source or name

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
