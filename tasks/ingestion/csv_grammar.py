"""What a record of delimited text is, in the declared form."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from uuid import uuid4

import numpy as np

from tasks.model.formats import CsvFormat

_NEVER = b"(?!)"
_FEED = ord("\n")
_LINE = re.compile(rb"[^\r\n]*+(?:\r\n|\n|\r|\Z)")


class Grammar:
    """Regular expressions for the records of one format.

    Attributes:
        record: A record as the parser sees it; its group is the line end.
        strict_record: A record in which nothing follows a closing quote.
    """

    def __init__(self, declared: CsvFormat, columns: int = 0) -> None:
        quote = re.escape((declared.quote or "").encode())
        delimiter = re.escape(declared.delimiter.encode())
        escape = re.escape((declared.escape or "").encode())
        escaped = b"|" + escape + b"." if escape else b""
        no_field = b"[^" + delimiter + escape + rb"\r\n]"
        run = b"(?:" + no_field + b"++" + escaped + b")*+"
        if quote:
            inside = b"[^" + quote + escape + b"]++|" + quote + quote + escaped
            closed = quote + b"(?:" + inside + b")*+" + quote
            plain = b"(?!" + quote + b")" + run
        else:
            closed, plain = _NEVER, run
        loose = b"(?:" + closed + run + b"|" + plain + b")"
        strict = b"(?:" + closed + b"|" + plain + b")"
        end = rb"(\r\n|\n|\r|\Z)"
        self.quote = (declared.quote or "").encode()
        self.delimiter = declared.delimiter.encode()
        self.escape = (declared.escape or "").encode()
        self.comment = (declared.comment or "").encode()
        self.counts_empty_lines = columns == 1
        """In a file of one column an empty line is the text ''."""
        self.record = re.compile(loose + b"(?:" + delimiter + loose + b")*+" + end, re.DOTALL)
        self.strict_record = re.compile(
            strict + b"(?:" + delimiter + strict + b")*+" + end, re.DOTALL
        )
        self._fields = re.compile(b"(?:" + loose + delimiter + b")*+", re.DOTALL)
        self._closed = re.compile(closed, re.DOTALL)
        words = [
            word for word in declared.null_values if declared.escape and declared.escape in word
        ]
        self.null_token = uuid4().hex if words else None
        """Stands for null values that the parser would take the escape out of, such as \\N."""
        listed = b"|".join(re.escape(word.encode()) for word in words) or _NEVER
        self._null_fields = re.compile(
            rb"(?:\A|(?<=" + delimiter + b"))(?:(" + closed + b")|(?:" + listed + b"))"
            b"(?=" + delimiter + rb"|[\r\n]|\Z)",
            re.DOTALL,
        )

    def null_words(self, declared: CsvFormat) -> list[str]:
        """Return the texts that the parser must take for NULL."""
        escape = self.escape.decode()
        words = [word for word in declared.null_values if not escape or escape not in word]
        return [*words, self.null_token] if self.null_token else words

    def with_null_token(self, record: bytes) -> bytes:
        """Return a record with its escaped null values replaced."""
        if self.null_token is None or self.escape not in record:
            return record
        token = self.null_token.encode()
        return self._null_fields.sub(lambda found: found[0] if found[1] else token, record)

    def comment_end(self, buffer: bytes, start: int) -> int | None:
        """Return where the comment line that begins at ``start`` ends, None if none does."""
        if not self.comment or not buffer.startswith(self.comment, start):
            return None
        found = _LINE.match(buffer, start)
        return found.end() if found else None

    def records(self, buffer: bytes) -> Iterator[tuple[int, int]]:
        """Yield start and end of each record, as they are counted."""
        position = 0
        while position < len(buffer):
            if (end := self.comment_end(buffer, position)) is not None:
                position = end
                continue
            found = self.record.match(buffer, position)
            if found is None:
                return
            if found.end() - position > len(found[1]) or self.counts_empty_lines:
                yield position, found.end()
            position = found.end()

    def field_state(self, unfinished: bytes) -> bytes:
        """Return a short beginning of a record that leaves a reader in the same state as a long one."""
        matched = self._fields.match(unfinished)
        last = unfinished[matched.end() if matched else 0 :]
        begin = b"x" + self.delimiter
        if not last:
            return begin
        if not self.quote or not last.startswith(self.quote):
            return begin + b"x"
        if self._closed.fullmatch(last):  # the next byte tells whether it is the end of the field
            return begin + self.quote * 2
        return begin + (b"x" if self._closed.match(last) else self.quote)


@lru_cache(maxsize=64)
def grammar_of(declared: CsvFormat, columns: int = 0) -> Grammar:
    """Return the grammar of a format; it is made once, however many objects there are."""
    return Grammar(declared, columns)


def line_ends(text: bytes) -> int:
    """Count the lines that end in a text: by LF, CR or CR LF."""
    # numpy counts four times as fast as bytes.count, and lets other threads run meanwhile.
    feeds = int(np.count_nonzero(np.frombuffer(text, np.uint8) == _FEED))
    if b"\r" not in text:
        return feeds
    return feeds + text.count(b"\r") - text.count(b"\r\n")


def last_line_end(buffer: bytes, before: int) -> int:
    """Return the position after the last line end, 0 if there is none."""
    feed = buffer.rfind(b"\n", 0, before)
    # A CR at the very end may be half of CR LF.
    single = buffer.rfind(b"\r", feed + 1, min(before, len(buffer) - 1))
    return max(feed, single) + 1
