"""The account of a run while it goes on: what became of its partitions, in bounded memory."""

from __future__ import annotations

from tasks.model.anomaly import Finding
from tasks.model.manifest import QuarantineReason
from tasks.model.report import (
    DatasetReport,
    LoadReceipt,
    LoadStatus,
    Outcome,
    PartitionFailure,
    RowCounts,
)

MOST_FAILURES = 50
MOST_FINDINGS = 200
Reasons = dict[tuple[str, str, str | None], QuarantineReason]


class Account:
    """Adds up receipts, failures and the reports of shards.

    Of the reasons of quarantine one of each rule and column is kept, with the rows of all; of failures
    and findings the first ones. So a run of a hundred thousand partitions needs no more memory than
    one of a hundred.
    """

    def __init__(self) -> None:
        self.loaded = 0
        self.failed = 0
        self.failures: list[PartitionFailure] = []
        self._already_loaded = 0
        self._counts = RowCounts()
        self._children: dict[str, RowCounts] = {}
        self._reasons: Reasons = {}
        self._warnings: Reasons = {}
        self._findings: dict[Finding, None] = {}

    def add(self, result: LoadReceipt | PartitionFailure) -> None:
        """Add what became of one partition."""
        if isinstance(result, PartitionFailure):
            self._fail((result,), 1)
        elif result.status is not LoadStatus.LOADED:
            self._already_loaded += 1
        else:
            self.loaded += 1
            self._counts += result.counts
            self._add_children(result.children)
            self._add_reasons(self._reasons, result.reasons)
            self._add_reasons(self._warnings, result.warnings)
            self._find(result.findings)

    def add_report(self, report: DatasetReport) -> None:
        """Add what became of the partitions of one shard."""
        self.loaded += report.partitions_loaded
        self._already_loaded += report.partitions_already_loaded
        self._counts += report.counts
        self._add_children(report.children)
        self._add_reasons(self._reasons, report.reasons)
        self._add_reasons(self._warnings, report.warnings)
        self._fail(report.failures, report.partitions_failed)
        self._find(report.findings)

    def report(
        self, dataset: str, table: str, partitions: int, table_rows: int | None, seconds: float
    ) -> DatasetReport:
        """Return the report of the run."""
        return DatasetReport(
            dataset=dataset,
            table=table,
            outcome=Outcome.FAILED if self.failed else Outcome.SUCCEEDED,
            partitions=partitions,
            partitions_loaded=self.loaded,
            partitions_already_loaded=self._already_loaded,
            partitions_failed=self.failed,
            counts=self._counts,
            table_rows=table_rows,
            children=self._children,
            reasons=tuple(self._reasons.values()),
            findings=tuple(self._findings),
            warnings=tuple(self._warnings.values()),
            failures=tuple(self.failures),
            seconds=seconds,
        )

    def _fail(self, failures: tuple[PartitionFailure, ...], count: int) -> None:
        self.failed += count
        self.failures += failures[: MOST_FAILURES - len(self.failures)]
        for failure in failures:
            self._find(failure.findings)

    def _find(self, findings: tuple[Finding, ...]) -> None:
        for finding in findings:
            if len(self._findings) < MOST_FINDINGS:
                self._findings.setdefault(finding)

    def _add_children(self, children: dict[str, RowCounts]) -> None:
        for name, counts in children.items():
            self._children[name] = self._children.get(name, RowCounts()) + counts

    @staticmethod
    def _add_reasons(known: Reasons, more: tuple[QuarantineReason, ...]) -> None:
        for reason in more:
            key = (reason.stage, reason.rule, reason.column)
            first = known.get(key)
            rows = reason.rows + (first.rows if first else 0)
            known[key] = (first or reason).model_copy(update={"rows": rows})
