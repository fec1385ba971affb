"""Functions that DuckDB lacks, written in Python: run once for each different value of a batch."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from fractions import Fraction

import duckdb
import pyarrow as pa
from duckdb.func import FunctionNullHandling, PythonUDFType

from tasks.model.column_types import decimal_digits
from tasks.model.columns import ColumnSpec
from tasks.model.dataset import DatasetSpec
from tasks.model.units import Unit, conversion
from tasks.transformation.nested import register_nested
from tasks.transformation.sql import TEXT, identifier

Text = Callable[[str], str | None]
DIGITS = 100
"""Digits with which is reckoned: far more than any column holds."""


def register(connection: duckdb.DuckDBPyConnection, spec: DatasetSpec) -> None:
    """Add the functions that a dataset's query calls to a session."""
    register_nested(connection, spec)
    needed = {name: made for column in spec.columns.values() for name, made in _needed(column)}
    for name, made in needed.items():
        connection.create_function(
            name,
            _of_arrays(made),
            [TEXT],
            TEXT,
            type=PythonUDFType.ARROW,
            null_handling=FunctionNullHandling.SPECIAL,  # some texts have no canonical form
        )


def canonical_call(column: ColumnSpec, value: str) -> str:
    """Return SQL for the canonical form of a text, NULL if it has none."""
    return f"{_quoted(_canonical_name(column))}({value})"


def round_function(places: int) -> str:
    """Return the name of the function that rounds a number half to even."""
    return _quoted(f"round {places}")


def unit_function(unit: Unit) -> str:
    """Return the name of the function that converts a number from one unit to another."""
    return _quoted(f"unit {unit.source} to {unit.to}")


def _quoted(name: str) -> str:
    return identifier(name)


def _canonical_name(column: ColumnSpec) -> str:
    return f"canonical {column.canonical} {column.region or ''}".strip()


def _needed(column: ColumnSpec) -> Iterator[tuple[str, Text]]:
    if "nfkc" in column.clean:
        yield "nfkc", lambda text: unicodedata.normalize("NFKC", text)
    if column.canonical:
        yield _canonical_name(column), canonical(column)
    digits = decimal_digits(column.type)
    if column.round and digits:
        yield f"round {digits[1]}", lambda text: rounded(text, digits[1])
    if column.unit and column.type != "float":
        factor, offset = conversion(column.unit.source, column.unit.to)
        name = f"unit {column.unit.source} to {column.unit.to}"
        yield name, lambda text: converted(text, factor, offset)


def _of_arrays(made: Text) -> Callable[[pa.ChunkedArray], pa.Array]:
    def function(values: pa.ChunkedArray) -> pa.Array:
        combined = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
        encoded = combined.dictionary_encode()
        different = [
            None if text is None else made(text) for text in encoded.dictionary.to_pylist()
        ]
        return pa.array(different, pa.string()).take(encoded.indices)

    return function


def rounded(text: str, places: int) -> str:
    """Round a number half to even."""
    with localcontext(prec=DIGITS + len(text)):
        return format(Decimal(text).quantize(Decimal(1).scaleb(-places), ROUND_HALF_EVEN), "f")


def converted(text: str, factor: Fraction, offset: Fraction) -> str:
    """Return a number times a factor plus an offset: exact, or with more digits than any column."""
    exact = Fraction(Decimal(text)) * factor + offset
    with localcontext(prec=DIGITS + len(text)):
        return format(Decimal(exact.numerator) / Decimal(exact.denominator), "f")


def canonical(column: ColumnSpec) -> Text:
    """Return the function that writes a column's texts in canonical form."""
    made = {"email": _email, "phone": _phone(column.region), "url": _url}
    return made[column.canonical or "url"]


def _email(text: str) -> str | None:
    from email_validator import EmailNotValidError, validate_email

    try:
        return validate_email(text, check_deliverability=False).normalized
    except EmailNotValidError:
        return None


def _phone(region: str | None) -> Text:
    def phone(text: str) -> str | None:
        import phonenumbers

        try:
            number = phonenumbers.parse(text, region)
        except phonenumbers.NumberParseException:
            return None
        if not phonenumbers.is_valid_number(number) or number.extension:
            return None  # E.164 has no extensions
        return str(phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164))

    return phone


def _url(text: str) -> str | None:
    from yarl import URL

    try:
        url = URL(text)
    except ValueError:
        return None
    return str(url) if url.scheme in ("http", "https") and url.host else None
