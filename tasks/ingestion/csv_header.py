"""The beginning of delimited text: what is skipped, and the line with the names."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from dataclasses import dataclass
from typing import BinaryIO

from tasks.ingestion.csv_grammar import Grammar, line_ends
from tasks.model.errors import ContractBroken, SourceRejected
from tasks.model.formats import CsvFormat

MAX_HEADER_BYTES = 1 << 20
_LINE = re.compile(rb"[^\r\n]*+(?:\r\n|\n|\r)")


@dataclass(frozen=True, slots=True)
class Beginning:
    """What precedes the first record.

    Attributes:
        names: The columns; none in an empty file.
        rest: Bytes that were read beyond it.
        position: Where they begin in the text.
        lines: Lines before them.
    """

    names: list[str]
    rest: bytes
    position: int
    lines: int


def read_beginning(
    stream: BinaryIO, uri: str, declared: CsvFormat, grammar: Grammar, expected: int
) -> Beginning:
    """Skip what is to be skipped, and read the names.

    Args:
        stream: The text from its start.
        uri: Its name.
        declared: Its format.
        grammar: Its records.
        expected: Number of columns that the dataset declares.

    Raises:
        ContractBroken: The header cannot be the declared one.
        SourceRejected: It is no text, or opens a quote that is never closed.
    """
    read = stream.read(MAX_HEADER_BYTES)
    ended = len(read) < MAX_HEADER_BYTES
    position = _skipped(read, declared, uri)
    names: list[str] = list(declared.header or ())
    if declared.header is None:
        while position < len(read):
            comment = grammar.comment_end(read, position)
            if comment is None and read[position : position + 1] not in (b"\r", b"\n"):
                break
            position = comment or position + 1
        found = grammar.record.match(read, position)
        if found is None and ended:
            raise SourceRejected(f"{uri}: the header opens a quote that is never closed")
        if found is None or (not found[1] and not ended):
            raise ContractBroken(f"{uri}: the header is longer than {MAX_HEADER_BYTES} bytes")
        position = found.end()
        names = _names(found[0], uri, declared)
        if names:
            _check_names(names, uri, declared, expected)
    return Beginning(names, read[position:], position, line_ends(read[:position]))


def _skipped(read: bytes, declared: CsvFormat, uri: str) -> int:
    position = 0
    for _ in range(declared.skip_lines):
        found = _LINE.match(read, position)
        if found is None:
            raise ContractBroken(
                f"{uri}: has no {declared.skip_lines} lines to skip in its first "
                f"{MAX_HEADER_BYTES} bytes",
                "correct 'skip_lines' of the format",
            )
        position = found.end()
    return position


def _names(line: bytes, uri: str, declared: CsvFormat) -> list[str]:
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        raise SourceRejected(
            f"{uri}: header is not {declared.encoding.upper()} at byte {error.start}",
            "correct 'encoding' in the dataset file",
        ) from None
    if "\0" in text:
        raise ContractBroken(f"{uri}: NUL in the header; is the encoding UTF-16?")
    parsed = csv.reader(
        io.StringIO(text.rstrip("\r\n"), newline=""),
        delimiter=declared.delimiter,
        quotechar=declared.quote,
        quoting=csv.QUOTE_MINIMAL if declared.quote else csv.QUOTE_NONE,
        escapechar=declared.escape,
    )
    return next(parsed, [])


def _check_names(names: list[str], uri: str, declared: CsvFormat, expected: int) -> None:
    if len(names) == 1 and expected > 1:
        other = next((d for d in ";\t|," if d in names[0] and d != declared.delimiter), None)
        hint = f"; is the delimiter {other!r}?" if other else ""
        raise ContractBroken(f"{uri}: found 1 column, expected {expected}{hint}")
    if "" in names:
        raise ContractBroken(f"{uri}: column {names.index('') + 1} of the header has no name")
    folded = Counter(name.casefold() for name in names)
    twice = [name for name in names if folded[name.casefold()] > 1]
    if twice:
        raise ContractBroken(f"{uri}: column names that are not different: {', '.join(twice)}")
