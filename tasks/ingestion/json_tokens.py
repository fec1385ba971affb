"""JSON records taken apart fast: by a parser in C, which leaves each value as it is written.

msgspec splits an object into its keys and the bytes of its values, and checks the syntax of both. What
it does not tell is a key that is there twice: the last one wins. But each member has a colon of its
own, so a member that was dropped leaves a colon that neither a key nor a value accounts for. Whatever
is not certain is left to ``json_records``.
"""

from __future__ import annotations

import re
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
_ANY = msgspec.json.Decoder().decode
_STRING = msgspec.json.Decoder(str).decode
_EXPONENT = re.compile(rb"[0-9][eE]")
_SEPARATOR = b"\0"
"""Between tokens; a JSON text cannot hold it."""
_QUOTE, _NULL = ord('"'), ord("n")
_NESTED = frozenset(b"{[")

Texts = dict[str, str | None]
Tokens = tuple[tuple[str, ...], bytes]
"""The keys of a record, and its values, separated: strings in quotes but without escapes, anything else
as it is written, nested values without spaces."""


class _UnsureError(Exception):
    """The fast way cannot vouch for this record."""


def split_record(content: bytes, flattener: Flattener | None = None) -> Tokens | Texts | None:
    """Take a record apart.

    Args:
        content: The record; its bytes are UTF-8.
        flattener: Makes columns of nested objects.

    Returns:
        The tokens of the record, or its texts where tokens do not do; None if it must be read the exact
        way, be it to refuse it.
    """
    try:
        fields = _OBJECT(content)
        tokens = _SEPARATOR.join(fields.values())
        # A key with a colon would account for one that it has not.
        if ":" in "".join(fields) or content.count(b":") - tokens.count(b":") != len(fields):
            return None
        names = tuple(fields)
        is_flat = b"{" not in tokens and b"[" not in tokens
        if is_flat and b"\\" not in tokens and names and flattener is None:
            return names, tokens
        return _unescaped(names, tokens, flattener)
    except (msgspec.DecodeError, RecursionError, ValueError, _UnsureError):
        return None


def _unescaped(
    names: tuple[str, ...], tokens: bytes, flattener: Flattener | None
) -> Tokens | Texts:
    values = tokens.split(_SEPARATOR) if names else []
    if flattener is not None and not (
        all(value[0] not in _NESTED for value in values) and flattener.leaves_alone(names)
    ):
        parsed = {
            name: parse_json(value.decode()) for name, value in zip(names, values, strict=True)
        }
        return record_texts(parsed, flattener)
    texts: dict[int, str] = {}
    for position, value in enumerate(values):
        if value[0] in _NESTED:
            values[position] = _without_spaces(value)
        elif value[0] == _QUOTE and b"\\" in value:
            text = texts[position] = _STRING(value)
            values[position] = b'"%b"' % text.encode()
    if names and not any(_is_ambiguous(text) for text in texts.values()):
        return names, _SEPARATOR.join(values)
    return {
        name: texts[position] if position in texts else token_text(values[position])
        for position, name in enumerate(names)
    }


def _is_ambiguous(text: str) -> bool:
    """Tell whether a text without its escapes cannot be told from the marks around it."""
    return text.startswith('"') or text.endswith('"') or "\0" in text


def token_text(token: bytes) -> str | None:
    """Return the text that a token stands for."""
    if token[0] == _QUOTE:
        return token[1:-1].decode()
    if token[0] == _NULL:
        return None
    text = token.decode()
    return text if token[0] in _NESTED or not _EXPONENT.search(token) else plain_digits(text)


def _without_spaces(value: bytes) -> bytes:
    """Write an object or a list without spaces, numbers by their digits."""
    if (
        b"\\" in value
        or _EXPONENT.search(value)
        or value.count(b"{") + value.count(b"[") > MOST_LEVELS
    ):
        return json_text(parse_json(value.decode())).encode()
    written: bytes = msgspec.json.format(value, indent=-1)
    if b"{" in value:
        # The parser drops a member whose key comes again, and its '":' with it.
        kept = msgspec.json.encode(_ANY(value))
        if kept.count(b'":') != written.count(b'":'):
            raise _UnsureError
    return written


def token_columns(rows: Sequence[bytes], count: int) -> list[pa.Array]:
    """Return the columns of records that ``split_record`` took apart into tokens.

    Args:
        rows: Their tokens.
        count: Number of tokens of a row.
    """
    content = _SEPARATOR.join(rows) + _SEPARATOR
    octets = np.frombuffer(content, np.uint8)
    ends = np.flatnonzero(octets == 0) + 1
    offsets = np.concatenate([np.zeros(1, np.int32), ends.astype(np.int32)])
    first = octets[offsets[:-1]]
    validity = pa.py_buffer(np.packbits(first != _NULL, bitorder="little"))
    tokens = pa.StringArray.from_buffers(
        len(ends), pa.py_buffer(offsets), pa.py_buffer(content), validity
    )
    texts = pc.ascii_trim(tokens, '"\0')
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
