"""Refused rows as quarantine keeps them: with the rules that they break, in words."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from tasks.model.dataset import DatasetSpec
from tasks.quarantine import RefusedRow
from tasks.transformation.columns import FAILURES, PROVENANCE, RAW
from tasks.transformation.judge import broken_rules
from tasks.transformation.query import TransformQuery
from tasks.transformation.severity import first_failure


def check_severity(spec: DatasetSpec, query: TransformQuery, refused: pa.RecordBatch) -> None:
    """Stop at the first row that breaks a rule of severity ``fail``."""
    hard = {n for n, rule in enumerate(query.rules) if rule.severity == "fail"}
    if not hard:
        return
    for position, broken in enumerate(refused.column(FAILURES).to_pylist()):
        if hard.intersection(broken_rules(broken)):
            raise first_failure(spec, refused_rows(query, refused.slice(position, 1))[0])


def refused_rows(query: TransformQuery, batch: pa.RecordBatch) -> list[RefusedRow]:
    """Return the rows of a batch that the query refuses, all of them, with what they break."""
    refused = []
    rows = batch.select([*PROVENANCE, FAILURES, RAW]).to_pylist()
    for row in rows:
        broken = [query.rules[position] for position in broken_rules(row[FAILURES])]
        refused.append(
            RefusedRow(
                source_uri=row["_source_uri"],
                source_row=row["_source_row"],
                rule=broken[0].name,
                column=broken[0].column,
                message=broken[0].message,
                failures="; ".join(
                    f"{rule.column or rule.name}: {rule.message}" for rule in broken
                ),
                raw=row[RAW],
            )
        )
    return refused


def pandera_rows(
    batch: pa.RecordBatch, failures: Mapping[int, tuple[str, str]]
) -> list[RefusedRow]:
    """Return the rows that pandera refuses; what they said originally is not known here.

    Args:
        batch: The rows.
        failures: Row number → (check, column).
    """
    refused = []
    for position, (check, column) in failures.items():
        message = f"pandera refuses it: {check}"
        refused.append(
            RefusedRow(
                source_uri=batch.column("_source_uri")[position].as_py(),
                source_row=batch.column("_source_row")[position].as_py(),
                rule=f"pandera.{check}",
                column=column,
                message=message,
                failures=f"{column}: {message}",
                raw=None,
            )
        )
    return refused
