"""The ledger's copy in the lake: what was written into it since is put there, load by load.

Triggers mark what a transaction wrote, and it is copied after its commit; what a process that was
killed did not copy, the next one does. So the copy is behind by the loads of the last moments at most,
and of these the source is read again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import structlog
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class in lower case
from sqlalchemy import Engine

from blocks.lake import Lake
from tasks.loading.queries import query
from tasks.loading.session import session
from tasks.model.dataset import DatasetSpec
from tasks.model.errors import LoadConflict

ZONE = "ledger"
AUDIT = "_audit"
"""Beside the datasets, whose names never begin so."""
AT_ONCE = 200
REQUESTS = 8
PATIENCE = "10min"
"""How long the transaction may be silent while documents are written."""

log = structlog.get_logger("dpp.loading")


def copy_ledger(engine: Engine, lake: Lake, *, wait: bool) -> int:
    """Copy into the lake what was written into the ledger since; return the number of documents.

    Args:
        engine: The warehouse.
        lake: The lake.
        wait: Wait while somebody else is at it; else that one will do.
    """
    with session(engine) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT set_config('idle_in_transaction_session_timeout', %s, true)", (PATIENCE,)
        )
        cursor.execute(query("lock_copies" if wait else "try_lock_copies"))
        row = cursor.fetchone()
        if not wait and not (row and row[0]):
            return 0
        cursor.execute(query("ledger_identity"))
        (identity,) = cursor.fetchone() or ("",)
        cursor.execute(query("take_marks"))
        marks = cursor.fetchall()
        count = 0
        with ThreadPoolExecutor(REQUESTS, "copies") as pool:
            for _ in pool.map(lambda one: _put(lake, *one), _documents(cursor, identity, marks)):
                count += 1
    return count


def copy_quietly(engine: Engine, lake: Lake, *, wait: bool) -> None:
    """Copy as above; a copy that cannot be made now is no failure of what was loaded."""
    try:
        copy_ledger(engine, lake, wait=wait)
    except Exception as error:  # whatever it is, the next run copies it
        log.warning("ledger.not_copied", error=type(error).__name__)


def _put(lake: Lake, key: str, content: str | None) -> None:
    if content is None:
        lake.delete(key)
    else:
        lake.put(key, content.encode())


def _documents(
    cursor: Cursor, identity: str, marks: list[tuple[str, str | None, int | None]]
) -> Iterator[tuple[str, str | None]]:
    """Yield key and content of each document; None where the ledger has nothing any more."""
    datasets = {load_id: name for kind, name, load_id in marks if kind == "load" and name}
    loads = sorted(load_id for load_id in datasets if load_id is not None)
    for first in range(0, len(loads), AT_ONCE):
        cursor.execute(query("load_copies"), {"ids": loads[first : first + AT_ONCE]})
        for load_id, text in cursor.fetchall():
            content = json.loads(text)
            known = content["loads"] or content["unloads"]
            folder = folder_of(datasets[load_id] or "", identity)
            yield f"{folder}/load-{load_id}.json", text if known else None
    for name in sorted({name for kind, name, _ in marks if kind == "dataset" and name}):
        cursor.execute(query("dataset_copy"), {"dataset": name})
        (text,) = cursor.fetchone() or (None,)
        yield f"{folder_of(name, identity)}/dataset.json", text
    lines = [line for kind, _, line in marks if kind == "audit"]
    cursor.execute(query("audit_copies"), {"ids": lines})
    for line, text in cursor.fetchall():
        yield f"{folder_of(AUDIT, identity)}/line-{line}.json", text


def folder_of(dataset: str, identity: str) -> str:
    """Return where the documents of a dataset are that a ledger wrote."""
    return f"{ZONE}/{dataset}/{identity}"


def copied_ledgers(lake: Lake, dataset: str) -> dict[str, list[int]]:
    """Return, by ledger, the loads of a dataset that were copied."""
    found: dict[str, list[int]] = {}
    for key in lake.keys(f"{ZONE}/{dataset}"):
        *_, name, identity, document = key.split("/")
        if name == dataset and document.startswith("load-"):
            load_id = int(document.removeprefix("load-").removesuffix(".json"))
            found.setdefault(identity, []).append(load_id)
    return {identity: sorted(loads) for identity, loads in found.items()}


def last_copied_load(lake: Lake, identity: str) -> int:
    """Return the largest id of a load, of any dataset, that a ledger was copied with."""
    last = 0
    for key in lake.keys(ZONE):
        *_, ledger, document = key.split("/")
        if ledger == identity and document.startswith("load-"):
            last = max(last, int(document.removeprefix("load-").removesuffix(".json")))
    return last


def refuse_unrebuilt(engine: Engine, lake: Lake, spec: DatasetSpec) -> None:
    """Refuse to load into a dataset of whose loads only the copy is there.

    Raises:
        LoadConflict: This ledger was made again from the lake, and the dataset not yet.
    """
    with session(engine, read_only=True) as connection, connection.cursor() as cursor:
        cursor.execute(query("known_loads"), {"dataset": spec.name})
        if cursor.fetchone():
            return
        cursor.execute(query("ledger_identity"))
        (own,) = cursor.fetchone() or ("",)
    copied = copied_ledgers(lake, spec.name)
    if own in copied:
        raise LoadConflict(
            f"{spec.name}: the lake has {len(copied[own])} loads of it that the warehouse lacks",
            f"make them again first: dpp rebuild {spec.name}",
        )
    if copied:
        log.warning("ledger.another_one", dataset=spec.name, ledgers=sorted(copied))
