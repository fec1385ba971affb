"""Proves a draft on its own sample: what the product's query refuses there was guessed too narrowly."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.catalog import load_dataset
from tasks.inference.children import ChildDraft
from tasks.inference.draft import Draft, render
from tasks.ingestion.connector import SOURCE_ROW, SOURCE_URI
from tasks.model.child_dataset import PARENT, carried_columns, child_datasets
from tasks.model.children import POSITION
from tasks.model.dataset import DatasetSpec
from tasks.transformation.columns import FAILURES
from tasks.transformation.functions import register
from tasks.transformation.query import compile_query
from tasks.transformation.session import column_types, duckdb_session

MEMORY_BYTES = 256 << 20
ATTEMPTS = 3


def proven(draft: Draft, scratch: Path) -> str:
    """Write the dataset file; a column that would refuse values of the sample stays text.

    So does one of a child table.

    Args:
        draft: What is known; it learns which columns stay text.
        scratch: Folder for intermediate files.

    Raises:
        ConfigError: The file would not be one.
    """
    path, raw = scratch / f"{draft.name}.yaml", scratch / "proof.parquet"
    for _ in range(ATTEMPTS):
        text = render(draft)
        path.write_text(text, encoding="utf-8")
        spec = load_dataset(path)
        pq.write_table(_as_declared(draft), raw)
        refused = _refused(spec, raw, scratch)
        wrong = {
            column.source or name: refused[name]
            for name, column in spec.columns.items()
            if refused[name] and column.type != "string"
        }
        draft.as_text |= wrong
        if not _learn_of_items(draft, spec, scratch) and not wrong:
            break
    return text


def _learn_of_items(draft: Draft, spec: DatasetSpec, scratch: Path) -> bool:
    """Let the drafts of child tables learn which columns stay text; tell whether one did."""
    learned = False
    for name, child in child_datasets(spec).items():
        way = spec.children[name].list_path(name).steps
        found = next(one for one in draft.lists if one.way == way)
        raw = scratch / f"proof-{name}.parquet"
        pq.write_table(_raw_items(spec, found), raw)
        refused = _refused(child, raw, scratch)
        wrong = {
            column.source or own: refused[own]
            for own, column in spec.children[name].columns.items()
            if refused[own] and column.type != "string"
        }
        found.as_text |= wrong
        learned = learned or bool(wrong)
    return learned


def _raw_items(spec: DatasetSpec, child: ChildDraft) -> pa.Table:
    """Return items as ingestion would make them; of the rows that they are in nothing is needed."""
    rows = child.items.num_rows
    table = child.items
    for name in carried_columns(spec):
        table = table.append_column(f"{PARENT}{name}", pa.nulls(rows, pa.string()))
    own = {POSITION: pa.array(range(1, rows + 1), pa.int64()), SOURCE_ROW: pa.array(child.parents)}
    for name, column in own.items():
        table = table.append_column(name, column)
    return table.append_column(SOURCE_URI, pa.array(["sample"] * rows))


def _as_declared(draft: Draft) -> pa.Table:
    """Return the sample with empty texts as NULL, if the format says so by now."""
    table = draft.sample
    if not draft.source.get("format", {}).get("null_values"):
        return table
    for position, field in enumerate(table.schema):
        if pa.types.is_string(field.type):
            values = [value or None for value in table[field.name].to_pylist()]
            table = table.set_column(position, field.name, pa.array(values, pa.string()))
    return table


def _refused(spec: DatasetSpec, raw: Path, scratch: Path) -> Counter[str]:
    """Count the rows that a dataset refuses, by column."""
    files = [str(raw)]
    counted: Counter[str] = Counter()
    with duckdb_session(files, scratch, MEMORY_BYTES) as session:
        types = column_types(session, files)
        known = {name: kind for name, kind in types.items() if not name.startswith("_source_")}
        register(session, spec)
        query = compile_query(spec, known, files, {})
        if query.preparation:
            session.execute(query.preparation)
        judged = f"SELECT {FAILURES}, count(*) FROM ({query.sql}) GROUP BY 1"  # noqa: S608 - ours
        for failures, rows in session.execute(judged).fetchall():
            for position in (failures or "").split(","):
                if position:
                    counted[query.rules[int(position)].column or ""] += rows
    return counted
