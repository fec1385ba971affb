"""``Environment``: the settings in which dev, staging and prod differ. It names blocks, no secrets."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from zoneinfo import available_timezones

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

_UNITS = {"": 1, "B": 1, "KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([KMG]?B?)\s*", re.IGNORECASE)
MIN_MEMORY_BYTES = 64 << 20


def parse_bytes(text: object) -> object:
    """Turn ``64MB`` into bytes (KB, MB and GB are powers of 1,024); numbers stay as they are."""
    if not isinstance(text, str):
        return text
    match = _SIZE.fullmatch(text)
    if not match:
        raise ValueError(f"{text!r} is no size; write e.g. 64MB or 2GB")
    unit = match[2].upper()
    return int(float(match[1]) * _UNITS[unit if unit.endswith("B") or not unit else unit + "B"])


Bytes = Annotated[int, BeforeValidator(parse_bytes)]


class WorkPool(BaseModel):
    """Where the flow runs of an environment happen."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$", description="Name of the pool.")
    type: Literal["process", "kubernetes"] = Field(
        description="process: beside the worker. kubernetes: each run is a job."
    )
    job_template: Literal["small", "medium", "large"] | None = Field(
        None, description="For kubernetes: size of a job, from deployments/kubernetes."
    )
    concurrency_limit: int | None = Field(
        None, ge=1, description="Flow runs at the same time; no limit without it."
    )

    @model_validator(mode="after")
    def _jobs_have_a_size(self) -> Self:
        if (self.type == "kubernetes") != (self.job_template is not None):
            needs = "needs" if self.type == "kubernetes" else "takes no"
            raise ValueError(f"type {self.type!r} {needs} job_template")
        return self


class ConcurrencyLimit(BaseModel):
    """A global concurrency limit: slots that all processes share."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    limit: int = Field(ge=0, description="Slots there are.")
    slot_decay_per_second: float = Field(
        0, ge=0, description="Slots that become free by themselves each second, for a rate."
    )


BlockKey = Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]+/[a-z0-9-]+$")]
VariableName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]+$")]

Severity = Literal["warning", "critical"]


class Alerts(BaseModel):
    """Who is told by the automations of an environment; nobody, if no block is named."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    warning: tuple[BlockKey, ...] = Field(
        (), description="Told of what wants a look during the day: <block type slug>/<name>."
    )
    critical: tuple[BlockKey, ...] = Field(
        (), description="Told of what must not wait: runs that failed, died or do not begin."
    )
    usual_minutes: dict[str, Annotated[float, Field(gt=0)]] = Field(
        default_factory=dict,
        description="Longest usual time of a run, in minutes, by flow; longer ones are warned of. "
        "Where ten runs or more have completed, bootstrap learns it from them instead.",
    )

    def channels(self, severity: Severity) -> tuple[str, ...]:
        """Return the blocks that are told of alerts of a severity."""
        return self.warning if severity == "warning" else self.critical

    @property
    def all_channels(self) -> tuple[str, ...]:
        """Every block that is named, once."""
        return tuple(dict.fromkeys([*self.warning, *self.critical]))


class Environment(BaseSettings):
    """Settings of one environment.

    They come from ``deployments/environments/<name>.yaml``; an environment variable ``DPP_<KEY>``
    overrides one of them.
    """

    model_config = SettingsConfigDict(
        env_prefix="DPP_", extra="forbid", frozen=True, hide_input_in_errors=True
    )

    name: str = Field(pattern=r"^[a-z][a-z0-9-]*$")
    embedded: bool = Field(False, description="Start the servers on this machine when needed.")
    datasets: Path = Field(Path("datasets"), description="Folder of the dataset files.")
    warehouse_block: str
    lake_block: str
    redis_block: str | None = Field(
        None,
        description="RedisServer block where processes share the breakers and rate limits of sources' "
        "hosts; without it they are in the warehouse.",
    )
    queue_block: str | None = Field(
        None,
        description="LandingQueue block with notifications about objects that landed; flow listen "
        "reads it.",
    )
    memory_budget: Bytes = Field(
        ge=MIN_MEMORY_BYTES, description="For the transformations of one process, in bytes."
    )
    partition_bytes: Bytes = Field(ge=1024, description="Target size of a partition.")
    concurrency: int = Field(ge=1, le=32, description="Partitions worked on at the same time.")
    shard_above: int | None = Field(
        None,
        ge=1,
        description="A run of more partitions is split into shards of at most so many, each a flow run "
        "of the deployment shard; never without it.",
    )
    task_runner: Literal["threads", "dask"] = Field(
        "threads",
        description="dask: shards are tasks of a Dask cluster, and a run is split without shard_above.",
    )
    dask_address: str | None = Field(
        None, description="Address of the scheduler of the Dask cluster, e.g. tcp://dask:8786."
    )
    max_parallel: int = Field(4, ge=1, le=100, description="Shards of a run at the same time.")
    shard_start_seconds: float = Field(
        900, gt=0, description="Seconds after which shards that nobody takes are given up."
    )
    stage_timeout: float = Field(gt=0, description="Seconds that a stage may take.")
    stop_seconds: float = Field(
        12,
        ge=0,
        description="Seconds that partitions under way have to end after SIGTERM; then they are given "
        "up and rolled back, within 4 more.",
    )
    retention_days: int = Field(
        90,
        ge=1,
        description="Days for which files of the lake must be there; reconcile checks it, and maintain "
        "erases what is older and needed by nothing.",
    )
    scratch: Path | None = Field(
        None,
        description="Folder for intermediate files, on a disk with room; without it one in the "
        "system's temporary folder, which TMPDIR names: an emptyDir of a pod.",
    )
    timezone: str = "UTC"
    privacy_block: str | None = Field(
        None,
        description="PrivacyKeys block that protects columns marked pii; without it the key is the "
        "environment variable DPP_PRIVACY_KEY.",
    )
    reveal_pii: bool = Field(
        False,
        description="May 'dpp quarantine show' and 'export' reveal protected values, if asked to?",
    )
    schedules: dict[str, str] = Field(
        default_factory=dict, description="Cron expression of each schedule, for prefect.yaml."
    )
    alerts: Alerts = Field(default_factory=Alerts, description="Who is told of what.")
    work_pool: WorkPool = Field(description="Where the flow runs of this environment happen.")
    concurrency_limits: dict[str, ConcurrencyLimit] = Field(
        default_factory=dict, description="Global concurrency limits, by name."
    )
    variables: dict[VariableName, JsonValue] = Field(
        default_factory=dict, description="Prefect variables, by name; no secrets."
    )
    blocks: dict[BlockKey, dict[str, Any]] = Field(
        default_factory=dict,
        description="Blocks that bootstrap makes, as <block type slug>/<name>: their fields. A field "
        "is a value, {variable: NAME}, {aws_secret: NAME} or {block: <slug>/<name>}.",
    )

    @field_validator("timezone")
    @classmethod
    def _timezone_exists(cls, timezone: str) -> str:
        if timezone not in available_timezones():
            raise ValueError(f"{timezone!r} is not a time zone of the IANA database")
        return timezone

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - pydantic-settings calls it so
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Let environment variables win over the file."""
        return env_settings, init_settings
