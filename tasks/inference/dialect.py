"""How a text file is written: its encoding, and of delimited text the characters and the header."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tasks.inference.moments import find_moments
from tasks.inference.names import identifier_of
from tasks.inference.numbers import find_numbers

DELIMITERS = (",", ";", "\t", "|", "~", "^")
LOOKED_AT = 500
"""Records that are looked at."""
MOST_LINES_BEFORE = 30
_BOMS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_NOT_CP1252 = bytes((0x81, 0x8D, 0x8F, 0x90, 0x9D))
_WINDOWS = re.compile(rb"[\x80-\x9f]")


def find_encoding(content: bytes) -> tuple[str, str | None]:
    """Return the encoding of a text's beginning, and what is doubtful about it.

    Args:
        content: Its first bytes; the last character may be cut.
    """
    for mark, name in _BOMS:
        if content.startswith(mark):
            return name, None
    if len(content) > 1 and content[1::2].count(0) > len(content) // 4:
        return "utf-16-le", "no byte order mark; guessed from the zeros"
    if len(content) > 1 and content[::2].count(0) > len(content) // 4:
        return "utf-16-be", "no byte order mark; guessed from the zeros"
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        decoder.decode(content)
    except UnicodeDecodeError:
        pass
    else:
        return "utf-8", None
    if not _WINDOWS.search(content):
        return "cp1252", "guessed: not UTF-8; iso-8859-1 and iso-8859-15 would read the sample too"
    if not any(octet in content for octet in _NOT_CP1252):
        return "cp1252", "guessed: not UTF-8; other encodings of Windows would read the sample too"
    return "latin-1", "guessed: neither UTF-8 nor cp1252; look whether the letters are right"


@dataclass(slots=True)
class Dialect:
    """How delimited text is written: keys of its format, and doubts by key."""

    keys: dict[str, Any] = field(default_factory=dict)
    doubts: dict[str, str] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)


def find_dialect(text: str) -> Dialect:
    """Say how delimited text is written.

    Args:
        text: Its beginning, whole lines.
    """
    made = Dialect()
    lines = text.splitlines()
    if any(line.startswith("#") for line in lines[:MOST_LINES_BEFORE]) and not all(
        line.startswith("#") for line in lines[:LOOKED_AT]
    ):
        made.keys["comment"] = "#"
        made.doubts["comment"] = "lines that begin with # are left out"
        text = "\n".join(line for line in lines if not line.startswith("#"))
    quote = _quote(text)
    escape = "\\" if quote and re.search(rf"\\{quote}", text) else None
    delimiter, rows = _delimiter(text, quote, escape)
    if delimiter != ",":
        made.keys["delimiter"] = delimiter
    if quote != '"':
        made.keys["quote"] = quote
        made.doubts["quote"] = "guessed"
    if escape:
        made.keys["escape"] = escape
        made.doubts["escape"] = 'guessed from \\" in the sample'
    if not rows:
        return made
    width = Counter(len(row) for row in rows).most_common(1)[0][0]
    if width == 1:
        made.doubts["kind"] = "one column: no delimiter was found"
    before = next((n for n, row in enumerate(rows) if len(row) == width), 0)
    if 0 < before <= MOST_LINES_BEFORE and width > 1:
        made.keys["skip_lines"] = _line_of(text, before)
        made.doubts["skip_lines"] = "lines before the header have other numbers of fields"
        rows = rows[before:]
    _header(made, [row for row in rows if len(row) == width])
    return made


def _header(made: Dialect, rows: Sequence[Sequence[str]]) -> None:
    """Tell whether the first row has names; give it names if it cannot be taken as it is."""
    first, rest = list(rows[0]), rows[1:]
    skipped = int(made.keys.get("skip_lines", 0))
    folded = [name.strip().casefold() for name in first]
    if any(map(_is_value, first)) and (not rest or not _only_texts(rest)):
        made.names = [f"column_{n}" for n in range(1, len(first) + 1)]
        made.keys["header"] = made.names
        made.doubts["header"] = "the first line has values, so there is no header: name the columns"
    elif "" in folded or len(set(folded)) < len(folded):
        made.names = list(_told_apart(first))
        made.keys |= {"skip_lines": skipped + 1, "header": made.names}
        made.doubts["header"] = (
            "the header has names that are empty or the same: named here instead"
        )
    else:
        made.names = first
        if rest and _only_texts(rest):
            made.doubts["header"] = (
                "the first line is taken for the header; all of the file is text"
            )


def _told_apart(names: Sequence[str]) -> list[str]:
    made: list[str] = []
    for position, name in enumerate(names, 1):
        wanted = identifier_of(name, f"column_{position}")
        unique, number = wanted, 2
        while unique in made:
            unique, number = f"{wanted}_{number}", number + 1
        made.append(unique)
    return made


def _is_value(text: str) -> bool:
    text = text.strip()
    return bool(text) and (find_numbers([text]) is not None or find_moments([text]) is not None)


def _only_texts(rows: Sequence[Sequence[str]]) -> bool:
    return not any(_is_value(text) for row in rows[:LOOKED_AT] for text in row)


def _quote(text: str) -> str | None:
    """Return the character that encloses fields; None if there are quotes that enclose nothing."""
    marks = re.escape("".join(DELIMITERS))
    for quote in ('"', "'"):
        enclosed = rf"(?:^|[{marks}]){quote}[^{quote}]*{quote}(?=$|[\r\n]|[{marks}])"
        if re.search(enclosed, text, re.MULTILINE):
            return quote
    return None if '"' in text else '"'


def _delimiter(text: str, quote: str | None, escape: str | None) -> tuple[str, list[list[str]]]:
    """Return the character that cuts most records into the same number of fields."""
    best: tuple[float, int, int] = (0, 0, 0)
    chosen, found = ",", _rows(text, ",", quote, escape)
    for order, delimiter in enumerate(DELIMITERS):
        rows = _rows(text, delimiter, quote, escape)
        if not rows:
            continue
        width, count = Counter(map(len, rows)).most_common(1)[0]
        score = (round(count / len(rows), 1), width, -order)
        if width > 1 and score > best:
            best, chosen, found = score, delimiter, rows
    return chosen, found


def _rows(text: str, delimiter: str, quote: str | None, escape: str | None) -> list[list[str]]:
    made = csv.reader(
        io.StringIO(text, newline=""),
        delimiter=delimiter,
        quotechar=quote or None,
        quoting=csv.QUOTE_MINIMAL if quote else csv.QUOTE_NONE,
        escapechar=escape,
        doublequote=escape is None,
    )
    rows: list[list[str]] = []
    try:
        for row in made:
            if row:
                rows.append(row)
            if len(rows) >= LOOKED_AT:
                break
    except csv.Error:
        return rows
    return rows


def _line_of(text: str, record: int) -> int:
    """Return the number of physical lines before a record; those before it are one line each."""
    seen = 0
    for number, line in enumerate(text.splitlines()):
        if line.strip():
            if seen == record:
                return number
            seen += 1
    return record
