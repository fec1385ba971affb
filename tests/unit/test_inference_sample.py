"""A draft is proven on its own sample, reads a bounded part of its source, and shows no value of a row."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any, cast

import obstore
import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from obstore.store import MemoryStore

from blocks.rest_api import RestApiCredentials
from tasks.catalog import load_dataset
from tasks.connections import Connections
from tasks.inference import sample
from tasks.inference.content import guess_text_format
from tasks.inference.proof import proven
from tasks.inference.sample import draft_of
from tasks.inference.tables import TableFacts
from tasks.model.dataset import DatasetSpec
from tasks.model.errors import ConfigError

NOBODY = cast(Connections, None)
"""Files need no connection."""


def inferred(
    folder: Path, content: bytes | str, file: str = "things.csv", facts: TableFacts | None = None
) -> tuple[str, DatasetSpec]:
    (folder / file).write_bytes(content.encode() if isinstance(content, str) else content)
    scratch = folder / "scratch"
    scratch.mkdir(exist_ok=True)
    draft = draft_of("things", file, None, 1000, NOBODY, scratch, folder)
    draft.facts = facts or draft.facts
    text = proven(draft, scratch)
    path = scratch / "things.yaml"
    return text, load_dataset(path)


@pytest.mark.parametrize(
    ("values", "doubt"),
    [
        # the fraction is shorter than a second, and still too long for a timestamp
        (["2024-01-01 00:00:00.1234567", "2024-01-01 00:00:01.1234567"], ""),
        # no such moment
        (["2024-13-41T10:00:00", "2024-01-01T10:00:00"], "timestamp would refuse 1 rows"),
        (["29:59", "10:00"], ""),
        # JSON for Python, and for nobody else
        (['"{""a"": NaN}"', '"{""a"": 1}"'], ""),
    ],
)
def test_column_that_would_refuse_its_own_sample_stays_text(
    tmp_path: Path, values: list[str], doubt: str
) -> None:
    text, spec = inferred(tmp_path, "id,v\n" + "".join(f"{n},{v}\n" for n, v in enumerate(values)))
    assert spec.columns["v"].type == "string"
    assert doubt in text


@pytest.mark.parametrize(
    ("values", "type_name", "text_format"),
    [
        (["1.2.2024", "31.12.2024"], "date", "%-d.%-m.%Y"),
        (["31/1/2024", "1/2/2024"], "date", "%-d/%-m/%Y"),
        (["01.02.2024", "1.2.2024"], "string", None),  # no form has both
    ],
)
def test_day_without_a_zero_has_a_form_of_its_own(
    tmp_path: Path, values: list[str], type_name: str, text_format: str | None
) -> None:
    _, spec = inferred(tmp_path, "id,v\n" + "".join(f"{n},{v}\n" for n, v in enumerate(values)))
    assert (spec.columns["v"].type, spec.columns["v"].format) == (type_name, text_format)


@pytest.mark.parametrize(
    ("name", "values", "type_name", "doubt"),
    [
        ("plz", ["80331", "10115"], "string", "by its name no number"),
        ("customer_id", ["17", "17"], "int64", "perhaps an id"),
        ("createdAt", ["1700000000", "1700000001"], "int64", "perhaps seconds since 1970"),
        ("created_at", ["1700000000000"], "int64", "perhaps milliseconds since 1970"),
        ("paid", ["0", "1"], "int64", "perhaps yes and no"),
        ("amount", ["12", "13"], "int64", None),
    ],
)
def test_digits_that_may_be_no_number(
    tmp_path: Path, name: str, values: list[str], type_name: str, doubt: str | None
) -> None:
    text, spec = inferred(tmp_path, f"x,{name}\n" + "".join(f"a,{value}\n" for value in values))
    (column,) = [c for n, c in spec.columns.items() if n != "x"]
    assert column.type == type_name
    line = next(
        line
        for line in text.splitlines()
        if "type: " + type_name in line and name[:4] in line.lower()
    )
    assert (doubt in line) if doubt else ("#" not in line)


def test_values_of_rows_are_not_in_the_file(tmp_path: Path) -> None:
    rows = "".join(f"{n},{n}\n" for n in range(9))
    text, _ = inferred(tmp_path, f"id,v\n{rows}10,CANARY-4711\n")
    assert "CANARY" not in text
    assert "mixed: 9 of 10 values are numbers" in text


def test_columns_that_are_never_null_are_named_and_stay_nullable(tmp_path: Path) -> None:
    text, spec = inferred(tmp_path, "id,a,b\n1,2,\n2,3,4\n")
    assert "# Never NULL in the sample; nullable: false would refuse it: a\n" in text
    assert spec.columns["a"].nullable


@pytest.mark.parametrize(
    ("rows", "key"),
    [
        ("price,order_id\n5,1\n6,2\n", ("order_id",)),
        ("no,price\n1,5\n2,6\n", ("no",)),
        ("price,day\n5.5,2024-01-01\n6.5,2024-01-02\n", ()),  # different by chance
        ("shop_id,day,v\n1,2024-01-01,5\n1,2024-01-02,5\n2,2024-01-01,5\n", ("shop_id", "day")),
        ("id,v\n1,5\n1,6\n", ()),
        ("id,v\n,5\n2,6\n", ()),
    ],
)
def test_key_is_called_like_one_and_tells_the_rows_apart(
    tmp_path: Path, rows: str, key: tuple[str, ...]
) -> None:
    text, spec = inferred(tmp_path, rows)
    assert spec.key == key
    assert ("is it always?" in text) == bool(key)
    assert spec.load.mode == ("merge" if key else "append")


@pytest.mark.parametrize(
    ("content", "declared", "doubt"),
    [
        ("id;id;\n1;2;3\n", {"skip_lines": 1, "header": ["id", "id_2", "column_3"]}, "named anew"),
        ("Export\nof May\nid;v\n1;2\n2;3\n3;4\n", {"skip_lines": 2}, "left out"),
        ("id;v\n1;'a;b'\n2;'c'\n", {"quote": "'"}, "the quote is a guess"),
        ('id;v\n1;5" pipe\n2;6" pipe\n', {"quote": None}, "enclose nothing"),
        ("id;v\n1;2\n3\n4;5\n", {}, "75% of the lines have 2 fields"),
    ],
)
def test_oddities_of_delimited_text(content: str, declared: dict[str, Any], doubt: str) -> None:
    guess = guess_text_format(content.encode(), "u")
    assert guess.declared == {"kind": "csv", "delimiter": ";", **declared}
    assert doubt in "; ".join(guess.doubts)


def test_lines_of_fixed_width_are_told_by_their_spaces(tmp_path: Path) -> None:
    lines = "".join(f"{n:06d}  {n * 1.5:6.2f}  Bob  \n" for n in range(5))
    text, spec = inferred(tmp_path, f"NUMBER  AMOUNT  NAME \n{lines}")
    assert [c.type for c in spec.columns.values()] == ["string", "decimal(7,2)", "string"]
    assert "the widths are a guess" in text


def test_title_of_a_sheet_is_skipped(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    book.create_sheet("Data")
    for row in (["Report"], [], ["Order No", "Total"], [1, 2.5], [2, 3]):
        book["Data"].append(row)
    content = io.BytesIO()
    book.save(content)
    _, spec = inferred(tmp_path, content.getvalue(), "book.xlsx")
    declared = cast(Any, spec.source).format
    assert (declared.sheet, declared.skip_rows) == ("Data", 2)
    assert list(spec.columns) == ["order_no", "total"]


def test_text_of_a_typed_source_stays_text(tmp_path: Path) -> None:
    content = io.BytesIO()
    pq.write_table(pa.table({"id": [1, 2], "day": ["2024-01-01", "2024-01-02"]}), content)
    text, spec = inferred(tmp_path, content.getvalue(), "typed.parquet")
    assert spec.columns["day"].type == "string"
    assert "text in the source, though all of the sample could be date" in text


def test_database_knows_its_key_and_what_is_required(tmp_path: Path) -> None:
    engine = sa.create_engine(f"sqlite:///{tmp_path}/shop.db")
    with engine.begin() as connection:
        connection.execute(
            sa.text(
                "CREATE TABLE things (price numeric, day date, shop integer, code varchar NOT NULL,"
                " PRIMARY KEY (shop, day))"
            )
        )
        connection.execute(sa.text("INSERT INTO things VALUES (1.5, '2024-01-01', 1, '17')"))

    class Opened:
        def load(self, _block: object, _name: str) -> Any: ...

        def database(self, _name: str) -> sa.Engine:
            return engine

    draft = draft_of(
        "things", "things", "shop", 100, cast(Connections, Opened()), tmp_path, tmp_path
    )
    text = proven(draft, tmp_path)
    spec = load_dataset(tmp_path / "things.yaml")
    engine.dispose()
    assert spec.key == ("shop", "day")
    assert "the primary key of the table" in text
    assert not spec.columns["code"].nullable
    assert {n: c.type for n, c in spec.columns.items()} == {
        "price": "decimal(6,1)", "day": "date", "shop": "int64", "code": "string",
    }  # fmt: skip


def test_table_without_a_key_says_that_runs_repeat(tmp_path: Path) -> None:
    table = pa.table({"v": [1.5, 1.5], "_source_uri": ["t", "t"], "_source_row": [1, 2]})
    draft = sample.Draft(
        "things", "things", {"kind": "database", "block": "b", "table": "t"}, table
    )
    assert "each run reads all rows again and appends them again" in proven(draft, tmp_path)


def test_beginning_of_an_object_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample, "BEGIN_BYTES", 100)
    store = MemoryStore()
    obstore.put(store, "a.csv", b"id;v\n" + b"1;2\n" * 10_000)
    with sample._opener(store, "a.csv")() as file:
        assert len(file.read()) == 100
    monkeypatch.setattr(sample, "MOST_ARCHIVE", 1000)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("a.csv", b"x" * 5000)
    obstore.put(store, "a.zip", packed.getvalue())
    with pytest.raises(ConfigError, match="is not fetched"):
        sample._opener(store, "a.zip")


def test_large_file_is_not_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "things.csv"
    with path.open("wb") as file:
        file.write(b"id,v\n" + b"1,2\n" * 4_000_000)
    read = 0
    opened = Path.open

    def counting(self: Path, *arguments: Any, **options: Any) -> Any:
        handle = opened(self, *arguments, **options)
        if self != path:
            return handle

        class Counted:
            def __enter__(self) -> Any:
                return self

            def __exit__(self, *_: object) -> None:
                handle.close()

            def read(self, size: int = -1) -> bytes:
                nonlocal read
                piece: bytes = handle.read(size)
                read += len(piece)
                return piece

        return Counted()

    monkeypatch.setattr(Path, "open", counting)
    draft = draft_of("things", "things.csv", None, 100, NOBODY, tmp_path, tmp_path)
    assert draft.sample.num_rows == 100
    assert read < path.stat().st_size


@pytest.mark.parametrize(
    "url", ["https://h.example/v1?api_key=CANARY", "https://CANARY:x@h.example/v1"]
)
def test_credential_in_a_url_is_refused_without_showing_it(tmp_path: Path, url: str) -> None:
    class Opened:
        def rest_client(self, _name: str) -> Any:
            return RestApiCredentials(base_url="https://h.example").get_client()

    with pytest.raises(ConfigError, match="looks like a credential") as refusal:
        draft_of("things", url, "b", 10, cast(Connections, Opened()), tmp_path, tmp_path)
    assert "CANARY" not in str(refusal.value)
