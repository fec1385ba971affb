"""Transforms the items of a partition's rows: judges them for their rows, keeps them, replays them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from blocks.lake import Lake
from tasks.model.child_dataset import child_datasets, not_loaded, parents_columns, version_column
from tasks.model.columns import ColumnSpec
from tasks.model.dataset import DatasetSpec
from tasks.model.manifest import ChildManifest, Manifest
from tasks.quarantine import Origin
from tasks.transformation.children import Broken, Refuse, broken_rows, kept_items
from tasks.transformation.items import ItemWriter
from tasks.transformation.output import Judge, Output
from tasks.transformation.replayed_items import write_replayed
from tasks.transformation.run_query import run_files
from tasks.transformation.session import Session


def find_broken(spec: DatasetSpec, raw_files: Sequence[str], session: Session) -> Broken:
    """Find the rows that are refused for one of their items.

    Args:
        spec: The dataset.
        raw_files: Its raw rows.
        session: Where and how to work.
    """

    def judge(child: DatasetSpec, files: Sequence[str], refuse: Refuse) -> None:
        with Judge(child, session.scratch, refuse) as output:
            run_files(child, files, {}, session, output)

    return {
        name: broken_rows(spec, name, raw_files, session, judge)
        for name, child in spec.children.items()
        if child.refuse == "parent"
    }


def transform_children(
    spec: DatasetSpec,
    types: Mapping[str, ColumnSpec],
    raw: Manifest,
    lake: Lake,
    parents: Output,
    session: Session,
) -> dict[str, ChildManifest]:
    """Transform the items of the rows that were kept.

    Args:
        spec: The dataset.
        types: Types of its columns that the data decided.
        raw: Its raw rows, with their lists.
        lake: Where these are, and the result goes.
        parents: What came out of the rows.
        session: Where and how to work.
    """
    declared = {name: types.get(name, column) for name, column in spec.columns.items()}
    made = {}
    for name, child in child_datasets(spec.model_copy(update={"columns": declared})).items():
        if parents.clean_file is None:
            made[name] = ChildManifest()
            continue
        raw_files = [str(lake.local_path(file.key, session.scratch)) for file in raw.files]
        with _output(child, parents.quarantine.origin, session, not_loaded(child)) as output:
            items = kept_items(
                spec, name, raw_files, parents.clean_file, session, output.quarantine.append
            )
            made[name] = _transform(child, items, lake, output, session)
    return made


def replay_items(
    spec: DatasetSpec, raw: Manifest, lake: Lake, origin: Origin, session: Session
) -> dict[str, ChildManifest]:
    """Transform items of a child that were refused before.

    Args:
        spec: The dataset.
        raw: The items, as quarantine has them or corrected.
        lake: Where these are, and the result goes.
        origin: That of the dataset's rows.
        session: Where and how to work.
    """
    assert raw.child is not None, "only replays of items come here"
    child = child_datasets(spec)[raw.child]
    left_out = not_loaded(child).difference([version_column(spec)])
    paths = [lake.local_path(file.key, session.scratch) for file in raw.files]
    with _output(child, origin, session, left_out) as output:
        items = write_replayed(
            spec.children[raw.child],
            paths,
            session.scratch / f"items-{raw.child}",
            output.quarantine.append,
        )
        return {raw.child: _transform(child, items, lake, output, session)}


def _output(
    child: DatasetSpec, parents: Origin, session: Session, left_out: frozenset[str]
) -> Output:
    folder = session.scratch / f"child-{child.name}"
    folder.mkdir(exist_ok=True)
    return Output(child, folder, parents.of_child(child), left_out)


def _transform(
    child: DatasetSpec, items: ItemWriter, lake: Lake, output: Output, session: Session
) -> ChildManifest:
    """Run the query of a child over its raw items, and end its output."""
    added: tuple[str, ...] = ()
    types = parents_columns(child)
    if items.paths:
        added, found = run_files(child, items.paths, {}, session, output)
        types |= found
    return ChildManifest(
        files=output.store(lake),
        quarantine=output.quarantine.store(lake, child.name),
        rows_read=items.rows,
        rows_deduplicated=output.contenders.dropped,
        rows_quarantined=output.quarantine.rows,
        reasons=output.quarantine.reasons,
        warnings=output.warnings.reasons,
        columns_added=added,
        column_types=types,
    )
