"""Refused rows on their way to a spreadsheet and back, and what is protected of them."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.privacy import PrivacyKeys
from cli.quarantine_view import counted
from tasks.loading.gates import counted_failures, refuse
from tasks.loading.resolutions import QuarantineLoad, QuarantineReasons
from tasks.model.dataset import DatasetSpec
from tasks.model.errors import ConfigError, GateFailed
from tasks.model.manifest import LakeFile, Manifest
from tasks.model.replay import ReasonRows, ReplaySlice, RowId, replay_of, spans
from tasks.protection import MASK, Protection, pii_columns
from tasks.refused import KeptRow
from tasks.replay.cells import from_cell, to_cell
from tasks.replay.export import read_export, write_export
from tasks.replay.select import SelectedRow

NOW = datetime(2026, 3, 1, tzinfo=UTC)
KEY = "k" * 32
SPEC = DatasetSpec.model_validate(
    {
        "name": "people",
        "description": "d",
        "source": {"kind": "files", "path": "*.csv", "format": {"kind": "csv"}},
        "columns": {
            "id": {"type": "int64"},
            "mail": {"type": "string", "source": "E-Mail", "pii": "token"},
            "born": {"type": "date", "pii": "mask"},
        },
        "load": {"table": "a.people", "mode": "append"},
    }
)
LOAD = QuarantineLoad(
    dataset="people",
    load_id=12,
    run="r",
    partition="p",
    fingerprint="f",
    config_hash="c",
    manifest_key="m",
    first_seen=NOW,
    times_replayed=0,
    rows=9,
    resolved=0,
)


def protection(monkeypatch: pytest.MonkeyPatch, keys: str = KEY) -> Protection:
    monkeypatch.setenv("DPP_PRIVACY_KEY", keys)
    block = PrivacyKeys.from_variable()
    assert block is not None
    return Protection(pii_columns(SPEC), block.get_privacy())


def selected(number: int, raw: str | None, sealed: str | None = None, **more: Any) -> SelectedRow:
    said: dict[str, Any] = {
        "stage": "transformation",
        "rule": "type",
        "column": "id",
        "message": "not an int64",
        "failures": "id: not an int64",
        "source_uri": "=cmd|' /C calc'!A0",
        "source_row": number,
    }
    return SelectedRow(LOAD, KeptRow(row=number, raw=raw, sealed=sealed, **{**said, **more}), None)


@given(
    st.none() | st.text() | st.sampled_from(["", "\\N", "'\\N", "'", "=1+1", "-5", "'=x", "\t="])
)
def test_cell_gives_its_value_back_and_is_no_formula(value: str | None) -> None:
    cell = to_cell(value)
    assert from_cell(cell) == value
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))


@given(
    st.lists(
        st.dictionaries(
            st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
            st.none() | st.text(st.characters(exclude_categories=["Cs"])),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_exported_rows_are_read_back_as_they_were(rows: list[dict[str, str | None]]) -> None:
    found = [selected(n, json.dumps(row)) for n, row in enumerate(rows, 1)]
    file = io.StringIO(newline="")
    unprotected = Protection({}, None)
    assert write_export(file, SPEC, lambda: iter(found), unprotected, reveal=False) == len(rows)
    written = file.getvalue()
    for cell in (cell for row in csv.reader(io.StringIO(written, newline="")) for cell in row):
        assert not cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    back = read_export(written.encode("utf-8-sig"), "x.csv")
    assert [str(correction.row) for correction in back] == [row.row_id for row in found]
    for correction, row in zip(back, rows, strict=True):
        assert {n: v for n, v in correction.values.items() if v is not None} == {
            n: v for n, v in row.items() if v is not None
        }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", "line 1: the first column is not dpp:row"),
        ("dpp:row,id\n12-1,5\n12-1,6\n", "line 3: row 12-1 is in line 2 already"),
        ('dpp:row,id\n12-1,"a\nb"\n12-x,6\n', "line 4: '12-x' is no row of quarantine"),
        ("dpp:row,id\n12-1,5,6\n", "line 2: 3 cells, the header has 2"),
        ("dpp:row,id,id\n", "line 1: column 'id' is there twice"),
        ('dpp:row,id\n12-1,"5\n', "line 2: unexpected end of data"),
    ],
)
def test_mistake_in_a_corrected_file_is_told_with_its_line(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_export(text.encode(), "x.csv")
    assert message in caught.value.message
    assert caught.value.remedy


def test_semicolons_of_a_spreadsheet_are_understood_and_latin_1_is_refused() -> None:
    (correction,) = read_export(b'"dpp:row";"id"\r\n12-1;\'-5\r\n\r\n', "x.csv")
    assert (correction.row, correction.values) == (RowId(load_id=12, row=1), {"id": "-5"})
    with pytest.raises(ConfigError, match=r"x.csv line 2: not UTF-8"):
        read_export(b"dpp:row,id\n12-1,M\xfcller\n", "x.csv")


def test_protected_values_are_hidden_and_come_back_digit_by_digit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    protected = protection(monkeypatch)
    raw = '{"id":1.10,"E-Mail":"ann@example.org","born":"1980-01-02","more":null}'
    shown, sealed = protected.protect(raw, is_row=True)
    assert shown is not None and sealed is not None
    assert "ann" not in shown + sealed and "1980" not in shown + sealed
    values = json.loads(shown)
    assert values["born"] == MASK and values["E-Mail"].startswith("tok_")
    again = json.loads(protected.protect(raw, is_row=True)[0] or "")
    assert again["E-Mail"] == values["E-Mail"], "the same value has the same token"
    original = json.loads(protected.reveal(shown, sealed) or "", parse_float=str)
    assert original == json.loads(raw, parse_float=str)
    text, whole = protected.protect("ann@example.org;1980;;", is_row=False)
    assert text == MASK and protected.reveal(text, whole) == "ann@example.org;1980;;"

    rotated = protection(monkeypatch, f"{'n' * 32},{KEY}")
    assert rotated.reveal(shown, sealed) == protected.reveal(shown, sealed)
    with pytest.raises(ConfigError, match="cannot be opened"):
        protection(monkeypatch, "n" * 32).reveal(shown, sealed)
    with pytest.raises(ConfigError, match="DPP_PRIVACY_KEY"):
        Protection(pii_columns(SPEC), None)


def test_export_reveals_only_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    protected = protection(monkeypatch)
    row = selected(1, *protected.protect('{"E-Mail":"ann@example.org"}', is_row=True))
    for reveal in (False, True):
        file = io.StringIO(newline="")
        write_export(file, SPEC, lambda: iter([row]), protected, reveal=reveal)
        assert ("ann@example.org" in file.getvalue()) is reveal


@given(st.sets(st.integers(1, 60)))
def test_spans_are_the_rows(rows: set[int]) -> None:
    reason = ReasonRows(stage="s", rule="r", column=None, spans=spans(sorted(rows)))
    replay = ReplaySlice(
        load_id=1, manifest_key="m", reasons=(reason,), first_seen=NOW, times_replayed=1
    )
    assert (set(replay.rows), reason.count) == (rows, len(rows))
    partition = replay.partition("people")
    assert replay_of(partition) == replay
    assert replay.partition("people").fingerprint == partition.fingerprint


@pytest.mark.parametrize(
    ("limits", "refused", "failed"),
    [
        ({"max_rows": 2}, 2, False),
        ({"max_rows": 2}, 3, True),
        ({"max_share": 0.25}, 25, False),
        ({"max_share": 0.25}, 26, True),
        ({}, 100, False),
        ({"max_rows": 0, "max_share": 0}, 0, False),
    ],
)
def test_too_many_refused_rows_fail_the_gate(
    limits: dict[str, float], refused: int, failed: bool
) -> None:
    spec = DatasetSpec.model_validate(
        {**SPEC.model_dump(mode="json"), "quality": {"quarantine": limits}}
    )
    kept = (LakeFile(key="q", rows=refused, bytes=1, sha256="0"),) if refused else ()
    manifest = Manifest(
        stage="transformation",
        dataset="people",
        fingerprint="f",
        config_hash="c",
        files=(LakeFile(key="k", rows=100 - refused, bytes=1, sha256="0"),),
        quarantine=kept,
        rows_read=100,
        rows_deduplicated=0,
        rows_quarantined=refused,
        created_at=NOW,
        seconds=0,
    )
    if failed:
        with pytest.raises(GateFailed, match=r"quarantine\.max_"):
            refuse(spec, list(counted_failures(spec, manifest, {})))
    else:
        refuse(spec, list(counted_failures(spec, manifest, {})))


def test_counts_have_shares_and_ages() -> None:
    def reason(rule: str, days: int, rows: int, replayed: int) -> QuarantineReasons:
        return QuarantineReasons(
            dataset="people", load_id=days, stage="transformation", rule=rule, column="id",
            message="m", source_uri="u", source_row=1, first_seen=NOW - timedelta(days=days),
            rows=rows, replayed=replayed, discarded=0,
        )  # fmt: skip

    reasons = [reason("type", 40, 10, 4), reason("type", 2, 2, 0), reason("between", 2, 2, 0)]
    by_rule = counted(reasons, {"people": 1000}, "rule", NOW)
    assert [(c.rule, c.open, c.replayed, c.share_of_read, c.share_of_open) for c in by_rule] == [
        ("type", 8, 4, 0.008, 0.8),
        ("between", 2, 0, 0.002, 0.2),
    ]
    assert by_rule[0].first_seen == NOW - timedelta(days=40)
    by_age = counted(reasons, {"people": 1000}, "age", NOW)
    assert [(c.age, c.open) for c in by_age] == [("more than 30 days", 6), ("1 to 7 days", 4)]
