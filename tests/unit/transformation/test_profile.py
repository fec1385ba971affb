"""The profile of a clean file."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.model.columns import ColumnSpec
from tasks.model.dataset import DatasetSpec
from tasks.model.profile import Profile
from tasks.transformation import profile as module
from tasks.transformation.profile import profile_clean_rows
from tasks.transformation.row_sample import MAX_TEXT, SAMPLE_CELLS, SAMPLE_ROWS, RowSample
from tasks.transformation.session import duckdb_session


def profiled(path: Path, table: pa.Table, **columns: ColumnSpec) -> Profile:
    file = path / "clean.parquet"
    pq.write_table(table, file)
    sample = RowSample()
    for batch in table.to_batches(max_chunksize=50_000):
        sample.add(batch)
    with duckdb_session([str(file)], path, 64 << 20) as connection:
        return profile_clean_rows(connection, file, sample.table(), columns)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.none() | st.floats(allow_nan=True, allow_infinity=True),
            st.none() | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
            st.none() | st.dates(),
        ),
        min_size=1,
        max_size=30,
    )
)
def test_profile_says_what_is_there(tmp_path: Path, rows: list[tuple]) -> None:
    """Counts and ends are those of the rows, quantiles ascend, and it survives the way as JSON."""
    numbers, texts, days = zip(*rows, strict=True)
    table = pa.table(
        {
            "n": pa.array(numbers, pa.float64()),
            "t": pa.array(texts, pa.string()),
            "d": pa.array(days, pa.date32()),
            "_source_row": list(range(len(rows))),
        }
    )
    found = profiled(tmp_path, table)
    assert found.rows == len(rows)
    assert list(found.columns) == ["n", "t", "d"]
    for name, values in (("n", numbers), ("t", texts), ("d", days)):
        assert found.columns[name].nulls == sum(value is None for value in values)
    lengths = [len(text) for text in texts if text is not None]
    said = found.columns["t"].lengths
    assert (said and (said[0], said[2])) == ((min(lengths), max(lengths)) if lengths else None)
    deciles = found.columns["n"].quantiles
    finite = [n for n in numbers if n is not None and math.isfinite(n)]
    assert list(deciles) == sorted(deciles) and all(math.isfinite(n) for n in deciles)
    assert (deciles[0], deciles[-1]) == (min(finite), max(finite)) if finite else not deciles
    there = [day for day in days if day is not None]
    assert found.columns["d"].min == (str(min(there)) if there else None)
    assert Profile.model_validate_json(found.model_dump_json()) == found


def test_many_rows_are_sampled_and_their_ends_are_not(tmp_path: Path) -> None:
    rows = 10 * SAMPLE_ROWS
    table = pa.table(
        {"n": list(range(rows)), "c": ["common" if n % 2 else f"{n}" for n in range(rows)]}
    )
    found = profiled(tmp_path, table)
    assert SAMPLE_ROWS * 0.95 < found.sampled <= 2 * SAMPLE_ROWS
    assert (found.columns["n"].quantiles[0], found.columns["n"].quantiles[-1]) == (0.0, rows - 1.0)
    assert found.columns["n"].quantiles[5] == pytest.approx(rows / 2, rel=0.25)
    assert found.columns["c"].top[0] == ("common", pytest.approx(0.5, abs=0.05))
    assert found.columns["n"].distinct == pytest.approx(rows, rel=0.15)
    assert found == profiled(tmp_path, table)  # the same rows, the same profile


def test_every_row_is_as_likely_to_be_in_the_sample(tmp_path: Path) -> None:
    """Early rows and late ones alike: a file that is sorted by time is described right."""
    rows = 12 * SAMPLE_ROWS
    sample = RowSample()
    for batch in pa.table({"n": list(range(rows))}).to_batches(max_chunksize=7_000):
        sample.add(batch)
    kept = sample.table().column("n").to_numpy()
    assert len(set(kept)) == len(kept)
    by_tenth = np.histogram(kept, bins=10, range=(0, rows))[0]
    assert by_tenth.min() > 0.9 * len(kept) / 10 and by_tenth.max() < 1.1 * len(kept) / 10


def test_sample_of_wide_rows_and_long_texts_is_small(tmp_path: Path) -> None:
    """So that it fits into memory whatever the rows are."""
    names = [f"c{number}" for number in range(200)]
    table = pa.table({name: ["é" * 200] * 9_000 for name in names})
    sample = RowSample()
    for batch in table.to_batches(max_chunksize=1_000):
        sample.add(batch)
    kept = sample.table()
    assert kept.num_rows <= 2 * SAMPLE_CELLS / 200
    assert set(kept.column("c7").to_pylist()) == {"é" * MAX_TEXT}


def test_protected_column_shows_no_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing in the profile gives away what is in it; how much is missing may be said."""
    monkeypatch.setattr(module, "is_protected", lambda column: column is not None)
    table = pa.table({"mail": ["ann@example.org", "ann@example.org", None], "n": [1, 2, 3]})
    found = profiled(tmp_path, table, mail=ColumnSpec(type="string"))
    assert found.columns["mail"].protected and found.columns["mail"].nulls == 1
    assert "ann" not in found.model_dump_json()
    assert found.columns["n"].max == "3"


@pytest.mark.parametrize(
    ("anomaly", "said"),
    [
        ({"time": "nope"}, "quality.anomaly.time: no column 'nope'"),
        ({"time": "id"}, "column 'id' is int64, not a time"),
        ({"action": "shout"}, "'warn' or 'fail'"),
    ],
)
def test_mistakes_in_the_dataset_file_are_named(anomaly: dict[str, str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        DatasetSpec.model_validate(
            {
                "name": "things",
                "description": "x",
                "source": {"kind": "files", "path": "*.csv", "format": {"kind": "csv"}},
                "columns": {"id": {"type": "int64"}},
                "quality": {"anomaly": anomaly},
                "load": {"table": "a.things", "mode": "append"},
            }
        )
