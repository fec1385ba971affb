"""I17: a committed partition that is transformed again, in a dry run, gives the same rows."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections import Counter
from pathlib import Path

from obstore.store import LocalStore
from sqlalchemy import Engine

from blocks.lake import Lake
from tasks.lake import manifest_key, read_manifest
from tasks.loading.checks import Check, check
from tasks.loading.lake_checks import damage_of, raw_manifest
from tasks.loading.loaded import Loaded, loaded_partitions
from tasks.loading.session import session
from tasks.model.manifest import Manifest
from tasks.transformation.execute import STAGE, transform_partition, transformation_identity
from tasks.verification.remake import Workshop

STATEMENT = "transformed again, a random load gives the same rows"


def determinism_check(engine: Engine, workshop: Workshop, chance: random.Random) -> Check:
    """Transform a random load of a dataset again, into a lake that is thrown away, and compare.

    Args:
        engine: The warehouse, for the ledger.
        workshop: What it takes.
        chance: Chooses the load.

    Returns:
        The verdict; of a dataset none of whose loads can be made again, why not.
    """
    spec = workshop.spec
    with session(engine, read_only=True) as connection, connection.cursor() as cursor:
        loads = loaded_partitions(cursor, spec)
    same = [one for one in loads if one.row.config_hash == spec.config_hash]
    same = [one for one in same if one.row.deletes_up_to is None]
    if any(lookup.api for lookup in spec.enrich):
        return _not_done(workshop, "it looks something up in an API")
    if not same:
        return _not_done(workshop, "no load was made under the dataset file as it is now")
    chance.shuffle(same)
    workshop.scratch.mkdir(parents=True, exist_ok=True)
    for load in same:
        folder = Path(tempfile.mkdtemp(prefix="again-", dir=workshop.scratch))
        try:
            found = _again(workshop, load, folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        if found is not None:
            return found
    return _not_done(workshop, "what it looks up has changed since, or raw rows are gone")


def _not_done(workshop: Workshop, why: str) -> Check:
    return check(workshop.spec, "I17", f"not transformed again: {why}", "–", "–")


def _again(workshop: Workshop, load: Loaded, folder: Path) -> Check | None:
    """Transform a load again and compare; None if its input is not what it was."""
    spec, lake, row = workshop.spec, workshop.lake, load.row
    clean, raw = read_manifest(lake, row.manifest_key), raw_manifest(lake, spec, row)
    if clean is None or raw is None or any(damage_of(lake, one, folder) for one in raw.all_files):
        return None
    root, work = folder / "lake", folder / "work"
    root.mkdir()
    work.mkdir()
    own = Lake(LocalStore(root), root)
    snapshots = workshop.snapshots(own) if spec.lookups else {}
    identity = transformation_identity(spec, raw, snapshots)
    if manifest_key(STAGE, spec.name, raw.fingerprint, identity) != row.manifest_key:
        return None
    for file in raw.all_files:
        own.put_file(lake.local_path(file.key, work), file.key)
    again = transform_partition(
        spec,
        raw,
        snapshots,
        own,
        work,
        memory_bytes=workshop.memory_bytes,
        protection=workshop.protection,
    )
    then, now = _counts(clean), _counts(again)
    lines = [f"load {row.load_id} {row.label}: {then}, now {now}"] if then != now else []
    content = [file.sha256 for file in clean.files] == [file.sha256 for file in again.files]
    if not lines and not content:
        lines.append(f"load {row.load_id} {row.label}: as many rows, with other values")
    found = "the same" if not lines else "other rows"
    return check(spec, "I17", f"{STATEMENT} (load {row.load_id})", "the same", found, lines)


def _counts(manifest: Manifest) -> dict[str, int]:
    """Return how many rows had which outcome, the refused ones by rule."""
    counts = Counter(
        {
            "read": manifest.rows_read,
            "clean": manifest.rows,
            "deduplicated": manifest.rows_deduplicated,
            "quarantined": manifest.rows_quarantined,
        }
    )
    for reason in manifest.reasons:
        counts[f"{reason.stage} {reason.rule}"] += reason.rows
    return dict(counts)
