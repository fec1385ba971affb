"""Learned checks: what a dataset file says about them, and what they say of a partition."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from tasks.model.columns import Identifier, Strict

Watched = Literal["volume", "freshness", "null_rate", "drift", "profile"]
WATCHED: tuple[Watched, ...] = ("volume", "freshness", "null_rate", "drift", "profile")


class Anomaly(Strict):
    """Compare each partition with those before it, and say what is unusual."""

    action: Literal["warn", "fail"] = Field(
        "warn",
        description="warn: publish, and say so in the report. fail: publish nothing of the partition.",
    )
    watch: tuple[Watched, ...] = Field(
        WATCHED,
        min_length=1,
        description="What is compared; profile is all of it at once, by an isolation forest.",
    )
    time: Identifier | None = Field(
        None,
        description="Column that says which time the rows belong to; freshness needs it. "
        "Without it, a partition belongs to the time at which it was transformed.",
    )
    season: Literal["weekday", "hour", "none"] = Field(
        "weekday", description="Which partitions are alike: those of a weekday, of an hour, or all."
    )
    min_history: int = Field(
        14, ge=5, le=1000, description="With fewer partitions before it, none is judged."
    )
    history: int = Field(
        90, ge=5, le=1000, description="Most partitions to learn from, the latest."
    )
    sensitivity: float = Field(
        5.0, gt=0, description="Width of the usual, in robust standard deviations."
    )
    drift: float = Field(
        0.25, gt=0, description="Smallest population stability index that counts as drift."
    )


class Point(BaseModel):
    """One value of the history, for the plot."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    at: float
    """Seconds since 1970."""
    value: float
    alike: bool = True
    """Is it of the season that the partition is compared with?"""


class Finding(BaseModel):
    """Something that is unusual about a partition, or a reason why it was not judged."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    severity: Literal["note", "warn", "fail"]
    metric: Watched | None
    column: str | None = None
    message: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    at: float | None = None
    history: tuple[Point, ...] = ()
