"""How a REST API is declared: paging, windows of time, increments."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from tasks.model.columns import Strict
from tasks.model.formats import Flatten, RecordsAt

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class PageNumbers(Strict):
    """Pages are counted: ``?page=1``, ``?page=2``, … until an empty one."""

    kind: Literal["page"]
    page_param: str = Field("page", description="Parameter for the number of the page.")
    size_param: str = Field("page_size", description="Parameter for the size of a page.")
    size: int = Field(1000, ge=1, description="Records that a page is asked for.")
    first: int = Field(1, ge=0, description="Number of the first page.")
    pages: str | None = Field(
        None, description="Key of the body that says how many pages there are, e.g. 'pages'."
    )
    partition_pages: int | None = Field(
        None, ge=1, description="Cut the source into partitions of so many pages; needs 'pages'."
    )

    @model_validator(mode="after")
    def _ranges_need_a_number(self) -> Self:
        if self.partition_pages is not None and self.pages is None:
            raise ValueError("partition_pages needs 'pages', the key that says how many there are")
        return self


class OffsetLimit(Strict):
    """Pages begin at an offset: ``?offset=0&limit=1000``, then ``?offset=1000&limit=1000``."""

    kind: Literal["offset"]
    offset_param: str = Field("offset", description="Parameter for the number of records to skip.")
    limit_param: str = Field("limit", description="Parameter for the size of a page.")
    limit: int = Field(1000, ge=1, description="Records that a page is asked for.")
    total: str | None = Field(
        None, description="Key of the body that says how many records there are, e.g. 'total'."
    )
    overlap: int = Field(
        0,
        ge=0,
        description="Records of the previous page that are asked for again, so that records which "
        "move up while pages are read are not missed. The dataset's key removes them.",
    )

    @model_validator(mode="after")
    def _pages_go_forward(self) -> Self:
        if self.overlap >= self.limit:
            raise ValueError("overlap must be smaller than limit")
        return self


class Cursor(Strict):
    """Each page says where the next one begins; that is sent as a parameter."""

    kind: Literal["cursor"]
    param: str = Field("cursor", description="Parameter for the cursor.")
    key: str | None = Field(
        None, description="Key of the body that holds the cursor; dots go deeper."
    )
    field: str | None = Field(
        None, description="Field of the page's last record that is the cursor, instead of a key."
    )
    until: Literal["missing", "empty"] = Field(
        "missing",
        description="The last page has no cursor (missing, null or ''), or it has no records.",
    )

    @model_validator(mode="after")
    def _key_or_field(self) -> Self:
        if (self.key is None) == (self.field is None):
            raise ValueError("give either 'key' or 'field'")
        return self


class LinkHeader(Strict):
    """The ``Link`` header names the URL of the next page (RFC 8288), on the last one it does not."""

    kind: Literal["link"]
    rel: str = Field("next", description="Relation of the link to the next page.")


class NextLink(Strict):
    """The body names the URL of the next page, null on the last one."""

    kind: Literal["next"]
    key: str = Field("next", description="Key of the body that holds the URL; dots go deeper.")


Pagination = Annotated[
    PageNumbers | OffsetLimit | Cursor | LinkHeader | NextLink, Field(discriminator="kind")
]


class TimeWindows(Strict):
    """Cuts the source into partitions of time, half open: ``from <= t < to``."""

    start: datetime = Field(description="Start of the first window; UTC unless it says otherwise.")
    end: datetime | None = Field(None, description="End of the last window; now, if not given.")
    every: Literal["hour", "day", "month"] = "day"
    from_param: str = "from"
    to_param: str = "to"


class Incremental(Strict):
    """Each run asks for what changed since the largest value that was committed."""

    param: str = Field(description="Parameter for the value, e.g. 'updated_since'.")
    field: str = Field(description="Field of the records that grows with every change.")
    type: Literal["timestamp", "number"] = Field("timestamp", description="What the field holds.")
    start: str | int | datetime = Field(description="What the first run asks for.")
    lookback: str = Field(
        "0s",
        pattern=r"^\d+[smhd]?$",
        description="How far before it each run begins, for records that became visible late: "
        "30s, 15m, 2h, 1d for timestamps, a number for numbers.",
    )

    @property
    def lookback_amount(self) -> int:
        """The look-back in seconds, or as a number."""
        unit = self.lookback[-1]
        return int(self.lookback[:-1]) * _UNITS[unit] if unit in _UNITS else int(self.lookback)

    @model_validator(mode="after")
    def _start_fits(self) -> Self:
        if self.type == "number":
            try:
                int(str(self.start))
            except ValueError:
                raise ValueError(f"start {self.start!r} is no whole number") from None
        else:
            try:
                datetime.fromisoformat(str(self.start))
            except ValueError:
                raise ValueError(f"start {self.start!r} is no date or time") from None
        return self


class RestSource(Strict):
    """A REST API that answers in JSON."""

    kind: Literal["rest"]
    block: str = Field(description="Name of the RestApiCredentials block with URL and credentials.")
    path: str = Field(description="Path below the block's base URL.")
    params: dict[str, str | int] = Field(default_factory=dict)
    records: RecordsAt | None = Field(
        None,
        description="Where in the body the records are: keys with dots ('data.items'), or JSONPath "
        "with wildcards ('$.data[*].items[*]'). Without it the body is the list.",
    )
    flatten: Flatten | None = Field(
        None, description="Make columns of nested objects; without it they are JSON texts."
    )
    content_type: str | None = Field(
        None, description="Content type of the answers, if the API does not call its JSON JSON."
    )
    pagination: Pagination | None = None
    max_pages: int = Field(10_000, ge=1, description="More pages than this are an error.")
    allow_hosts: tuple[str, ...] = Field(
        (),
        description="Other hosts that redirects and links to pages may lead to, host or host:port; "
        "they get no credentials.",
    )
    windows: TimeWindows | None = None
    incremental: Incremental | None = None
    conditional: bool = Field(
        False,
        description="Ask first whether the answer changed (ETag, Last-Modified); only for sources of "
        "one page.",
    )

    @model_validator(mode="after")
    def _parts_fit_together(self) -> Self:
        if self.windows and self.incremental:
            raise ValueError("give either 'windows' or 'incremental'")
        sliced = self.windows or self.incremental
        if isinstance(self.pagination, PageNumbers) and self.pagination.partition_pages and sliced:
            raise ValueError("partition_pages does not go with windows or incremental")
        if self.conditional and (self.pagination or sliced):
            # An unchanged first page says nothing about the second one.
            raise ValueError("conditional is for sources of one page: no pagination, no windows")
        return self

    @property
    def repeats_records(self) -> str | None:
        """Which part of the declaration makes records come twice, so that a key is needed."""
        if self.incremental:
            return "incremental"
        if isinstance(self.pagination, OffsetLimit) and self.pagination.overlap:
            return "pagination.overlap"
        return None
