"""What a column is, as far as the values of a sample tell; what they do not tell is a doubt."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tasks.inference.moments import PIVOT, Moments, find_moments, is_compact_date
from tasks.inference.numbers import Numbers, find_numbers, has_leading_zeros

NULL_WORDS = (
    "NULL", "null", "NA", "N/A", "n/a", "#N/A", "NaN", "nan", "None", "none", "nil", "-", "--", "?",
    "\\N", ".", "(null)",
)  # fmt: skip
"""Texts that programs write for a missing value."""
MOSTLY = 0.9
"""If so many values are of a type, the others are worth a note."""
EPOCH_DIGITS = (10, 13)
ID_DIGITS = 11
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_WORDS = re.compile(r"[a-z]+|[0-9]+")
_CODES = (
    "zip zipcode postcode postal plz phone tel telephone mobile fax iban ean isbn gtin ssn code"
)
CODE_WORDS = frozenset(_CODES.split(" "))
"""A number of this name is no number: nobody adds phone numbers."""
ID_WORDS = frozenset({"id", "key", "no", "nr", "num", "number", "ref", "sku"})
UNCLEAR_NUMBERS = (
    "1,234 may be a thousand or one and a bit, so it is kept as text. Declare type: int64, "
    'format: {thousands: ","}, or type: decimal(p,s), format: {decimal: ","}'
)
MOMENT_WORDS = frozenset({"date", "day", "datum", "at", "on", "time", "timestamp", "ts", "dt"})
_BOOLEANS = ({"yes", "no"}, {"y", "n"}, {"t", "f"}, {"on", "off"}, {"0", "1"})


@dataclass(frozen=True, slots=True)
class Guess:
    """What a column is thought to be.

    Attributes:
        type: Type of the column.
        options: Further keys of its declaration, as in a dataset file.
        doubts: What the sample does not tell, for the author of the dataset file; no value of a row.
        nulls: Rows of the sample without a value.
        is_unique: No value occurs twice, and none is missing.
    """

    type: str
    options: dict[str, Any] = field(default_factory=dict)
    doubts: tuple[str, ...] = ()
    nulls: int = 0
    is_unique: bool = False

    def with_doubt(self, doubt: str) -> Guess:
        """Return the guess with one more doubt."""
        return replace(self, doubts=(*self.doubts, doubt))


def words_of(name: str) -> frozenset[str]:
    """Return the words of a name: ``customerId`` and ``customer_id`` have the same."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return frozenset(_WORDS.findall(spaced.lower()))


def guess_text(name: str, values: Sequence[str | None]) -> Guess:
    """Say what a column of texts is.

    Args:
        name: Its name, which tells a code from a number.
        values: Its values in the sample.
    """
    there = [value for value in values if value is not None]
    nulls = len(values) - len(there)
    if not there:
        doubt = "always NULL in the sample, so nothing tells its type"
        return Guess("string", doubts=(doubt,), nulls=nulls)
    different = list(dict.fromkeys(there))
    is_unique = not nulls and len(different) == len(there)
    guess = _with_words_for_null(name, different) or _guess(name, different) or _text(different)
    if guess.options.get("null_values"):
        nulls += sum(value.strip() in guess.options["null_values"] for value in there)
    return replace(guess, nulls=nulls, is_unique=is_unique and not guess.options.get("null_values"))


def _with_words_for_null(name: str, different: Sequence[str]) -> Guess | None:
    """See whether the column has a type once the words for a missing value are left out."""
    words = [value for value in different if value.strip() in ("", *NULL_WORDS)]
    rest = [value for value in different if value not in words]
    if not words or not rest:
        return None
    guess = _guess(name, rest)
    if guess is None or guess.type == "string":
        return None
    kept = list(dict.fromkeys(word.strip() if "clean" in guess.options else word for word in words))
    options = {"null_values": kept, **guess.options}
    shown = ", ".join(repr(word) for word in kept)
    return replace(guess, options=options).with_doubt(f"{shown} is taken for NULL")


def _guess(name: str, different: Sequence[str]) -> Guess | None:
    stripped = list(dict.fromkeys(value.strip() for value in different))
    if "" in stripped:
        return None
    guess = _typed(name, stripped)
    if guess is not None and stripped != list(different) and guess.type != "string":
        guess = replace(guess, options={"clean": ["strip"], **guess.options})
        guess = guess.with_doubt("spaces around some values are cut off")
    return guess


def _typed(name: str, values: Sequence[str]) -> Guess | None:
    folded = {value.lower() for value in values}
    if folded <= {"true", "false"}:
        return Guess("boolean")
    if all(_UUID.fullmatch(value) for value in values):
        return Guess("uuid")
    if has_leading_zeros(values) and find_numbers(values):
        return Guess("string", doubts=("digits with leading zeros: kept as text",))
    if (numbers := find_numbers(values)) is not None:
        return _number(name, values, numbers)
    if (moments := find_moments(values)) is not None:
        return _moment(moments)
    if all(_is_nested(value) for value in values):
        return Guess("json")
    return None


def _number(name: str, values: Sequence[str], numbers: Numbers) -> Guess:
    if numbers.unclear and numbers.separators:
        return Guess("string", doubts=(UNCLEAR_NUMBERS,))
    words = words_of(name)
    if numbers.type == "int64":
        return _integer(values, words, numbers)
    doubts: list[str] = []
    if numbers.unclear:
        doubts.append("three decimals everywhere: does the point separate thousands?")
    if numbers.type == "string":
        return Guess("string", doubts=("numbers of more than 38 digits: kept as text",))
    if numbers.type == "float":
        why = "exponents" if numbers.exponent else "15 digits or more, like binary fractions"
        doubts.append(f"float, because some have {why}; decimal(38,s) would keep each digit")
    elif numbers.scale:
        doubts.append(f"{numbers.scale} decimals at most in the sample; more are quarantined")
    else:
        doubts.append("larger than int64 can hold; an id rather than a number?")
    return Guess(numbers.type, _format(numbers, doubts), tuple(doubts))


def _format(numbers: Numbers, doubts: list[str]) -> dict[str, Any]:
    if not numbers.separators and not numbers.negative:
        return {}
    made: dict[str, Any] = dict(numbers.separators)
    if numbers.negative:
        made["negative"] = list(numbers.negative)
    if numbers.separators:
        doubts.append("separators guessed from the sample")
    return {"format": made}


def _integer(values: Sequence[str], words: frozenset[str], numbers: Numbers) -> Guess:
    doubts: list[str] = []
    lengths = {len(value.lstrip("-")) for value in values}
    if words & CODE_WORDS or all(value.startswith("+") for value in values):
        doubt = "digits only, but the name is that of a code: kept as text"
        return Guess("string", doubts=(doubt,))
    if is_compact_date(values):
        if words & MOMENT_WORDS:
            doubt = "eight digits that are all dates; int64 if they are numbers"
            return Guess("date", {"format": "%Y%m%d"}, (doubt,))
        doubts.append('may be dates: type: date, format: "%Y%m%d"')
    elif words & MOMENT_WORDS and lengths <= set(EPOCH_DIGITS) and len(lengths) == 1:
        unit = "seconds" if lengths == {EPOCH_DIGITS[0]} else "milliseconds"
        doubts.append(f"may be {unit} since 1970; kept as numbers")
    elif words & ID_WORDS:
        doubts.append("an id rather than a number? string keeps what is not digits later")
    elif len(lengths) == 1 and len(values) > 1 and lengths.pop() >= ID_DIGITS:
        doubts.append("all of one length: an id rather than a number? then string")
    if set(values) == {"0", "1"}:
        doubts.append(
            'only 0 and 1: a boolean? type: boolean, replace: {"0": "false", "1": "true"}'
        )
    return Guess("int64", _format(numbers, doubts), tuple(doubts))


def _moment(moments: Moments) -> Guess:
    if moments.is_ambiguous:
        shown = " or ".join(f'"{made}"' for made in moments.formats)
        doubt = (
            "day and month cannot be told apart in the sample (01/02 or 02/01?): kept as text. "
            f"Declare type: {moments.type}, format: {shown}"
        )
        return Guess("string", doubts=(doubt,))
    options: dict[str, Any] = {}
    doubts: list[str] = []
    if moments.formats:
        options["format"] = moments.formats[0]
        if re.search(r"%-?y", moments.formats[0]):
            options["pivot"] = PIVOT
            doubts.append(f"two-digit years: below {PIVOT} they are taken for 20xx, else for 19xx")
    if moments.type == "timestamp":
        if moments.has_offset:
            options["timezone"] = "UTC"
            if moments.is_naive:
                doubts.append("some have no offset from UTC: they are taken for UTC")
        else:
            doubts.append(
                "no offset from UTC; timezone: Europe/Berlin, for instance, says whose time it is"
            )
    return Guess(moments.type, options, tuple(doubts))


def _is_nested(value: str) -> bool:
    if not value.startswith(("{", "[")):
        return False
    try:
        json.loads(value)
    except (ValueError, RecursionError):
        return False
    return True


def _text(different: Sequence[str]) -> Guess:
    return Guess("string", doubts=tuple(_doubts_of_text(different)))


def _doubts_of_text(different: Sequence[str]) -> Iterable[str]:
    folded = {value.strip().lower() for value in different}
    if any(folded == pair for pair in _BOOLEANS):
        yes, no = sorted(different, key=lambda v: v.strip().lower() in ("no", "n", "f", "off"))[:2]
        true, false = json.dumps(yes), json.dumps(no)
        yield f'a boolean? type: boolean, replace: {{{true}: "true", {false}: "false"}}'
    if words := [value for value in different if value in NULL_WORDS and len(different) > 1]:
        yield f"{', '.join(map(repr, words))} may mean NULL: null_values"
    if any(value != value.strip() for value in different):
        yield "some have spaces around them: clean: [strip] cuts them off"
    rest = [value.strip() for value in different if value.strip() not in ("", *NULL_WORDS)]
    if len(rest) > 1:
        kinds = {
            "numbers": sum(find_numbers([value]) is not None for value in rest),
            "dates or times": sum(find_moments([value]) is not None for value in rest),
            "objects or lists": sum(map(_is_nested, rest)),
        }
        for kind, count in kinds.items():
            if 0 < count < len(rest) and (
                count >= MOSTLY * len(rest) or kind == "objects or lists"
            ):
                yield f"mixed: {count} of {len(rest)} different values are {kind}, the others are not"
