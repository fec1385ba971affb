"""Validation: the rules of a dataset file, as SQL for every row and as a pandera schema behind it.

The SQL finds the rows that break a rule and says which; the pandera schema, made from the same
declarations by another way, checks what the SQL let through. If they ever disagree, the row goes
to quarantine and the rule's name says ``pandera``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

import pandas as pd
import pandera.pandas as pandera
import pyarrow as pa

from tasks.model.column_types import is_integer, list_element
from tasks.model.columns import Checks, ColumnSpec, NumberFormat
from tasks.model.dataset import DatasetSpec
from tasks.model.errors import ContractBroken
from tasks.model.rules import Severity
from tasks.transformation.sql import identifier, literal

_CANONICAL = {
    "email": "not an e-mail address",
    "phone": "not a phone number",
    "url": "not a URL of http or https",
}


@dataclass(frozen=True, slots=True)
class Rule:
    """One reason for which a row is refused.

    Attributes:
        name: Rule, for counting: ``type``, ``required``, ``between``, a row rule's own name, ….
        column: Column that breaks it, None for rules over the whole row.
        message: What is wrong, for people; names no value.
        violated: SQL that is true for the rows that break the rule.
        severity: What becomes of a row that breaks it.
        late: Does it need what lookups give?
    """

    name: str
    column: str | None
    message: str
    violated: str
    severity: Severity = "quarantine"
    late: bool = False


def column_rules(name: str, column: ColumnSpec, *, required: bool, text: str) -> Iterator[Rule]:
    """Yield the rules of one column, in the order in which they are reported.

    Args:
        name: The column.
        column: What is declared for it.
        required: Is NULL refused?
        text: SQL of the value before the cast.
    """
    value = identifier(name)
    article = "an" if column.type.startswith(("int", "enum")) else "a"
    shape = f" in the form {' or '.join(column.formats)}" if column.formats else ""
    if column.number:
        decimals = "" if is_integer(column.type) else f"{column.number.decimal or '.'}5"
        shape = f" in the form {_example(column.number, decimals)}"
    if column.timezone:
        shape += f", or no clear one in {column.timezone}"
    broken = f"{value} IS NULL AND {text} IS NOT NULL"
    if column.type == "enum":
        yield Rule("enum", name, f"not one of {', '.join(column.values)}", broken)
    elif column.canonical:
        yield Rule("canonical", name, _CANONICAL[column.canonical], broken)
    elif column.type != "string":  # a text is always one
        yield Rule("type", name, f"not {article} {column.type}{shape}", broken)
    if required:
        yield Rule("required", name, "is missing", f"{value} IS NULL AND {text} IS NULL")
    is_json = column.type == "json" or list_element(column.type)
    if column.type == "string" or is_json:
        nul = f"contains({value}, chr(0))"
        if is_json:
            nul = f"({nul} OR contains({_without_escapes(value)}, '\\u0000'))"
        yield Rule("nul_character", name, "has a NUL character, which PostgreSQL cannot store", nul)
    yield from _check_rules(name, value, column.checks)


def _example(form: NumberFormat, decimals: str) -> str:
    """Return a number as it should be written."""
    written = f"1{form.thousands or ''}234{decimals}"
    negative = {
        "minus": f"-{written}",
        "trailing_minus": f"{written}-",
        "parentheses": f"({written})",
    }
    return " or ".join([written, *(negative[sign] for sign in form.negative)])


def _without_escapes(value: str) -> str:
    """Return SQL for a JSON text without its escaped backslashes: what follows one is no escape."""
    return f"replace({value}, '\\\\', '')"


def _check_rules(name: str, value: str, checks: Checks) -> Iterator[Rule]:
    for rule in _each_check(name, value, checks):
        yield replace(rule, severity=checks.severity)


def _each_check(name: str, value: str, checks: Checks) -> Iterator[Rule]:
    if checks.between:
        low, high = (_number(bound) for bound in checks.between)
        yield Rule(
            "between",
            name,
            f"not between {low} and {high}",
            f"NOT ({value} BETWEEN {low} AND {high})",
        )
    if checks.one_of:
        allowed = ", ".join(
            literal(item) if isinstance(item, str) else _number(item) for item in checks.one_of
        )
        message = f"not one of {', '.join(str(item) for item in checks.one_of)}"
        yield Rule("one_of", name, message, f"{value} NOT IN ({allowed})")
    if checks.pattern:
        matched = f"regexp_full_match({value}, {literal(checks.pattern)})"
        yield Rule("pattern", name, f"does not match {checks.pattern}", f"NOT {matched}")
    if checks.max_length:
        message = f"longer than {checks.max_length} characters"
        yield Rule("max_length", name, message, f"length({value}) > {checks.max_length}")


def row_rules(spec: DatasetSpec) -> Iterator[Rule]:
    """Yield the rules over whole rows; one that is NULL counts as broken."""
    for rule in spec.rules:
        message = rule.message or f"{rule.sql} does not hold"
        yield Rule(rule.name, None, message, f"({rule.sql}) IS NOT TRUE", rule.severity)


def unique_rules(spec: DatasetSpec) -> Iterator[Rule]:
    """Yield the rules that no two rows of a partition have the same values.

    Rows of one key are versions of one row: only one of them goes on. Which of several keys is right
    cannot be told, so none of them is taken.
    """
    for names in spec.unique:
        listed = ", ".join(map(identifier, names))
        there = " AND ".join(f"{identifier(name)} IS NOT NULL" for name in names)
        over = f"OVER (PARTITION BY {listed})"
        twice = f"count(*) {over} > 1"
        if spec.key:
            key = f"row({', '.join(map(identifier, spec.key))})"
            twice = f"min({key}) {over} IS DISTINCT FROM max({key}) {over}"
        message = "another row of the partition has the same"
        yield Rule("unique", ", ".join(names), message, f"{there} AND {twice}")


def _number(value: float) -> str:
    return format(Decimal(str(value)).normalize(), "f")


def pandera_schema(spec: DatasetSpec) -> pandera.DataFrameSchema | None:
    """Return the schema that clean rows must satisfy, None if the dataset declares no rule."""
    columns = {
        name: pandera.Column(
            checks=_pandera_checks(column),
            nullable=_may_be_null(spec, name, column),
            required=False,  # see unproven
        )
        for name, column in (spec.columns | spec.made_columns).items()
        if not _may_be_null(spec, name, column) or column.checks != Checks()
    }
    return pandera.DataFrameSchema(columns, strict=False) if columns else None


def _may_be_null(spec: DatasetSpec, name: str, column: ColumnSpec) -> bool:
    return column.nullable and name not in spec.required_columns


def _pandera_checks(column: ColumnSpec) -> list[pandera.Check]:
    made: list[pandera.Check] = []
    checks = column.checks
    if checks.severity == "warn":
        return made  # the rows that break them go on
    if checks.between:
        low, high = (_bound(bound, column) for bound in checks.between)
        made.append(pandera.Check.in_range(low, high, name="between"))
    if checks.one_of:
        made.append(pandera.Check.isin(list(checks.one_of), name="one_of"))
    if checks.pattern:
        made.append(pandera.Check.str_matches(f"^(?:{checks.pattern})$", name="pattern"))
    if checks.max_length:
        made.append(pandera.Check.str_length(max_value=checks.max_length, name="max_length"))
    return made


def _bound(bound: float, column: ColumnSpec) -> Decimal | int:
    """Return a bound as its column has numbers: compared with another kind, all would be cast."""
    exact = Decimal(str(bound))
    return int(exact) if is_integer(column.type) and exact == int(exact) else exact


def unproven(schema: pandera.DataFrameSchema, batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return the columns that a schema of ``pandera_schema`` has to look at.

    Where nothing is asked but that no value is missing, and none is, there is nothing to find.
    """
    names = [
        name
        for name, column in schema.columns.items()
        if column.checks or batch.column(name).null_count
    ]
    return batch.select(names)


def pandera_failures(
    schema: pandera.DataFrameSchema, batch: pa.RecordBatch
) -> dict[int, tuple[str, str]]:
    """Return row number → (check, column) for the rows of a batch that the schema refuses."""
    # All that a row has: a check over whole rows needs columns that the schema does not list.
    names = [name for name in batch.schema.names if not name.startswith("_")]
    frame = batch.select(names).to_pandas(types_mapper=pd.ArrowDtype)
    try:
        schema.validate(frame, lazy=True)
    except pandera.errors.SchemaErrors as error:
        cases: Any = error.failure_cases
        return {
            int(case.index): (str(case.check), str(case.column))
            for case in cases.itertuples(index=False)
            if pd.notna(case[cases.columns.get_loc("index")])
        } or _refuse_whole(cases)
    return {}


def _refuse_whole(cases: Any) -> dict[int, tuple[str, str]]:
    first = cases.iloc[0]
    raise ContractBroken(
        f"pandera refuses the rows as a whole: {first['column']}: {first['check']}",
        "no single row can be named; correct the schema, or declare the columns as it expects them",
    )
