"""Lookups in an API: many keys at once, each asked for once, and believed only when it fits."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from sqlalchemy import Engine, text

from blocks.lake import Lake
from tasks.ingestion.connector import PlanLimits
from tasks.ingestion.http.guard import HostGuard
from tasks.ingestion.http.reader import ApiReader
from tasks.ingestion.read import ingest_partition
from tasks.lookups.answers import Answers
from tasks.lookups.api import LookupApiConnector, request_of
from tasks.lookups.keys import different_values
from tasks.lookups.rows import rows_of, take_rows
from tasks.model.dataset import DatasetSpec
from tasks.model.errors import ContractBroken, SourceUnavailable
from tasks.model.lookup import Lookup, span
from tasks.model.manifest import LakeFile
from tasks.model.partition import Partition
from tests.integration.ingestion.rest.support import Api
from tests.misbehaving_http import Asked, Reply
from tests.pipeline import Pipeline

COLUMNS = {
    "tail": {"type": "string", "source": "id"},
    "seats": {"type": "int64"},
    "maker": {"type": "string", "source": "made.by"},
}
PLANES: dict[str, dict[str, Any]] = {
    "N1": {"id": "N1", "seats": 9007199254740993, "made": {"by": "Boeing"}},
    "N2": {"id": "N2", "seats": None, "made": {"by": "Airbus"}, "more": 1},
    "N/ 3": {"id": "N/ 3", "seats": 3, "made": {}},
}


class Lookups:
    """Looks keys up in the API, as one partition after the other does."""

    def __init__(self, api: Api, engine: Engine, lake: Lake, scratch: Path) -> None:
        self.api, self.engine, self.lake, self.scratch = api, engine, lake, scratch
        self.number = 0

    def take(self, keys: Iterable[str], **declared: Any) -> list[dict[str, Any]]:
        self.number += 1
        lookup = Lookup.model_validate(
            {
                "lookup": "planes", "columns": COLUMNS, "by": {"tailnum": "tail"},
                "take": ["seats", "maker"],
                "api": {
                    "block": "b", "path": "/planes", "param": "ids", "batch": 2, "records": "data",
                    "flatten": {"separator": "."}, **declared,
                },
            }
        )  # fmt: skip
        assert lookup.api
        guard = HostGuard(self.api.store, self.api.events.append, sleep=self.api.sleep)
        reader = ApiReader(
            self.api.client(retry_seconds=30), guard, sleep=self.api.sleep, now=self.api.now
        )
        answers = Answers(self.engine, request_of(lookup.api), span(lookup.api.expires))
        connector = LookupApiConnector(
            "planes", lookup.api, "id", keys, reader, answers, PlanLimits()
        )
        folder = self.scratch / f"lookup-{self.number}"
        folder.mkdir()
        self.file: LakeFile = take_rows(
            rows_of("flights", lookup),
            ["tail", "seats", "maker"],
            connector,
            [Partition(dataset="planes", label="planes", slice={"n": self.number})],
            self.lake,
            folder,
            memory_bytes=64 << 20,
        )
        return pq.read_table(self.lake.local_path(self.file.key, folder)).to_pylist()


@pytest.fixture
def lookups(api: Api, engine: Engine, lake: Lake, scratch: Path) -> Lookups:
    def answer(asked: Asked, _number: int) -> Reply:
        found = [PLANES[key] for key in asked.query["ids"].split(",") if key in PLANES]
        return Reply(body=json.dumps({"data": found}).encode())

    api.answer = answer
    return Lookups(api, engine, lake, scratch)


def asked_keys(lookups: Lookups) -> list[str]:
    return [asked.query["ids"] for asked in lookups.api.asked]


def test_keys_are_asked_for_together_and_only_once(lookups: Lookups) -> None:
    rows = [
        {"tail": "N/ 3", "seats": 3, "maker": None},
        {"tail": "N1", "seats": 9007199254740993, "maker": "Boeing"},
        {"tail": "N2", "seats": None, "maker": "Airbus"},
    ]
    assert lookups.take(["N/ 3", "N0", "N1", "N2", "N4"]) == rows
    assert asked_keys(lookups) == ["N/ 3,N0", "N1,N2", "N4"]
    first = lookups.file
    assert lookups.take(["N/ 3", "N0", "N1", "N2"]) == rows
    assert len(lookups.api.asked) == 3  # also that there is no N0 is known
    assert lookups.file.sha256 == first.sha256  # the same answers are the same work
    lookups.take(["N1"], params={"lang": "en"})
    assert len(lookups.api.asked) == 4  # another request
    assert lookups.take([]) == []


def test_answers_expire(lookups: Lookups) -> None:
    lookups.take(["N1", "N2"])
    with lookups.engine.begin() as connection:
        connection.execute(
            text(
                "UPDATE etl.lookup_answers SET asked_at = now() - INTERVAL '61 min' WHERE key = 'N1'"
            )
        )
    lookups.take(["N1", "N2"], expires="1h")
    assert asked_keys(lookups) == ["N1,N2", "N1"]
    with lookups.engine.begin() as connection:
        kept = connection.execute(text("SELECT key FROM etl.lookup_answers ORDER BY key")).all()
    assert [row.key for row in kept] == ["N1", "N2"]


def test_one_key_at_a_time_in_the_path(lookups: Lookups) -> None:
    def answer(asked: Asked, _number: int) -> Reply:
        if asked.target.endswith("/N9"):
            return Reply(404, b'{"error": "no such plane"}')
        return Reply(body=b'{"seats": 7}')

    lookups.api.answer = answer
    rows = lookups.take(["N/ 3", "N9"], param=None, path="/planes/{key}", records=None)
    assert rows == [{"tail": "N/ 3", "seats": 7, "maker": None}]
    assert [asked.target for asked in lookups.api.asked] == ["/planes/N%2F%203", "/planes/N9"]


def test_api_that_fails_for_a_while_is_asked_again_and_keeps_what_it_said(lookups: Lookups) -> None:
    right = lookups.api.answer

    def answer(asked: Asked, number: int) -> Reply:
        return Reply(503) if asked.query["ids"] == "N2" else right(asked, number)

    lookups.api.answer = answer
    with pytest.raises(SourceUnavailable):
        lookups.take(["N/ 3", "N1", "N2"])
    lookups.api.answer = right
    lookups.api.passed += 3600  # the breaker has closed again
    before = len(lookups.api.asked)
    assert len(lookups.take(["N/ 3", "N1", "N2"])) == 3
    assert asked_keys(lookups)[before:] == ["N2"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"data": [PLANES["N2"]]}, "answers a record with one that was not asked for"),
        ({"data": [{"seats": 1}]}, "answers a record with no id"),
        ({"data": [PLANES["N1"], PLANES["N1"]]}, "answers several records with one id"),
        (
            {"data": [{"id": "N1", "seats": "many"}]},
            "1 of 1 rows are refused, the most by rule type",
        ),
        ({"data": [7]}, "a record must be a JSON object"),
    ],
)
def test_answer_that_does_not_fit_is_not_believed(
    lookups: Lookups, body: dict[str, Any], message: str
) -> None:
    lookups.api.answer = lambda _asked, _number: Reply(body=json.dumps(body).encode())
    with pytest.raises(ContractBroken, match=message):
        lookups.take(["N1"])


def test_answer_without_a_list_says_where_it_should_be(lookups: Lookups) -> None:
    lookups.api.answer = lambda _asked, _number: Reply(body=b'{"things": []}')
    with pytest.raises(SourceUnavailable, match="no list of records at data; its keys are things"):
        lookups.take(["N1"])


def test_keys_are_those_of_the_cleaned_rows(
    engine: Engine, lake: Lake, scratch: Path, tmp_path: Path
) -> None:
    spec = DatasetSpec.model_validate(
        {
            "name": "flights", "description": "Flights",
            "source": {"kind": "files", "path": "*.csv", "format": {"kind": "csv"}},
            "columns": {
                "n": {"type": "int32"}, "tailnum": {"type": "string", "clean": ["strip", "upper"]},
            },
            "derive": {"both": {"sql": "tailnum || n", "type": "string"}},
            "load": {"table": "analytics.flights", "mode": "append"},
        }
    )  # fmt: skip
    (tmp_path / "a.csv").write_text("n,tailnum\n1, n2\n1,N2\n2,N1\nx,\n")
    pipeline = Pipeline(engine, lake, scratch, tmp_path)
    (partition,) = pipeline.plan(spec)
    raw = ingest_partition(pipeline.connector(spec), partition, spec, lake, scratch)

    def values(column: str) -> list[str]:
        return list(different_values(spec, raw, column, lake, scratch, memory_bytes=64 << 20))

    assert values("tailnum") == ["", "N1", "N2"]
    assert values("n") == ["1", "2"]
    assert values("both") == ["N12", "N21"]
