"""The audit: what was done by hand or by retention, by whom and why; a chain that shows a gap."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import psycopg2.extras
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class in lower case

from tasks.loading.checks import Check, check, shown
from tasks.loading.queries import query
from tasks.model.dataset import DatasetSpec

EVERY_DATASET = "*"
"""Stands for the name of a dataset where something is of none."""


def record(
    cursor: Cursor,
    dataset: str,
    action: str,
    *,
    actor: str,
    reason: str,
    load_id: int | None = None,
    details: Mapping[str, Any] | None = None,
) -> None:
    """Append a line to the audit; it commits with what it tells of.

    Args:
        cursor: In the transaction that does it.
        dataset: Name of the dataset, or ``EVERY_DATASET``.
        action: What is done, e.g. ``unload``.
        actor: Who does it.
        reason: Why, in the words of whoever does it.
        load_id: The load that it is done to, if it is one.
        details: Counts and names; never a value of a row.
    """
    cursor.execute(
        query("audit_append"),
        {
            "actor": actor,
            "action": action,
            "dataset": dataset,
            "load_id": load_id,
            "reason": reason,
            "details": psycopg2.extras.Json(dict(details or {})),
        },
    )


def audit_checks(cursor: Cursor, spec: DatasetSpec) -> Iterator[Check]:
    """Check that no line of the audit was changed, put in or taken out; it is one for all datasets."""
    cursor.execute(query("audit_broken"))
    broken = [f"line {row[0]}" for row in cursor.fetchall()]
    cursor.execute(query("audit_head"))
    row = cursor.fetchone()
    if row is None or row[0] != row[1]:
        broken.append("the last line is not the one that was appended last")
    statement = "the audit is whole"
    yield check(spec, "I16", statement, "none broken", shown(broken), broken)
