"""The format of a file, guessed from its beginning."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from tasks.inference.values import guess_text
from tasks.ingestion.archives import EMPTY_ZIP, ZIP_MAGIC
from tasks.ingestion.streams import decompressed
from tasks.model.errors import ConfigError

SAMPLE_BYTES = 1 << 20
SAMPLE_LINES = 200
DELIMITERS = ",;\t|"
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
            return FormatGuess({"kind": "excel"}, ["the first sheet, with its first row as header"])
        if not names:
            raise ConfigError(f"{uri}: an empty archive says nothing of its format")
        with archive.open(sorted(names)[0]) as member:
            guess = guess_text_format(member.read(SAMPLE_BYTES), f"{uri}!{sorted(names)[0]}")
    if len(names) > 1:
        guess.declared["member"] = "*"
        guess.doubts.append(f"all {len(names)} members of the archive")
    return guess


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
    counted: list[tuple[float, int, str, list[list[str]]]] = []
    for delimiter in DELIMITERS:
        try:
            reader = csv.reader(io.StringIO(whole, newline=""), delimiter=delimiter)
            rows = [row for _, row in zip(range(SAMPLE_LINES), reader, strict=False) if row]
        except csv.Error:
            continue
        width, same = Counter(map(len, rows)).most_common(1)[0]
        if width > 1:
            counted.append((same / len(rows), width, delimiter, rows))
    if not counted:
        rows = [[line] for line in whole.splitlines()[:SAMPLE_LINES] if line]
        one = "one column was found; if there are more, say the delimiter"
        return _with_header({"kind": "csv"}, rows, [one])
    _, _, delimiter, rows = max(counted)
    declared: dict[str, Any] = {"kind": "csv"} | (
        {} if delimiter == "," else {"delimiter": delimiter}
    )
    return _with_header(declared, rows, [])


def _with_header(declared: dict[str, Any], rows: list[list[str]], doubts: list[str]) -> FormatGuess:
    first, rest = rows[0], rows[1:]
    names = [name.strip() for name in first]
    if all(names) and len(set(names)) == len(names) and not _looks_like_data(first, rest):
        return FormatGuess(declared, doubts)
    declared["header"] = [f"column_{number}" for number in range(1, len(first) + 1)]
    return FormatGuess(declared, [*doubts, "no header line was recognised; name the columns"])


def _looks_like_data(first: list[str], rest: list[list[str]]) -> bool:
    """Tell whether a first line is a record: a name is no number, date or repeated value."""
    kinds = [guess_text([value]).type for value in first if value]
    if any(kind != "string" for kind in kinds):
        return True
    columns = list(zip(*[row for row in rest if len(row) == len(first)], strict=True))
    return any(name in values for name, values in zip(first, columns, strict=False) if name)
