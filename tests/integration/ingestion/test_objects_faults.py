"""An S3 server that misbehaves: what is tried again, what is refused, and which rows come."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import obstore
import pytest
from obstore.store import ObjectStore
from prefect_aws import AwsCredentials, S3Bucket
from prefect_aws.client_parameters import AwsClientParameters
from pydantic import SecretStr
from sqlalchemy import Engine

from blocks.object_store import LakeStorage, s3_store
from embedded.stack import EmbeddedStack
from tasks.ingestion.connector import Connector, PlanLimits
from tasks.ingestion.connectors.s3 import S3Connector
from tasks.loading.ledger import ensure_ledger
from tasks.model.dataset import DatasetSpec
from tasks.model.errors import (
    ContractBroken,
    CredentialsRejected,
    SourceRejected,
    SourceUnavailable,
)
from tasks.model.load import MergeLoad
from tasks.model.request import RunRequest, SourceState, Window
from tasks.model.source import S3Source
from tests.pipeline import Pipeline
from tests.s3_proxy import Asked, Fault, MisbehavingS3, misbehaving_s3


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedStack]:
    with EmbeddedStack(tmp_path_factory.mktemp("s3")) as stack:
        stack.start("object_store")
        yield stack


@pytest.fixture
def proxy(server: EmbeddedStack) -> Iterator[MisbehavingS3]:
    with misbehaving_s3(server.object_store.endpoint_url) as made:
        yield made


def bucket(server: EmbeddedStack, url: str, name: str) -> S3Bucket:
    address = server.object_store
    return S3Bucket(
        bucket_name=name,
        credentials=AwsCredentials(
            aws_access_key_id=address.access_key,
            aws_secret_access_key=SecretStr(address.secret_key),
            aws_client_parameters=AwsClientParameters(endpoint_url=url),
        ),
    )


class Bucket:
    """A bucket that is filled directly, and read through the proxy."""

    def __init__(self, server: EmbeddedStack, proxy: MisbehavingS3, name: str) -> None:
        self.server, self.proxy, self.name = server, proxy, name
        direct = bucket(server, server.object_store.endpoint_url, name)
        direct.credentials.get_s3_client().create_bucket(Bucket=name)
        self.direct: ObjectStore = s3_store(direct)

    def put(self, key: str, content: bytes) -> None:
        obstore.put(self.direct, key, content)

    def through(self, **options: Any) -> ObjectStore:
        return s3_store(bucket(self.server, self.proxy.url, self.name), **options)

    def connector(self, scratch: Path, path: str = "in/*.csv", **keys: Any) -> S3Connector:
        limits = keys.pop("limits", PlanLimits())
        clock = keys.pop("clock", None)
        columns = keys.pop("columns", 1)
        declared = {"kind": "s3", "block": "b", "path": path, "format": {"kind": "csv"}, **keys}
        source = S3Source.model_validate(declared)
        more = {"clock": clock} if clock else {}
        return S3Connector("things", source, self.through(), scratch, limits, columns, **more)


@pytest.fixture
def store(server: EmbeddedStack, proxy: MisbehavingS3, request: pytest.FixtureRequest) -> Bucket:
    return Bucket(server, proxy, f"f{abs(hash(request.node.name)) % 10**9}")


def ids(connector: S3Connector, state: SourceState | None = None) -> list[str]:
    return [
        row["id"]
        for partition in connector.plan(state or SourceState())
        for raw in connector.read(partition)
        if raw.batch is not None
        for row in raw.batch.to_pylist()
    ]


def reading(asked: Asked) -> bool:
    return asked.method == "GET" and not asked.is_listing


def once(which: Callable[[Asked], bool], fault: Fault) -> Callable[[Asked, int], Fault | None]:
    """Misbehave the first time."""
    done: list[Asked] = []

    def decide(asked: Asked, _number: int) -> Fault | None:
        if not which(asked) or done:
            return None
        done.append(asked)
        return fault

    return decide


@pytest.mark.parametrize(
    "fault",
    [
        Fault(503, "SlowDown"),
        Fault(500, "InternalError"),
        Fault(429, "TooManyRequests"),
        Fault(cut_after=3),
    ],
    ids=["throttled", "error of the server", "too many requests", "cut in the body"],
)
def test_bad_moment_is_tried_again(store: Bucket, scratch: Path, fault: Fault) -> None:
    store.put("in/a.csv", b"id\n1\n2\n")
    store.proxy.decide = once(reading, fault)
    assert ids(store.connector(scratch)) == ["1", "2"]


@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [
        (Fault(404, "NoSuchKey"), SourceRejected, r"in/a\.csv was deleted after it was listed"),
        (Fault(403, "AccessDenied"), CredentialsRejected, r"object in/a\.csv: access refused"),
        (Fault(400, "ExpiredToken"), SourceUnavailable, "the session token has expired"),
        (Fault(412, "PreconditionFailed"), SourceRejected, "was overwritten after it was listed"),
    ],
)
def test_what_stays_is_told_as_what_it_is(
    store: Bucket, scratch: Path, fault: Fault, error: type[Exception], words: str
) -> None:
    store.put("in/a.csv", b"id\n1\n")
    store.proxy.decide = lambda asked, _n: fault if reading(asked) else None
    with pytest.raises(error, match=words) as refusal:
        ids(store.connector(scratch))
    assert store.server.object_store.secret_key not in str(refusal.value)


def test_server_that_asks_for_fewer_requests_again_and_again_is_told(
    store: Bucket, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.ingestion.connectors.s3_reads.ATTEMPTS", 2)
    store.put("in/a.csv", b"id\n1\n")
    store.proxy.decide = lambda asked, _n: Fault(503, "SlowDown") if reading(asked) else None
    with pytest.raises(SourceUnavailable, match="asks for fewer requests"):
        ids(store.connector(scratch))


def test_token_that_expires_half_way_loses_and_doubles_nothing(
    store: Bucket, scratch: Path
) -> None:
    """The objects before are not loaded either: a partition is loaded whole, by the next run."""
    for number in range(3):
        store.put(f"in/{number}.csv", b"id\n%d\n" % number)
    store.proxy.decide = lambda asked, _n: (
        Fault(400, "ExpiredToken") if asked.key.endswith("2.csv") else None
    )
    with pytest.raises(SourceUnavailable, match="use a profile or a role"):
        ids(store.connector(scratch))
    store.proxy.decide = lambda _asked, _n: None
    assert ids(store.connector(scratch)) == ["0", "1", "2"]


def test_listing_that_fails_on_its_second_page_is_no_shorter_list(
    store: Bucket, scratch: Path
) -> None:
    for number in range(1100):
        store.put(f"in/{number:04d}.csv", b"id\n1\n")
    later = lambda asked: asked.is_listing and "continuation-token" in asked.query  # noqa: E731
    store.proxy.decide = lambda asked, _n: Fault(403, "AccessDenied") if later(asked) else None
    with pytest.raises(CredentialsRejected, match="s3 block 'b'"):
        store.connector(scratch).plan(SourceState())
    store.proxy.decide = once(later, Fault(503, "SlowDown"))
    planned = store.connector(scratch).plan(SourceState())
    assert sum(len(partition.items) for partition in planned) == 1100


def test_overwritten_object_is_not_mixed_and_planned_again(store: Bucket, scratch: Path) -> None:
    """The first piece is of the old object, the second would be of the new one."""
    size = 20 << 20
    store.put("in/a.csv", b"id\n" + b"1111111\n" * (size // 8))
    connector = store.connector(scratch)
    [partition] = connector.plan(SourceState())
    done: list[int] = []

    def decide(asked: Asked, _number: int) -> Fault | None:
        if reading(asked) and not done:
            done.append(1)
            store.put("in/a.csv", b"id\n" + b"2222222\n" * (size // 8))
        return None

    store.proxy.decide = decide
    with pytest.raises(SourceRejected, match="was overwritten after it was listed"):
        list(connector.read(partition))
    assert set(ids(store.connector(scratch))) == {"2222222"}


def test_owner_of_the_credentials_pays_if_declared(store: Bucket, scratch: Path) -> None:
    store.put("in/a.csv", b"id\n1\n")
    connector = store.connector(scratch)
    connector._store = store.through(requester_pays=True)
    connector._objects._store = connector._store
    assert ids(connector) == ["1"]
    assert all(asked.headers.get("x-amz-request-payer") for asked in store.proxy.asked)


def test_key_of_the_customer_is_sent_with_each_read(store: Bucket, scratch: Path) -> None:
    store.put("in/a.csv", b"id\n1\n")
    key = base64.b64encode(b"k" * 32).decode()
    connector = store.connector(scratch)
    connector._store = store.through(customer_key=SecretStr(key))
    connector._objects._store = connector._store
    [partition] = connector.plan(SourceState())
    store.proxy.decide = lambda asked, _n: Fault(403, "AccessDenied") if reading(asked) else None
    with pytest.raises(CredentialsRejected) as refusal:
        list(connector.read(partition))
    sent = [
        asked.headers.get("x-amz-server-side-encryption-customer-key")
        for asked in store.proxy.asked
        if reading(asked)
    ]
    assert sent and set(sent) == {key}
    assert key not in str(refusal.value)


def test_span_lists_only_its_folders(store: Bucket, scratch: Path) -> None:
    for day in range(1, 29):
        store.put(f"in/2013/01/{day:02d}/x.csv", b"id\n%d\n" % day)
    path = "in/{date:%Y/%m/%d}/*.csv"
    window = Window(start=datetime(2013, 1, 3, tzinfo=UTC), end=datetime(2013, 1, 5, tzinfo=UTC))
    assert ids(store.connector(scratch, path), SourceState(window=window)) == ["3", "4"]
    listed = {asked.query["prefix"] for asked in store.proxy.asked if asked.is_listing}
    assert listed == {"in/2013/01/03/", "in/2013/01/04/"}
    store.proxy.asked.clear()
    recent = store.connector(
        scratch, path, lookback_days=1, clock=lambda: datetime(2013, 1, 10, 12, tzinfo=UTC)
    )
    assert ids(recent) == ["9", "10", "11"]
    assert len([asked for asked in store.proxy.asked if asked.is_listing]) == 3


def test_folders_become_columns_if_declared(store: Bucket, scratch: Path) -> None:
    store.put("in/dt=2013-01-01/shop=a%2Fb/x.csv", b"id\n1\n")
    store.put("in/dt=__HIVE_DEFAULT_PARTITION__/shop=c/x.csv", b"id\n2\n")
    connector = store.connector(scratch, "in/**/*.csv", hive_partitions=["dt", "shop"], columns=3)
    rows = [
        (row["id"], row["dt"], row["shop"])
        for partition in connector.plan(SourceState())
        for raw in connector.read(partition)
        if raw.batch is not None
        for row in raw.batch.to_pylist()
    ]
    assert sorted(rows) == [("1", "2013-01-01", "a/b"), ("2", None, "c")]
    store.put("in/dt=2013-01-02/x.csv", b"id\n3\n")
    with pytest.raises(ContractBroken, match="no folder shop=…"):
        connector.plan(SourceState())


class Objects(Pipeline):
    """Runs datasets of a bucket."""

    store: Bucket

    def connector(self, spec: DatasetSpec) -> Connector:
        assert isinstance(spec.source, S3Source)
        through = self.store.through()
        return S3Connector("things", spec.source, through, self.scratch, self.limits, 2)


@pytest.fixture
def objects(store: Bucket, engine: Engine, tmp_path: Path, scratch: Path) -> Objects:
    ensure_ledger(engine)
    lake = LakeStorage(uri=f"file://{tmp_path / 'lake'}").get_lake()
    limits = PlanLimits(partition_bytes=64 << 10, batch_bytes=16 << 10)
    made = Objects(engine, lake, scratch, tmp_path, limits=limits)
    made.store = store
    return made


SPEC = DatasetSpec.model_validate(
    {
        "name": "things",
        "description": "Things",
        "source": {"kind": "s3", "block": "b", "path": "in/*.csv", "format": {"kind": "csv"}},
        "key": ["id"],
        "columns": {"id": {"type": "int64"}, "x": {"type": "string"}},
        "load": {"table": "analytics.things", "mode": "append"},
    }
)


def large(word: str, rows: int = 20_000) -> bytes:
    return b"id,x\n" + b"".join(b'%d,"%s\n"\n' % (n, word.encode()) for n in range(rows))


def test_run_that_died_goes_on_with_the_parts_that_are_missing(objects: Objects) -> None:
    objects.store.put("in/a.csv", large("a"))
    planned = objects.plan(SPEC)
    assert len(planned) > 3
    assert all(item.part is not None for part in planned for item in part.items)
    dead = Objects(objects.engine, objects.lake, objects.scratch, objects.base)
    dead.store, dead.limits = objects.store, objects.limits
    dead.plan = lambda *_: planned[1:3]  # type: ignore[method-assign]
    assert len(dead.run(SPEC)) == 2
    rest = objects.plan(SPEC)
    assert not {part.fingerprint for part in rest} & {part.fingerprint for part in planned[1:3]}
    objects.run(SPEC)
    rows = objects.rows(SPEC)
    assert [row["id"] for row in rows] == list(range(20_000))
    assert {row["x"] for row in rows} == {"a\n"}
    assert objects.plan(SPEC) == []


def test_overwritten_object_is_read_again_whole(objects: Objects) -> None:
    spec = SPEC.model_copy(update={"load": MergeLoad(table=SPEC.load.table, mode="merge")})
    objects.store.put("in/a.csv", large("a"))
    objects.run(spec)
    objects.store.put("in/a.csv", large("b"))
    counts = [receipt.counts for receipt in objects.run(spec)]
    assert sum(count.updated for count in counts) == 20_000
    assert {row["x"] for row in objects.rows(spec)} == {"b\n"}
    assert objects.plan(spec, RunRequest()) == []


def test_odd_objects_are_read_or_left_out_by_name(store: Bucket, scratch: Path) -> None:
    """B39: an empty object is no rows, a folder is no object, a key is only ever a name."""
    store.put("in/empty.csv", b"")
    store.put("in/folder/", b"")
    store.put("in/header.csv", b"id\n")
    store.put("in/ a+b%41😀.csv", b"id\n1\n")
    assert ids(store.connector(scratch)) == ["1"]
    one = store.connector(scratch)
    store.put("in/z.csv", b"id\n2\n")
    store.proxy.decide = lambda asked, _n: (
        Fault(403, "AccessDenied") if asked.key.endswith("/z.csv") else None
    )
    with pytest.raises(CredentialsRejected, match=r"object in/z\.csv: access refused"):
        ids(one)
