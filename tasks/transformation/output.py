"""What comes out of the query of a partition: clean rows into a file, refused ones into quarantine."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import duckdb
import pandera.pandas as pandera
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from blocks.lake import Lake
from tasks.lake import store_file
from tasks.model.dataset import DatasetSpec
from tasks.model.manifest import LakeFile
from tasks.model.profile import Profile
from tasks.model.rules import Severity
from tasks.quarantine import Origin, QuarantineWriter, RefusedRow
from tasks.transformation.children import Broken, Refuse, with_items_named
from tasks.transformation.columns import OUTCOME, PROVENANCE
from tasks.transformation.custom import run_custom
from tasks.transformation.deduplicate import Contenders
from tasks.transformation.profile import profile_clean_rows
from tasks.transformation.query import RowOutcome, TransformQuery
from tasks.transformation.refusals import check_severity, pandera_rows, refused_rows
from tasks.transformation.row_sample import RowSample
from tasks.transformation.severity import WarningCounts, first_failure
from tasks.transformation.user_code import load_object, load_schema
from tasks.transformation.validate import pandera_failures, pandera_schema, unproven

STAGE: Final = "transformation"
BATCH_ROWS, BATCH_BYTES = 40_000, 10 << 20
"""Rows that are validated and written together; fewer, if that many bytes come first."""


class Output:
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

    def __enter__(self) -> Output:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()
        self.quarantine.close()

    def write(self, query: TransformQuery, batch: pa.RecordBatch) -> None:
        """Take rows of the query, each with its outcome."""
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


class Judge(Output):
    """Tells which rows are refused, and keeps none."""

    def __init__(self, spec: DatasetSpec, scratch: Path, refuse: Refuse) -> None:
        super().__init__(spec, scratch, Origin())
        self._refuse = refuse

    def write(self, query: TransformQuery, batch: pa.RecordBatch) -> None:
        """Tell which of these rows are refused."""
        refused = batch.filter(pc.equal(batch.column(OUTCOME), RowOutcome.REFUSED.value))
        if refused.num_rows:
            check_severity(self.spec, query, refused)
            self._refuse(refused_rows(query, refused))
