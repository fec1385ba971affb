"""Where a dataset's rows come from: the declarations under ``source:`` of a dataset file."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from tasks.model.columns import Strict
from tasks.model.database_source import DatabaseSource
from tasks.model.dated_paths import DatedPath
from tasks.model.formats import Format
from tasks.model.plugins import OWN_KINDS, PluginSource, plugin_kinds
from tasks.model.rest_source import RestSource


class FilesSource(Strict):
    """Files of a local directory."""

    kind: Literal["files"]
    path: str = Field(
        description="Glob pattern, relative to the project or absolute. {date:%Y-%m-%d} in it tells "
        "where a file's date is, for backfills."
    )
    format: Format

    @field_validator("path")
    @classmethod
    def _date_is_readable(cls, path: str) -> str:
        DatedPath.parse(path)
        return path


class S3Source(Strict):
    """Objects of an S3 bucket."""

    kind: Literal["s3"]
    block: str = Field(description="Name of the S3Bucket block with bucket and credentials.")
    path: str = Field(
        description="Glob pattern of the keys; what precedes the first * is listed. "
        "{date:%Y/%m/%d} stands for a date; a span of time lists only its folders."
    )
    format: Format
    lookback_days: int | None = Field(
        None, ge=0, description="List only the folders of today and of so many days before it."
    )
    start: date | None = Field(None, description="List only the folders from this day on.")
    hive_partitions: tuple[str, ...] = Field(
        (), description="Folders name=value of the keys that become columns."
    )
    requester_pays: bool = Field(
        False, description="Accept that the owner of the credentials pays for the requests."
    )
    customer_key_block: str | None = Field(
        None,
        description="Name of the Secret block with the key, in base64, of objects that are "
        "encrypted with a key of the customer (SSE-C).",
    )

    @field_validator("path")
    @classmethod
    def _date_is_readable(cls, path: str) -> str:
        DatedPath.parse(path)
        return path

    @model_validator(mode="after")
    def _span_needs_dates(self) -> S3Source:
        if self.lookback_days is not None and self.start is not None:
            raise ValueError("give either 'lookback_days' or 'start'")
        span = self.lookback_days is not None or self.start is not None
        if span and not DatedPath.parse(self.path).formats:
            raise ValueError("'lookback_days' and 'start' need a {date:…} in 'path'")
        return self


_OwnSource = Annotated[
    FilesSource | S3Source | RestSource | DatabaseSource, Field(discriminator="kind")
]


BRANCHES = frozenset({"<own>", "<plugin>"})
"""Parts of the location of a mistake that no dataset file has."""


def _who_brings(source: object) -> str:
    kind = source.get("kind") if isinstance(source, dict) else getattr(source, "kind", None)
    if kind in OWN_KINDS:  # the installed packages are looked through only if it is none of these
        return "<own>"
    return "<plugin>" if kind in plugin_kinds() else "<own>"


Source = Annotated[
    Annotated[_OwnSource, Tag("<own>")] | Annotated[PluginSource, Tag("<plugin>")],
    Discriminator(_who_brings),
]
