"""One JSON record, taken apart exactly: numbers keep the digits they were written with.

Every field of a record becomes text: a string as it is, a number by its digits, true and false as
words, null and a missing field as NULL, objects and lists as JSON. This is the slow and exact way; what
``json_tokens`` cannot vouch for ends here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from tasks.model.formats import Flatten

MOST_ZEROS = 400
"""A number with a larger exponent is left as it is written; no column can hold it."""
MOST_LEVELS = 200
"""Objects and lists may be nested this deep."""
MOST_COLUMNS = 5_000
"""A source may have this many different keys; objects that are keyed by data have more."""


class Digits(str):
    """A number by its digits."""

    __slots__ = ()


def plain_digits(text: str) -> str:
    """Write a number without its exponent: ``1e3`` is 1000, digit by digit, in every JSON reader."""
    number = Decimal(text)
    exponent = number.as_tuple().exponent
    if isinstance(exponent, int) and abs(exponent) <= MOST_ZEROS:
        return format(number, "f")
    return text


@dataclass(frozen=True, slots=True)
class _Flaw:
    """A part of a record for which the record is refused."""

    rule: str
    message: str


class RefusedRecordError(ValueError):
    """A record that cannot be trusted; ``rule`` says which rule it breaks."""

    def __init__(self, rule: str, message: str) -> None:
        super().__init__(message)
        self.rule = rule


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any] | _Flaw:
    made = dict(pairs)
    if len(made) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        return _Flaw("duplicate_key", f"key {twice!r} is there twice")
    return made


def _constant(text: str) -> _Flaw:
    return _Flaw("not_a_number", f"{text} is no JSON number")


def _float(text: str) -> Digits:
    return Digits(plain_digits(text) if "e" in text or "E" in text else text)


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_float=_float, parse_int=Digits, parse_constant=_constant
)


def parse_json(text: str) -> Any:
    """Parse a JSON document so that ``record_texts`` can take its records apart.

    Raises:
        ValueError: It is not JSON, or nested too deeply.
    """
    try:
        return _DECODER.decode(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def record_texts(record: Any, flattener: Flattener | None = None) -> dict[str, str | None]:
    """Return the fields of a parsed record as text.

    Args:
        record: What ``parse_json`` made of it.
        flattener: Makes columns of nested objects.

    Raises:
        ValueError: The record is refused; the error's ``rule`` says which rule it breaks.
    """
    if isinstance(record, _Flaw):
        raise RefusedRecordError(record.rule, record.message)
    if not isinstance(record, dict):
        raise RefusedRecordError("not_an_object", "a record must be a JSON object")
    fields = flattener.columns(record) if flattener else record
    for name in fields:
        check_surrogates(name)
    return {name: _field(value) for name, value in fields.items()}


class Flattener:
    """Gives the fields of nested objects columns of their own, as a format declares it.

    Two paths that make one name are refused, within a record and among the records of one source.
    """

    def __init__(self, declared: Flatten) -> None:
        self._declared = declared
        self._paths: dict[str, tuple[str, ...]] = {}
        self._flat: set[tuple[str, ...]] = set()

    def leaves_alone(self, names: tuple[str, ...]) -> bool:
        """Tell whether a record of these fields, none of them nested, is left as it is.

        Raises:
            RefusedRecordError: A name would stand for two paths.
        """
        if names in self._flat:
            return True
        if not set(names).isdisjoint(self._declared.columns or ()):
            return False
        self.columns(dict.fromkeys(names, ""))
        if len(self._flat) < MOST_COLUMNS:
            self._flat.add(names)
        return True

    def columns(self, record: dict[str, Any]) -> dict[str, Any]:
        """Return the values of a record by the names of their columns.

        Raises:
            RefusedRecordError: A name would stand for two paths.
        """
        found: dict[str, tuple[str, ...]] = {}
        made: dict[str, Any] = {}
        for path, value in self._leaves(record, ()):
            name = self._declared.separator.join(path)
            other = found.get(name) or self._paths.get(name, path)
            if other != path:
                raise RefusedRecordError(
                    "name_collision",
                    f"{'.'.join(other)!r} and {'.'.join(path)!r} would both be column {name!r}",
                )
            found[name], made[name] = path, value
        if len(self._paths) <= MOST_COLUMNS:
            self._paths.update(found)
        return made

    def _leaves(
        self, fields: dict[str, Any], above: tuple[str, ...]
    ) -> Iterator[tuple[tuple[str, ...], Any]]:
        """Yield the path and the value of each column.

        An empty object, and null in an object's place, are values unless the object is listed: then
        they have no columns, so that the columns that other records have are NULL.
        """
        listed = self._declared.columns
        for name, value in fields.items():
            path = (*above, name)
            unfolds = len(path) <= self._declared.depth and (listed is None or path[0] in listed)
            if unfolds and isinstance(value, dict) and (value or listed is not None):
                yield from self._leaves(value, path)
            elif not (unfolds and listed is not None and not above and value is None):
                yield path, value


class KnownKeys:
    """The keys that records brought so far, of which a table's columns are made.

    Args:
        whose: In which records they are, for the message of one that brings too many.
        check: Refuses new keys for reasons of the caller's own.
    """

    def __init__(self, whose: str, check: Callable[[Sequence[str]], None]) -> None:
        self.names: dict[str, None] = {}
        """In the order in which they came."""
        self._folded: dict[str, str] = {}
        self._whose = whose
        self._check = check

    def learn(self, names: Iterable[str]) -> None:
        """Take in the keys of a record, all of them or none.

        Raises:
            RefusedRecordError: They are too many, or differ in case only; what ``check`` raises.
        """
        new = [name for name in names if name not in self.names]
        if not new:
            return
        if len(self.names) + len(new) > MOST_COLUMNS:
            raise RefusedRecordError(
                "too_many_keys", f"brings the keys of {self._whose} to more than {MOST_COLUMNS}"
            )
        folded: dict[str, str] = {}
        for name in new:
            fold = name.casefold()
            other = folded.get(fold) or self._folded.get(fold)
            if other is not None:
                raise RefusedRecordError(
                    "duplicate_key", f"keys {other!r} and {name!r} differ in case only"
                )
            folded[fold] = name
        self._check(new)
        self._folded |= folded
        self.names.update(dict.fromkeys(new))


def _field(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, str):
        text = str(value)
        check_surrogates(text)
        return text
    return json_text(value)


def json_text(value: Any, level: int = 1) -> str:
    """Write a parsed value as JSON again, without spaces, numbers by their digits."""
    if isinstance(value, Digits):
        return str(value)
    if isinstance(value, dict | list):
        if level > MOST_LEVELS:
            raise RefusedRecordError("nesting", f"nested deeper than {MOST_LEVELS} levels")
        if isinstance(value, list):
            return "[" + ",".join([json_text(item, level + 1) for item in value]) + "]"
        members = [
            f"{json_text(name)}:{json_text(item, level + 1)}" for name, item in value.items()
        ]
        return "{" + ",".join(members) + "}"
    if isinstance(value, _Flaw):
        raise RefusedRecordError(value.rule, value.message)
    text = json.dumps(value, ensure_ascii=False)
    check_surrogates(text)
    return text


def check_surrogates(text: str) -> None:
    """Refuse half of a surrogate pair, which no UTF-8 can hold."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise RefusedRecordError(
                "lone_surrogate", "half of a surrogate pair is no character"
            ) from None
