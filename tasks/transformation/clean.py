"""Cleaning: SQL that tidies the text of one column before it is cast."""

from __future__ import annotations

from tasks.model.columns import CleanStep, ColumnSpec
from tasks.transformation.sql import literal, literals

_STEPS: dict[CleanStep, str] = {
    # \s of RE2 is ASCII only; \p{Z} adds the no-break and other Unicode spaces.
    "strip": r"regexp_replace({0}, '^[\s\p{{Z}}]+|[\s\p{{Z}}]+$', '', 'g')",
    "collapse_spaces": r"regexp_replace({0}, '[\s\p{{Z}}]+', ' ', 'g')",
    "upper": "upper({0})",
    "lower": "lower({0})",
    "nfc": "nfc_normalize({0})",
}


def is_cleaned(column: ColumnSpec) -> bool:
    """Tell whether a column asks for anything that works on its text."""
    return bool(column.clean or column.replace or column.null_values or column.default is not None)


def clean_expression(value: str, column: ColumnSpec) -> str:
    """Return SQL for the cleaned text: clean steps, null values, replacements, default.

    Args:
        value: SQL of the raw text.
        column: What is declared for it.
    """
    for step in column.clean:
        value = _STEPS[step].format(value)
    if column.null_values:
        value = f"CASE WHEN {value} IN ({literals(column.null_values)}) THEN NULL ELSE {value} END"
    if column.replace:
        cases = " ".join(
            f"WHEN {literal(old)} THEN {literal(new)}" for old, new in column.replace.items()
        )
        value = f"CASE {value} {cases} ELSE {value} END"
    if column.default is not None:
        value = f"coalesce({value}, {literal(column.default)})"
    return value
