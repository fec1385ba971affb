"""Runs the compiled query of a partition and writes what comes out of it into the lake."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import duckdb
import pandera.pandas as pandera
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import structlog

from blocks.lake import Lake
from tasks.lake import intact_manifest, manifest_key, publish_manifest, store_file
from tasks.model.child_dataset import child_datasets, not_loaded, parents_columns
from tasks.model.columns import ColumnSpec
from tasks.model.dataset import DatasetSpec, canonical_json
from tasks.model.errors import ContractBroken
from tasks.model.profile import Profile
from tasks.model.rules import Severity
from tasks.model.run import ChildManifest, LakeFile, Manifest
from tasks.protection import Protection
from tasks.quarantine import Origin, QuarantineWriter, RefusedRow
from tasks.transformation.children import (
    Broken,
    Refuse,
    Session,
    broken_rows,
    kept_items,
    register_broken,
    with_items_named,
    without,
)
from tasks.transformation.custom import run_custom
from tasks.transformation.deduplicate import Contenders
from tasks.transformation.enrich import LookupTable
from tasks.transformation.functions import register
from tasks.transformation.originals import with_originals
from tasks.transformation.profile import profile_clean_rows
from tasks.transformation.query import (
    OUTCOME,
    PROVENANCE,
    RowOutcome,
    TransformQuery,
    compile_query,
)
from tasks.transformation.refusals import check_severity, pandera_rows, refused_rows
from tasks.transformation.row_sample import RowSample
from tasks.transformation.session import column_types, duckdb_session, stream
from tasks.transformation.severity import WarningCounts, first_failure
from tasks.transformation.user_code import code_digest, load_object, load_schema
from tasks.transformation.validate import pandera_failures, pandera_schema, unproven
from tasks.transformation.widening import widened_columns

STAGE: Final = "transformation"
STAGE_VERSION = "3"
"""Raised whenever this code would make other rows of the same input."""
BATCH_ROWS, BATCH_BYTES = 40_000, 10 << 20
"""Rows that are validated and written together; fewer, if that many bytes come first."""
QUERY_ROWS, QUERY_VALUES, QUERY_BYTES = 16_384, 500_000, 3 << 20
"""What the query hands over at once at most: rows, values, and bytes as the raw rows have them."""
AROUND_QUERY = 176 << 20
"""What rows take outside the query's own memory: batches under way, their validation and writing.
The allocator keeps an eighth besides; the query is given the rest of the budget."""
LEAST_OF_QUERY = 128 << 20
"""The query is given so much at least, or all of a smaller budget: wide rows of long texts need it."""

log = structlog.get_logger("dpp.transformation")


def transformation_identity(
    spec: DatasetSpec, raw: Manifest, snapshots: Mapping[str, LakeFile]
) -> str:
    """Return a hash of all that decides the result: configuration, input, lookups and code."""
    return hashlib.sha256(
        canonical_json(
            {
                "version": STAGE_VERSION,
                "config": spec.config_hash,
                "raw": [file.sha256 for file in (*raw.files, *raw.quarantine)],
                "code": code_digest(spec),
                "lookups": {name: file.sha256 for name, file in sorted(snapshots.items())},
            }
        )
    ).hexdigest()


def transform_partition(
    spec: DatasetSpec,
    raw: Manifest,
    snapshots: Mapping[str, LakeFile],
    lake: Lake,
    scratch: Path,
    *,
    memory_bytes: int,
    deadline_seconds: float | None = None,
    protection: Protection | None = None,
) -> Manifest:
    """Clean, cast, enrich, check and deduplicate the rows of one partition.

    Args:
        spec: The dataset.
        raw: What ingestion made of the partition.
        snapshots: Rows of the datasets that are looked up.
        lake: Where the raw files are and the result goes.
        scratch: Folder for spilled data and unfinished files.
        memory_bytes: What the rows may take of memory, beside the program itself.
        deadline_seconds: Seconds after which the query is interrupted.
        protection: Protects the columns marked ``pii`` of refused rows.

    Returns:
        The manifest of the clean files; it accounts for every row that was read.

    Raises:
        ContractBroken: The columns do not fit the dataset file.
        CapacityExhausted: The work does not fit into its memory or disk.
        StageTimeout: It took too long.
    """
    started = time.monotonic()
    identity = transformation_identity(spec, raw, snapshots)
    key = manifest_key(STAGE, spec.name, raw.fingerprint, identity)
    if done := intact_manifest(lake, key):
        log.info("transformation.reused", rows=done.rows)
        return done
    output = _Output(spec, scratch, Origin.of(spec, raw.fingerprint, protection))
    columns_added: tuple[str, ...] = ()
    types: dict[str, ColumnSpec] = {}
    if raw.rows:
        with output:
            columns_added, types = _run(
                spec, raw, snapshots, lake, scratch, output, memory_bytes, deadline_seconds
            )
    children = _children(
        spec, types, raw, lake, output, Session(scratch, memory_bytes, deadline_seconds)
    )
    manifest = Manifest(
        stage="transformation",
        dataset=spec.name,
        fingerprint=raw.fingerprint,
        config_hash=spec.config_hash,
        files=output.store(lake),
        quarantine=(*raw.quarantine, *output.quarantine.store(lake, spec.name)),
        rows_read=raw.rows_read,
        rows_deduplicated=raw.rows_deduplicated + output.contenders.dropped,
        rows_quarantined=raw.rows_quarantined + output.quarantine.rows,
        reasons=(*raw.reasons, *output.quarantine.reasons),
        warnings=output.warnings.reasons,
        columns_added=columns_added,
        column_types=types,
        state=raw.state,
        profile=output.profile,
        children=children,
        created_at=datetime.now(UTC),
        seconds=time.monotonic() - started,
    )
    log.info(
        "transformation.done",
        rows=manifest.rows,
        deduplicated=manifest.rows_deduplicated,
        quarantined=manifest.rows_quarantined,
        seconds=manifest.seconds,
    )
    return publish_manifest(lake, key, manifest)


def _run(
    spec: DatasetSpec,
    raw: Manifest,
    snapshots: Mapping[str, LakeFile],
    lake: Lake,
    scratch: Path,
    output: _Output,
    memory_bytes: int,
    deadline_seconds: float | None,
) -> tuple[tuple[str, ...], dict[str, ColumnSpec]]:
    raw_files = [str(lake.local_path(file.key, scratch)) for file in raw.files]
    lookup_files = {
        name: str(lake.local_path(file.key, scratch)) for name, file in snapshots.items()
    }
    output.broken = _broken(spec, raw_files, Session(scratch, memory_bytes, deadline_seconds))
    return _run_files(
        spec, raw_files, lookup_files, scratch, output, memory_bytes, deadline_seconds
    )


def _run_files(
    spec: DatasetSpec,
    raw_files: Sequence[str],
    lookup_files: Mapping[str, str],
    scratch: Path,
    output: _Output,
    memory_bytes: int,
    deadline_seconds: float | None,
) -> tuple[tuple[str, ...], dict[str, ColumnSpec]]:
    """Run the query of a dataset over local files."""
    _check_names(spec, raw_files)
    files = [*raw_files, *lookup_files.values(), str(output.path)]
    least = min(LEAST_OF_QUERY, memory_bytes)
    memory_bytes = max(least, memory_bytes - memory_bytes // 8 - AROUND_QUERY)
    with duckdb_session(files, scratch, memory_bytes, deadline_seconds) as connection:
        types = column_types(connection, raw_files)
        raw_types = {name: kind for name, kind in types.items() if name not in PROVENANCE}
        register(connection, spec)
        register_broken(connection, spec, output.broken)
        wide = widened_columns(connection, spec, raw_types, raw_files)
        spec = spec.model_copy(update={"columns": {**spec.columns, **wide}})
        output.spec = spec
        lookups = {
            name: LookupTable(path, column_types(connection, [path]))
            for name, path in lookup_files.items()
        }
        query = without(compile_query(spec, raw_types, raw_files, lookups), output.left_out)
        if query.preparation:
            connection.execute(query.preparation)
        at_once = _rows_at_once(raw_files, len(raw_types) + len(query.columns))
        for batch in stream(connection, query.sql, at_once):
            output.write(query, batch)
        for clean in output.contenders.resolve(connection):
            output.add_clean(query, clean)
        output.flush(query)
        for rows in with_originals(connection, raw_files, list(raw_types), output.unexplained):
            output.quarantine.append(rows)
        output.finish(connection)
    return query.columns_added, {**query.column_types, **wide}


def _broken(spec: DatasetSpec, raw_files: Sequence[str], session: Session) -> Broken:
    """Find the rows that are refused for one of their items."""

    def judge(child: DatasetSpec, files: Sequence[str], refuse: Refuse) -> None:
        with _Judge(child, session.scratch, refuse) as output:
            _run_files(
                child, files, {}, session.scratch, output, session.memory_bytes,
                session.deadline_seconds,
            )  # fmt: skip

    return {
        name: broken_rows(spec, name, raw_files, session, judge)
        for name, child in spec.children.items()
        if child.refuse == "parent"
    }


def _children(
    spec: DatasetSpec,
    types: Mapping[str, ColumnSpec],
    raw: Manifest,
    lake: Lake,
    parents: _Output,
    session: Session,
) -> dict[str, ChildManifest]:
    """Transform the items of the rows that were kept."""
    declared = {name: types.get(name, column) for name, column in spec.columns.items()}
    made = {}
    for name, child in child_datasets(spec.model_copy(update={"columns": declared})).items():
        if parents.clean_file is None:
            made[name] = ChildManifest()
            continue
        folder = session.scratch / f"child-{name}"
        folder.mkdir(exist_ok=True)
        origin = parents.quarantine.origin.of_child(child)
        raw_files = [str(lake.local_path(file.key, session.scratch)) for file in raw.files]
        with _Output(child, folder, origin, not_loaded(child)) as output:
            items = kept_items(
                spec, name, raw_files, parents.clean_file, session, output.quarantine.append
            )
            added: tuple[str, ...] = ()
            wide = parents_columns(child)
            if items.paths:
                added, found = _run_files(
                    child, items.paths, {}, session.scratch, output, session.memory_bytes,
                    session.deadline_seconds,
                )  # fmt: skip
                wide |= found
        made[name] = ChildManifest(
            files=output.store(lake),
            quarantine=output.quarantine.store(lake, child.name),
            rows_read=items.rows,
            rows_deduplicated=output.contenders.dropped,
            rows_quarantined=output.quarantine.rows,
            reasons=output.quarantine.reasons,
            warnings=output.warnings.reasons,
            columns_added=added,
            column_types=wide,
        )
    return made


def _check_names(spec: DatasetSpec, raw_files: Sequence[str]) -> None:
    """Refuse columns that differ only by case: to DuckDB they would be one."""
    folded: dict[str, str] = {}
    for path in raw_files:
        for name in pq.read_schema(path).names:
            other = folded.setdefault(name.casefold(), name)
            if other != name:
                raise ContractBroken(
                    f"{spec.name}: the source has columns that differ only by case: {other}, {name}",
                    "rename one of them in the source",
                )


def _rows_at_once(raw_files: Sequence[str], columns: int) -> int:
    """Return how many rows the query hands over at once: fewer of wide ones."""
    files = [pq.read_metadata(path) for path in raw_files]
    rows: int = sum(file.num_rows for file in files)
    held: int = sum(
        file.row_group(group).total_byte_size
        for file in files
        for group in range(file.num_row_groups)
    )
    return max(1, min(QUERY_ROWS, QUERY_VALUES // columns, QUERY_BYTES * rows // max(held, 1)))


class _Output:
    """Takes the query's rows apart: clean ones, those that may be duplicates, refused ones."""

    def __init__(
        self,
        spec: DatasetSpec,
        scratch: Path,
        origin: Origin,
        left_out: frozenset[str] = frozenset(),
    ) -> None:
        self.spec = spec
        self.left_out = left_out
        """Columns that only the query needs."""
        self.path = scratch / "clean.parquet"
        self._schema: pandera.DataFrameSchema | None = pandera_schema(spec)
        self._user_schema = load_schema(spec)
        self._custom = load_object(spec, "custom", spec.custom.function) if spec.custom else None
        self.warnings = WarningCounts()
        self._writer: pq.ParquetWriter | None = None
        self._open = ExitStack()
        self._rows = 0
        self._waiting: list[pa.RecordBatch] = []
        self._sample = RowSample()
        self.profile = Profile(rows=0)
        """What the clean rows look like, once they are all there."""
        self.broken: Broken = {}
        """Rows that are refused for one of their items."""
        self.unexplained: list[RefusedRow] = []
        """Rows that pandera refused: what they said originally is still to be found."""
        self.contenders = self._open.enter_context(Contenders(spec, scratch / "contenders.arrow"))
        self.quarantine = QuarantineWriter(scratch / "refused.parquet", STAGE, origin)

    def __enter__(self) -> _Output:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()
        self.quarantine.close()

    def write(self, query: TransformQuery, batch: pa.RecordBatch) -> None:
        outcome = batch.column(OUTCOME)
        refused = batch.filter(pc.equal(outcome, RowOutcome.REFUSED.value))
        if refused.num_rows:
            check_severity(self.spec, query, refused)
            self.quarantine.append(with_items_named(refused_rows(query, refused), self.broken))
        self.contenders.add(batch.filter(pc.equal(outcome, RowOutcome.CONTENDER.value)))
        self.add_clean(query, batch.filter(pc.equal(outcome, RowOutcome.CLEAN.value)))

    def add_clean(self, query: TransformQuery, clean: pa.RecordBatch) -> None:
        """Take clean rows; they are validated and written when there are enough of them."""
        self._waiting.append(clean)
        rows = sum(batch.num_rows for batch in self._waiting)
        if rows >= BATCH_ROWS or sum(batch.nbytes for batch in self._waiting) >= BATCH_BYTES:
            self.flush(query)

    def flush(self, query: TransformQuery) -> None:
        """Validate the clean rows that wait and write them; what is refused now goes to quarantine."""
        if not self._waiting:
            return
        clean = pa.concat_batches(self._waiting)
        self._waiting.clear()
        if not clean.num_rows:
            return
        self.warnings.count(query.rules, clean)
        if self._custom is not None:
            clean = run_custom(self.spec, self._custom, query.columns, clean)
        if self._schema is not None:
            failures = pandera_failures(self._schema, unproven(self._schema, clean))
            clean = self._judged_by(clean, failures, "quarantine")
        if self._user_schema is not None and self.spec.user_schema is not None:
            failures = pandera_failures(self._user_schema, clean)
            clean = self._judged_by(clean, failures, self.spec.user_schema.severity)
        clean = clean.select([*query.columns, *self.spec.custom_columns, *PROVENANCE])
        if not clean.num_rows:
            return
        if self._writer is None:
            self._writer = self._open.enter_context(
                pq.ParquetWriter(
                    self.path,
                    clean.schema,
                    compression="zstd",
                    compression_level=1,
                    write_statistics=False,  # every row is read once, by the load: nothing to skip
                )
            )
        self._writer.write_batch(clean)
        self._sample.add(clean)
        self._rows += clean.num_rows

    @property
    def clean_file(self) -> Path | None:
        """The rows that were kept, None if there are none."""
        return self.path if self._rows else None

    def finish(self, connection: duckdb.DuckDBPyConnection) -> None:
        """End the file of clean rows, and say what they look like."""
        self._open.close()
        if self._rows:
            columns = {**self.spec.columns, **self.spec.made_columns}
            self.profile = profile_clean_rows(connection, self.path, self._sample.table(), columns)

    def _judged_by(
        self, clean: pa.RecordBatch, failures: Mapping[int, tuple[str, str]], severity: Severity
    ) -> pa.RecordBatch:
        """Return the rows that go on after pandera has refused some."""
        if not failures:
            return clean
        refused = pandera_rows(clean, failures)
        if severity == "warn":
            self.warnings.add(refused)
            return clean
        if severity == "fail":
            raise first_failure(self.spec, refused[0])
        self.unexplained += refused
        return clean.filter(pa.array([row not in failures for row in range(clean.num_rows)]))

    def store(self, lake: Lake) -> tuple[LakeFile, ...]:
        """Move the clean rows into the lake."""
        if not self.path.exists():
            return ()
        return (store_file(lake, "clean", self.spec.name, self.path, self._rows),)


class _Judge(_Output):
    """Tells which rows are refused, and keeps none."""

    def __init__(self, spec: DatasetSpec, scratch: Path, refuse: Refuse) -> None:
        super().__init__(spec, scratch, Origin())
        self._refuse = refuse

    def write(self, query: TransformQuery, batch: pa.RecordBatch) -> None:
        refused = batch.filter(pc.equal(batch.column(OUTCOME), RowOutcome.REFUSED.value))
        if refused.num_rows:
            check_severity(self.spec, query, refused)
            self._refuse(refused_rows(query, refused))
