"""Cleaning: SQL that tidies the text of one column before it is cast."""

from __future__ import annotations

from tasks.model.columns import CleanStep, ColumnSpec
from tasks.transformation.sql import literal, literals

_STEPS: dict[CleanStep, str] = {
    # \s of RE2 is ASCII only; \p{Z} adds the no-break and other Unicode spaces.
    "strip": r"regexp_replace({0}, '^[\s\p{{Z}}]+|[\s\p{{Z}}]+$', '', 'g')",
    "collapse_spaces": r"regexp_replace({0}, '[\s\p{{Z}}]+', ' ', 'g')",
    "drop_control": r"regexp_replace({0}, "
    r"'[\x00-\x08\x0B\x0C\x0E-\x1F\x7F\x{{80}}-\x{{9F}}]', '', 'g')",
    "upper": "upper({0})",
    "lower": "lower({0})",
    "title": "array_to_string(list_transform(string_split(lower({0}), ' '), "
    "lambda word: upper(word[1]) || word[2:]), ' ')",
    "nfc": "nfc_normalize({0})",
    "nfkc": "nfkc({0})",
}


def is_cleaned(column: ColumnSpec) -> bool:
    """Tell whether a column asks for anything that works on its text."""
    return bool(
        column.clean
        or column.replace
        or column.null_values
        or column.default is not None
        or column.nul == "replace"
        or column.clip
        or column.unit
        or column.non_finite in ("keep", "null")
    )


def is_non_finite(value: str) -> str:
    """Return SQL that tells whether a text is a word for NaN or for an infinity."""
    return f"regexp_full_match(lower({value}), '[+-]?(nan|inf|infinity)')"


def clean_expression(value: str, column: ColumnSpec) -> str:
    """Return SQL for the cleaned text: clean steps, null values, replacements, length, default.

    Args:
        value: SQL of the raw text.
        column: What is declared for it.
    """
    for step in column.clean:
        value = _STEPS[step].format(value)
    if column.nul == "replace":
        value = f"replace({value}, chr(0), chr(65533))"
    if column.non_finite == "null":
        value = f"CASE WHEN {is_non_finite(value)} THEN NULL ELSE {value} END"
    if column.null_values:
        value = f"CASE WHEN {value} IN ({literals(column.null_values)}) THEN NULL ELSE {value} END"
    if column.replace:
        cases = " ".join(
            f"WHEN {literal(old)} THEN {literal(new)}" for old, new in column.replace.items()
        )
        value = f"CASE {value} {cases} ELSE {value} END"
    if column.clip:
        kept = f"left({value}, {column.clip.length - len(column.clip.mark)})"
        cut = f"{kept} || {literal(column.clip.mark)}"
        value = f"CASE WHEN length({value}) > {column.clip.length} THEN {cut} ELSE {value} END"
    if column.default is not None:
        value = f"coalesce({value}, {literal(column.default)})"
    return value
