"""The account of rows cannot be written wrongly, and a fingerprint stands for content alone."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tasks.model.manifest import LakeFile, Manifest
from tasks.model.partition import Partition, SourceItem
from tasks.model.report import RowCounts

COUNTS = st.builds(
    RowCounts,
    inserted=st.integers(0, 9),
    updated=st.integers(0, 9),
    unchanged=st.integers(0, 9),
    deduplicated=st.integers(0, 9),
    quarantined=st.integers(0, 9),
    read=st.integers(0, 50),
)
ITEMS = st.lists(
    st.builds(SourceItem, uri=st.text(max_size=5), version=st.text(max_size=5)), max_size=5
)


def _manifest(rows: int, read: int, quarantined: int, deduplicated: int) -> Manifest:
    file = LakeFile(key="raw/x", rows=rows, bytes=1, sha256="0")
    refused = LakeFile(key="quarantine/x", rows=quarantined, bytes=1, sha256="0")
    return Manifest(
        stage="transformation",
        dataset="x",
        fingerprint="f",
        config_hash="c",
        files=(file,),
        quarantine=(refused,) if quarantined else (),
        rows_read=read,
        rows_deduplicated=deduplicated,
        rows_quarantined=quarantined,
        created_at=datetime(2013, 1, 1, tzinfo=UTC),
        seconds=1,
    )


def test_manifest_that_lost_a_row_cannot_be_made() -> None:
    _manifest(rows=5, read=8, quarantined=2, deduplicated=1)
    with pytest.raises(ValidationError, match="9 rows read but 8 accounted for"):
        _manifest(rows=5, read=9, quarantined=2, deduplicated=1)


@given(COUNTS, COUNTS)
def test_sum_of_balanced_accounts_is_balanced(a: RowCounts, b: RowCounts) -> None:
    a, b = (
        c.model_copy(update={"read": c.loaded + c.deduplicated + c.quarantined}) for c in (a, b)
    )
    assert (a + b).balanced
    assert (a + b).changed == a.changed + b.changed


@given(ITEMS)
def test_fingerprint_does_not_depend_on_order_or_label(items: list[SourceItem]) -> None:
    one = Partition(dataset="x", label="a", items=tuple(items))
    other = Partition(dataset="x", label="b", items=tuple(reversed(items)))
    assert one.fingerprint == other.fingerprint


@given(ITEMS, st.builds(SourceItem, uri=st.text(max_size=5), version=st.text(max_size=5)))
def test_fingerprint_changes_with_content(items: list[SourceItem], more: SourceItem) -> None:
    one = Partition(dataset="x", label="", items=tuple(items))
    other = Partition(dataset="x", label="", items=(*items, more))
    assert one.fingerprint != other.fingerprint
    assert one.fingerprint != Partition(dataset="y", label="", items=tuple(items)).fingerprint
