"""A wrong dataset file is refused with file, line, key, what was found and what is allowed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.catalog import load_catalog, load_dataset
from tasks.model.dataset import DatasetSpec
from tasks.model.errors import ConfigError, ExitCode
from tasks.model.json_schema import dataset_schema

ROOT = Path(__file__).parents[3]
GOOD = """\
name: things
description: Things
schedule: daily
source:
  kind: files
  path: "*.csv"
  format: {kind: csv}
key: [id]
columns:
  id: {type: int64}
  text: {type: string, checks: {max_length: 10}}
load: {table: analytics.things, mode: merge}
"""


def _write(folder: Path, text: str, name: str = "things") -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(text)
    return path


def _mistake(folder: Path, text: str) -> str:
    with pytest.raises(ConfigError) as refusal:
        load_dataset(_write(folder, text))
    assert refusal.value.exit_code == ExitCode.USER_MISTAKE
    return str(refusal.value)


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("schedule: daily", "schedul: daily", 3, "did you mean 'schedule'?"),
        ("schedule: daily", "schedule: weekly", 3, "found 'weekly'"),
        ("kind: files", "kind: ftp", 5, "'files', 's3', 'rest', 'database'"),
        ("format: {kind: csv}", "format: {kind: csv, nul_values: []}", 7, "'null_values'"),
        ("type: int64", "type: integer", 10, "allowed: boolean, int8"),
        ("type: int64", "type: decimal(40,2)", 10, "decimal(p,s)"),
        ("max_length: 10", "maxlength: 10", 11, "did you mean 'max_length'?"),
        ("max_length: 10", "max_length: ten", 11, "found 'ten'"),
        ("max_length: 10", "between: [1, 2]", 11, "check 'between' is for numbers"),
        ("max_length: 10", 'pattern: "("', 11, "is not a regular expression"),
        ("mode: merge", "mode: upsert", 12, "'append', 'insert_only', 'merge'"),
        ("analytics.things", "things", 12, "write schema.table"),
        ("analytics.things", "etl.things", 12, "belongs to the ledger"),
        ("key: [id]", "key: [nr]", 8, "key: no column 'nr'; declared are id, text"),
        ("key: [id]\n", "", 1, "'merge' needs a 'key'"),
        ("  text: {", "  Text: {", 11, "is no name for a column"),
        ("name: things", "name: ../things", 1, "is no name for a column or dataset"),
        ("description: Things\n", "", 1, "description: missing"),
        ("id: {type: int64}", "id: {type: int64}\n  id: {type: string}", 11, "duplicate key"),
        ("key: [id]", "\tkey: [id]", 8, "not valid YAML"),
        ("description: Things", "description: !!python/object:os.system x", 2, ""),
    ],
)
def test_mistake_is_named_with_its_line(
    tmp_path: Path, old: str, new: str, line: int, words: str
) -> None:
    message = _mistake(tmp_path, GOOD.replace(old, new, 1))
    assert f"things.yaml:{line}" in message, message
    assert words in message, message


def test_every_mistake_of_a_file_is_reported_at_once(tmp_path: Path) -> None:
    broken = GOOD.replace("daily", "weekly").replace("int64", "number").replace("merge", "upsert")
    assert len(_mistake(tmp_path, broken).splitlines()) == 3


def test_words_that_yaml_1_1_turns_into_booleans_stay_words(tmp_path: Path) -> None:
    text = GOOD.replace("{kind: csv}", "{kind: csv, null_values: [NO, off, 012]}")
    spec = load_dataset(_write(tmp_path, text.replace("012", '"012"')))
    assert spec.source.format.null_values == ("NO", "off", "012")  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "found nothing"),
        ("- a\n- b\n", "found a CommentedSeq"),
        ("a: &a [x]\nb: [*b]\n", "not valid YAML"),
    ],
)
def test_file_that_is_no_dataset_is_refused(tmp_path: Path, content: str, words: str) -> None:
    assert words in _mistake(tmp_path, content)


def test_file_of_another_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"found 'things' in a file named other.yaml"):
        load_dataset(_write(tmp_path, GOOD, "other"))


def test_two_datasets_cannot_fill_one_table(tmp_path: Path) -> None:
    _write(tmp_path, GOOD)
    _write(tmp_path, GOOD.replace("name: things", "name: more", 1), "more")
    with pytest.raises(
        ConfigError, match=r"things.yaml:12: load.table: .* is filled by 'more' too"
    ):
        load_catalog(tmp_path)


LOOKUP = "enrich:\n  - {lookup: other, by: {text: code}, take: [label]}\nload:"
OTHER = GOOD.replace("name: things", "name: other", 1).replace(
    "analytics.things", "analytics.other"
)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (None, "no dataset 'other'; declared are: things"),
        (OTHER, "only told apart by its whole key"),
        (
            OTHER.replace("key: [id]", "key: [code]").replace("  id:", "  code:"),
            "has no column 'label'",
        ),
        (
            OTHER.replace("key: [id]", "key: [code]")
            .replace("  id:", "  code:")
            .replace("  text:", "  label:"),
            "text is string, other.code is number",
        ),
    ],
)
def test_lookup_that_cannot_work_is_refused(tmp_path: Path, other: str | None, words: str) -> None:
    _write(tmp_path, GOOD.replace("load:", LOOKUP))
    if other:
        _write(tmp_path, other, "other")
    with pytest.raises(ConfigError) as refusal:
        load_catalog(tmp_path)
    assert "things.yaml:13: enrich" in str(refusal.value)
    assert words in str(refusal.value)


def test_datasets_that_look_each_other_up_are_refused(tmp_path: Path) -> None:
    for name, other in (("things", "more"), ("more", "things")):
        lookup = f"enrich:\n  - {{lookup: {other}, by: {{id: id}}, take: {{t: text}}}}\nload:"
        text = GOOD.replace("name: things", f"name: {name}", 1).replace("load:", lookup)
        _write(tmp_path, text.replace("analytics.things", f"analytics.{name}"), name)
    with pytest.raises(ConfigError, match=r"in a circle"):
        load_catalog(tmp_path)


def test_datasets_come_after_those_they_look_up() -> None:
    catalog = load_catalog(ROOT / "datasets")
    order = [spec.name for spec in catalog.in_order(catalog.datasets)]
    assert order.index("flights") > max(order.index("weather"), order.index("planes"))


def test_unknown_dataset_is_refused_with_a_hint() -> None:
    with pytest.raises(ConfigError, match="did you mean 'flights'"):
        load_catalog(ROOT / "datasets")["flihgts"]


def test_config_hash_changes_with_what_decides_rows_only(tmp_path: Path) -> None:
    first = load_dataset(_write(tmp_path, GOOD)).config_hash
    words = GOOD.replace("description: Things", "description: Other words")
    assert load_dataset(_write(tmp_path, words)).config_hash == first
    rule = GOOD.replace("max_length: 10", "max_length: 11")
    assert load_dataset(_write(tmp_path, rule)).config_hash != first


def test_schema_for_editors_is_current() -> None:
    """``make schema`` writes it."""
    assert (ROOT / "docs" / "dataset.schema.json").read_text() == dataset_schema()


def test_spec_is_strict_about_everything_below_it() -> None:
    for model in DatasetSpec.model_json_schema()["$defs"].values():
        if "properties" in model and model["title"] != "PluginSource":  # its package is strict
            assert model["additionalProperties"] is False, model["title"]


def test_dataset_survives_being_written_and_read() -> None:
    spec = DatasetSpec.model_validate(
        {
            "name": "things", "description": "Things",
            "source": {"kind": "files", "path": "*", "format": {"kind": "csv"}},
            "columns": {"id": {"type": "float", "unit": {"from": "mi", "to": "km"}}},
            "custom": "a.b:c", "validate": "a.b:D", "load": {"table": "a.b", "mode": "append"},
        }
    )  # fmt: skip
    assert DatasetSpec.model_validate_json(spec.model_dump_json()) == spec
