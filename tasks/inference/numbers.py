"""In which form texts write numbers, and how many digits those have."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

MOST_DIGITS = 38
ROOMY_DIGITS = 18
"""Digits of a decimal whose sample has fewer: later values may be larger."""
DOUBLE_DIGITS = 15
"""More significant digits than this are those that binary floating point numbers are printed with."""
_INTEGER = re.compile(r"[+-]?\d+")
_PLAIN = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)")
_EXPONENT = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?")
_LEADING_ZERO = re.compile(r"[+-]?0\d+(?:\.\d*)?")
_UNCLEAR = re.compile(r"-?[1-9]\d{0,2}[.,]\d{3}")
"""``1,234`` and ``1.234``: a thousand or one."""


@dataclass(frozen=True, slots=True)
class Numbers:
    """How a column writes its numbers.

    Attributes:
        type: ``int64``, ``decimal(p,s)`` or ``float``.
        scale: Most decimals.
        separators: ``decimal`` and ``thousands``, where numbers are not written plainly.
        negative: Forms of negative numbers, where there are others than -12.
        exponent: Some are written with an exponent.
        unclear: Each may be read as a thousand or as one with three decimals.
    """

    type: str
    scale: int = 0
    separators: tuple[tuple[str, str], ...] = ()
    negative: tuple[str, ...] = ()
    exponent: bool = False
    unclear: bool = False


def has_leading_zeros(values: Sequence[str]) -> bool:
    """Tell whether some value has zeros before its digits, which a number would lose."""
    return any(_LEADING_ZERO.fullmatch(value) for value in values)


def find_numbers(values: Sequence[str]) -> Numbers | None:
    """Return how all values are written as numbers, None if they are not.

    Args:
        values: Different texts, at least one.
    """
    if not all(value.isascii() and len(value) <= MOST_DIGITS + 10 for value in values):
        return None
    if all(_INTEGER.fullmatch(value) for value in values):
        return _integers(values)
    if all(_PLAIN.fullmatch(value) for value in values):
        unclear = all(_UNCLEAR.fullmatch(value) for value in values)
        return _decimals(values, unclear=unclear)
    if all(_EXPONENT.fullmatch(value) for value in values):
        return Numbers("float", exponent=True)
    for decimal, thousands in ((".", ","), (",", "."), (",", " "), (".", "'")):
        if found := _separated(values, decimal, thousands):
            return found
    return None


def _integers(values: Sequence[str]) -> Numbers:
    if all(-(2**63) <= int(value) < 2**63 for value in values):
        return Numbers("int64")
    most = max(len(value.lstrip("+-")) for value in values)
    return Numbers(f"decimal({MOST_DIGITS},0)") if most <= MOST_DIGITS else Numbers("string")


def _decimals(values: Sequence[str], *, unclear: bool = False) -> Numbers:
    parts = [value.lstrip("+-").partition(".") for value in values]
    whole = max(len(integer.lstrip("0")) for integer, _, _ in parts)
    scale = max(len(fraction) for _, _, fraction in parts)
    significant = max(len((i + f).strip("0")) for i, _, f in parts)
    if significant > DOUBLE_DIGITS and whole < significant:
        return Numbers("float", scale, unclear=unclear)
    digits = ROOMY_DIGITS if whole + scale < ROOMY_DIGITS else MOST_DIGITS
    if whole + scale > MOST_DIGITS:
        return Numbers("string")
    return Numbers(f"decimal({digits},{scale})", scale, unclear=unclear)


def _separated(values: Sequence[str], decimal: str, thousands: str) -> Numbers | None:
    point, group = re.escape(decimal), re.escape(thousands)
    number = rf"(?:\d+|\d{{1,3}}(?:{group}\d{{3}})+)(?:{point}\d+)?"
    forms = {
        "minus": rf"-{number}",
        "trailing_minus": rf"{number}-",
        "parentheses": rf"\({number}\)",
    }
    any_form = re.compile("|".join([rf"\+?{number}", *forms.values()]))
    if not all(any_form.fullmatch(value) for value in values):
        return None
    negative = tuple(
        name for name, form in forms.items() if any(re.fullmatch(form, v) for v in values)
    )
    unclear = all(_UNCLEAR.fullmatch(value) for value in values)
    bare = [value.strip("()+-").replace(thousands, "").replace(decimal, ".") for value in values]
    has_groups = any(thousands in value for value in values)
    if not any(decimal in value for value in values):
        separators: tuple[tuple[str, str], ...] = (("thousands", thousands),) if has_groups else ()
        found = _integers(bare)
        if found.type != "int64" and separators:
            separators = (("decimal", decimal), *separators)
    else:
        separators = tuple(
            (name, mark)
            for name, mark, is_there in (
                ("decimal", decimal, decimal != "."),
                ("thousands", thousands, has_groups),
            )
            if is_there
        )
        found = _decimals(bare)
    return Numbers(
        found.type,
        found.scale,
        separators,
        negative if set(negative) - {"minus"} else (),
        unclear=unclear,
    )
