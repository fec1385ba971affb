"""JSON, as the connectors use it: exact, fast, and every record accounted for.

``json_records`` reads a record exactly, ``json_tokens`` fast where that gives the same;
``json_batches`` gathers records; ``json_lines`` and ``json_array`` read files; ``json_select`` finds
records in a document that is in memory.
"""

from __future__ import annotations

from tasks.ingestion.json_array import read_json_document
from tasks.ingestion.json_batches import RecordBatcher
from tasks.ingestion.json_lines import read_json_lines
from tasks.ingestion.json_records import parse_json, record_texts
from tasks.ingestion.json_select import records_at

__all__ = [
    "RecordBatcher",
    "parse_json",
    "read_json_document",
    "read_json_lines",
    "record_texts",
    "records_at",
]
