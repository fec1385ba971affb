"""Names of what belongs to a table: indexes, partitions, functions. Pure."""

from __future__ import annotations

import hashlib

from tasks.model.columns import MAX_IDENTIFIER_BYTES

_DIGITS = 8


def named_within_limit(table: str, suffix: str) -> str:
    """Return ``<table>_<suffix>``, shortened where PostgreSQL's 63 bytes demand it."""
    name = f"{table}_{suffix}"
    if len(name) <= MAX_IDENTIFIER_BYTES:
        return name
    # Cut, two tables whose names begin alike would share an index, and the second have none.
    suffix = f"{short_hash(name)}_{suffix}"[:MAX_IDENTIFIER_BYTES]
    return f"{table[: max(MAX_IDENTIFIER_BYTES - len(suffix) - 1, 0)]}_{suffix}".lstrip("_")


def short_hash(text: str) -> str:
    """Return eight hexadecimal digits that stand for a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]
