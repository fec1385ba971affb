"""The rules of a query, and SQL that lists by their numbers those that a row breaks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tasks.model.dataset import DatasetSpec
from tasks.transformation.columns import FAILURES, WARNINGS, text_name
from tasks.transformation.derive import derived_rules
from tasks.transformation.enrich import lookup_rule, reference_rule
from tasks.transformation.expression import check_expression
from tasks.transformation.sql import TEXT
from tasks.transformation.validate import Rule, column_rules, row_rules, unique_rules


def query_rules(spec: DatasetSpec, after: Sequence[str]) -> list[Rule]:
    """Return the rules that the dataset file makes, beside those of its contract and of nested values.

    Args:
        spec: The dataset.
        after: Columns that are derived from what lookups take.
    """
    rules: list[Rule] = []
    for name, column in spec.columns.items():
        rules += column_rules(
            name, column, required=name in spec.required_columns, text=text_name(name)
        )
    for name, derived in spec.derive.items():
        rules += [replace(rule, late=name in after) for rule in derived_rules(name, derived)]
    known = {*spec.columns, *spec.derive, *spec.taken_columns}
    late = {name.casefold() for name in (*spec.taken_columns, *after)}
    for declared, rule in zip(spec.rules, row_rules(spec), strict=True):
        where = f"{spec.name}: rules: {declared.name}"
        uses = check_expression(where, declared.sql, known).columns
        rules.append(replace(rule, late=not late.isdisjoint(map(str.casefold, uses))))
    for names, rule in zip(spec.unique, unique_rules(spec), strict=True):
        rules.append(replace(rule, late=not late.isdisjoint(names)))
    for number, lookup in enumerate(spec.enrich):
        rule_of_lookup = lookup_rule(number, lookup)
        if rule_of_lookup:
            rules.append(replace(rule_of_lookup, late=True))
    for number, reference in enumerate(spec.references, len(spec.enrich)):
        rules.append(replace(reference_rule(number, reference), late=True))
    if spec.contract.changed == "freeze":
        rules = [replace(rule, severity="fail") if rule.name == "type" else rule for rule in rules]
    return rules


def judged(rules: Sequence[Rule]) -> str:
    """Return the select list of the rules that a row breaks by what it says itself."""
    return ",\n    ".join(
        f"{broken(rules, warn=warn, late=False)} AS {name}"
        for warn, name in ((False, FAILURES), (True, WARNINGS))
    )


def broken(rules: Sequence[Rule], *, warn: bool, late: bool) -> str:
    """Return SQL for the positions of the broken rules, NULL for a row that breaks none.

    Args:
        rules: All rules.
        warn: List those that only warn, or those that refuse the row?
        late: List those that need what lookups give, or the others?
    """
    listed_rules = {
        position: rule
        for position, rule in enumerate(rules)
        if (rule.severity == "warn") == warn and rule.late == late
    }
    if not listed_rules:
        return f"CAST(NULL AS {TEXT})"
    broken = "\n      OR ".join(f"({rule.violated})" for rule in listed_rules.values())
    listed = ",\n      ".join(
        f"CASE WHEN {rule.violated} THEN '{position}' END"
        for position, rule in listed_rules.items()
    )
    return f"CASE WHEN {broken}\n    THEN concat_ws(',',\n      {listed}) END"


def broken_rules(listed: str) -> list[int]:
    """Return the positions of rules that the columns ``_failures`` and ``_warnings`` list, in order."""
    return sorted(map(int, listed.split(",")))
