r"""Cells of an exported CSV file: no spreadsheet takes one for a formula, and every value comes back.

NULL is ``\N``. A value that begins like a formula gets an apostrophe in front, and so does one that
begins with an apostrophe or is ``\N`` itself; reading takes one apostrophe off. So the empty text
stays apart from NULL, and what is written is what is read, whatever it is.
"""

from __future__ import annotations

NULL = r"\N"
_DANGEROUS = ("=", "+", "-", "@", "\t", "\r", "\n", "|", "%", "＝", "＋", "－", "＠")
"""What formulas begin with, in Excel, LibreOffice and Google Sheets; also as full-width characters."""


def to_cell(value: str | None) -> str:
    """Return what is written for a value."""
    if value is None:
        return NULL
    if value == NULL or value.startswith(("'", *_DANGEROUS)):
        return f"'{value}"
    return value


def from_cell(cell: str) -> str | None:
    """Return the value that a cell stands for."""
    if cell == NULL:
        return None
    return cell.removeprefix("'")
