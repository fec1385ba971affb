"""Small delimited texts of the same header, parsed as one: parsing has a price for each call.

Nothing is decided here that the reader of one text would decide otherwise: texts that need a closer
look are left to it.
"""

from __future__ import annotations

import codecs
import io
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from tasks.ingestion.archives import EMPTY_ZIP, ZIP_MAGIC
from tasks.ingestion.compression import codec_of
from tasks.ingestion.connector import PlanLimits, RawBatch
from tasks.ingestion.csv_format import parser_of
from tasks.ingestion.csv_grammar import Grammar, grammar_of
from tasks.ingestion.csv_guard import RecordGuard
from tasks.ingestion.csv_header import read_beginning
from tasks.ingestion.provenance import check_names, long_values, with_origin
from tasks.ingestion.record_ends import count_records
from tasks.model.errors import SourceRejected
from tasks.model.formats import CsvFormat

SMALL_BYTES = 256 << 10
"""Larger texts are worth a call of their own."""
_OTHER_BEGINNINGS = (
    ZIP_MAGIC,
    EMPTY_ZIP,
    codecs.BOM_UTF8,
    codecs.BOM_UTF16_LE,
    codecs.BOM_UTF16_BE,
)


def read_small_csv(
    texts: Sequence[tuple[str, bytes]],
    declared: CsvFormat,
    limits: PlanLimits,
    expected_columns: int,
) -> RawBatch | None:
    """Parse some texts as one.

    Args:
        texts: The name and the bytes of each; together at most ``limits.batch_bytes``.
        declared: Their format.
        limits: Bounds of batches and values.
        expected_columns: Number of columns that the dataset declares.

    Returns:
        Their rows; None if one of them has anything but plain rows under the same header.

    Raises:
        ContractBroken: The header cannot be the declared one.
    """
    uri, first = texts[0]
    if not is_plain(declared) or first.startswith(_OTHER_BEGINNINGS) or codec_of(first[:8]):
        return None
    begin = read_beginning(io.BytesIO(first), uri, declared, grammar_of(declared), expected_columns)
    header = first[: begin.position]
    if len(begin.names) <= 1 or not header.endswith((b"\n", b"\r")):
        return None
    check_names(begin.names, uri)
    grammar = grammar_of(declared, len(begin.names))
    bodies = _bodies([text for _, text in texts], header, grammar)
    if bodies is None:
        return None
    counts = np.array([count_records(body, grammar) for body in bodies])
    batch = _parsed(b"".join(bodies), tuple(begin.names), declared, limits)
    if batch is None or batch.num_rows != counts.sum():
        return None
    position = np.repeat(np.arange(len(texts)), counts)
    starts = np.cumsum(counts) - counts
    uris = pa.array([name for name, _ in texts], pa.string()).take(pa.array(position))
    numbers = np.arange(batch.num_rows) - starts[position] + 1
    return RawBatch(with_origin(begin.names, batch.columns, uris, numbers))


def is_plain(declared: CsvFormat) -> bool:
    """Tell whether texts of a format can be put together at all."""
    utf8 = codecs.lookup(declared.encoding).name in ("utf-8", "utf-8-sig")
    return utf8 and not (
        declared.escape or declared.comment or declared.skip_lines or declared.header
    )


def _bodies(texts: Sequence[bytes], header: bytes, grammar: Grammar) -> list[bytes] | None:
    """Return what follows the header in each text, ended by a line end; None if one is different."""
    bodies = []
    for text in texts:
        if not text.startswith(header):
            return None
        body = text[len(header) :]
        if grammar.quote and body.count(grammar.quote) % 2:
            return None  # a quote that is never closed would go on in the next text
        bodies.append(body + b"\n" if body and not body.endswith(b"\n") else body)
    return bodies


def _parsed(
    text: bytes, names: tuple[str, ...], declared: CsvFormat, limits: PlanLimits
) -> pa.RecordBatch | None:
    """Parse records that the guard has nothing to say about; None if it has."""
    guard = RecordGuard(io.BytesIO(text), b"", "", grammar_of(declared, len(names)), limits)
    try:
        blocks = list(guard.blocks())
    except SourceRejected:
        return None
    if len(blocks) != 1 or blocks[0].aside or blocks[0].text != text:
        return None
    try:
        parsed = parser_of(names, declared).parse(blocks[0])
    except pa.ArrowInvalid:
        return None
    most = limits.max_value_bytes
    if parsed.ragged or any(long_values(column, most) for column in parsed.batch.columns):
        return None
    return parsed.batch
