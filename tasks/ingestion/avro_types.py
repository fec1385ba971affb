"""Avro's types as columns: what has a column type keeps it exactly, all else becomes text.

Records are decoded with a schema without logical types, so that a long stays the long that was
written: fastavro's own dates end at the year 9999 and lose nanoseconds.
"""

from __future__ import annotations

import base64
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Context, Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from tasks.ingestion.typed import json_text, out_of_range
from tasks.model.column_types import MAX_DECIMAL_PRECISION
from tasks.model.errors import ContractBroken

EXACT = Context(prec=10_000)
_PRIMITIVE: dict[str, pa.DataType] = {
    "null": pa.string(),
    "boolean": pa.bool_(),
    "int": pa.int32(),
    "long": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "bytes": pa.binary(),
    "fixed": pa.binary(),
    "string": pa.string(),
    "enum": pa.string(),
}
_TEMPORAL: dict[str, pa.DataType] = {
    "date": pa.date32(),
    "time-millis": pa.time32("ms"),
    "time-micros": pa.time64("us"),
    **{
        f"{local}timestamp-{unit}s": pa.timestamp(short, tz=None if local else "UTC")
        for local in ("", "local-")
        for unit, short in (("milli", "ms"), ("micro", "us"), ("nano", "ns"))
    },
}
_DAY = {"ms": 86_400_000, "us": 86_400_000_000}
_KEYS_OF_TYPES = ("type", "items", "values", "fields")


@dataclass(frozen=True, slots=True)
class AvroColumn:
    """A field of the file's record: its name, and what makes an array of its decoded values."""

    name: str
    convert: Callable[[Sequence[Any]], pa.Array]


def columns_of(schema: Any, uri: str) -> list[AvroColumn]:
    """Return the columns of a file by its parsed schema.

    Raises:
        ContractBroken: Its values are no records, or contain themselves.
    """
    if not isinstance(schema, dict) or schema.get("type") != "record":
        raise ContractBroken(f"{uri}: its values are no records with fields")
    types = _Types(schema, uri)
    return [AvroColumn(field["name"], types.converter(field["type"])) for field in schema["fields"]]


def plain_schema(schema: Any) -> Any:
    """Return a schema without logical types, and with bytes for text, which is decoded later."""
    if schema == "string":
        return "bytes"
    if isinstance(schema, list):
        both = "bytes" in [_kind(branch) for branch in schema]
        return [b if both and _kind(b) == "string" else plain_schema(b) for b in schema]
    if not isinstance(schema, dict):
        return schema
    plain = {key: value for key, value in schema.items() if key not in ("logicalType", "default")}
    for key in _KEYS_OF_TYPES:
        if key in plain:
            value = plain[key]
            fields = key == "fields"
            plain[key] = [plain_schema(field) for field in value] if fields else plain_schema(value)
    return plain


def _kind(schema: Any) -> str:
    if isinstance(schema, list):
        return "union"
    return str(schema["type"]) if isinstance(schema, dict) else str(schema)


class _Types:
    """The named types of a schema, and what becomes of its values."""

    def __init__(self, schema: Any, uri: str) -> None:
        self._named: dict[str, Any] = {}
        self._uri = uri
        self._collect(schema, ())

    def _collect(self, schema: Any, inside: tuple[str, ...]) -> None:
        if isinstance(schema, str):
            if schema in inside:
                raise ContractBroken(
                    f"{self._uri}: the record {schema} contains itself, so it has no columns"
                )
            return
        if isinstance(schema, list):
            for branch in schema:
                self._collect(branch, inside)
            return
        if "name" in schema and "type" in schema and schema["type"] in ("record", "enum", "fixed"):
            self._named[schema["name"]] = schema
            inside = (*inside, schema["name"])
        for field in schema.get("fields", ()):
            self._collect(field["type"], inside)
        for key in ("type", "items", "values"):
            if isinstance(schema.get(key), dict | list | str) and schema.get("type") != "record":
                self._collect(schema[key], inside)
        if schema.get("type") == "array" and self._is_empty(schema["items"]):
            raise ContractBroken(f"{self._uri}: it has an array of values that take no bytes")

    def _is_empty(self, schema: Any) -> bool:
        schema = self._named.get(schema, schema) if isinstance(schema, str) else schema
        if _kind(schema) == "record":
            return all(self._is_empty(field["type"]) for field in schema["fields"])
        return _kind(schema) == "null" or (_kind(schema) == "fixed" and not schema["size"])

    def _resolved(self, schema: Any) -> Any:
        if isinstance(schema, str):
            schema = self._named.get(schema, schema)
        if isinstance(schema, dict) and isinstance(schema["type"], dict):
            return self._resolved(schema["type"])
        if isinstance(schema, list):
            some = [branch for branch in schema if _kind(branch) != "null"]
            if len(some) == 1:
                return self._resolved(some[0])
        return schema

    def converter(self, schema: Any) -> Callable[[Sequence[Any]], pa.Array]:
        """Return what makes an array of the values of a type."""
        schema = self._resolved(schema)
        kind = _kind(schema)
        attributes: Mapping[str, Any] = schema if isinstance(schema, dict) else {}
        logical = attributes.get("logicalType")
        if logical == "decimal" and kind in ("bytes", "fixed"):
            if attributes["precision"] <= MAX_DECIMAL_PRECISION:
                return _decimals(attributes["precision"], attributes.get("scale", 0))
        elif logical in _TEMPORAL and kind in ("int", "long"):
            return _temporals(_TEMPORAL[logical])
        elif kind == "string" or (kind in _PRIMITIVE and logical is None):
            return _primitives(_PRIMITIVE[kind], decode=kind == "string")
        return lambda values: pa.array([self._text(value, schema) for value in values], pa.string())

    def _text(self, value: Any, schema: Any) -> str | None:
        """Return a value without a column type as text: a text as it is, the rest as JSON."""
        shown = self._shown(value, schema)
        if shown is None or isinstance(shown, str):
            return shown
        return json_text(shown)

    def _shown(self, value: Any, schema: Any) -> Any:
        schema = self._resolved(schema)
        if value is None or isinstance(value, bool):
            return value
        if isinstance(schema, list):
            schema = self._resolved(_branch(value, [self._resolved(branch) for branch in schema]))
        kind = _kind(schema)
        if kind == "record":
            return {
                field["name"]: self._shown(value[field["name"]], field["type"])
                for field in schema["fields"]
            }
        if kind == "map":
            return {key: self._shown(item, schema["values"]) for key, item in value.items()}
        if kind == "array":
            return [self._shown(item, schema["items"]) for item in value]
        return _scalar(value, schema)


def _branch(value: Any, branches: Sequence[Any]) -> Any:
    """Return the branch of a union that a decoded value came from, as far as its type tells."""
    kinds = {
        dict: ("record", "map"),
        list: ("array",),
        bytes: ("string", "bytes", "fixed"),
        str: ("string", "enum"),
        int: ("int", "long"),
        float: ("float", "double"),
    }[type(value)]
    fitting = [branch for branch in branches if _kind(branch) in kinds]
    if isinstance(value, dict):
        names = set(value)
        fitting = [
            branch
            for branch in fitting
            if _kind(branch) == "map" or {field["name"] for field in branch["fields"]} == names
        ]
    if isinstance(value, bytes) and any(_kind(branch) == "bytes" for branch in fitting):
        fitting = [branch for branch in fitting if _kind(branch) != "string"]
    return fitting[0]


def _scalar(value: Any, schema: Any) -> Any:
    logical = schema.get("logicalType") if isinstance(schema, dict) else None
    if logical == "decimal":
        return _decimal(value, schema.get("scale", 0))
    if logical == "uuid":
        return str(uuid.UUID(bytes=value)) if _kind(schema) == "fixed" else value.decode()
    if logical == "duration":
        months, days, millis = (int.from_bytes(value[n : n + 4], "little") for n in (0, 4, 8))
        return f"P{months}M{days}DT{Decimal(millis).scaleb(-3, EXACT):f}S"
    if logical in _TEMPORAL:
        return str(pc.cast(_temporals(_TEMPORAL[logical])([value]), pa.string())[0])
    if isinstance(value, bytes):
        return value.decode() if _kind(schema) == "string" else base64.b64encode(value).decode()
    return value


def _decimal(value: bytes, scale: int) -> Decimal:
    return Decimal(int.from_bytes(value, "big", signed=True)).scaleb(-scale, EXACT)


def _decimals(precision: int, scale: int) -> Callable[[Sequence[Any]], pa.Array]:
    def convert(values: Sequence[Any]) -> pa.Array:
        exact = [None if value is None else _decimal(value, scale) for value in values]
        return pa.array(exact, pa.decimal128(precision, scale))

    return convert


def _temporals(kind: pa.DataType) -> Callable[[Sequence[Any]], pa.Array]:
    def convert(values: Sequence[Any]) -> pa.Array:
        counts = pa.array(values, pa.int32() if kind.bit_width == 32 else pa.int64())  # noqa: PLR2004
        made = counts.view(kind)
        if pa.types.is_time(kind):
            if pc.any(
                pc.or_(pc.less(counts, 0), pc.greater_equal(counts, _DAY[kind.unit]))
            ).as_py():
                raise ValueError("no time of a day")
            return made.cast(pa.time64("us"))
        if out_of_range(made):
            raise ValueError("not of the years 1 to 9999")
        if pa.types.is_timestamp(kind) and kind.unit == "ms":
            return made.cast(pa.timestamp("us", tz=kind.tz))
        return made

    return convert


def _primitives(kind: pa.DataType, *, decode: bool) -> Callable[[Sequence[Any]], pa.Array]:
    if not decode:
        return lambda values: pa.array(values, kind)
    return lambda values: pa.array(values, pa.binary()).cast(pa.string())
