"""Takes files away that are past their retention and that nobody needs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import datetime

from sqlalchemy import Engine

from blocks.lake import Entry, Lake
from tasks.loading.audit import record
from tasks.loading.session import session
from tasks.model.child_dataset import child_datasets
from tasks.model.columns import MAX_IDENTIFIER_BYTES
from tasks.model.dataset import DatasetSpec
from tasks.retention.needed import needed_keys
from tasks.retention.plan import Erased

FILE_ZONES = ("raw", "clean", "quarantine")
UNTRACKED_ZONES = ("shards", "exports")
"""Nothing refers to what is in them once its run is over."""


def old_entries(
    engine: Engine, lake: Lake, spec: DatasetSpec, since: datetime
) -> dict[str, list[Entry]]:
    """Return what of a dataset in the lake is old and not needed, by zone, manifests first.

    Args:
        engine: The warehouse, with a ledger.
        lake: The lake.
        spec: The dataset.
        since: What was written before is old.
    """
    manifests = list(lake.entries(f"manifests/{spec.name}/"))
    young = [entry.key for entry in manifests if entry.modified >= since]
    needed = needed_keys(engine, lake, spec, since, young)

    def old(entries: Iterator[Entry] | Sequence[Entry]) -> list[Entry]:
        return [entry for entry in entries if entry.modified < since and entry.key not in needed]

    found = {"manifests": old(manifests)}
    names = [spec.name, *(child.name for child in child_datasets(spec).values())]
    for zone in FILE_ZONES:
        found[zone] = [entry for name in names for entry in old(lake.entries(f"{zone}/{name}/"))]
    for zone in UNTRACKED_ZONES:
        found[zone] = old(lake.entries(f"{zone}/{spec.name}/"))
    return {zone: entries for zone, entries in found.items() if entries}


def old_lookups(
    lake: Lake, spec: DatasetSpec, datasets: Collection[str], since: datetime
) -> list[Entry]:
    """Return what is old of the lookups of a dataset: each run takes its own snapshots.

    Args:
        lake: The lake.
        spec: The dataset.
        datasets: Names of all datasets; what has such a name is not of a lookup.
        since: What was written before is old.
    """
    names = {one.lookup for one in spec.lookups}
    # Rows of a lookup that has a source of its own are ingested as those of a dataset.
    own = {f"{spec.name}_{name}"[:MAX_IDENTIFIER_BYTES] for name in names} - set(datasets)
    prefixes = [f"lookups/{name}/" for name in sorted(names | own)]
    prefixes += [f"{zone}/{name}/" for zone in ("manifests", *FILE_ZONES) for name in sorted(own)]
    return [
        entry for prefix in prefixes for entry in lake.entries(prefix) if entry.modified < since
    ]


def summary(dataset: str, found: dict[str, list[Entry]]) -> list[Erased]:
    """Return how much was found, by zone."""
    return [
        Erased(
            dataset=dataset,
            what=zone,
            count=len(entries),
            bytes=sum(entry.bytes for entry in entries),
        )
        for zone, entries in found.items()
    ]


def erase(
    engine: Engine,
    lake: Lake,
    spec: DatasetSpec,
    found: dict[str, list[Entry]],
    since: datetime,
    actor: str,
    *,
    on_file: Callable[[str], None] = lambda _key: None,
) -> list[Erased]:
    """Take away what was found, once it is in the audit.

    Manifests go first, so that none names a file that is gone. A file that was written again
    meanwhile stays. Where this is killed, the next time finds what is left.

    Args:
        engine: The warehouse.
        lake: The lake.
        spec: The dataset.
        found: From ``old_entries``.
        since: What was written before is old.
        actor: Who does it, for the audit.
        on_file: Is told each key before it goes.
    """
    gone = summary(spec.name, found)
    if not gone:
        return []
    with session(engine) as connection, connection.cursor() as cursor:
        record(
            cursor,
            spec.name,
            "erase files",
            actor=actor,
            reason=f"written before {since:%Y-%m-%d}, and needed by nothing",
            details={one.what: {"files": one.count, "bytes": one.bytes} for one in gone},
        )
    for entries in found.values():
        for entry in entries:
            written = lake.modified(entry.key)
            if written is not None and written < since:
                on_file(entry.key)
                lake.delete(entry.key)
    return gone
