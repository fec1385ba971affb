"""Puts a row's story together: from the table, the ledger, and the files of the lake."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class in lower case
from sqlalchemy import Engine

from blocks.lake import Lake
from tasks.lake import read_manifest
from tasks.loading.checks import LedgerRow
from tasks.loading.lake_checks import raw_manifest
from tasks.loading.reconcile import ledger_rows
from tasks.loading.resolutions import quarantine_loads, resolutions_of
from tasks.loading.schema import LOAD_ID, existing_columns, target
from tasks.loading.session import session
from tasks.model.dataset import DatasetSpec
from tasks.model.errors import ConfigError
from tasks.model.manifest import Manifest
from tasks.model.replay import RowId
from tasks.protection import MASK, parse_values, pii_columns
from tasks.trace.lake_rows import LakeRows, Row, lake_rows
from tasks.trace.model import Cell, RefusedAncestor, Story, Version
from tasks.trace.outcomes import Found, outcomes

MOST_VERSIONS = 100
_OWN = ("_source_uri", "_source_row", "_file", "file_row_number")


def trace_row(engine: Engine, lake: Lake, spec: DatasetSpec, key: Mapping[str, str]) -> Story:
    """Tell where a row came from, and all that happened to rows of its key.

    Args:
        engine: The warehouse.
        lake: The lake.
        spec: The dataset.
        key: The key, as texts.

    Raises:
        ConfigError: No load ever had such a row, or a value is none of its column's type.
    """
    with (
        tempfile.TemporaryDirectory(prefix="dpp-trace-") as folder,
        lake_rows(lake, Path(folder)) as files,
    ):
        with session(engine, read_only=True) as connection, connection.cursor() as cursor:
            rows = ledger_rows(cursor, spec)
        found = _found(lake, files, rows, key)  # says if a value is not of its type
        with session(engine, read_only=True) as connection, connection.cursor() as cursor:
            current = _current(cursor, spec, key)
        refused = _refused(engine, lake, files, spec, key)
        load_id = int(current[LOAD_ID] or 0) if current else None
        versions = [
            _version(lake, files, spec, one, what, is_current=one.row.load_id == load_id)
            for one, what in outcomes(spec, found)
        ]
        notes = [f"the lake has lost {name}" for name in dict.fromkeys(files.missing)]
    if not (versions or refused or current):
        raise ConfigError(
            f"{spec.name}: no load ever had a row with this key",
            "a value is compared as it is after cleaning: see dpp explain, and the table",
        )
    hidden = [name for name in key if name in pii_columns(spec)]
    if hidden:
        notes.append(
            f"refused rows are not found by {', '.join(hidden)}: what they say there is protected"
        )
    return Story(
        dataset=spec.name,
        table=spec.load.table,
        key=_masked(spec, key),
        row=_masked(spec, {k: v for k, v in current.items() if not k.startswith("_")})
        if current
        else None,
        load_id=load_id,
        versions=tuple(versions),
        refused=tuple(refused),
        notes=tuple(notes),
    )


def _masked(spec: DatasetSpec, values: Mapping[str, str | None]) -> dict[str, str | None]:
    protected = pii_columns(spec)
    return {
        name: MASK if name in protected and value is not None else value
        for name, value in values.items()
    }


def _current(cursor: Cursor, spec: DatasetSpec, key: Mapping[str, str]) -> dict[str, str | None]:
    """Return the row of the table as texts; of several the one that was loaded last."""
    there = existing_columns(cursor, spec)
    if not there:
        return {}
    names = [name for name, column in there.items() if column.type != "tsvector"]
    cursor.execute(
        sql.SQL("SELECT {} FROM {} WHERE {} ORDER BY {} DESC LIMIT 1").format(
            sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier(name)) for name in names),
            target(spec),
            sql.SQL(" AND ").join(
                sql.SQL("{} = %s::{}").format(sql.Identifier(name), sql.SQL(there[name].type))
                for name in key
            ),
            sql.Identifier(LOAD_ID),
        ),
        list(key.values()),
    )
    row = cursor.fetchone()
    return dict(zip(names, row, strict=True)) if row else {}


def _found(
    lake: Lake,
    files: LakeRows,
    rows: Sequence[LedgerRow],
    key: Mapping[str, str],
) -> list[Found]:
    """Return what each load had of the key, in the order of the loads."""
    manifests = {row.load_id: read_manifest(lake, row.manifest_key) for row in rows}
    for row in rows:
        if manifests[row.load_id] is None:
            files.missing.append(row.manifest_key)
    clean = [file for manifest in manifests.values() if manifest for file in manifest.files]
    hits: dict[str, list[Row]] = {}
    for hit in files.by_values(clean, key):
        hits.setdefault(hit["_file"], []).append(hit)
    found = []
    for row in rows:
        manifest = manifests[row.load_id]
        of_load = [
            hit for file in (manifest.files if manifest else ()) for hit in hits.get(file.key, ())
        ]
        if row.deletes_up_to is not None and manifest is not None:
            found.append(Found(row, None, is_key_there=bool(of_load)))
            continue
        found += [Found(row, hit) for hit in of_load[:MOST_VERSIONS]]
    return found


def _version(
    lake: Lake, files: LakeRows, spec: DatasetSpec, found: Found, what: str, *, is_current: bool
) -> Version:
    row, values = found.row, found.values
    about = {
        "load_id": row.load_id,
        "label": row.label,
        "run": row.run,
        "loaded_at": row.loaded_at,
        "what": what,
        "is_current": is_current,
    }
    if values is None or values.get("_source_uri") is None:
        return Version.model_validate(
            {**about, "cells": () if values is None else _cells(spec, values, None)}
        )
    uri, number = str(values["_source_uri"]), int(values["_source_row"])
    manifest = raw_manifest(lake, spec, row)
    raw = files.by_origin(manifest.files, uri, number) if manifest else None
    return Version.model_validate(
        {**about, "source_uri": uri, "source_row": number, "cells": _cells(spec, values, raw)}
    )


def _cells(spec: DatasetSpec, values: Row, raw: Row | None) -> tuple[Cell, ...]:
    protected = set(pii_columns(spec))
    cells = []
    for name, clean in values.items():
        if name in _OWN:
            continue
        declared = spec.columns.get(name)
        source = (declared.source or name) if declared else name
        is_nested = declared is not None and declared.path is not None
        in_source = raw is not None and source in raw and not is_nested
        before = raw[source] if raw is not None and in_source else None
        cells.append(
            Cell(
                column=name,
                raw=MASK
                if before is not None and protected.intersection({name, source})
                else before,
                clean=MASK if name in protected and clean is not None else clean,
                changed=in_source and before != clean,
                origin="nested" if is_nested else "source" if declared or in_source else "made",
            )
        )
    return tuple(cells)


def _refused(
    engine: Engine, lake: Lake, files: LakeRows, spec: DatasetSpec, key: Mapping[str, str]
) -> list[RefusedAncestor]:
    """Return the refused rows whose key reads like this one."""
    names = {name: spec.columns[name].source or name for name in key}
    ancestors = []
    for load in quarantine_loads(engine, spec.name):
        manifest: Manifest | None = read_manifest(lake, load.manifest_key)
        if manifest is None:
            files.missing.append(load.manifest_key)
            continue
        hits = list(files.refused(manifest.quarantine, names, key))
        fates = resolutions_of(engine, load.load_id) if hits and load.resolved else {}
        for number, row in hits:
            fate = fates.get(number)
            said = parse_values(row["raw"]) or {}
            ancestors.append(
                RefusedAncestor(
                    id=str(RowId(load_id=load.load_id, row=number)),
                    load_id=load.load_id,
                    first_seen=load.first_seen,
                    source_uri=row["source_uri"],
                    source_row=row["source_row"],
                    failures=row["failures"],
                    raw={name: None if v is None else str(v) for name, v in said.items()},
                    resolution=fate.resolution if fate else None,
                    resolved_by=fate.resolved_by if fate else None,
                    replay_load_id=fate.replay_load_id if fate else None,
                )
            )
    return ancestors
