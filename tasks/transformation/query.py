"""Compiles a dataset file into the one DuckDB query that transforms a partition.

    raw ─► cleaned ─► typed ─► derived ─► judged ─► joined ─► completed ─► judged by what was joined
        ─► every row, with its outcome

The query returns each raw row exactly once, marked clean, contender or refused; nothing is
filtered away inside it, so that the rows can be counted on the way out. Nothing in it waits for the
last row but lookups that do not fit into memory, so rows leave while others are read. Rows are
judged before they look something up, because what they said originally need not come along then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from tasks.model.columns import ColumnSpec
from tasks.model.dataset import DatasetSpec
from tasks.model.errors import ContractBroken
from tasks.transformation.columns import (
    FAILURES,
    OUTCOME,
    PROVENANCE,
    RAW,
    WARNINGS,
    cleaned_columns,
    original_values,
    raw_name,
    typed_columns,
)
from tasks.transformation.contract import (
    added_columns,
    check_missing,
    contract_rules,
    unknown_columns,
)
from tasks.transformation.deduplicate import find_repeated, may_repeat
from tasks.transformation.derive import derived_columns, order_of_derived
from tasks.transformation.enrich import BASE, LookupTable, join_clause, taken_columns
from tasks.transformation.judge import broken, judged, query_rules
from tasks.transformation.nested import nested_rules
from tasks.transformation.sql import TEXT, identifier, literals
from tasks.transformation.validate import Rule

MAX_COLUMNS = 1590
"""PostgreSQL's limit is 1600; some are left for provenance."""


class RowOutcome(IntEnum):
    """What became of a raw row; the value of the query's column ``_outcome``."""

    CLEAN = 0
    CONTENDER = 1
    """Clean, but the key may be there again."""
    REFUSED = 2


@dataclass(frozen=True, slots=True)
class TransformQuery:
    """The compiled query.

    Attributes:
        preparation: The statement that must run before the query, if there is one.
        sql: The query.
        rules: Its rules; the column ``_failures`` lists the positions of those a row breaks.
        columns: Columns of the clean rows, in the order of the dataset file.
        columns_added: Those among them that only the source knows (``contract: evolve``).
        column_types: The types of these.
    """

    preparation: str | None
    sql: str
    rules: tuple[Rule, ...]
    columns: tuple[str, ...]
    columns_added: tuple[str, ...]
    column_types: dict[str, ColumnSpec]


def compile_query(
    spec: DatasetSpec,
    raw_types: Mapping[str, str],
    raw_files: Sequence[str],
    lookups: Mapping[str, LookupTable],
) -> TransformQuery:
    """Compile a dataset file for raw files with the given columns.

    Args:
        spec: The dataset.
        raw_types: DuckDB type of each source column, without the columns of provenance.
        raw_files: Paths of the raw Parquet files.
        lookups: Snapshot of each dataset that is looked up.

    Raises:
        ContractBroken: A column that must be there is missing, or one is there that may not.
        ConfigError: A row rule or a derived column is not one SQL expression over a row.
    """
    check_missing(spec, raw_types)
    unknown = unknown_columns(spec, raw_types)
    added = added_columns(spec, unknown, raw_types)
    before, after = order_of_derived(spec)
    rules = [
        *contract_rules(spec, raw_types, unknown, added),
        *nested_rules(spec, raw_types),
        *query_rules(spec, after),
    ]
    declared = (*spec.columns, *(name for name, _ in added.values()))
    columns = (*declared, *spec.derive, *spec.taken_columns)
    if len(columns) > MAX_COLUMNS:
        raise ContractBroken(
            f"{spec.name}: {len(columns)} columns; a table of PostgreSQL has at most 1600, "
            f"of which {1600 - MAX_COLUMNS} are the product's own",
            "leave columns out: declare those that are needed, and set contract: ignore",
        )
    parts, base = _parts(spec, raw_types, raw_files, added, before)
    preparation = find_repeated(spec, parts, base) if spec.key else None
    parts.append(f"judged AS (\n  SELECT\n    *,\n    {judged(rules)}\n  FROM {base}\n)")
    original = original_values(raw_types)
    complete = "judged"
    if spec.lookups or after:
        carried = [f"{original} AS {RAW}"]
        if any(rule.late and rule.severity != "warn" for rule in rules):
            carried = [raw_name(name) for name in raw_types]
        else:
            original = RAW
        kept = [*PROVENANCE, FAILURES, WARNINGS, *map(identifier, (*declared, *before)), *carried]
        parts.append(f"narrowed AS (\n  SELECT {', '.join(kept)}\n  FROM judged\n)")
        complete = _completed(spec, lookups, after, rules, parts)
    return TransformQuery(
        preparation=preparation,
        sql=f"WITH {', '.join(parts)}\n{_select_outcomes(spec, columns, original, complete)}",
        rules=tuple(rules),
        columns=columns,
        columns_added=tuple(name for name, _ in added.values()),
        column_types=dict(added.values()),
    )


def values_query(
    spec: DatasetSpec, raw_types: Mapping[str, str], raw_files: Sequence[str], column: str
) -> str:
    """Return the query of the different values that a column has before lookups, as text, sorted."""
    parts, base = _parts(spec, raw_types, raw_files, {}, order_of_derived(spec)[0])
    value = identifier(column)
    return (
        f"WITH {', '.join(parts)}\n"
        f"SELECT DISTINCT CAST({value} AS {TEXT}) AS value FROM {base} "
        f"WHERE {value} IS NOT NULL ORDER BY value"
    )


def _parts(
    spec: DatasetSpec,
    raw_types: Mapping[str, str],
    raw_files: Sequence[str],
    added: Mapping[str, tuple[str, ColumnSpec]],
    derived: Sequence[str],
) -> tuple[list[str], str]:
    """Return the parts of the query before the lookups, and the name of the last one."""
    parts = [
        f"raw AS (\n  SELECT * FROM read_parquet([{literals(raw_files)}], union_by_name = true)\n)",
        f"cleaned AS (\n  SELECT\n    {cleaned_columns(spec, raw_types, added)}\n  FROM raw\n)",
        f"typed AS (\n  SELECT\n    *,\n    {typed_columns(spec, raw_types)}\n  FROM cleaned\n)",
    ]
    if not derived:
        return parts, "typed"
    return [*parts, _computed("derived", spec, derived, "typed")], "derived"


def _computed(name: str, spec: DatasetSpec, columns: Sequence[str], base: str) -> str:
    computed = ",\n    ".join(derived_columns(spec, columns))
    return f"{name} AS (\n  SELECT\n    *,\n    {computed}\n  FROM {base}\n)"


def _completed(
    spec: DatasetSpec,
    lookups: Mapping[str, LookupTable],
    after: Sequence[str],
    rules: Sequence[Rule],
    parts: list[str],
) -> str:
    """Add the parts that look something up and use what was found; return the name of the last."""
    parts.append(f"joined AS (\n  SELECT\n    {_joined(spec, lookups, 'narrowed')}\n)")
    complete = "joined"
    if after:
        parts.append(_computed("completed", spec, after, complete))
        complete = "completed"
    if any(rule.late for rule in rules):
        both = ",\n    ".join(
            f"nullif(concat_ws(',', {name}, {broken(rules, warn=warn, late=True)}), '') AS {name}"
            for warn, name in ((False, FAILURES), (True, WARNINGS))
        )
        parts.append(f"settled AS (\n  SELECT * REPLACE (\n    {both})\n  FROM {complete}\n)")
        complete = "settled"
    return complete


def _joined(spec: DatasetSpec, lookups: Mapping[str, LookupTable], base: str) -> str:
    selected = [f"{BASE}.*"]
    joins = [f"FROM {base} AS {BASE}"]
    for number, lookup in enumerate(spec.lookups):
        selected += taken_columns(number, lookup, lookups[lookup.lookup])
        joins.append(join_clause(number, lookup, lookups[lookup.lookup]))
    return ",\n    ".join(selected) + "\n  " + "\n  ".join(joins)


def _select_outcomes(
    spec: DatasetSpec, columns: Sequence[str], original: str, complete: str
) -> str:
    again = f"WHEN {may_repeat(spec)} THEN {RowOutcome.CONTENDER} " if spec.key else ""
    outcome = (
        f"CASE WHEN {FAILURES} IS NOT NULL THEN {RowOutcome.REFUSED} {again}"
        f"ELSE {RowOutcome.CLEAN} END"
    )
    wanted = ", ".join([*PROVENANCE, FAILURES, WARNINGS, *map(identifier, columns)])
    return f"SELECT {outcome} AS {OUTCOME}, {wanted}, {original} AS {RAW} FROM {complete}"
