"""Lookups: columns that rows take from elsewhere, by a key or the latest time before theirs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from tasks.model.columns import ColumnSpec, Identifier, Strict
from tasks.model.formats import Flatten, RecordsAt
from tasks.model.source import Source

_SPAN = re.compile(r"(\d+)([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
MAX_URL_KEYS = 1000


def span(text: str) -> timedelta:
    """Return a span of time that is written like ``90s``, ``15m``, ``3h`` or ``7d``."""
    found = _SPAN.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no span of time; write e.g. 90s, 15m, 3h or 7d")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


def _span_text(text: str) -> str:
    span(text)
    return text


Span = Annotated[str, AfterValidator(_span_text)]
"""A span of time: a number and s, m, h or d."""


def _any_table(name: str) -> str:
    parts = name.split(".")
    if len(parts) != 2 or not all(parts):  # noqa: PLR2004 - schema and table
        raise ValueError(f"{name!r}: write schema.table, e.g. reference.airports")
    return name


TableName = Annotated[str, AfterValidator(_any_table)]
"""A table of the warehouse: schema.table."""


class LookupApi(Strict):
    """A REST API that is asked for the keys that a partition has."""

    block: str = Field(description="Name of the RestApiCredentials block with URL and credentials.")
    path: str = Field(
        description="Path below the block's base URL. With {key} in it each key is asked for alone."
    )
    param: str | None = Field(
        None, description="Parameter for the keys, several at once; without it, {key} in the path."
    )
    separator: str = Field(",", min_length=1, description="Stands between the keys of a parameter.")
    batch: int = Field(100, ge=1, le=MAX_URL_KEYS, description="Most keys of one request.")
    params: dict[str, str | int] = Field(default_factory=dict)
    records: RecordsAt | None = Field(
        None,
        description="Where in the body the records are; without it the body is the list, or with "
        "{key} in the path the record.",
    )
    flatten: Flatten | None = Field(
        None, description="Make columns of nested objects; without it they are JSON texts."
    )
    expires: Span = Field("1d", description="How long an answer is used again: 90s, 15m, 3h, 7d.")
    allow_hosts: tuple[str, ...] = Field(
        (), description="Other hosts that redirects may lead to; they get no credentials."
    )

    @model_validator(mode="after")
    def _keys_have_a_place(self) -> Self:
        if ("{key}" in self.path) == (self.param is not None):
            raise ValueError("give either 'param' or a path with {key}")
        return self


class Lookup(Strict):
    """Columns taken from another dataset's table, or from elsewhere, found by a key."""

    lookup: Identifier = Field(
        description="Name of the dataset that is looked up; with table, source or api any name."
    )
    table: TableName | None = Field(
        None, description="Look up a table of the warehouse that no dataset fills: schema.table."
    )
    source: Source | None = Field(
        None, description="Look up rows that are read from a source at the start of each run."
    )
    api: LookupApi | None = Field(
        None, description="Ask a REST API for the keys that there are; answers are kept for a time."
    )
    columns: dict[Identifier, ColumnSpec] = Field(
        default_factory=dict, description="With table, source or api: the columns that it has."
    )
    by: dict[str, str] = Field(
        default_factory=dict,
        description="Column of this dataset: column of the other one's key. "
        "A list stands for equal names.",
    )
    as_of: dict[str, str] | None = Field(
        None,
        min_length=1,
        max_length=1,
        description="Column of this dataset: column of the other one. Of the rows with the key, the "
        "one with the largest value that is not above the row's is taken.",
    )
    within: Span | None = Field(
        None, description="With as_of: what is older than this is not taken: 90s, 15m, 3h, 7d."
    )
    take: dict[str, str] = Field(
        description="New column: column of the other dataset. A list stands for equal names."
    )
    missing: Literal["null", "quarantine"] | dict[str, str | int | float | bool] = Field(
        "null",
        description="What happens to a row that finds nothing: null, quarantine, or values for "
        "some of the new columns.",
    )

    @field_validator("by", "take", "as_of", mode="before")
    @classmethod
    def _list_means_equal_names(cls, names: object) -> object:
        if isinstance(names, str):
            names = [names]
        return {name: name for name in names} if isinstance(names, list) else names

    @model_validator(mode="after")
    def _parts_fit_together(self) -> Self:
        given = [name for name in ("table", "source", "api") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"lookup {self.lookup}: give only one of {' and '.join(given)}")
        if bool(given) != bool(self.columns):
            raise ValueError(
                f"lookup {self.lookup}: 'columns' go with one of table, source and api; the columns "
                "of a dataset are known"
            )
        if not (self.by or self.as_of):
            raise ValueError(f"lookup {self.lookup}: 'by' is missing")
        if self.within and not self.as_of:
            raise ValueError(f"lookup {self.lookup}: 'within' goes with 'as_of'")
        if self.api and (len(self.by) != 1 or self.as_of):
            raise ValueError(
                f"lookup {self.lookup}: an api is asked by one column, without 'as_of'"
            )
        if twice := set(self.by) & set(self.as_of or {}):
            raise ValueError(f"lookup {self.lookup}: {twice.pop()!r} is in 'by' and in 'as_of'")
        if isinstance(self.missing, dict):
            self._require("missing", self.missing, self.take)
        if given:
            self._require("by", self.by.values(), self.columns)
            self._require("as_of", (self.as_of or {}).values(), self.columns)
            self._require("take", self.take.values(), self.columns)
        return self

    def _require(self, where: str, names: Iterable[str], known: Mapping[str, object]) -> None:
        for name in names:
            if name not in known:
                raise ValueError(
                    f"lookup {self.lookup}: {where}: no column {name!r}; "
                    f"there are {', '.join(known)}"
                )

    @property
    def is_dataset(self) -> bool:
        """Is another dataset looked up?"""
        return not self.columns

    @property
    def key(self) -> tuple[str, ...]:
        """Columns that tell the looked up rows apart."""
        return (*self.by.values(), *(self.as_of or {}).values())

    @property
    def matched(self) -> dict[str, str]:
        """Column of this dataset → column of the other one, of all that must fit."""
        return {**self.by, **(self.as_of or {})}
