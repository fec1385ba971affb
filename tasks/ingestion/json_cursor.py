"""Walks through a JSON document as it is read, without ever holding more than one value of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from tasks.json_records import parse_json
from tasks.model.errors import SourceRejected

CHUNK_BYTES = 1 << 20
MOST_KEY_BYTES = 1 << 20
_SPACES = re.compile(rb"[ \t\r\n]*+")
_STRING = rb'"(?:[^"\\]++|\\.)*+"'
_LEAF = rb'[^"{}\[\]]++|' + _STRING
_INNER = rb"[{\[](?:" + _LEAF + rb")*+[}\]]"
_MIDDLE = rb"[{\[](?:" + _LEAF + b"|" + _INNER + rb")*+[}\]]"
_OUTER = rb"[{\[](?:" + _LEAF + b"|" + _MIDDLE + rb")*+[}\]]"
_SHALLOW = re.compile(_OUTER, re.DOTALL)
"""An object or a list that is nested three levels deep at most, in one go."""
_NEXT_ITEM = re.compile(rb"[ \t\r\n]*+(" + _OUTER + rb")[ \t\r\n]*+,", re.DOTALL)
_BETWEEN = re.compile(rb'(?:[^"{}\[\]]++|"(?:[^"\\]++|\\.)*+")*+', re.DOTALL)
"""What is between two brackets, strings included."""
_STRING_REST = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
_SCALAR = re.compile(rb'[^ \t\r\n,:"{}\[\]]*+')
_QUOTE, _COMMA, _COLON = ord('"'), ord(","), ord(":")
_CLOSING = {ord("{"): ord("}"), ord("["): ord("]")}
LIST, OBJECT = ord("["), ord("{")
_LIST_ENDS = ord("]")


@dataclass(frozen=True, slots=True)
class TooLong:
    """The beginning of a value that is too long to be returned."""

    beginning: bytes


class JsonCursor:
    """A place in a JSON document.

    Brackets and strings of all of it are followed; the syntax of a value is the business of whoever
    takes it.

    Args:
        stream: The document, as UTF-8.
        uri: Its name, for messages.
        most: Longest value that is returned whole, in bytes.
        shown: What is kept of a longer one, in bytes.
    """

    def __init__(self, stream: BinaryIO, uri: str, most: int, shown: int) -> None:
        self._stream = stream
        self._uri = uri
        self._most = most
        self._shown = shown
        self._buffer = b""
        self._at = 0
        self._before = 0
        """Bytes of the document before the buffer."""

    @property
    def position(self) -> int:
        """Bytes of the document before the cursor."""
        return self._before + self._at

    def peek(self) -> int | None:
        """Return the next byte that is no space, None at the end; the cursor is on it."""
        while True:
            found = _SPACES.match(self._buffer, self._at)
            self._at = found.end() if found else self._at
            if self._at < len(self._buffer):
                return self._buffer[self._at]
            if not self._more():
                return None

    def items(self) -> Iterator[None]:
        """Stop at each item of the list that begins here; whoever iterates takes each."""
        yield from self._parts(_LIST_ENDS)

    def values(self) -> Iterator[bytes | TooLong]:
        """Yield the items of the list that begins here as they are written, and go behind it."""
        self._at += 1
        if self.peek() == _LIST_ENDS:
            self._at += 1
            return
        while True:
            while found := _NEXT_ITEM.match(self._buffer, self._at):
                if found.end() - self._at > self._most:
                    break
                self._at = found.end()
                yield found[1]
            yield self.value()
            if self._is_last(_LIST_ENDS):
                return

    def members(self) -> Iterator[str]:
        """Stop at the value of each member of the object that begins here; gives the keys."""
        for _ in self._parts(ord("}")):
            if self.peek() != _QUOTE:
                raise self._broken("expected a key")
            key = self.value(MOST_KEY_BYTES)
            try:
                name = parse_json("" if isinstance(key, TooLong) else key.decode())
            except ValueError:
                raise self._broken("a key is no JSON string") from None
            if self.peek() != _COLON:
                raise self._broken("expected ':'")
            self._at += 1
            yield name

    def _parts(self, closing: int) -> Iterator[None]:
        self._at += 1
        if self.peek() == closing:
            self._at += 1
            return
        while True:
            yield
            if self._is_last(closing):
                return

    def _is_last(self, closing: int) -> bool:
        """Go behind the ',' or the end that follows a value; True if it is the end."""
        following = self.peek()
        if following not in (_COMMA, closing):
            raise self._broken(f"expected ',' or '{chr(closing)}'")
        self._at += 1
        return following == closing

    def skip(self) -> None:
        """Go behind the value that begins here."""
        self.value(0)

    def value(self, most: int | None = None) -> bytes | TooLong:
        """Return the value that begins here as it is written, and go behind it."""
        if (first := self.peek()) is None:
            raise self._broken("expected a value")
        most = self._most if most is None else most
        if (flat := _SHALLOW.match(self._buffer, self._at)) and flat.end() - flat.start() <= most:
            self._at = flat.end()
            return flat[0]
        pieces = _Pieces(most, self._shown)
        if first == _QUOTE or first in _CLOSING:
            start = self._through(first, pieces)
        else:
            start = self._through_scalar(pieces)
        pieces.add(self._buffer[start : self._at])
        return pieces.value()

    def end(self) -> None:
        """Refuse the document if it goes on."""
        if self.peek() is not None:
            raise self._broken("the document goes on after its end")

    def _through(self, first: int, pieces: _Pieces) -> int:
        """Go behind a string, a list or an object; return where its last piece begins."""
        start = self._at
        self._at += 1
        in_string = first == _QUOTE
        open_brackets = bytearray() if in_string else bytearray([_CLOSING[first]])
        while in_string or open_brackets:
            pattern = _STRING_REST if in_string else _BETWEEN
            found = pattern.match(self._buffer, self._at)
            self._at = found.end() if found else self._at
            following = self._buffer[self._at : self._at + 1]
            if not following or following == b"\\":  # its other half is not read yet
                pieces.add(self._buffer[start : self._at])
                start = 0
                if not self._more():
                    raise self._broken("the document ends within a value")
                continue
            self._at += 1
            if following == b'"':
                in_string = not in_string
            elif following in b"{[":
                open_brackets.append(_CLOSING[following[0]])
            elif open_brackets.pop() != following[0] and not pieces.wanted:
                self._at -= 1
                raise self._broken(f"{following.decode()!r} closes what it did not open")
        return start

    def _through_scalar(self, pieces: _Pieces) -> int:
        start = self._at
        while True:
            found = _SCALAR.match(self._buffer, self._at)
            self._at = found.end() if found else self._at
            if self._at < len(self._buffer):
                break
            pieces.add(self._buffer[start:])
            start = self._at
            if not self._more():
                break
            start = 0
        if pieces.size + self._at - start == 0:
            raise self._broken("expected a value")
        return start

    def _more(self) -> bool:
        """Read on, and forget what is before the cursor; False at the end."""
        chunk = self._stream.read(CHUNK_BYTES)
        if not chunk:
            return False
        self._before += self._at
        self._buffer = self._buffer[self._at :] + chunk
        self._at = 0
        return True

    def _broken(self, what: str) -> SourceRejected:
        return SourceRejected(
            f"{self._uri}: no JSON at byte {self._before + self._at}: {what}",
            "deliver the object again; nothing of it was loaded",
        )


class _Pieces:
    """The pieces of a value; once they are too long, only the beginning."""

    def __init__(self, most: int, shown: int) -> None:
        self.wanted = most > 0
        """Somebody takes the value, and looks at its syntax."""
        self._most = most
        self._shown = shown
        self._kept: list[bytes] = []
        self.size = 0

    def add(self, piece: bytes) -> None:
        self.size += len(piece)
        if self.size <= self._most:
            self._kept.append(piece)
        else:
            self._kept = [b"".join([*self._kept, piece])[: self._shown]]

    def value(self) -> bytes | TooLong:
        content = b"".join(self._kept)
        return TooLong(content) if self.size > self._most else content
