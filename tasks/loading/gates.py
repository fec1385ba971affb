"""Gates: what must hold of the staged rows before any of them is visible."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class in lower case

from tasks.loading.schema import TargetColumn
from tasks.loading.session import one_row
from tasks.loading.staged_gates import StagedRows
from tasks.loading.staging import STAGING
from tasks.model.dataset import DatasetSpec, LookedUp
from tasks.model.errors import GateFailed
from tasks.model.gates import (
    FailedGate,
    Freshness,
    NullRate,
    QuarantineLimits,
    QuarantineRate,
    RowsBetween,
)
from tasks.model.manifest import Manifest


def check_gates(
    cursor: Cursor,
    spec: DatasetSpec,
    lookups: Mapping[str, LookedUp],
    columns: Sequence[TargetColumn],
    manifest: Manifest,
    *,
    has_rows: bool,
    live: bool,
) -> None:
    """Check every gate of a dataset on its staged rows.

    Args:
        cursor: In the transaction of the load.
        spec: The dataset.
        lookups: What it looks up, and the datasets that its gates refer to.
        columns: The staged columns.
        manifest: Account of the partition's rows.
        has_rows: Is there a staging table?
        live: Is the partition what is new? A gate about age holds for the past by definition.

    Raises:
        GateFailed: Names every gate that does not hold, with what was found and what is allowed.
        ConfigError: The query of a gate is none that can be asked.
    """
    gates = spec.quality.gates
    nulls = _null_counts(cursor, null_rate_columns(spec)) if has_rows else {}
    failed = list(counted_failures(spec, manifest, nulls))
    asked = [
        gate
        for gate in gates
        if not isinstance(gate, RowsBetween | NullRate | QuarantineRate)
        and (live or not isinstance(gate, Freshness))
    ]
    if asked or (failed and nulls):
        with StagedRows(cursor, spec, lookups, columns, has_rows=has_rows) as staged:
            failed = [staged.with_evidence(failure) for failure in failed]
            for gate in asked:
                failed += staged.failures(gate)
    refuse(spec, failed)


def refuse(spec: DatasetSpec, failed: Sequence[FailedGate]) -> None:
    """Raise what failed gates mean, if there are any."""
    if failed:
        error = GateFailed(
            f"{spec.name}: gate failed: {'; '.join(map(str, failed))}",
            "nothing of the partition was published; correct the source, the file or the gate",
        )
        error.failed = tuple(failed)
        raise error


def null_rate_columns(spec: DatasetSpec) -> list[str]:
    """Return the columns whose NULLs the gates need to know."""
    return [
        name for gate in spec.quality.gates if isinstance(gate, NullRate) for name in gate.null_rate
    ]


def counted_failures(
    spec: DatasetSpec, manifest: Manifest, nulls: Mapping[str, int]
) -> Iterator[FailedGate]:
    """Judge the gates for which counts are enough.

    Args:
        spec: The dataset.
        manifest: Account of the partition's rows.
        nulls: Number of NULLs in the columns of ``null_rate_columns``; none are counted as 0.
    """
    rows, read, refused = manifest.rows, manifest.rows_read, manifest.rows_quarantined
    for gate in spec.quality.gates:
        if isinstance(gate, RowsBetween):
            low, high = gate.rows_between
            if not low <= rows <= high:
                yield FailedGate(gate.label, f"{rows} rows, allowed {low} to {high}")
        elif isinstance(gate, NullRate):
            for name, allowed in gate.null_rate.items():
                rate = nulls.get(name, 0) / rows if rows else 0.0
                if rate > allowed:
                    found = f"NULL in {rate:.1%} of {rows} rows, allowed {allowed:.1%}"
                    yield FailedGate(f"null_rate {name}", found, null_column=name)
        elif isinstance(gate, QuarantineRate):
            rate = refused / read if read else 0.0
            if rate > gate.quarantine_rate:
                yield FailedGate(
                    gate.label,
                    f"{rate:.1%} of {read} rows, allowed {gate.quarantine_rate:.1%} "
                    f"({_reasons(manifest)})",
                )
    yield from _limits_exceeded(spec.quality.quarantine, manifest)


def _limits_exceeded(limits: QuarantineLimits, manifest: Manifest) -> Iterator[FailedGate]:
    refused, read = manifest.rows_quarantined, manifest.rows_read
    if limits.max_rows is not None and refused > limits.max_rows:
        yield FailedGate(
            "quarantine.max_rows",
            f"{refused} rows refused, allowed {limits.max_rows} ({_reasons(manifest)})",
        )
    if limits.max_share is not None and refused > limits.max_share * read:
        yield FailedGate(
            "quarantine.max_share",
            f"{refused / read:.2%} of {read} rows refused, allowed {limits.max_share:.2%} "
            f"({_reasons(manifest)})",
        )


def notable_quarantine(limits: QuarantineLimits, manifest: Manifest) -> str | None:
    """Say which limit of the dataset's silence a partition passed that was loaded; None if none."""
    refused, read = manifest.rows_quarantined, manifest.rows_read
    if limits.alert_rows is not None and refused > limits.alert_rows:
        return f"an alert was asked for above {limits.alert_rows} rows"
    if limits.alert_share is not None and refused > limits.alert_share * read:
        return f"an alert was asked for above {limits.alert_share:.2%} of the rows"
    return None


def _reasons(manifest: Manifest) -> str:
    return ", ".join(
        f"{reason.rows} x {reason.column or reason.rule} {reason.message}"
        for reason in manifest.reasons[:3]
    )


def _null_counts(cursor: Cursor, names: Sequence[str]) -> dict[str, int]:
    if not names:
        return {}
    counts = sql.SQL(", ").join(
        sql.SQL("count(*) FILTER (WHERE {} IS NULL)").format(sql.Identifier(name)) for name in names
    )
    cursor.execute(sql.SQL("SELECT {} FROM {}").format(counts, sql.Identifier("pg_temp", STAGING)))
    return dict(zip(names, one_row(cursor), strict=True))
