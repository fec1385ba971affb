"""Digits that are perhaps no number, by the name of their column."""

from __future__ import annotations

import re

import pyarrow as pa

from tasks.inference.values import Guess

_WORD = re.compile(r"[a-z]+|[0-9]+")
CODES = frozenset(
    [
        "zip",
        "zipcode",
        "postcode",
        "plz",
        "phone",
        "tel",
        "mobile",
        "fax",
        "iban",
        "isbn",
        "ean",
        "gtin",
    ]
)
"""Digits of such a name are no number: nobody adds them."""
IDS = frozenset(["id", "key", "code", "number", "nr", "no", "num", "ref", "sku", "uuid"])
MOMENTS = frozenset(["at", "on", "time", "timestamp", "ts", "date", "created", "updated"])
EPOCHS = {10: "seconds", 13: "milliseconds"}
"""Digits of a number that may count from 1970 on, and what it counts."""


def kept_as_text(guess: Guess, refused: int) -> Guess:
    """Return the guess for values that the type of another one would have refused."""
    return Guess("string", doubts=[f"{guess.type} would refuse {refused} rows of the sample"])


def of_digits(guess: Guess, name: str, column: pa.ChunkedArray) -> Guess:
    """Doubt that digits are a number."""
    words = set(_WORD.findall(re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name).lower()))
    if words & CODES and pa.types.is_string(column.type):
        return Guess("string", doubts=["digits, but by its name no number: kept as text"])
    different = {str(value) for value in column.to_pylist() if value not in (None, "")}
    lengths = {len(value) for value in different}
    unit = EPOCHS.get(min(lengths, default=0)) if len(lengths) == 1 else None
    if unit and words & MOMENTS:
        guess.doubts.append(f"perhaps {unit} since 1970; kept as a number")
    elif words & IDS and pa.types.is_string(column.type):
        guess.doubts.append("perhaps an id, not a number: string would take letters and zeros too")
    elif different == {"0", "1"}:
        words_for = '{"0": "false", "1": "true"}'
        guess.doubts.append(f"perhaps yes and no: type: boolean, replace: {words_for}")
    return guess


def is_called_like_a_key(name: str) -> bool:
    """Tell whether the name of a column says that it tells rows apart."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name).lower()
    return (_WORD.findall(spaced) or [""])[-1] in IDS
