"""Names of what belongs to a table: indexes, partitions. Pure, and the same on every machine."""

from __future__ import annotations

import hashlib

from tasks.model.columns import MAX_IDENTIFIER_BYTES

_DIGITS = 8


def name_beside(table: str, suffix: str) -> str:
    """Return the name of something that belongs to a table, within PostgreSQL's 63 bytes.

    Two tables whose names begin alike would share a name that is only cut, so one that is too long
    carries a hash of the table's.

    Args:
        table: Name of the table, without its schema; ASCII.
        suffix: What it is of the table; ASCII, at most 53 characters.
    """
    name = f"{table}_{suffix}"
    if len(name) <= MAX_IDENTIFIER_BYTES:
        return name
    suffix = f"{short_hash(table)}_{suffix}"
    return f"{table[: MAX_IDENTIFIER_BYTES - len(suffix) - 1]}_{suffix}"


def short_hash(text: str) -> str:
    """Return eight hexadecimal digits that stand for a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]
