"""Gates: what must hold of the staged rows before any of them is visible."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tasks.model.dataset import DatasetSpec, NullRate, QuarantineLimits, QuarantineRate, RowsBetween
from tasks.model.errors import GateFailed
from tasks.model.run import Manifest


def null_rate_columns(spec: DatasetSpec) -> list[str]:
    """Return the columns whose NULLs the gates need to know."""
    return [
        name for gate in spec.quality.gates if isinstance(gate, NullRate) for name in gate.null_rate
    ]


def check_gates(spec: DatasetSpec, manifest: Manifest, rows: int, nulls: Mapping[str, int]) -> None:
    """Check every gate of a dataset.

    Args:
        spec: The dataset.
        manifest: Account of the partition's rows.
        rows: Number of staged rows.
        nulls: Number of NULLs in the columns of ``null_rate_columns``.

    Raises:
        GateFailed: Names every gate that does not hold, with what was found and what is allowed.
    """
    failed: list[str] = []
    for gate in spec.quality.gates:
        if isinstance(gate, RowsBetween):
            low, high = gate.rows_between
            if not low <= rows <= high:
                failed.append(f"rows_between: {rows} rows, allowed {low} to {high}")
        elif isinstance(gate, NullRate):
            for name, allowed in gate.null_rate.items():
                rate = nulls[name] / rows if rows else 0.0
                if rate > allowed:
                    failed.append(f"null_rate: {name} is NULL in {rate:.1%}, allowed {allowed:.1%}")
        elif isinstance(gate, QuarantineRate):
            read = manifest.rows_read
            rate = manifest.rows_quarantined / read if read else 0.0
            if rate > gate.quarantine_rate:
                failed.append(
                    f"quarantine_rate: {rate:.1%} of {read} rows, "
                    f"allowed {gate.quarantine_rate:.1%} ({_reasons(manifest)})"
                )
    failed += _limits_exceeded(spec.quality.quarantine, manifest)
    if failed:
        raise GateFailed(
            f"{spec.name}: gate failed: {'; '.join(failed)}",
            "nothing of the partition was published; correct the source, the file or the gate",
        )


def _limits_exceeded(limits: QuarantineLimits, manifest: Manifest) -> Iterator[str]:
    refused, read = manifest.rows_quarantined, manifest.rows_read
    if limits.max_rows is not None and refused > limits.max_rows:
        yield (
            f"quarantine.max_rows: {refused} rows refused, allowed {limits.max_rows} "
            f"({_reasons(manifest)})"
        )
    if limits.max_share is not None and refused > limits.max_share * read:
        yield (
            f"quarantine.max_share: {refused / read:.2%} of {read} rows refused, "
            f"allowed {limits.max_share:.2%} ({_reasons(manifest)})"
        )


def _reasons(manifest: Manifest) -> str:
    return ", ".join(
        f"{reason.rows} x {reason.column or reason.rule} {reason.message}"
        for reason in manifest.reasons[:3]
    )
