"""Checks of tables whose loads PostgreSQL has to apply again: any mode, children, retention."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class in lower case
from sqlalchemy import Engine

from blocks.lake import Lake
from tasks.loading.checks import Check, LedgerRow, check, shown
from tasks.loading.content import compare
from tasks.loading.content_verdicts import SAME, STATEMENT, verdicts
from tasks.loading.expected import expected_session
from tasks.loading.past import Past, past_of
from tasks.loading.row_names import named_rows
from tasks.loading.schema import existing_columns
from tasks.loading.session import session
from tasks.loading.shadow import Shadow, fill_expected, shadow, shadow_layout
from tasks.model.dataset import DatasetSpec, LookedUp
from tasks.model.errors import ContractBroken
from tasks.model.manifest import Manifest
from tasks.model.report import RowCounts


def replayed_checks(
    cursor: Cursor,
    engine: Engine,
    lake: Lake,
    spec: DatasetSpec,
    lookups: Mapping[str, LookedUp],
    rows: Sequence[LedgerRow],
    clean: Mapping[int, Manifest],
    retained: set[int],
) -> list[Check]:
    """Apply every load again beside the tables of a dataset, and compare; nothing is left of that.

    Args:
        cursor: In a snapshot of the warehouse.
        engine: The warehouse.
        lake: The lake.
        spec: The dataset.
        lookups: What it looks up.
        rows: Its ledger.
        clean: The manifests of the loads whose clean files are all intact.
        retained: Loads whose files must still be there.
    """
    lost = [row.load_id for row in rows if row.load_id not in clean]
    if broken := [load for load in lost if load in retained]:
        found = f"not compared: files of load {broken[0]} are missing or damaged"
        return [check(spec, "I11", STATEMENT, SAME, found)]
    if lost:
        why = f"not compared: files of {len(lost)} loads are past their retention in the lake"
        return [check(spec, "I11", why, "–", "–")]
    try:
        past = past_of(cursor, spec, rows, clean)
        with session(engine) as connection, connection.cursor() as own:
            try:
                with shadow(own, spec, lookups, lake, past) as made:
                    return [
                        _counts_check(spec, past, made),
                        *_compared(cursor, own, engine, lake, spec, past, made),
                    ]
            finally:
                connection.rollback()
    except ContractBroken as error:
        why = f"not compared: its loads cannot be applied again: {error.message}"
        return [check(spec, "I11", why, "–", "–")]


def _counts_check(spec: DatasetSpec, past: Past, made: Shadow) -> Check:
    different = [
        f"load {load.row.load_id}: {_words(made.done[load.row.load_id].counts)}, in the ledger "
        f"{_words(load.row.counts)}"
        for load in past.loads
        if made.done[load.row.load_id].counts != load.row.counts
    ]
    statement = "every load does what the ledger says when it is applied again"
    return check(spec, "I17", statement, "none broken", shown(different), different)


def _words(counts: RowCounts) -> str:
    return ", ".join(f"{rows} {what}" for what, rows in counts.model_dump().items() if rows)


def _compared(
    cursor: Cursor,
    own: Cursor,
    engine: Engine,
    lake: Lake,
    spec: DatasetSpec,
    past: Past,
    made: Shadow,
) -> Iterator[Check]:
    labels = {load.row.load_id: load.row.label for load in past.loads}
    for mine, beside in made.tables(spec):
        if not existing_columns(cursor, mine) or not existing_columns(own, beside):
            continue
        layout = shadow_layout(cursor, mine, own, beside)
        with expected_session(engine, lake, layout) as expected:
            fill_expected(own, beside, expected)
            comparison = compare(cursor, mine, expected)
            names = named_rows(cursor, mine, expected, (), comparison.listed, (own, beside))
        yield from verdicts(mine, STATEMENT, comparison, names, labels)
