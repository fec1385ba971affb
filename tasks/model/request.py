"""What a run of a dataset is asked for, and what the ledger knows when it is planned."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import AwareDatetime, Field, model_validator

from tasks.model.value import Value

Purpose = Literal["run", "objects", "backfill", "replay"]


class Window(Value):
    """A span of the source's own time, half open: ``start <= t < end``. A backfill asks for one."""

    start: AwareDatetime
    end: AwareDatetime

    @model_validator(mode="after")
    def _is_a_span(self) -> Self:
        if self.start >= self.end:
            raise ValueError(f"the window ends at {self.end}, not after its start {self.start}")
        return self


class RunRequest(Value):
    """What a run of a dataset is asked for; what is new, if nothing is said."""

    window: Window | None = None
    """A backfill: what is missing in this span."""
    objects: tuple[str, ...] = ()
    """Only these objects or files of the source, as it names them; all, if none is named."""
    refresh: bool = False
    """Load again what was loaded before."""
    max_parallel: int | None = Field(None, ge=1)
    """Most partitions at a time; as the environment says, if not given."""

    @property
    def purpose(self) -> Purpose:
        """Which runs take a dataset over from each other.

        A backfill goes on beside live runs; runs for some objects go on beside all others.
        """
        if self.objects:
            return "objects"
        return "run" if self.window is None else "backfill"

    @model_validator(mode="after")
    def _asks_for_one_thing(self) -> Self:
        if self.objects and self.window is not None:
            raise ValueError("give either objects or a window")
        return self


class SourceState(Value):
    """What the ledger knows of a dataset's source when a run is planned."""

    items: frozenset[tuple[str, str]] = frozenset()
    """(uri, version) of every object that was committed whole."""
    parts: frozenset[tuple[str, str, str]] = frozenset()
    """(uri, version, part) of every committed part of an object."""
    fingerprints: frozenset[str] = frozenset()
    """Fingerprints of every committed partition."""
    latest: dict[str, Any] = Field(default_factory=dict)
    """``state`` of the partition that was committed last."""
    last_load: int | None = None
    """Id of the last load; None if there was none."""
    window: Window | None = None
    """Plan only what is missing in this span, and leave ``latest`` as it is; None in a daily run."""
    objects: tuple[str, ...] = ()
    """Plan only these objects or files; all, if none is named."""
