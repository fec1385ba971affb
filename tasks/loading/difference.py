"""One way in which a table is not as its dataset says. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from psycopg2 import sql

from tasks.model.report import SchemaChange

When = Literal["load", "after", "hand"]
NOTHING = "–"


@dataclass(frozen=True, slots=True)
class Difference:
    """One way in which a table is not as its dataset says.

    Attributes:
        column: The column, or what else it is about.
        there: What the table has.
        wanted: What the dataset file says.
        refusal: Why a load is refused; None if it goes on.
        change: What is altered of the columns, if something is; also where it would be under another
            contract.
        ddl: What would make the table as it should be.
        when: Who runs that: the load in its transaction, the run after it, or a person by hand.
        why: Why it is left to a person.
    """

    column: str
    there: str
    wanted: str
    refusal: str | None = None
    change: SchemaChange | None = None
    ddl: sql.Composed | None = None
    when: When = "load"
    why: str | None = None
