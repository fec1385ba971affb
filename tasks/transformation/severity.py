"""What a broken rule means: rows that only warn are counted, others end the partition."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from tasks.model.dataset import DatasetSpec
from tasks.model.errors import ContractBroken, GateFailed, PipelineError
from tasks.model.manifest import QuarantineReason
from tasks.quarantine import RefusedRow
from tasks.transformation.columns import WARNINGS
from tasks.transformation.judge import broken_rules
from tasks.transformation.validate import Rule


class WarningCounts:
    """Counts the rows that break a rule of severity ``warn``, with the first of each rule."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str | None], QuarantineReason] = {}

    @property
    def reasons(self) -> tuple[QuarantineReason, ...]:
        """The rules that were broken."""
        return tuple(self._counts.values())

    def count(self, rules: Sequence[Rule], batch: pa.RecordBatch) -> None:
        """Count the warnings of clean rows, as the query lists them."""
        column = batch.column(WARNINGS)
        if column.null_count == len(column):
            return
        for position in pc.indices_nonzero(pc.is_valid(column)).to_pylist():
            uri, number = (batch.column(name)[position].as_py() for name in _ORIGIN)
            for broken in broken_rules(column[position].as_py()):
                rule = rules[broken]
                self._add(rule.name, rule.column, rule.message, uri, number)

    def add(self, rows: Sequence[RefusedRow]) -> None:
        """Count rows that would have been refused."""
        for row in rows:
            self._add(row.rule, row.column, row.message, row.source_uri, row.source_row)

    def _add(self, rule: str, column: str | None, message: str, uri: str, number: int) -> None:
        known = self._counts.get((rule, column))
        self._counts[rule, column] = (
            known.model_copy(update={"rows": known.rows + 1})
            if known
            else QuarantineReason(
                stage="transformation",
                rule=rule,
                column=column,
                rows=1,
                message=message,
                source_uri=uri,
                source_row=number,
            )
        )


_ORIGIN = ("_source_uri", "_source_row")


def first_failure(spec: DatasetSpec, row: RefusedRow) -> PipelineError:
    """Return the error of a row that breaks a rule of severity ``fail``."""
    if row.rule == "type":
        return ContractBroken(
            f"{spec.name}: {row.source_uri} row {row.source_row}: {row.failures}",
            "nothing of the partition was published, because the contract freezes types; correct "
            "the source, or set contract: {changed: quarantine} or {changed: evolve}",
        )
    return GateFailed(
        f"{spec.name}: {row.source_uri} row {row.source_row}: {row.failures}",
        "nothing of the partition was published, because the rule's severity is fail; correct the "
        "source, or set severity: quarantine",
    )
