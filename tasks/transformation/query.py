"""Compiles a dataset file into the one DuckDB query that transforms a partition.

    raw ─► cleaned ─► typed ─► derived ─► joined ─► completed ─► judged
        ─► (repeated, ranked) ─► every row, with its outcome

The query returns each raw row exactly once, marked clean, duplicate or refused; nothing is
filtered away inside it, so that the rows can be counted on the way out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

from tasks.model.columns import ColumnSpec
from tasks.model.dataset import DatasetSpec
from tasks.model.errors import ContractBroken
from tasks.model.rules import ordered_column
from tasks.transformation.clean import clean_expression, is_cleaned
from tasks.transformation.contract import (
    added_columns,
    check_missing,
    contract_rules,
    source_name,
    unknown_columns,
)
from tasks.transformation.derive import derived_columns, derived_rules, order_of_derived
from tasks.transformation.enrich import (
    BASE,
    LookupTable,
    join_clause,
    lookup_rule,
    reference_rule,
    taken_columns,
)
from tasks.transformation.expression import check_expression
from tasks.transformation.nested import nested_flaws, nested_rules, nested_value
from tasks.transformation.normalize import cast_expression
from tasks.transformation.sql import TEXT, duckdb_type, identifier, literal, literals
from tasks.transformation.validate import Rule, column_rules, row_rules, unique_rules

PROVENANCE = ("_source_uri", "_source_row")
MAX_COLUMNS = 1590
"""PostgreSQL's limit is 1600; some are left for provenance."""
OUTCOME, FAILURES, WARNINGS, RAW = "_outcome", "_failures", "_warnings", "_raw"


class RowOutcome(IntEnum):
    """What became of a raw row; the value of the query's column ``_outcome``."""

    CLEAN = 0
    DUPLICATE = 1
    REFUSED = 2


@dataclass(frozen=True, slots=True)
class TransformQuery:
    """The compiled query.

    Attributes:
        sql: The query.
        rules: Its rules; the column ``_failures`` lists the positions of those a row breaks.
        columns: Columns of the clean rows, in the order of the dataset file.
        columns_added: Those among them that only the source knows (``contract: evolve``).
        column_types: The types of these.
    """

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
    rules = [
        *contract_rules(spec, raw_types, unknown, added),
        *nested_rules(spec, raw_types),
        *_rules(spec),
    ]
    declared = (*spec.columns, *(name for name, _ in added.values()))
    columns = (*declared, *spec.derive, *spec.taken_columns)
    if len(columns) > MAX_COLUMNS:
        raise ContractBroken(
            f"{spec.name}: {len(columns)} columns; a table of PostgreSQL has at most 1600, "
            f"of which {1600 - MAX_COLUMNS} are the product's own",
            "leave columns out: declare those that are needed, and set contract: ignore",
        )
    judged = ",\n    ".join(
        f"{_judged(rules, warn=warn)} AS {name}"
        for warn, name in ((False, FAILURES), (True, WARNINGS))
    )
    before, after = order_of_derived(spec)
    parts, base = _parts(spec, raw_types, raw_files, added, before)
    parts.append(f"joined AS (\n  SELECT\n    {_joined(spec, lookups, base)}\n)")
    complete = "joined"
    if after:
        complete = "completed"
        parts.append(_computed(complete, spec, after, "joined"))
    parts.append(f"judged AS (\n  SELECT\n    *,\n    {judged}\n  FROM {complete}\n)")
    final = _select_outcomes(spec, raw_types, columns, parts)
    return TransformQuery(
        sql=f"WITH {', '.join(parts)}\n{final}",
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
        f"cleaned AS (\n  SELECT\n    {_cleaned(spec, raw_types, added)}\n  FROM raw\n)",
        f"typed AS (\n  SELECT\n    *,\n    {_typed(spec, raw_types)}\n  FROM cleaned\n)",
    ]
    if not derived:
        return parts, "typed"
    return [*parts, _computed("derived", spec, derived, "typed")], "derived"


def _computed(name: str, spec: DatasetSpec, columns: Sequence[str], base: str) -> str:
    computed = ",\n    ".join(derived_columns(spec, columns))
    return f"{name} AS (\n  SELECT\n    *,\n    {computed}\n  FROM {base}\n)"


def _text(name: str) -> str:
    """Name of a column's value before the cast; the space keeps it apart from every real name."""
    return identifier(f"{name} text")


def _rules(spec: DatasetSpec) -> list[Rule]:
    rules: list[Rule] = []
    for name, column in spec.columns.items():
        rules += column_rules(
            name, column, required=name in spec.required_columns, text=_text(name)
        )
    for name, derived in spec.derive.items():
        rules += derived_rules(name, derived)
    known = {*spec.columns, *spec.derive, *spec.taken_columns}
    for rule in spec.rules:
        check_expression(f"{spec.name}: rules: {rule.name}", rule.sql, known)
    rules += row_rules(spec)
    rules += unique_rules(spec)
    for number, lookup in enumerate(spec.enrich):
        rule_of_lookup = lookup_rule(number, lookup)
        if rule_of_lookup:
            rules.append(rule_of_lookup)
    for number, reference in enumerate(spec.references, len(spec.enrich)):
        rules.append(reference_rule(number, reference))
    if spec.contract.changed == "freeze":
        rules = [replace(rule, severity="fail") if rule.name == "type" else rule for rule in rules]
    return rules


def _raw_name(name: str) -> str:
    return identifier(f"raw {name}")


def _cleaned(
    spec: DatasetSpec, raw_types: Mapping[str, str], added: Mapping[str, tuple[str, ColumnSpec]]
) -> str:
    selected = list(PROVENANCE)
    selected += [f"{identifier(name)} AS {_raw_name(name)}" for name in raw_types]
    selected += nested_flaws(spec, raw_types)
    for name, column in spec.columns.items():
        selected.append(f"{cleaned_value(name, column, raw_types)} AS {_text(name)}")
    selected += [
        f"CAST({identifier(name)} AS {duckdb_type(kind)}) AS {identifier(column)}"
        for name, (column, kind) in added.items()
    ]
    return ",\n    ".join(selected)


def cleaned_value(name: str, column: ColumnSpec, raw_types: Mapping[str, str]) -> str:
    """Return SQL for a column's value as it is before the cast."""
    source = source_name(name, column)
    value = identifier(source) if source in raw_types else "NULL"
    if column.value_path and source in raw_types:
        value = nested_value(name, source)
    if is_cleaned(column) or source not in raw_types:
        return clean_expression(f"CAST({value} AS {TEXT})", column)
    return value


def cleaned_type(name: str, column: ColumnSpec, raw_types: Mapping[str, str]) -> str:
    """Return the DuckDB type of a column's value before the cast."""
    is_text = is_cleaned(column) or column.value_path
    return TEXT if is_text else raw_types.get(source_name(name, column), TEXT)


def _typed(spec: DatasetSpec, raw_types: Mapping[str, str]) -> str:
    selected = []
    for name, column in spec.columns.items():
        value = cast_expression(_text(name), cleaned_type(name, column, raw_types), column)
        selected.append(f"{value} AS {identifier(name)}")
    return ",\n    ".join(selected)


def _joined(spec: DatasetSpec, lookups: Mapping[str, LookupTable], base: str) -> str:
    selected = [f"{BASE}.*"]
    joins = [f"FROM {base} AS {BASE}"]
    for number, lookup in enumerate(spec.lookups):
        selected += taken_columns(number, lookup, lookups[lookup.lookup])
        joins.append(join_clause(number, lookup, lookups[lookup.lookup]))
    return ",\n    ".join(selected) + "\n  " + "\n  ".join(joins)


def _judged(rules: Sequence[Rule], *, warn: bool) -> str:
    """Return SQL for the positions of the broken rules, NULL for a row that breaks none.

    Args:
        rules: All rules.
        warn: List those that only warn, or those that refuse the row?
    """
    listed_rules = {
        position: rule for position, rule in enumerate(rules) if (rule.severity == "warn") == warn
    }
    if not listed_rules:
        return f"CAST(NULL AS {TEXT})"
    broken = "\n      OR ".join(f"({rule.violated})" for rule in listed_rules.values())
    listed = ",\n      ".join(
        f"CASE WHEN {rule.violated} THEN '{position}' END"
        for position, rule in listed_rules.items()
    )
    return f"CASE WHEN {broken}\n    THEN concat_ws(',',\n      {listed}) END"


def _select_outcomes(
    spec: DatasetSpec, raw_types: Mapping[str, str], columns: Sequence[str], parts: list[str]
) -> str:
    fields = ", ".join(f"{literal(name)}: {_raw_name(name)}" for name in raw_types)
    original = f"CASE WHEN {FAILURES} IS NOT NULL THEN CAST(to_json({{{fields}}}) AS {TEXT}) END"
    wanted = ", ".join([*PROVENANCE, FAILURES, WARNINGS, *map(identifier, columns)])
    refused = f"CASE WHEN {FAILURES} IS NULL THEN {RowOutcome.CLEAN} ELSE {RowOutcome.REFUSED} END"
    if not spec.key:
        return f"SELECT {refused} AS {OUTCOME}, {wanted}, {original} AS {RAW} FROM judged"
    # Keys that occur once are told by their hash alone; only the few others are sorted.
    keys = ", ".join(map(identifier, spec.key))
    newest = f"{identifier(spec.cursor)} DESC NULLS LAST, " if spec.cursor else ""
    hashed = f"{wanted}, {original} AS {RAW}, hash({keys}) AS _key_hash"
    ties = "".join(f"{_ordered(order)}, " for order in spec.tie_break)
    ranking = f"PARTITION BY {keys}\n    ORDER BY {newest}{ties}_source_uri DESC, _source_row DESC"
    twice = f"{FAILURES} IS NULL AND _key_hash IN (SELECT _key_hash FROM repeated)"
    parts.append(f"settled AS MATERIALIZED (\n  SELECT {hashed} FROM judged\n)")
    counted = f"SELECT _key_hash FROM settled WHERE {FAILURES} IS NULL"
    parts.append(f"repeated AS (\n  {counted} GROUP BY _key_hash HAVING count(*) > 1\n)")
    rank = f"row_number() OVER (\n    {ranking}) AS _rank"
    parts.append(f"ranked AS (\n  SELECT *, {rank}\n  FROM settled WHERE {twice}\n)")
    return (
        f"SELECT {refused} AS {OUTCOME}, {wanted}, {RAW} FROM settled\n"
        f"WHERE {FAILURES} IS NOT NULL OR _key_hash NOT IN (SELECT _key_hash FROM repeated)\n"
        "UNION ALL\n"
        f"SELECT CASE WHEN _rank = 1 THEN {RowOutcome.CLEAN} ELSE {RowOutcome.DUPLICATE} END, "
        f"{wanted}, {RAW} FROM ranked"
    )


def _ordered(order: str) -> str:
    name, descending = ordered_column(order)
    return f"{identifier(name)}{' DESC' if descending else ''} NULLS LAST"


def declared_types(spec: DatasetSpec) -> dict[str, str]:
    """Return the source columns as a text source would have them, to show a query without data."""
    typed = spec.source.kind == "database"
    return {
        source_name(name, column): duckdb_type(column) if typed and not column.path else TEXT
        for name, column in spec.columns.items()
    }
