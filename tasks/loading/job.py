"""One load: what is loaded, and on whose behalf."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tasks.loading.schema import TargetColumn, target_columns
from tasks.model.dataset import DatasetSpec, LookedUp
from tasks.model.load import ReplaceLoad
from tasks.model.manifest import Manifest
from tasks.model.partition import Partition
from tasks.model.replay import replay_of
from tasks.model.request import Purpose

OnStep = Callable[[str], None]
"""Is told the name of each step as it is reached."""


@dataclass(frozen=True)
class Load:
    """One load: what is loaded, and on whose behalf.

    Attributes:
        spec: The dataset.
        lookups: Datasets that it looks up; they give the types of looked-up columns.
        partition: What is loaded.
        manifest: Its clean rows.
        manifest_key: Where the manifest is in the lake.
        run: Name of the run.
        fence: Number under which the run may publish.
        purpose: Among which runs the fence decides.
        code_version: Version of the product.
    """

    spec: DatasetSpec
    lookups: Mapping[str, LookedUp]
    partition: Partition
    manifest: Manifest
    manifest_key: str
    run: str
    fence: int
    code_version: str
    purpose: Purpose = "run"

    @property
    def columns(self) -> list[TargetColumn]:
        """Columns of the table that the clean rows fill."""
        manifest = self.manifest
        return target_columns(
            self.spec, self.lookups, manifest.columns_added, manifest.column_types
        )

    @property
    def is_replay(self) -> bool:
        """Are its rows some that were refused before?"""
        return replay_of(self.partition) is not None

    @property
    def replayed_child(self) -> str | None:
        """The child whose refused items are replayed; None if rows are loaded."""
        replay = replay_of(self.partition)
        return replay.child if replay else None

    @property
    def is_live(self) -> bool:
        """Are its rows what is new in the source? What replaces the table always is."""
        again = self.partition.refresh is not None and not isinstance(self.spec.load, ReplaceLoad)
        return self.purpose in ("run", "objects") and not again

    @property
    def compares_keys(self) -> bool:
        """Is it the keys of all rows of the source, to find those that are gone?"""
        return self.partition.deletes_up_to is not None

    @property
    def is_described(self) -> bool:
        """Do its rows say what is usual? Keys alone do not, nor a few rows that are replayed."""
        return not (self.compares_keys or self.is_replay)
