"""Which Arrow types the binary encoder takes, and the casts for those that it lacks. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import pgpq
import pyarrow as pa

from tasks.model.errors import ContractBroken

_UNKNOWN_TYPE = "userdefined"
_DECIMAL_DIGITS = 38


def staged_schema(file: pa.Schema, *, also: Collection[str] = ()) -> pa.Schema:
    """Return the schema in which a clean file's columns are staged: all but its provenance.

    Args:
        file: Schema of the file.
        also: Columns of the product's own that are staged too.

    Raises:
        ContractBroken: A column has a type that cannot be staged.
    """
    staged = pa.schema(
        [
            pa.field(field.name, encodable_type(field.type))
            for field in file
            if not field.name.startswith("_") or field.name in also
        ]
    )
    for field in staged:
        _staging_type(field)
    return staged


def encodable_type(kind: pa.DataType) -> pa.DataType:
    """Return the type in which values are encoded: their own, or one that holds them exactly."""
    if pa.types.is_dictionary(kind):
        return encodable_type(kind.value_type)
    if pa.types.is_timestamp(kind):
        return pa.timestamp("us", tz=kind.tz)
    if pa.types.is_time(kind):
        return pa.time64("us")
    if pa.types.is_uint64(kind):
        return pa.decimal128(20, 0)
    if pa.types.is_decimal(kind):
        return pa.decimal128(min(kind.precision, _DECIMAL_DIGITS), kind.scale)
    if pa.types.is_null(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind):
        return pa.binary()
    return pa.date32() if pa.types.is_date64(kind) else kind


def encodable(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Return a batch in a schema of ``staged_schema``, without a change of any value.

    Raises:
        ContractBroken: A column is missing, is of another type, or would lose digits.
    """
    columns = []
    for field in schema:
        position = batch.schema.get_field_index(field.name)
        if position < 0:
            raise ContractBroken(f"column {field.name} is missing in one of the clean files")
        column = batch.column(position)
        if encodable_type(column.type) != field.type:
            raise ContractBroken(
                f"column {field.name} is {column.type} in one clean file, {field.type} in another"
            )
        try:
            columns.append(column if column.type == field.type else column.cast(field.type))
        except pa.ArrowInvalid:
            raise ContractBroken(
                f"column {field.name}: a {column.type} does not fit into {field.type} "
                "without a loss"
            ) from None
    return pa.record_batch(columns, schema=schema)


def staging_types(schema: pa.Schema) -> list[str]:
    """Return the PostgreSQL types of a staging table for a schema of ``staged_schema``.

    They are the encoder's own, never the target's: binary COPY does not convert, and where the
    widths of two types agree it writes garbage without an error.
    """
    return [_staging_type(field) for field in schema]


def _staging_type(field: pa.Field) -> str:
    # The encoder writes an instant as it writes a naive timestamp, and calls both TIMESTAMP. Their
    # bytes are equal, and only TIMESTAMPTZ keeps the instant whatever the session's zone is.
    if pa.types.is_timestamp(field.type) and field.type.tz is not None:
        return "TIMESTAMPTZ"
    try:
        encoder = pgpq.ArrowToPostgresBinaryEncoder(pa.schema([field]))
        ddl = str(encoder.schema().columns[0].data_type.ddl())
    except ValueError:
        ddl = _UNKNOWN_TYPE
    if ddl.startswith(_UNKNOWN_TYPE):
        raise ContractBroken(
            f"column {field.name}: a {field.type} cannot be loaded",
            "declare the column as json, or leave it out",
        )
    return ddl


def check_columns(staged: Sequence[str], published: Sequence[str]) -> None:
    """Make sure that what is staged is what is published: no column vanishes, none is made up.

    Raises:
        ContractBroken: Names the columns that only one side has.
    """
    differences = [f"{name} is not in the clean files" for name in published if name not in staged]
    differences += [f"{name} is in no declaration" for name in staged if name not in published]
    if differences:
        raise ContractBroken(
            f"clean files and dataset file differ: column {'; column '.join(differences)}",
            "run again; the partition is transformed anew",
        )
