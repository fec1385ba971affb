"""What the three stages have in common as Prefect tasks: the cache key, retries, the log context."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

import structlog
from prefect.cache_policies import CachePolicy
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import TaskRunContext
from prefect.tasks import Task, exponential_backoff
from prefect.utilities.annotations import opaque

from tasks.connections import Connections
from tasks.environments import project_root
from tasks.lake import intact_manifest
from tasks.model.classify import CAPACITY_ERRNO, classify, is_transient
from tasks.model.environment import Environment
from tasks.model.errors import ConfigError, PipelineError
from tasks.model.manifest import Manifest
from tasks.stopping import stop_asked

log = structlog.get_logger("dpp.stages")
P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

RETRIES = 4
FIRST_RETRY_SECONDS = 2
RETRY_JITTER = 0.5
RESULT = f"{Manifest.__module__}.{Manifest.__qualname__}"
"""Class of the results. Prefect writes its name into each; if the class has moved, it gives a dict."""


@dataclass
class StageCache(CachePolicy):
    """A cache key with an explicit identity, because Prefect's own keys have none.

    ``INPUTS`` would give one task the result of another, and ``TASK_SOURCE`` does not see a change
    in the code that a task calls. Here the key names the stage, its version, the environment, the
    dataset, the partition's fingerprint, and a hash of whatever else decides the result. The task
    takes these as ``work``. It names the class of the results too.

    Attributes:
        stage: Name of the stage.
        version: Raised whenever the stage's code would give another result.
    """

    stage: str = ""
    version: str = "1"

    def compute_key(
        self,
        task_ctx: TaskRunContext,  # noqa: ARG002
        inputs: dict[str, Any],
        flow_parameters: dict[str, Any],  # noqa: ARG002
        **kwargs: Any,  # noqa: ARG002
    ) -> str | None:
        """Return the key of a stage's work on a partition."""
        work: Work = inputs["work"]
        return "/".join(
            (
                "dpp",
                RESULT,
                self.stage,
                f"v{self.version}",
                work.environment,
                work.dataset,
                work.fingerprint,
                work.identity,
            )
        )


@dataclass(frozen=True, slots=True)
class Work:
    """Which work a stage is asked to do; all that a cache key is made of.

    Attributes:
        environment: Name of the environment.
        dataset: Name of the dataset.
        fingerprint: Fingerprint of the partition.
        identity: Hash of everything else that decides the stage's result.
        manifest_key: Where the manifest of the result is in the lake.
        run: Name of the run, for the logs; no part of the key.
        label: The partition in words, for the UI; no part of the key.
    """

    environment: str
    dataset: str
    fingerprint: str
    identity: str
    manifest_key: str
    run: str
    label: str


def as_is(value: T) -> T:
    """Hand a value to a task as it is: Prefect looks for futures in all parts of every other one.

    A dataset has hundreds of parts, and each partition has three tasks.
    """
    return cast("T", opaque(value))


def refreshed_if_broken(stage: Task[P, R], environment: Environment, work: Work) -> Task[P, R]:
    """Return the stage's task so that a cached result with missing or changed files is made anew.

    Prefect serves a cached manifest even when the files it names are gone.
    """
    lake = Connections(environment).lake()
    if intact_manifest(lake, work.manifest_key):
        return stage
    return stage.with_options(refresh_cache=True)


def only_transient(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """Retry what may succeed next time, and nothing else; nothing in a run that is to stop."""
    if stop_asked():
        return False
    error = state.result(raise_on_failure=False)
    transient = isinstance(error, BaseException) and is_transient(error)
    if transient:
        log.warning("stage.failed_for_now", error=str(error))
    return transient


RETRY: dict[str, Any] = {
    "retries": RETRIES,
    "retry_delay_seconds": exponential_backoff(FIRST_RETRY_SECONDS),
    "retry_jitter_factor": RETRY_JITTER,
    "retry_condition_fn": only_transient,
}
"""Retries of every stage: 2, 4, 8 and 16 seconds with jitter, for transient errors only."""


@contextmanager
def stage_context(stage: str, work: Work, environment: Environment) -> Iterator[Path]:
    """Name the work on each line that is logged inside, and give it a folder to work in.

    The folder is removed at the end, whatever happened.

    Raises:
        ConfigError: The environment's folder for intermediate files cannot be used.
        CapacityExhausted: There is no room in it.
    """
    local = make_scratch(scratch_root(environment))
    try:
        scratch = Path(tempfile.mkdtemp(prefix=f"{stage}-", dir=local))
    except OSError as error:
        raise _unusable(local, error) from None
    try:
        with structlog.contextvars.bound_contextvars(
            run=work.run, dataset=work.dataset, partition=work.fingerprint[:12], stage=stage
        ):
            yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def make_scratch(local: Path) -> Path:
    """Make a folder for intermediate files unless it is there, and return it.

    Raises:
        ConfigError: It cannot be made.
        CapacityExhausted: There is no room for it.
    """
    try:
        local.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unusable(local, error) from None
    return local


def _unusable(local: Path, error: OSError) -> PipelineError:
    where = f"the folder for intermediate files, {local}"
    if error.errno in CAPACITY_ERRNO:
        return classify(error, where)
    file = next((one for one in (local, *local.parents) if one.is_file()), None)
    why = error.strerror if file is None else f"{file} is a file"
    return ConfigError(
        f"{where}, cannot be used: {why}",
        "correct it, or name another one: scratch of the environment, DPP_SCRATCH or TMPDIR",
    )


def scratch_root(environment: Environment) -> Path:
    """Return the folder for intermediate files; a relative one is below the project."""
    if environment.scratch is None:
        return Path(tempfile.gettempdir()) / "dpp"
    return project_root() / environment.scratch


def left_scratch(environment: Environment, older_than_seconds: float = 86_400) -> list[Path]:
    """Return the folders that killed processes left behind."""

    def is_old(folder: Path) -> bool:
        try:
            return time.time() - folder.stat().st_mtime > older_than_seconds
        except FileNotFoundError:
            return False

    return [folder for folder in scratch_root(environment).glob("*") if is_old(folder)]


def sweep_scratch(environment: Environment, older_than_seconds: float = 86_400) -> None:
    """Remove the folders that killed processes left behind."""
    for folder in left_scratch(environment, older_than_seconds):
        shutil.rmtree(folder, ignore_errors=True)


def run_name(what: str) -> str:
    """Return the name of a run that starts now, e.g. ``flights 2013-01-31 02:30:00``."""
    return f"{what} {datetime.now().astimezone():%Y-%m-%d %H:%M:%S}"
