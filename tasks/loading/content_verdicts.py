"""What a comparison of a table with the lake says, as checks. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tasks.loading.checks import Check, PartitionSums, check
from tasks.loading.content import Comparison
from tasks.model.dataset import DatasetSpec

SAME = "as the lake says"
STATEMENT = "every row is as the lake says"
LOADS_SHOWN = 5


def verdicts(
    spec: DatasetSpec,
    statement: str,
    comparison: Comparison,
    names: Sequence[str],
    labels: Mapping[int, str],
) -> list[Check]:
    """Return the checks of a comparison.

    Args:
        spec: The dataset.
        statement: What is checked.
        comparison: What was found.
        names: A line for each row that differs, as far as they are listed.
        labels: The partition of each load.
    """
    lines = [
        f"load {load}: {found[0]} rows with checksum {found[1]}, by the lake {wanted[0]} with "
        f"{wanted[1]}"
        for load, (wanted, found) in comparison.loads.items()
    ]
    lines += names
    total = sum(comparison.rows.values())
    if total > len(names):
        lines.append(f"and {total - len(names)} more rows")
    counts = ", ".join(f"{rows} {what}" for what, rows in comparison.rows.items())
    loads = ", ".join(map(str, list(comparison.loads)[:LOADS_SHOWN]))
    more = " …" if len(comparison.loads) > LOADS_SHOWN else ""
    found = f"{counts} (loads {loads}{more})" if lines else SAME
    sums = tuple(
        PartitionSums(
            load_id=load,
            label=labels.get(load, "unknown to the ledger"),
            expected_rows=wanted[0],
            expected_checksum=wanted[1],
            found_rows=there[0],
            found_checksum=there[1],
        )
        for load, (wanted, there) in comparison.sums.items()
    )
    compared = check(spec, "I11", statement, SAME, found, lines)
    checks = [compared.model_copy(update={"partitions": sums})]
    if spec.load.mode == "merge" and spec.cursor:
        older = comparison.rows.get("older", 0)
        of_older = [name for name in names if name.startswith("older")]
        newest = "no row is older than the newest of its key in the lake"
        checks.append(check(spec, "I8", newest, 0, older, of_older))
    return checks
