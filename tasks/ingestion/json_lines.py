"""Files of one JSON object a line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from tasks.ingestion.connector import PlanLimits, RawBatch
from tasks.ingestion.json_batches import RecordBatcher
from tasks.ingestion.streams import open_stream
from tasks.model.formats import JsonLinesFormat
from tasks.model.partition import Part

BLOCK_BYTES = 128 << 10


def read_json_lines(
    raw: BinaryIO,
    uri: str,
    limits: PlanLimits,
    declared: JsonLinesFormat | None = None,
    part: Part | None = None,
) -> Iterator[RawBatch]:
    """Stream a file of one JSON object a line; empty lines are no records.

    Args:
        raw: Its bytes, compressed or not.
        uri: Its name, for provenance and messages.
        limits: Bounds of batches and values.
        declared: Its format.
        part: The part of it that ``raw`` is, None for all of it.

    Raises:
        SourceRejected: The file is damaged.
    """
    declared = declared or JsonLinesFormat(kind="jsonl")
    first = (part and part.first_row) or 1
    batcher = RecordBatcher(uri, limits, first, flatten=declared.flatten)
    stream = raw
    if part is None or not part.start:
        # The middle of a text may begin like another encoding or a compressed file.
        stream = open_stream(raw, uri, declared.encoding, limits)
    for block in _whole_lines(stream, limits.max_value_bytes):
        yield from batcher.add_texts([line for line in block.split(b"\n") if line.strip()])
    if left := batcher.flush():
        yield left


def _whole_lines(stream: BinaryIO, most: int) -> Iterator[bytes]:
    """Cut at line feeds only: U+2028 and its like are part of a JSON string.

    Of a line longer than allowed only a beginning that is too long is kept.
    """
    while block := stream.read(BLOCK_BYTES):
        if not block.endswith(b"\n"):
            rest = stream.readline(most + 1)
            block += rest
            while rest and not rest.endswith(b"\n"):
                rest = stream.readline(BLOCK_BYTES)
        yield block
