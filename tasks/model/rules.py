"""What must hold of rows: conditions, uniqueness, references, code of the user's; and how strictly."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from tasks.model.columns import ColumnSpec, Identifier, Strict

Severity = Literal["quarantine", "warn", "fail"]
"""Refuse the row; keep it and count it; or refuse the whole partition."""
_SEVERITY = "quarantine: refuse the row. warn: keep it, and count it. fail: refuse the partition."
_REFERENCE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
_ORDER = re.compile(r"([a-z][a-z0-9_]*)(?: (asc|desc))?")


def _code_reference(text: str) -> str:
    if not _REFERENCE.fullmatch(text):
        raise ValueError(
            f"{text!r} names no Python object; write module:name, e.g. datasets.flights:clean"
        )
    return text


CodeReference = Annotated[str, AfterValidator(_code_reference)]
"""``module:name``; the module is a file under the project's folder, or an installed one."""


def _order(text: str) -> str:
    if not _ORDER.fullmatch(text):
        raise ValueError(f"{text!r} is no order; write a column, or a column and desc")
    return text


Order = Annotated[str, AfterValidator(_order)]


def ordered_column(order: str) -> tuple[str, bool]:
    """Return the column of an order, and whether its largest value comes first."""
    name, _, direction = order.partition(" ")
    return name, direction == "desc"


class RowRule(Strict):
    """A condition over a whole row; a row for which it is false or NULL breaks it."""

    name: Identifier
    sql: str = Field(description="A boolean SQL expression over the columns of the dataset.")
    message: str | None = Field(None, description="Tells a person what is wrong with the row.")
    severity: Severity = Field("quarantine", description=_SEVERITY)


class Reference(Strict):
    """Values that must be keys of another dataset; NULL refers to nothing, and passes."""

    dataset: Identifier = Field(description="The other dataset.")
    columns: dict[str, str] = Field(
        min_length=1, description="Column of this dataset: column of the other one's key."
    )
    severity: Severity = Field("quarantine", description=_SEVERITY)


class UserSchema(Strict):
    """A pandera schema of the user's."""

    schema_: CodeReference = Field(
        alias="schema", description="module:name of a DataFrameModel or DataFrameSchema."
    )
    severity: Severity = Field("quarantine", description=_SEVERITY)


class Custom(Strict):
    """A function of the user's, from DataFrame to DataFrame, row by row the same rows."""

    function: CodeReference = Field(description="module:name of the function.")
    columns: dict[Identifier, ColumnSpec] = Field(
        default_factory=dict, description="Columns that the function adds, with their types."
    )
