"""The stage on small raw files: each row comes out once, clean, deduplicated or refused."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blocks.lake import Lake
from tasks.lake import store_file
from tasks.model.dataset import DatasetSpec
from tasks.model.errors import ConfigError, ContractBroken, StageTimeout
from tasks.model.manifest import LakeFile, Manifest
from tasks.quarantine import read_refused
from tasks.transformation import execute
from tasks.transformation.check import check_query, explain_query
from tasks.transformation.execute import transform_partition
from tasks.transformation.session import duckdb_session

MEMORY = 128 << 20
MakeSpec = Callable[..., DatasetSpec]


def make_spec(**changes: Any) -> DatasetSpec:
    declared: dict[str, Any] = {
        "name": "things",
        "description": "Things",
        "source": {"kind": "files", "path": "*", "format": {"kind": "csv"}},
        "key": ["id"],
        "columns": {"id": {"type": "int64"}, "text": {"type": "string"}},
        "load": {"table": "analytics.things", "mode": "merge"},
    }
    return DatasetSpec.model_validate(declared | changes)


def raw_manifest(lake: Lake, scratch: Path, rows: list[dict[str, Any]], **types: Any) -> Manifest:
    files: tuple[LakeFile, ...] = ()
    if rows:
        names = [name for name in rows[0] if not name.startswith("_")]
        columns = {
            name: pa.array([r[name] for r in rows], types.get(name, pa.string())) for name in names
        }
        columns["_source_uri"] = pa.array([r.get("_source_uri", "input.csv") for r in rows])
        columns["_source_row"] = pa.array(range(1, len(rows) + 1), pa.int64())
        path = scratch / "raw.parquet"
        pq.write_table(pa.table(columns), path)
        files = (store_file(lake, "raw", "things", path, len(rows)),)
    return Manifest(
        stage="ingestion",
        dataset="things",
        fingerprint="f" * 64,
        config_hash="c",
        files=files,
        quarantine=(),
        rows_read=len(rows),
        rows_deduplicated=0,
        rows_quarantined=0,
        created_at=datetime(2013, 1, 1, tzinfo=UTC),
        seconds=0,
    )


def transform(
    lake: Lake, scratch: Path, spec: DatasetSpec, rows: list[dict[str, Any]], **options: Any
) -> tuple[Manifest, list[dict[str, Any]]]:
    raw = raw_manifest(lake, scratch, rows, **options.pop("types", {}))
    snapshots = options.pop("snapshots", {})
    manifest = transform_partition(
        spec, raw, snapshots, lake, scratch, memory_bytes=options.pop("memory", MEMORY), **options
    )
    clean = [
        row
        for file in manifest.files
        for row in pq.read_table(lake.local_path(file.key, scratch)).to_pylist()
    ]
    return manifest, sorted(clean, key=str)


def reasons(manifest: Manifest) -> dict[tuple[str, str | None], int]:
    return {(reason.rule, reason.column): reason.rows for reason in manifest.reasons}


def refused(lake: Lake, manifest: Manifest, scratch: Path) -> list[dict[str, Any]]:
    path = scratch / "manifest"
    path.write_bytes(manifest.model_dump_json().encode())
    lake.put_file(path, "manifests/test")
    return list(read_refused(lake, ["manifests/test"], None, 100))


@settings(
    max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(
    st.lists(st.tuples(st.integers(-3, 3), st.integers(0, 5), st.sampled_from("abcX")), max_size=40)
)
def test_newest_of_each_key_stays_and_every_row_is_counted(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, int, str]]
) -> None:
    """Compared with a model in Python: refused rows never displace good ones."""
    from obstore.store import LocalStore

    folder = tmp_path_factory.mktemp("model")
    lake = Lake(LocalStore(folder), folder)
    spec = make_spec(
        cursor="v",
        columns={
            "id": {"type": "int64", "checks": {"between": [-2, 9]}},
            "v": {"type": "int32"},
            "text": {"type": "string", "checks": {"pattern": "[a-z]"}},
        },
    )
    given_rows = [{"id": str(key), "v": str(v), "text": text} for key, v, text in rows]
    manifest, clean = transform(lake, folder, spec, given_rows)
    best: dict[int, tuple[int, int, str]] = {}
    good = [(n, *row) for n, row in enumerate(rows) if row[0] >= -2 and row[2] != "X"]
    for number, key, v, text in good:
        best[key] = max(best.get(key, (-1, -1, "")), (v, number, text))
    assert {(row["id"], row["v"], row["text"]) for row in clean} == {
        (key, v, text) for key, (v, _, text) in best.items()
    }
    assert manifest.rows_quarantined == len(rows) - len(good)
    assert manifest.rows_deduplicated == len(good) - len(best)


def test_refused_row_keeps_its_origin_all_reasons_and_original_values(
    lake: Lake, scratch: Path
) -> None:
    spec = make_spec(
        columns={
            "id": {"type": "int64", "source": "ID", "clean": ["strip"]},
            "text": {"type": "string", "nullable": False, "checks": {"max_length": 3}},
        }
    )
    rows = [{"ID": " 7 ", "text": "abc"}, {"ID": "x", "text": "toolong"}, {"ID": "8", "text": None}]
    manifest, clean = transform(lake, scratch, spec, rows)
    assert [(row["id"], row["text"]) for row in clean] == [(7, "abc")]
    assert reasons(manifest) == {("type", "id"): 1, ("required", "text"): 1}
    first, second = refused(lake, manifest, scratch)
    assert (first["source_uri"], first["source_row"]) == ("input.csv", 2)
    assert first["failures"] == "id: not an int64; text: longer than 3 characters"
    assert first["raw"] == '{"ID":"x","text":"toolong"}'
    assert second["raw"] == '{"ID":"8","text":null}'


def test_row_rule_that_is_null_refuses_the_row(lake: Lake, scratch: Path) -> None:
    spec = make_spec(rules=[{"name": "ordered", "sql": "id < length(text)", "message": "no order"}])
    rows = [{"id": "1", "text": "ab"}, {"id": "2", "text": "a"}, {"id": "3", "text": None}]
    manifest, clean = transform(lake, scratch, spec, rows)
    assert [row["id"] for row in clean] == [1]
    assert reasons(manifest) == {("ordered", None): 2}


@pytest.mark.parametrize(
    "sql", ["id > 1; DROP TABLE x", "id >", "1) UNION SELECT (2", "", "id IS NOT NULL, 1"]
)
def test_row_rule_that_is_no_expression_is_refused(sql: str) -> None:
    with pytest.raises(ConfigError, match="rules: bad"):
        explain_query(make_spec(rules=[{"name": "bad", "sql": sql}]), {})


def test_row_rule_with_an_unknown_column_is_found_without_data(scratch: Path) -> None:
    with pytest.raises(ConfigError, match="the query of this dataset is wrong"):
        check_query(make_spec(rules=[{"name": "bad", "sql": "nr > 1"}]), {}, scratch)


@pytest.mark.parametrize("function", ["read_text('/etc/passwd')", "read_csv('/etc/passwd')"])
def test_row_rule_cannot_open_files(lake: Lake, scratch: Path, function: str) -> None:
    spec = make_spec(rules=[{"name": "nosy", "sql": f"(SELECT count(*) FROM {function}) > 0"}])
    with pytest.raises(ConfigError, match="a query inside an expression has no place in it"):
        transform(lake, scratch, spec, [{"id": "1", "text": "a"}])


@pytest.mark.parametrize("contract", ["evolve", "freeze", "quarantine", "ignore"])
def test_column_that_is_not_declared_follows_the_contract(
    lake: Lake, scratch: Path, contract: str
) -> None:
    spec = make_spec(contract=contract)
    rows = [{"id": "1", "text": "a", "New Col": "x"}, {"id": "2", "text": "b", "New Col": None}]
    if contract == "freeze":
        with pytest.raises(ContractBroken, match="not declared: New Col"):
            transform(lake, scratch, spec, rows)
        return
    manifest, clean = transform(lake, scratch, spec, rows)
    if contract == "evolve":
        assert manifest.columns_added == ("new_col",)
        assert [row["new_col"] for row in clean] == ["x", None]
    elif contract == "quarantine":
        assert reasons(manifest) == {("unknown_column", "New Col"): 1}
        assert [row["id"] for row in clean] == [2]
    else:
        assert [sorted(row) for row in clean] == [["_source_row", "_source_uri", "id", "text"]] * 2


def test_added_columns_that_collide_are_refused(lake: Lake, scratch: Path) -> None:
    row = {"id": "1", "a_b": "a", "A b": "b", "a-b": "c"}
    spec = make_spec(
        contract="evolve", columns={"id": {"type": "int64"}, "a_b": {"type": "string"}}
    )
    with pytest.raises(ContractBroken, match="would become 'a_b'"):
        transform(lake, scratch, spec, [row])
    with pytest.raises(ContractBroken, match="differ only by case: text, TEXT"):
        transform(lake, scratch, make_spec(), [{"id": "1", "text": "a", "TEXT": "b"}])


def test_missing_column_is_refused_unless_it_may_be_null(lake: Lake, scratch: Path) -> None:
    manifest, clean = transform(lake, scratch, make_spec(), [{"id": "1"}])
    assert (manifest.rows, clean[0]["text"]) == (1, None)
    spec = make_spec(
        columns={"id": {"type": "int64"}, "text": {"type": "string", "nullable": False}}
    )
    with pytest.raises(ContractBroken, match="no column text; it has id"):
        transform(lake, scratch, spec, [{"id": "1"}])


@pytest.mark.parametrize("missing", ["null", "quarantine"])
def test_lookup_takes_columns_and_says_what_happens_without_a_match(
    lake: Lake, scratch: Path, missing: str
) -> None:
    path = scratch / "lookup.parquet"
    pq.write_table(pa.table({"code": pa.array([1, 2], pa.int64()), "label": ["one", None]}), path)
    snapshot = store_file(lake, "lookups", "labels", path, 2)
    spec = make_spec(
        enrich=[
            {
                "lookup": "labels",
                "by": {"id": "code"},
                "take": {"name": "label"},
                "missing": missing,
            }
        ]
    )
    rows = [{"id": str(number), "text": "a"} for number in (1, 2, 3)]
    manifest, clean = transform(lake, scratch, spec, rows, snapshots={"labels": snapshot})
    named = {row["id"]: row["name"] for row in clean}
    if missing == "null":
        assert named == {1: "one", 2: None, 3: None}
    else:
        assert named == {1: "one", 2: None}
        assert reasons(manifest) == {("lookup", "id"): 1}


def test_pandera_stops_what_the_query_lets_through(
    lake: Lake, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The two ways of checking are independent: without the rules of the query, pandera refuses."""
    columns = {
        "id": {"type": "int64", "checks": {"between": [1, 5]}},
        "text": {"type": "string", "nullable": False, "checks": {"pattern": "[a-z]+"}},
        "price": {"type": "decimal(6,2)", "checks": {"between": [0, 9.5]}},
        "kind": {"type": "string", "checks": {"one_of": ["a", "b"], "max_length": 3}},
    }
    good = {"id": "1", "text": "x", "price": "9.50", "kind": "a"}
    bad = [{"id": "6"}, {"text": "X"}, {"text": None}, {"price": "9.51"}, {"kind": "c"}]
    rows = [good | {"id": str(n % 5 + 1)} | change for n, change in enumerate([{}, *bad])]
    spec = make_spec(columns=columns, key=[], load={"table": "a.b", "mode": "append"})
    manifest, clean = transform(lake, scratch, spec, rows)
    assert (len(clean), manifest.rows_quarantined) == (1, 5)
    assert not any(rule.startswith("pandera") for rule, _ in reasons(manifest))
    monkeypatch.setattr(
        "tasks.transformation.judge.column_rules", lambda *_args, **_kwargs: iter(())
    )
    monkeypatch.setattr(execute, "STAGE_VERSION", "without rules")
    manifest, clean = transform(lake, scratch, spec, rows)
    assert (len(clean), manifest.rows_quarantined) == (1, 5)
    assert all(rule.startswith("pandera") for rule, _ in reasons(manifest))


def test_work_larger_than_memory_is_spilled(lake: Lake, scratch: Path) -> None:
    """300,000 rows with long texts, deduplicated by key, do not fit into 48 MB."""
    rows = [{"id": str(number % 290_000), "text": f"{number:0>120}"} for number in range(300_000)]
    manifest, _ = transform(lake, scratch, make_spec(), rows, memory=48 << 20)
    assert (manifest.rows, manifest.rows_deduplicated) == (290_000, 10_000)


def test_work_that_takes_too_long_is_interrupted(lake: Lake, scratch: Path) -> None:
    spec = make_spec(
        rules=[
            {
                "name": "slow",
                "sql": "list_sum(list_transform(range(3000), lambda x: sin(x + id))) > id",
            }
        ]
    )
    # Many rows: DuckDB looks for an interrupt between two pieces of them, never within one.
    rows = [{"id": str(number), "text": "a"} for number in range(20_000)]
    with pytest.raises(StageTimeout, match="did not end within"):
        transform(lake, scratch, spec, rows, deadline_seconds=0.3)


def test_time_that_is_up_between_two_queries_is_not_forgotten(scratch: Path) -> None:
    slow = "SELECT sum(sin(i)) FROM range(30000000) AS t (i)"
    with (
        pytest.raises(StageTimeout),
        duckdb_session([], scratch, MEMORY, deadline_seconds=0.05) as connection,
    ):
        time.sleep(0.1)
        connection.execute(slow).fetchall()


def test_finished_work_is_reused_and_broken_work_is_done_again(lake: Lake, scratch: Path) -> None:
    first, _ = transform(lake, scratch, make_spec(), [{"id": "1", "text": "a"}])
    again, _ = transform(lake, scratch, make_spec(), [{"id": "1", "text": "a"}])
    assert again == first  # created_at too: nothing was done
    lake.delete(first.files[0].key)
    _, clean = transform(lake, scratch, make_spec(), [{"id": "1", "text": "a"}])
    assert [row["id"] for row in clean] == [1]


def test_other_configuration_is_other_work(lake: Lake, scratch: Path) -> None:
    rows = [{"id": "1", "text": "abcdef"}]
    _, clean = transform(lake, scratch, make_spec(), rows)
    strict = make_spec(
        columns={"id": {"type": "int64"}, "text": {"type": "string", "checks": {"max_length": 3}}}
    )
    manifest, none = transform(lake, scratch, strict, rows)
    assert (len(clean), len(none), manifest.rows_quarantined) == (1, 0, 1)


def test_partition_without_rows_has_an_empty_manifest(lake: Lake, scratch: Path) -> None:
    manifest, clean = transform(lake, scratch, make_spec(), [])
    assert (manifest.rows_read, manifest.files, clean) == (0, (), [])


def test_typed_sources_keep_their_types(lake: Lake, scratch: Path) -> None:
    spec = make_spec(
        columns={
            "id": {"type": "int64"},
            "at": {"type": "timestamp", "timezone": "UTC"},
            "amount": {"type": "decimal(20,4)"},
        }
    )
    moment = datetime(2013, 1, 1, 12, tzinfo=UTC)
    rows = [{"id": 2**53 + 1, "at": moment, "amount": 1}]
    types = {"id": pa.int64(), "at": pa.timestamp("us", tz="UTC"), "amount": pa.decimal128(10, 2)}
    _, clean = transform(lake, scratch, spec, rows, types=types)
    assert (clean[0]["id"], clean[0]["at"], clean[0]["amount"]) == (2**53 + 1, moment, 1)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (r'{"a": "\u0000"}', "nul_character"),
        (r'{"a": "\ud800"}', "type"),
        (r'{"a": "\udc00\ud800"}', "type"),
        (r'{"a": "\ud83d\ude00"}', None),
        (r'{"a": "\\u0000 \\ud800"}', None),  # escaped backslashes, no escapes of characters
        (r'{"a": "\\\ud800"}', "type"),
        ('{"a": "😀"}', None),
    ],
)
def test_json_that_postgresql_refuses_is_refused_before(
    lake: Lake, scratch: Path, text: str, rule: str | None
) -> None:
    spec = make_spec(columns={"id": {"type": "int64"}, "text": {"type": "json"}})
    manifest, _ = transform(lake, scratch, spec, [{"id": "1", "text": text}])
    assert reasons(manifest) == ({} if rule is None else {(rule, "text"): 1})
