"""The format of a file, guessed from its beginning."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from tasks.inference.fixed import guess_fixed_width
from tasks.inference.values import guess_text
from tasks.ingestion.archives import EMPTY_ZIP, ZIP_MAGIC
from tasks.ingestion.streams import decompressed
from tasks.model.errors import ConfigError

SAMPLE_BYTES = 1 << 20
SAMPLE_LINES = 200
DELIMITERS = ",;\t|"
MOST_ROWS_BEFORE = 30
_MARKS = ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"), (b"\xef\xbb\xbf", "utf-8"))


@dataclass
class FormatGuess:
    """What a file seems to be.

    Attributes:
        declared: The format for the dataset file.
        doubts: What is unsure, for comments.
    """

    declared: dict[str, Any]
    doubts: list[str] = field(default_factory=list)


def guess_format(open_binary: Callable[[], BinaryIO], uri: str) -> FormatGuess:
    """Guess the format of a file.

    Args:
        open_binary: Opens it.
        uri: Its name, for messages.

    Raises:
        ConfigError: It is nothing that can be read.
    """
    with open_binary() as raw:
        begin = raw.read(8)
    if begin.startswith(b"PAR1"):
        return FormatGuess({"kind": "parquet"})
    if begin.startswith(b"Obj\x01"):
        return FormatGuess({"kind": "avro"})
    if begin.startswith((ZIP_MAGIC, EMPTY_ZIP)):
        return _zipped(open_binary, uri)
    with open_binary() as raw:
        content = decompressed(raw, uri).read(SAMPLE_BYTES)
    return guess_text_format(content, uri)


def _zipped(open_binary: Callable[[], BinaryIO], uri: str) -> FormatGuess:
    import zipfile

    with open_binary() as raw, zipfile.ZipFile(raw) as archive:
        names = [info.filename for info in archive.infolist() if not info.is_dir()]
        if "[Content_Types].xml" in names:
            return _workbook(raw, uri)
        if not names:
            raise ConfigError(f"{uri}: an empty archive says nothing of its format")
        with archive.open(sorted(names)[0]) as member:
            guess = guess_text_format(member.read(SAMPLE_BYTES), f"{uri}!{sorted(names)[0]}")
    if len(names) > 1:
        guess.declared["member"] = "*"
        guess.doubts.append(f"all {len(names)} members of the archive")
    return guess


def _workbook(raw: BinaryIO, uri: str) -> FormatGuess:
    """Choose the first sheet that has rows; its widest row is the header."""
    from openpyxl import load_workbook

    raw.seek(0)
    try:
        book = load_workbook(raw, read_only=True, data_only=True)
    except Exception:  # openpyxl raises whatever a damaged workbook makes it raise
        raise ConfigError(f"{uri}: the workbook is damaged, or has a password") from None
    for number, sheet in enumerate(book.worksheets):
        rows = sheet.iter_rows(max_row=MOST_ROWS_BEFORE, values_only=True)
        filled = [sum(cell not in (None, "") for cell in row) for row in rows]
        if not any(filled):
            continue
        guess = FormatGuess({"kind": "excel"})
        if number:
            guess.declared["sheet"] = sheet.title
        if len(book.worksheets) > 1:
            guess.doubts.append(f"one sheet of {len(book.worksheets)}: the first that has rows")
        if before := filled.index(max(filled)):
            guess.declared["skip_rows"] = before
            guess.doubts.append("the rows before the widest one are taken for a title")
        return guess
    raise ConfigError(f"{uri}: no sheet of the workbook has rows")


def guess_text_format(content: bytes, uri: str) -> FormatGuess:
    """Guess the format of text from its beginning.

    Raises:
        ConfigError: It is empty, or no text.
    """
    if not content.strip():
        raise ConfigError(f"{uri}: is empty", "infer from a file that has rows")
    encoding, doubts = _encoding(content, uri)
    text = content.decode(encoding, "ignore").lstrip("\ufeff")
    guess = _json(text) or _delimited(text)
    if encoding != "utf-8":
        guess.declared["encoding"] = encoding
    guess.doubts[:0] = doubts
    return guess


def _encoding(content: bytes, uri: str) -> tuple[str, list[str]]:
    for mark, name in _MARKS:
        if content.startswith(mark):
            return name, []
    if b"\0" in content:
        raise ConfigError(f"{uri}: is no text, and no format that is known")
    try:
        content.decode()
    except UnicodeDecodeError as error:
        if len(content) - error.start > 3 or len(content) < SAMPLE_BYTES:  # noqa: PLR2004
            return "cp1252", ["not UTF-8; cp1252 is a guess, look at letters like ä and é"]
    return "utf-8", []


def _json(text: str) -> FormatGuess | None:
    begin = text.lstrip()[:1]
    if begin == "[":
        return FormatGuess({"kind": "json"})
    if begin != "{":
        return None
    lines = [line for line in text.splitlines()[:SAMPLE_LINES] if line.strip()]
    first = _parsed(lines[0])
    if isinstance(first, dict) and (len(lines) > 1 or records_path(first) is None):
        return FormatGuess({"kind": "jsonl"})
    path = records_path(_parsed(text) or first)
    if path:
        return FormatGuess({"kind": "json", "records": path})
    return FormatGuess({"kind": "json"}, ["say in 'records' where the list of records is"])


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def records_path(body: Any, depth: int = 3) -> str | None:
    """Return the dotted path of the longest list of objects in a document, None if there is none."""
    best: tuple[int, str] | None = None
    for key, value in body.items() if isinstance(body, dict) else ():
        found: tuple[int, str] | None = None
        if isinstance(value, list) and value and isinstance(value[0], dict):
            found = (len(value), key)
        elif isinstance(value, dict) and depth > 1:
            deeper = records_path(value, depth - 1)
            found = (0, f"{key}.{deeper}") if deeper else None
        if found and (best is None or found[0] > best[0]):
            best = found
    return best[1] if best else None


def _delimited(text: str) -> FormatGuess:
    whole = text if len(text) < SAMPLE_BYTES // 2 else text.rpartition("\n")[0]
    quote = _quote(whole)
    counted: list[tuple[float, int, str, list[list[str]]]] = []
    for delimiter in DELIMITERS:
        rows = _rows(whole, delimiter, quote)
        width, same = Counter(map(len, rows)).most_common(1)[0] if rows else (0, 0)
        if width > 1:
            counted.append((same / len(rows), width, delimiter, rows))
    if not counted:
        if fixed := guess_fixed_width(whole):
            why = "the widths are a guess, by the spaces that all lines share: compare the description"
            return FormatGuess(fixed, [why])
        rows = [[line] for line in whole.splitlines()[:SAMPLE_LINES] if line]
        one = "one column was found; if there are more, say the delimiter"
        return _with_header({"kind": "csv"}, rows, [one])
    share, width, delimiter, rows = max(counted)
    declared: dict[str, Any] = {"kind": "csv"} | (
        {} if delimiter == "," else {"delimiter": delimiter}
    )
    doubts = []
    if quote != '"':
        declared["quote"] = quote
        doubts.append(
            "the quote is a guess" if quote else "quotes that enclose nothing: taken as text"
        )
    before = next(number for number, row in enumerate(rows) if len(row) == width)
    if 0 < before <= MOST_ROWS_BEFORE:
        declared["skip_lines"] = before
        doubts.append("the lines before the header have other numbers of fields: left out")
    elif share < 1:
        doubts.append(
            f"the delimiter is a guess: {share:.0%} of the lines have {width} fields with it"
        )
    return _with_header(declared, rows[before:], doubts)


def _quote(text: str) -> str | None:
    """Return the character that encloses fields, None if there are quotes that enclose nothing."""
    marks = re.escape(DELIMITERS)
    for quote in "\"'":
        enclosed = rf"(?:^|[{marks}]){quote}[^{quote}]*{quote}(?=[{marks}\r\n]|\Z)"
        if re.search(enclosed, text, re.MULTILINE):
            return quote
    return None if '"' in text else '"'


def _rows(text: str, delimiter: str, quote: str | None) -> list[list[str]]:
    reader = csv.reader(
        io.StringIO(text, newline=""),
        delimiter=delimiter,
        quotechar=quote,
        quoting=csv.QUOTE_MINIMAL if quote else csv.QUOTE_NONE,
    )
    try:
        return [row for _, row in zip(range(SAMPLE_LINES), reader, strict=False) if row]
    except csv.Error:
        return []


def _with_header(declared: dict[str, Any], rows: list[list[str]], doubts: list[str]) -> FormatGuess:
    first, rest = rows[0], rows[1:]
    names = [name.strip().casefold() for name in first]
    are_names = not _looks_like_data(first, rest)
    if are_names and all(names) and len(set(names)) == len(names):
        return FormatGuess(declared, doubts)
    declared["header"] = _told_apart(first if are_names else [""] * len(first))
    if are_names:
        declared["skip_lines"] = declared.get("skip_lines", 0) + 1
        return FormatGuess(
            declared, [*doubts, "the header has names that are empty or the same: named anew"]
        )
    return FormatGuess(declared, [*doubts, "no header line was recognised; name the columns"])


def _told_apart(names: list[str]) -> list[str]:
    made: list[str] = []
    for position, name in enumerate(names, 1):
        wanted = name.strip() or f"column_{position}"
        unique, number = wanted, 2
        while unique.casefold() in (other.casefold() for other in made):
            unique, number = f"{wanted}_{number}", number + 1
        made.append(unique)
    return made


def _looks_like_data(first: list[str], rest: list[list[str]]) -> bool:
    """Tell whether a first line is a record: a name is no number, date or repeated value."""
    kinds = [guess_text([value]).type for value in first if value]
    if any(kind != "string" for kind in kinds):
        return True
    columns = list(zip(*[row for row in rest if len(row) == len(first)], strict=True))
    return any(name in values for name, values in zip(first, columns, strict=False) if name)
