"""JSON records taken apart fast: by a parser in C, which leaves each value as it is written.

msgspec splits an object into its keys and the bytes of its values, and checks the syntax of both. What
it does not tell is a key that is there twice: the last one wins. But each member has a colon of its
own, so a member that was dropped leaves a colon that neither a key nor a value accounts for. Whatever
is not certain is left to ``json_records``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.ingestion.json_records import (
    MOST_LEVELS,
    Flattener,
    json_text,
    parse_json,
    plain_digits,
    record_texts,
)

_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_LIST = msgspec.json.Decoder(list[msgspec.Raw]).decode
_STRING = msgspec.json.Decoder(str).decode
_QUOTE, _LINE_FEED = ord('"'), ord("\n")
_NULL = ord("n")
_NUMBER = frozenset(b"-0123456789")
_NESTED = frozenset(b"{[")
_LIST_BEGINS = ord("[")

Texts = dict[str, str | None]
Tokens = tuple[tuple[str, ...], bytes]
"""The keys of a flat record, and its values as they are written, one a line."""


class _UnsureError(Exception):
    """The fast way cannot vouch for this record."""


def split_record(content: bytes, flattener: Flattener | None = None) -> Tokens | Texts | None:
    """Take a record apart.

    Args:
        content: The record; its bytes are UTF-8.
        flattener: Makes columns of nested objects.

    Returns:
        Tokens of a record without nested values and escapes, the texts of any other; None if it must be
        read the exact way, be it to refuse it.
    """
    try:
        fields = _OBJECT(content)
        if b"\\" not in content and b"[" not in content and content.count(b"{") == 1 and fields:
            tokens = b"\n".join(fields.values())
            _check_members(content, fields, tokens)
            names = tuple(fields)
            if flattener is None or flattener.leaves_alone(names):
                return names, tokens
        values = {name: bytes(value) for name, value in fields.items()}
        _check_members(content, fields, b"".join(values.values()))
        if flattener is None:
            return {name: _text(value) for name, value in values.items()}
        parsed = {name: _parsed(value) for name, value in values.items()}
        return record_texts(parsed, flattener)
    except (msgspec.DecodeError, RecursionError, ValueError, _UnsureError):
        return None


def _check_members(content: bytes, fields: dict[str, Any], values: bytes) -> None:
    """Be unsure if the parser dropped a member of an object."""
    if ":" in "".join(fields) or content.count(b":") - values.count(b":") != len(fields):
        raise _UnsureError


def _parsed(value: bytes) -> Any:
    return parse_json(value.decode())


def _text(value: bytes) -> str | None:
    """Return the text of a value that the parser has found to be JSON."""
    first = value[0]
    if first == _QUOTE:
        return _STRING(value) if b"\\" in value else value[1:-1].decode()
    if first in _NESTED:
        if b"\\" in value:
            return json_text(_parsed(value))
        return _compact(value).decode()
    return None if first == _NULL else _compact(value).decode()


def _compact(value: bytes, level: int = 1) -> bytes:
    """Write a value without escapes as JSON without spaces, numbers by their digits."""
    first = value[0]
    if first in _NUMBER:
        return plain_digits(value.decode()).encode() if _has_exponent(value) else value
    if first not in _NESTED:
        return value
    if level > MOST_LEVELS:
        raise _UnsureError
    if first == _LIST_BEGINS:
        return b"[" + b",".join([_compact(bytes(item), level + 1) for item in _LIST(value)]) + b"]"
    fields = _OBJECT(value)
    _check_members(value, fields, b"".join(fields.values()))
    members = [
        b'"%b":%b' % (name.encode(), _compact(bytes(item), level + 1))
        for name, item in fields.items()
    ]
    return b"{" + b",".join(members) + b"}"


def _has_exponent(number: bytes) -> bool:
    return b"e" in number or b"E" in number


def token_columns(rows: Sequence[bytes], count: int) -> list[pa.Array]:
    """Return the columns of records that ``split_record`` took apart into tokens.

    Args:
        rows: Their tokens, one a line.
        count: Number of tokens of a row.
    """
    content = b"\n".join(rows) + b"\n"
    octets = np.frombuffer(content, np.uint8)
    ends = np.flatnonzero(octets == _LINE_FEED) + 1
    offsets = np.concatenate([np.zeros(1, np.int32), ends.astype(np.int32)])
    first = octets[offsets[:-1]]
    validity = pa.py_buffer(np.packbits(first != _NULL, bitorder="little"))
    tokens = pa.StringArray.from_buffers(
        len(ends), pa.py_buffer(offsets), pa.py_buffer(content), validity
    )
    # Without escapes a quote is never part of a value, nor is a line feed.
    texts = pc.ascii_trim(tokens, '"\n')
    texts = _without_exponents(texts, content, octets, offsets, first)
    return [texts.take(pa.array(np.arange(n, len(ends), count))) for n in range(count)]


def _without_exponents(
    texts: pa.Array, content: bytes, octets: Any, offsets: Any, first: Any
) -> pa.Array:
    if not _has_exponent(content):
        return texts
    seen = np.concatenate(
        [np.zeros(1, np.int32), np.cumsum((octets | 0x20) == ord("e"), dtype=np.int32)]
    )
    is_number = (first == ord("-")) | ((first >= ord("0")) & (first <= ord("9")))
    mask = is_number & (seen[offsets[1:]] > seen[offsets[:-1]])
    if not mask.any():
        return texts
    plain = [plain_digits(text) for text in texts.filter(pa.array(mask)).to_pylist()]
    return pc.replace_with_mask(texts, pa.array(mask), pa.array(plain, pa.string()))
