"""JSON records taken apart fast: by a parser in C, which leaves each value as it is written.

msgspec splits an object into its keys and the bytes of its values, and checks the syntax of both. What
it does not tell is a key that is there twice: the last one wins. But each member has a colon of its
own, so a member that was dropped leaves a colon that neither a key nor a value accounts for. Whatever
is not certain is left to ``json_records``.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.json_records import (
    MOST_LEVELS,
    Flattener,
    json_text,
    parse_json,
    plain_digits,
    record_texts,
)

_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_ITEMS = msgspec.json.Decoder(list[msgspec.Raw]).decode
_ANY = msgspec.json.Decoder().decode
_STRING = msgspec.json.Decoder(str).decode
_EXPONENT = re.compile(rb"[0-9][eE]")
_SEPARATOR = b"\0"
"""Between tokens; a JSON text cannot hold it."""
_VALUES = operator.methodcaller("values")
_QUOTE, _NULL = ord('"'), ord("n")
_NESTED = frozenset(b"{[")

Texts = dict[str, str | None]


@dataclass(frozen=True, slots=True)
class Group:
    """Records of the same keys.

    Attributes:
        names: Their keys.
        tokens: Their values, one record after the other: strings in quotes but without escapes, nested
            values without spaces, anything else as it is written.
        positions: The records' positions among those that were taken apart together.
    """

    names: tuple[str, ...]
    tokens: bytes
    positions: list[int]


class _UnsureError(Exception):
    """The fast way cannot vouch for this record."""


def split_together(
    contents: Sequence[bytes], flattener: Flattener | None = None
) -> list[Group] | None:
    """Take records apart together; None if some of them must be seen one by one.

    Args:
        contents: The records; their bytes are UTF-8.
        flattener: Makes columns of nested objects.
    """
    try:
        return _groups([_OBJECT(content) for content in contents], contents, flattener)
    except (msgspec.DecodeError, RecursionError, ValueError, _UnsureError):
        return None


def split_record(content: bytes, flattener: Flattener | None = None) -> Texts | None:
    """Take one record apart; None if it must be read the exact way, be it to refuse it.

    Args:
        content: The record; its bytes are UTF-8.
        flattener: Makes columns of nested objects.
    """
    try:
        fields = _OBJECT(content)
        if not fields:
            return {}
        tokens = _SEPARATOR.join(fields.values())
        _check_members([content], fields, [tokens], len(fields))
        values = tokens.split(_SEPARATOR)
        if flattener is not None:
            parsed = {
                name: parse_json(value.decode()) for name, value in zip(fields, values, strict=True)
            }
            return record_texts(parsed, flattener)
        return {name: _text(value) for name, value in zip(fields, values, strict=True)}
    except (msgspec.DecodeError, RecursionError, ValueError, _UnsureError):
        return None


def members(token: bytes) -> dict[str, bytes]:
    """Return the values of an object by their keys, each as it is written.

    Raises:
        ValueError: It is no object, or one that is refused, be it for a key that is there twice.
    """
    try:
        fields = _OBJECT(token)
        _check_members([token], fields, fields.values(), len(fields))
    except (msgspec.DecodeError, RecursionError, _UnsureError):
        parsed = parse_json(token.decode())
        record_texts(parsed)  # refuses what is to be refused
        return {name: json_text(value).encode() for name, value in parsed.items()}
    return {name: bytes(value) for name, value in fields.items()}


def items(token: bytes) -> Iterable[bytes]:
    """Return the items of a list, each as it is written, and made when it is asked for.

    Raises:
        ValueError: It is no list, or not JSON.
    """
    try:
        return map(bytes, _ITEMS(token))
    except (msgspec.DecodeError, RecursionError):
        raise ValueError("no list") from None


def token_text(token: bytes) -> str | None:
    """Return a value as text: a string as it is, a number by its digits, null as None.

    Raises:
        ValueError: It is refused, be it for a key that is there twice.
    """
    try:
        return _text(token)
    except (msgspec.DecodeError, RecursionError, _UnsureError):
        return _written_again(token).decode()


def is_nested(token: bytes) -> bool:
    """Tell whether a value is an object or a list."""
    return token[0] in _NESTED


def _groups(
    records: list[dict[str, msgspec.Raw]],
    contents: Sequence[bytes],
    flattener: Flattener | None,
) -> list[Group]:
    groups: dict[tuple[str, ...], list[int]] = {}
    for position, names in enumerate(map(tuple, records)):
        groups.setdefault(names, []).append(position)
    made: list[Group] = []
    names_of_all: list[str] = []
    tokens_of_all: list[bytes] = []
    for names, positions in groups.items():
        if not names or (flattener is not None and not flattener.leaves_alone(names)):
            raise _UnsureError
        members = [records[n] for n in positions] if len(groups) > 1 else records
        tokens = _SEPARATOR.join(chain.from_iterable(map(_VALUES, members)))
        names_of_all += names
        tokens_of_all.append(tokens)
        if b"\\" in tokens or b"{" in tokens or b"[" in tokens:
            tokens = _prepared(tokens, is_nested_kept=flattener is None)
        made.append(Group(names, tokens, positions))
    _check_members(contents, names_of_all, tokens_of_all, sum(map(len, records)))
    return made


def _check_members(
    contents: Iterable[bytes], names: Iterable[str], tokens: Iterable[bytes], members: int
) -> None:
    """Be unsure if the parser may have dropped a member of an object.

    A key with a colon would account for one that it has not.
    """
    colons = b"".join(contents).count(b":") - b"".join(tokens).count(b":")
    if colons != members or ":" in "".join(names):
        raise _UnsureError


def _prepared(tokens: bytes, *, is_nested_kept: bool) -> bytes:
    """Resolve the escapes of strings, and write nested values without spaces."""
    values = tokens.split(_SEPARATOR)
    nested: list[int] = []
    for position, value in enumerate(values):
        if value[0] in _NESTED:
            nested.append(position)
        elif b"\\" in value:
            text = _STRING(value)
            if text.startswith('"') or text.endswith('"') or "\0" in text:
                raise _UnsureError  # it could not be told from the marks around it
            values[position] = b'"%b"' % text.encode()
    if nested and not is_nested_kept:
        raise _UnsureError
    plain = [position for position in nested if not _is_special(values[position])]
    for position in set(nested).difference(plain):
        values[position] = _written_again(values[position])
    if plain:
        written = _without_spaces([values[position] for position in plain])
        for position, value in zip(plain, written, strict=True):
            values[position] = value
    return _SEPARATOR.join(values)


def _text(token: bytes) -> str | None:
    if token[0] == _QUOTE:
        return _STRING(token) if b"\\" in token else token[1:-1].decode()
    if token[0] in _NESTED:
        written = _written_again(token) if _is_special(token) else _without_spaces([token])[0]
        return written.decode()
    if token[0] == _NULL:
        return None
    text = token.decode()
    return plain_digits(text) if _EXPONENT.search(token) else text


def _is_special(value: bytes) -> bool:
    """Tell whether a nested value must be parsed to be written without spaces and exponents."""
    if b"\\" in value or _EXPONENT.search(value):
        return True
    return len(value) > MOST_LEVELS and value.count(b"{") + value.count(b"[") > MOST_LEVELS


def _written_again(value: bytes) -> bytes:
    return json_text(parse_json(value.decode())).encode()


def _without_spaces(values: Sequence[bytes]) -> list[bytes]:
    """Write nested values without spaces; all in one go, which is faster."""
    written: bytes = msgspec.json.format(b"[" + b",".join(values) + b"]", indent=-1)
    if b"{" in written:
        # The parser drops a member whose key comes again, and its '":' with it.
        kept = msgspec.json.encode(_ANY(written))
        if kept.count(b'":') != written.count(b'":'):
            raise _UnsureError
    return [bytes(value) for value in _ITEMS(written)]


def token_columns(tokens: Sequence[bytes], count: int) -> list[pa.Array]:
    """Return the columns of groups of the same names.

    Args:
        tokens: Their tokens.
        count: Number of columns.
    """
    content = _SEPARATOR.join(tokens) + _SEPARATOR
    octets = np.frombuffer(content, np.uint8)
    ends = np.flatnonzero(octets == 0) + 1
    offsets = np.concatenate([np.zeros(1, np.int32), ends.astype(np.int32)])
    first = octets[offsets[:-1]]
    validity = pa.py_buffer(np.packbits(first != _NULL, bitorder="little"))
    written = pa.StringArray.from_buffers(
        len(ends), pa.py_buffer(offsets), pa.py_buffer(content), validity
    )
    texts = pc.ascii_trim(written, '"\0')
    texts = _without_exponents(texts, octets, ends, first)
    return [texts.take(pa.array(np.arange(n, len(ends), count))) for n in range(count)]


def _without_exponents(texts: pa.Array, octets: Any, ends: Any, first: Any) -> pa.Array:
    letters = np.flatnonzero((octets | 0x20) == ord("e"))
    letters = letters[_is_digit(octets[letters - 1])]
    found = np.unique(np.searchsorted(ends, letters, side="right"))
    found = found[(first[found] == ord("-")) | _is_digit(first[found])]
    if not len(found):
        return texts
    mask = np.zeros(len(ends), np.bool_)
    mask[found] = True
    plain = [plain_digits(text) for text in texts.take(pa.array(found)).to_pylist()]
    return pc.replace_with_mask(texts, pa.array(mask), pa.array(plain, pa.string()))


def _is_digit(octets: Any) -> Any:
    return (octets >= ord("0")) & (octets <= ord("9"))
