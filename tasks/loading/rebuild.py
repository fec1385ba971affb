"""Disaster recovery: a dataset's tables and its ledger made again from the lake, load by load.

Each load is applied again by the statements of its mode, and committed with the ledger row that the
lake has a copy of. So a rebuild that is killed goes on where it was; while it is under way, no run
opens the dataset.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import structlog
from sqlalchemy import Engine

from blocks.lake import Lake
from tasks.lake import read_manifest
from tasks.loading.audit import record
from tasks.loading.commit import wait_for_turn
from tasks.loading.copied import CopiedRows, ledger_row, restore, restore_audit
from tasks.loading.copies import copied_ledgers, folder_of, last_copied_load
from tasks.loading.ledger import ensure_ledger
from tasks.loading.partitions import in_range
from tasks.loading.queries import query
from tasks.loading.ranges import Range
from tasks.loading.reapply import (
    NO_LOOKUPS,
    Done,
    PastLoad,
    Reapplied,
    Retired,
    outside_created,
    published_together,
)
from tasks.loading.schema import ensure_schema
from tasks.loading.session import session
from tasks.model.child_dataset import child_tables
from tasks.model.dataset import DatasetSpec, LookedUp
from tasks.model.errors import ConfigError, ContractBroken

STEPS = ("begun", "applied", "recorded", "committed", "finishing", "finished")
"""Names of the steps; those in the middle come once for every load."""
OF_LOADS = (
    "loads",
    "source_items",
    "quarantine",
    "schema_changes",
    "child_loads",
    "child_quarantine",
    "replays",
    "profiles",
)
"""What is restored with a load, in an order in which nothing refers to what is not there yet."""
AT_THE_END = ("unloads", "quarantine_resolutions")

log = structlog.get_logger("dpp.loading")
OnStep = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What a rebuild did.

    Attributes:
        dataset: Name of the dataset.
        loads: Loads that were applied again now.
        rows: Rows that they inserted.
        already: Loads that were there before.
        nothing: Has the lake no copy of a ledger of it?
    """

    dataset: str
    loads: int = 0
    rows: int = 0
    already: int = 0
    nothing: bool = False


def rebuild(
    engine: Engine,
    lake: Lake,
    spec: DatasetSpec,
    *,
    actor: str,
    ledger: str | None = None,
    lookups: Mapping[str, LookedUp] = NO_LOOKUPS,
    on_step: OnStep = lambda _step: None,
) -> Rebuilt:
    """Make the tables and the ledger of a dataset again; safe to call again after any failure.

    Args:
        engine: The warehouse; it may be empty.
        lake: The lake, with the copy of the ledger and the clean files of every load.
        spec: The dataset.
        actor: Who does it, for the audit.
        ledger: Which ledger, where the lake has copies of several.
        lookups: What the dataset looks up; they give the types of columns.
        on_step: Is told the name of each step as it is reached.

    Raises:
        ConfigError: It is not clear which ledger is meant, or the warehouse has another one.
        ContractBroken: The lake lacks something, or a load does not do what it did.
    """
    ensure_ledger(engine)
    copied = copied_ledgers(lake, spec.name)
    if not copied:
        return Rebuilt(spec.name, nothing=True)
    identity = _begin(engine, spec, copied, ledger, actor)
    if identity is None:
        return Rebuilt(spec.name, already=max(map(len, copied.values())))
    on_step("begun")
    for one in (spec, *child_tables(spec).values()):
        ensure_schema(engine, one)
    folder = folder_of(spec.name, identity)
    copies = {
        load_id: CopiedRows.read(lake, f"{folder}/load-{load_id}.json")
        for load_id in copied[identity]
    }
    work = _Rebuild(engine, lake, outside_created(spec), lookups, copies, on_step)
    of_dataset = CopiedRows.read(lake, f"{folder}/dataset.json")
    done = work.loads(of_dataset)
    on_step("finishing")
    _finish(engine, lake, spec, identity, copies, of_dataset, actor, done)
    on_step("finished")
    log.info("rebuild.done", dataset=spec.name, loads=done.loads, rows=done.rows)
    return done


def _begin(
    engine: Engine,
    spec: DatasetSpec,
    copied: Mapping[str, Sequence[int]],
    asked: str | None,
    actor: str,
) -> str | None:
    """Choose the ledger, and keep runs away; None if there is nothing to make again."""
    with session(engine) as connection, connection.cursor() as cursor:
        cursor.execute(query("ledger_identity"))
        (own,) = cursor.fetchone() or ("",)
        identity = asked or (own if own in copied else None) or _only(spec, copied)
        if identity not in copied:
            raise ConfigError(
                f"{spec.name}: the lake has no copy of a ledger {identity}",
                f"it has those of {', '.join(sorted(copied))}",
            )
        cursor.execute(query("rebuild_of"), {"dataset": spec.name})
        is_begun = cursor.fetchone() is not None
        cursor.execute(query("known_loads"), {"dataset": spec.name})
        if cursor.fetchone() and not is_begun:
            return None
        if identity != own:
            cursor.execute(query("has_loads"))
            if cursor.fetchone() == (True,):
                raise ConfigError(
                    f"{spec.name}: this warehouse has a ledger of its own, {own}, and ids of its "
                    f"loads may be those of ledger {identity}",
                    "rebuild into an empty database, before anything is loaded into it",
                )
            cursor.execute(query("adopt_identity"), {"ledger": identity})
        cursor.execute(query("begin_rebuild"), {"dataset": spec.name, "by": actor})
    return identity


def _only(spec: DatasetSpec, copied: Mapping[str, Sequence[int]]) -> str:
    if len(copied) == 1:
        return next(iter(copied))
    named = "; ".join(
        f"{identity}: {len(loads)} loads, up to {loads[-1]}" for identity, loads in copied.items()
    )
    raise ConfigError(
        f"{spec.name}: the lake has copies of {len(copied)} ledgers: {named}",
        "choose one: dpp rebuild --ledger ID",
    )


@dataclass
class _Rebuild:
    engine: Engine
    lake: Lake
    spec: DatasetSpec
    lookups: Mapping[str, LookedUp]
    copies: Mapping[int, CopiedRows]
    on_step: OnStep

    def loads(self, of_dataset: CopiedRows) -> Rebuilt:
        """Apply every load that the ledger does not have yet, and what retention took after it."""
        past = [self._past(load_id, copy) for load_id, copy in self.copies.items()]
        groups = published_together(self.spec, [load for load in past if load is not None])
        retired = list(_retired(self.spec, of_dataset))
        added: list[str] = []
        applied = rows = already = 0
        for group in groups:
            first = group[0].row.load_id
            while retired and retired[0][1].after_load < first:
                self._retire(*retired.pop(0))
            done = self._group(group, added)
            if done is None:
                already += len(group)
            else:
                applied += len(group)
                rows += sum(one.counts.inserted for one in done.values())
            for load in group:
                added += [name for name in load.manifest.columns_added if name not in added]
        for one in retired:
            self._retire(*one)
        return Rebuilt(self.spec.name, applied, rows, already)

    def _past(self, load_id: int, copy: CopiedRows) -> PastLoad | None:
        """Return a load as its copy tells it; None of one that was taken back."""
        rows = copy.content.get("loads")
        if not rows:
            return None
        (row,) = rows
        manifest = read_manifest(self.lake, row["manifest_key"])
        if manifest is None or manifest.digest != row["manifest_digest"]:
            raise ContractBroken(
                f"{self.spec.name}: the manifest of load {load_id}, {row['manifest_key']}, is missing "
                "from the lake, or is not the one that was loaded",
                "restore the lake from a backup, and rebuild again: it goes on where it was",
            )
        return PastLoad(ledger_row(row), manifest, bool(copy.content.get("replays")))

    def _group(self, group: Sequence[PastLoad], added: list[str]) -> dict[int, Done] | None:
        """Apply loads that were published together; None if the ledger has them."""
        with session(self.engine) as connection, connection.cursor() as cursor:
            wait_for_turn(cursor, self.spec.load.table)
            cursor.execute(query("known_loads"), {"dataset": self.spec.name})
            if group[0].row.load_id in {row[0] for row in cursor.fetchall()}:
                return None
            applied = Reapplied(cursor, self.spec, self.lookups, self.lake, list(added))
            done = applied.apply(group)
            self.on_step("applied")
            for load in group:
                self._check(load, done[load.row.load_id])
                copy = self.copies[load.row.load_id]
                for table in OF_LOADS:
                    restore(cursor, table, copy)
            self.on_step("recorded")
        self.on_step("committed")
        return done

    def _check(self, load: PastLoad, done: Done) -> None:
        if done.counts != load.row.counts:
            raise ContractBroken(
                f"{self.spec.name}: load {load.row.load_id} does something else than then: "
                f"{done.counts.model_dump()}, then {load.row.counts.model_dump()}",
                "the dataset file is another one than it was made with "
                f"(config {load.row.config_hash[:12]}): rebuild with that, then go on with the new one",
            )

    def _retire(self, row: Mapping[str, Any], retired: Retired) -> None:
        """Take away what retention took away, unless it is done."""
        with session(self.engine) as connection, connection.cursor() as cursor:
            wait_for_turn(cursor, self.spec.load.table)
            cursor.execute(
                "SELECT 1 FROM etl.retention WHERE retention_id = %s", (row["retention_id"],)
            )
            if cursor.fetchone() is None:
                Reapplied(cursor, self.spec, self.lookups, self.lake).retire(retired)
                restore(cursor, "retention", CopiedRows(json.dumps({"retention": [row]}), {}))


def _retired(
    spec: DatasetSpec, of_dataset: CopiedRows
) -> Iterator[tuple[Mapping[str, Any], Retired]]:
    for row in of_dataset.content.get("retention") or ():
        if row["after_load"] is None:
            raise ContractBroken(
                f"{spec.name}: the ledger does not say between which loads retention took rows away",
                "they were taken by an older version; restore the warehouse from a backup",
            )
        low = row["range_from"]
        taken = Range(low and datetime.fromisoformat(low), datetime.fromisoformat(row["range_to"]))
        yield row, Retired(int(row["after_load"]), in_range(spec, taken), int(row["rows"]))


def _finish(
    engine: Engine,
    lake: Lake,
    spec: DatasetSpec,
    identity: str,
    copies: Mapping[int, CopiedRows],
    of_dataset: CopiedRows,
    actor: str,
    done: Rebuilt,
) -> None:
    """Restore what belongs to no load that is there, and let runs open the dataset again."""
    with session(engine) as connection, connection.cursor() as cursor:
        for table in AT_THE_END:
            for copy in copies.values():
                if copy.content.get(table):
                    restore(cursor, table, copy)
        restore(cursor, "datasets", of_dataset)
        restore_audit(cursor, lake, identity)
        cursor.execute(query("advance_ids"), {"loads": last_copied_load(lake, identity)})
        cursor.execute(query("end_rebuild"), {"dataset": spec.name})
        record(
            cursor,
            spec.name,
            "rebuild",
            actor=actor,
            reason="made again from the lake",
            details={"ledger": identity, "loads": done.loads + done.already},
        )
