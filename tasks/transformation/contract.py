"""The contract at work: what becomes of columns that are unknown or missing."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence

from tasks.model.column_types import MAX_DECIMAL_PRECISION, decimal_digits
from tasks.model.columns import MAX_IDENTIFIER_BYTES, SYSTEM_COLUMNS, ColumnSpec
from tasks.model.dataset import DatasetSpec
from tasks.model.errors import ContractBroken
from tasks.transformation.sql import identifier
from tasks.transformation.validate import Rule

MAX_KEY_BYTES = 2600
"""An index entry of PostgreSQL has at most 2,704 bytes; some are for its header and small keys."""
_HASH_DIGITS = 8
_ADDED_TYPES = {
    "BOOLEAN": "boolean",
    "TINYINT": "int8",
    "SMALLINT": "int16",
    "INTEGER": "int32",
    "BIGINT": "int64",
    "UTINYINT": "uint8",
    "USMALLINT": "uint16",
    "UINTEGER": "uint32",
    "UBIGINT": "uint64",
    "FLOAT": "float",
    "DOUBLE": "float",
    "BLOB": "bytes",
    "DATE": "date",
    "TIME": "time",
    "TIMESTAMP": "timestamp",
}
"""What a source may say of a column that is exact in the warehouse; every other type is a text."""


def source_name(name: str, column: ColumnSpec) -> str:
    """Return the name that a column has in the source."""
    return column.source_column(name)


def unknown_columns(spec: DatasetSpec, raw_types: Mapping[str, str]) -> list[str]:
    """Return the columns of the source that are not declared.

    Raises:
        ContractBroken: There are some, and the contract freezes the columns.
    """
    declared = set(spec.source_columns)
    unknown = [name for name in raw_types if name not in declared]
    if unknown and spec.contract.unknown == "freeze":
        raise ContractBroken(
            f"{spec.name}: the source has columns that are not declared: {_listed(unknown)}",
            "declare them, or set contract: to evolve, quarantine or ignore",
        )
    return unknown


def check_missing(spec: DatasetSpec, raw_types: Mapping[str, str]) -> None:
    """Refuse the partition when columns are missing that must be there.

    Raises:
        ContractBroken: Names them.
    """
    reaction = spec.contract.missing
    missing = [
        name
        for name in _missing(spec, raw_types)
        if reaction == "freeze" or (reaction == "evolve" and name in spec.required_columns)
    ]
    if not missing:
        return
    sources = {name: source_name(name, spec.columns[name]) for name in missing}
    names = [
        name if name == source else f"{name} ({source!r} in the source)"
        for name, source in sources.items()
    ]
    remedy = "correct the column's 'source', or declare it nullable"
    if reaction == "freeze":
        remedy = "correct the column's 'source', or set contract: {missing: evolve}"
    raise ContractBroken(
        f"{spec.name}: the source has no column {', '.join(names)}; it has {_listed(list(raw_types))}",
        remedy,
    )


def _missing(spec: DatasetSpec, raw_types: Mapping[str, str]) -> list[str]:
    return [
        name
        for name, column in spec.columns.items()
        if source_name(name, column) not in raw_types and column.default is None
    ]


def _listed(names: Sequence[str]) -> str:
    """Return names for a message, a reasonable number of them."""
    most = 50
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest


def added_columns(
    spec: DatasetSpec, unknown: Sequence[str], raw_types: Mapping[str, str]
) -> dict[str, tuple[str, ColumnSpec]]:
    """Return source name → (column name, type) of what ``unknown: evolve`` lets in.

    Raises:
        ContractBroken: Two columns would have one name.
    """
    if spec.contract.unknown != "evolve":
        return {}
    taken = {*spec.columns, *spec.made_columns, *spec.taken_columns}
    added: dict[str, tuple[str, ColumnSpec]] = {}
    for name in unknown:
        column = column_name(name)
        if column in taken:
            raise ContractBroken(
                f"{spec.name}: the source's column {name!r} would become {column!r}, "
                "which is there already",
                "declare it under another name with 'source:'",
            )
        taken.add(column)
        added[name] = (column, added_type(raw_types[name]))
    return added


def column_name(name: str) -> str:
    """Return the name that PostgreSQL takes for a name of the source.

    One that is too long is cut and ends with a hash of all of it: two that begin alike stay two.
    """
    folded = "".join(c if c.isascii() and c.isalnum() else "_" for c in name.lower())
    column = folded
    if not folded[:1].isalpha() or folded in SYSTEM_COLUMNS:
        column = f"c_{folded}"
    if len(column) <= MAX_IDENTIFIER_BYTES:
        return column
    digest = hashlib.sha256(name.encode()).hexdigest()[:_HASH_DIGITS]
    return f"{column[: MAX_IDENTIFIER_BYTES - _HASH_DIGITS - 1]}_{digest}"


def added_type(raw_type: str) -> ColumnSpec:
    """Return the type of a column that only the source knows: its own, else a text."""
    if raw_type == "TIMESTAMP WITH TIME ZONE":
        return ColumnSpec(type="timestamp", timezone="UTC")
    digits = decimal_digits(raw_type.lower())
    if digits and digits[0] <= MAX_DECIMAL_PRECISION:
        return ColumnSpec(type=raw_type.lower())
    return ColumnSpec(type=_ADDED_TYPES.get(raw_type, "string"))


def key_rules(spec: DatasetSpec) -> Iterator[Rule]:
    """Yield the rule that a key fits into an entry of PostgreSQL's index, which texts may not."""
    lengths = [
        f"{'strlen' if spec.columns[name].type == 'string' else 'octet_length'}({identifier(name)})"
        for name in spec.key
        if spec.columns[name].type in ("string", "bytes")
    ]
    if lengths and spec.table_key:
        yield Rule(
            "key_length",
            None,
            f"the key is longer than {MAX_KEY_BYTES} bytes, which PostgreSQL cannot index",
            f"{' + '.join(lengths)} > {MAX_KEY_BYTES}",
        )


def contract_rules(
    spec: DatasetSpec,
    raw_types: Mapping[str, str],
    unknown: Sequence[str],
    added: Mapping[str, tuple[str, ColumnSpec]],
) -> Iterator[Rule]:
    """Yield the rules that the contract makes: for missing, unknown and added columns."""
    if spec.contract.missing == "quarantine":
        for name in _missing(spec, raw_types):
            yield Rule("missing_column", name, "is not in the source", "true")
    if spec.contract.unknown == "quarantine":
        for name in unknown:
            raw = identifier(f"raw {name}")
            yield Rule("unknown_column", name, "is not declared", f"{raw} IS NOT NULL")
    yield from key_rules(spec)
    texts = [column for column, kind in added.values() if kind.type == "string"]
    if texts:  # one rule for all: there may be a thousand of them
        all_texts = f"concat_ws('', {', '.join(map(identifier, texts))})"
        yield Rule(
            "nul_character",
            texts[0] if len(texts) == 1 else None,
            "has a NUL character, which PostgreSQL cannot store",
            f"contains({all_texts}, chr(0))",
        )
