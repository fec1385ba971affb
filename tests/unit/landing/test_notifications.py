"""Messages of the landing queue, and the datasets that their objects belong to."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tasks.landing.notifications import Landed, NotUnderstoodError, landed_objects
from tasks.landing.routes import Place, Routes
from tasks.reporting.events import MOST_OBJECTS
from tests.integration.loading.support import make_spec

BUCKET = "landing"


def record(key: str, name: str = "ObjectCreated:Put", **told: Any) -> dict[str, Any]:
    described = {"key": key, "size": 3, "eTag": "e1", "sequencer": "01", **told}
    return {"eventName": name, "s3": {"bucket": {"name": BUCKET}, "object": described}}


def s3(*records: dict[str, Any]) -> str:
    return json.dumps({"Records": records})


def sns(body: str) -> str:
    return json.dumps({"Type": "Notification", "MessageId": "1", "Message": body})


def event_bridge(kind: str, key: str) -> str:
    told = {"bucket": {"name": BUCKET}, "object": {"key": key, "etag": "e1", "sequencer": "01"}}
    return json.dumps({"source": "aws.s3", "detail-type": kind, "detail": told})


@pytest.mark.parametrize(
    ("body", "keys"),
    [
        (s3(record("in/a.csv")), ["in/a.csv"]),
        (s3(record("in/a+b%2B%C3%A4%20c.csv")), ["in/a b+ä c.csv"]),  # URL-encoded
        (s3(record("a", "s3:ObjectCreated:CompleteMultipartUpload")), ["a"]),  # as MinIO says it
        (s3(record("a"), record("b", "ObjectRemoved:Delete"), record("c")), ["a", "c"]),
        (s3(record("a", "ObjectRemoved:DeleteMarkerCreated")), []),
        (s3(record("a", "ObjectTagging:Put")), []),
        (json.dumps({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": BUCKET}), []),
        (sns(s3(record("a%20b"))), ["a b"]),
        (event_bridge("Object Created", "a%20b+c"), ["a%20b+c"]),  # not encoded there
        (event_bridge("Object Deleted", "a"), []),
    ],
)
def test_message_names_the_objects_that_were_written(body: str, keys: list[str]) -> None:
    assert landed_objects(body) == [Landed(BUCKET, key, "e1/01") for key in keys]


@pytest.mark.parametrize(
    "body",
    [
        "",
        "hello",
        "[1]",
        "{}",
        "[" * 100_000,
        '{"Records": "none"}',
        '{"Records": [{}]}',
        '{"Records": [{"eventName": "ObjectCreated:Put", "s3": {"bucket": {}, "object": {"key": "a"}}}]}',
        s3(record("%FF.csv")),  # no UTF-8
        '{"Records": [{"eventName": "ObjectCreated:Put", "s3": null}]}',
        json.dumps({"source": "aws.ec2", "detail-type": "x", "detail": {}}),
        sns("hello"),
        sns(sns(s3(record("a")))),
    ],
)
def test_message_of_another_form_is_not_understood(body: str) -> None:
    with pytest.raises(NotUnderstoodError) as error:
        landed_objects(body)
    assert "Records" not in str(error.value)  # nothing of the message is logged


def source(path: str, block: str = "landing", **more: Any) -> dict[str, Any]:
    return {"kind": "s3", "block": block, "path": path, "format": {"kind": "csv"}, **more}


def routes() -> Routes:
    specs = [
        make_spec(name="orders", source=source("orders/*.csv")),
        make_spec(name="all_csv", source=source("**/*.csv")),
        make_spec(name="whole", source=source("whole/*.csv"), mode="replace", key=(), cursor=None),
        make_spec(name="since", source=source("since/{date:%Y-%m-%d}.csv", start="2026-01-01")),
        make_spec(name="below", source=source("*.csv", "folder")),
        make_spec(name="elsewhere", source=source("**", "missing")),
        make_spec(name="local"),
    ]
    return Routes(specs, {"landing": Place(BUCKET), "folder": Place(BUCKET, "team/x")})


def told(*keys: str, bucket: str = BUCKET) -> dict[str, tuple[str, ...]]:
    landed = [Landed(bucket, key, "e1/01") for key in keys]
    return {one.event.dataset: one.event.objects for one in routes().events("prod", landed)}


def test_sources_decide_which_dataset_takes_an_object() -> None:
    assert told("orders/a.csv") == {"orders": ("orders/a.csv",), "all_csv": ("orders/a.csv",)}
    assert told("orders/deep/a.csv") == {"all_csv": ("orders/deep/a.csv",)}
    assert told("orders/", "other.txt") == {}
    assert told("orders/a.csv", bucket="other") == {}
    assert told("team/x/a.csv")["below"] == ("a.csv",)  # as the source calls it
    assert "below" not in told("a.csv")
    assert told("since/2025-12-31.csv").keys() == {"all_csv"}
    assert told("since/2026-01-01.csv").keys() == {"all_csv", "since"}
    assert told("whole/a.csv", "whole/b.csv")["whole"] == ()  # all of it is loaded


def test_writings_of_one_object_are_told_of_once_and_many_objects_in_few_events() -> None:
    assert told("orders/b.csv", "orders/a.csv", "orders/b.csv")["orders"] == (
        "orders/a.csv",
        "orders/b.csv",
    )
    many = [Landed(BUCKET, f"orders/{number:05}.csv", "e/1") for number in range(MOST_OBJECTS + 1)]
    events = [one.event for one in routes().events("prod", many) if one.event.dataset == "orders"]
    assert [len(event.objects) for event in events] == [MOST_OBJECTS, 1]


def test_id_of_an_event_is_that_of_the_writings() -> None:
    """Delivered again, in whichever order, it is the same event; written again, it is another."""

    def ids(*versions: tuple[str, str]) -> set[object]:
        landed = [Landed(BUCKET, f"orders/{key}.csv", version) for key, version in versions]
        return {one.id for one in routes().events("prod", landed)}

    first = ids(("a", "e1/01"), ("b", "e1/01"))
    assert first == ids(("b", "e1/01"), ("a", "e1/01"), ("b", "e1/01"))
    assert not first & ids(("a", "e1/02"), ("b", "e1/01"))
    assert not first & ids(("a", "e1/01"))
