"""``load:`` of a dataset file: where the rows go, and how they meet the rows that are there."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from tasks.model.columns import Strict, _identifier
from tasks.model.search import SearchIndex


def _table_name(name: str) -> str:
    parts = name.split(".")
    if len(parts) != 2:  # noqa: PLR2004 - schema and table
        raise ValueError(f"{name!r}: write schema.table, e.g. analytics.flights")
    for part in parts:
        _identifier(part)
    if parts[0] == "etl":
        raise ValueError("schema 'etl' belongs to the ledger; choose another")
    return name


class LoadTarget(Strict):
    """What every mode has: the table, and what it is created with."""

    table: Annotated[str, AfterValidator(_table_name)] = Field(description="schema.table")
    index: SearchIndex | None = None


class AppendLoad(LoadTarget):
    """Every row of every partition is added."""

    mode: Literal["append"] = Field(description="Each partition once; every row is added.")


class MergeLoad(LoadTarget):
    """One row per key, the newest."""

    mode: Literal["merge"] = Field(
        description="One row per key; the newest by cursor wins, also against the table."
    )


LoadSpec = Annotated[AppendLoad | MergeLoad, Field(discriminator="mode")]
"""How the rows meet those that are there; each mode has options of its own."""
