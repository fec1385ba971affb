"""The named SQL of this stage, read from its files once."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

_FOLDER = Path(__file__).parent / "sql"
_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


@cache
def _queries() -> dict[str, str]:
    texts = [(_FOLDER / name).read_text() for name in ("queries.sql", "history.sql", "copies.sql")]
    parts = _NAME.split("\n".join(texts))[1:]
    return {
        name: re.sub(r"^\s*--[^\n]*\n", "", body.lstrip("\n")).strip().removesuffix(";")
        for name, body in zip(parts[::2], parts[1::2], strict=True)
    }


def query(name: str) -> str:
    """Return a named query of ``sql/queries.sql``, ``sql/history.sql`` or ``sql/copies.sql``."""
    return _queries()[name]


@cache
def ledger_schema() -> str:
    """Return the DDL of the ledger."""
    return "\n".join(
        (_FOLDER / name).read_text()
        for name in ("schema.sql", "audit_schema.sql", "copies_schema.sql")
    )
