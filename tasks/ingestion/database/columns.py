"""Columns of a source as the raw zone keeps them, and how each is asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import sqlalchemy as sa

Convert = Callable[[Any], Any]


def _as_it_is(value: Any) -> Any:
    return value


@dataclass(frozen=True)
class Column:
    """One column of a table or query.

    Attributes:
        name: Its name in the source.
        arrow: Type of the raw zone that holds every value of it.
        expression: What is selected, so that no driver changes the value on the way.
        convert: Turns a value of the driver into one of the Arrow type; raises ValueError if it
            is none.
        nullable: May it be NULL, as far as the database says?
        in_hex: Bytes that the expression writes as hexadecimal digits.
    """

    name: str
    arrow: pa.DataType
    expression: sa.ColumnElement[Any]
    convert: Convert = field(default=_as_it_is)
    nullable: bool = True
    in_hex: bool = False

    @property
    def plain(self) -> sa.ColumnElement[Any]:
        """The column itself, for conditions."""
        return sa.column(self.name)
