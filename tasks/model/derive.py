"""Derived columns: SQL over the columns of a row."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from tasks.model.column_types import decimal_digits, is_numeric
from tasks.model.columns import ColumnSpec

_PLAIN_TYPES = ("boolean", "string", "bytes", "date", "time", "timestamp")
_OPTIONS = {"sql", "type", "nullable", "description", "timezone", "round", "checks"}


class DerivedColumn(ColumnSpec):
    """A column that is computed from others of its row."""

    sql: str = Field(
        min_length=1,
        description="A SQL expression over the columns of the row, e.g. dep_delay - arr_delay.",
    )

    @model_validator(mode="after")
    def _is_computed(self) -> Self:
        if not (self.type in _PLAIN_TYPES or is_numeric(self.type) or decimal_digits(self.type)):
            raise ValueError(f"an expression cannot make a {self.type}; use string")
        others = sorted(self.model_fields_set - _OPTIONS)
        if others:
            raise ValueError(f"{', '.join(others)}: not for a derived column; say it in its sql")
        if self.type == "timestamp" and self.timezone not in (None, "UTC"):
            raise ValueError("the timezone of a derived timestamp is UTC, or it has none")
        return self
