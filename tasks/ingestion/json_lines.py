"""Files of one JSON object a line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from tasks.ingestion.connector import PlanLimits, RawBatch
from tasks.ingestion.json_batches import RecordBatcher
from tasks.ingestion.provenance import RAW_SHOWN
from tasks.ingestion.streams import open_stream
from tasks.model.source import JsonLinesFormat


def read_json_lines(
    raw: BinaryIO, uri: str, limits: PlanLimits, declared: JsonLinesFormat | None = None
) -> Iterator[RawBatch]:
    """Stream a file of one JSON object a line; empty lines are no records.

    Args:
        raw: Its bytes, compressed or not.
        uri: Its name, for provenance and messages.
        limits: Bounds of batches and values.
        declared: Its format.

    Raises:
        SourceRejected: The file is damaged.
    """
    declared = declared or JsonLinesFormat(kind="jsonl")
    batcher = RecordBatcher(uri, limits, flatten=declared.flatten)
    for line in _lines(open_stream(raw, uri, declared.encoding), limits.max_value_bytes):
        if len(line) > limits.max_value_bytes:
            shown = line[:RAW_SHOWN].decode(errors="backslashreplace")
            batcher.refuse("value_too_long", f"longer than {limits.max_value_bytes} bytes", shown)
        elif line.strip() and (made := batcher.add_text(line)):
            yield made
    if left := batcher.flush():
        yield left


def _lines(stream: BinaryIO, most: int) -> Iterator[bytes]:
    """Split at line feeds only: U+2028 and its like are part of a JSON string.

    Of a line longer than allowed only the beginning is kept.
    """
    while line := stream.readline(most + 1):
        if not line.endswith(b"\n") and len(line) > most:
            while (more := stream.readline(1 << 20)) and not more.endswith(b"\n"):
                continue
        yield line
