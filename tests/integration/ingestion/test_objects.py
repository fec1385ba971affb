"""Objects of a real S3 server, and files: packed, pinned to their version, read once."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import obstore
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from obstore.store import ObjectStore
from prefect_aws import AwsCredentials, MinIOCredentials, S3Bucket
from prefect_aws.client_parameters import AwsClientParameters
from pydantic import SecretStr
from sqlalchemy import Engine

from blocks.lake import Lake
from blocks.object_store import LakeStorage, s3_store
from embedded.stack import EmbeddedStack
from tasks.ingestion.connector import PlanLimits
from tasks.ingestion.connectors.files import FilesConnector
from tasks.ingestion.connectors.s3 import S3Connector
from tasks.ingestion.connectors.s3_keys import KeyPattern, literal_prefix
from tasks.model.dataset import DatasetSpec
from tasks.model.errors import ConfigError, CredentialsRejected, SourceRejected
from tasks.model.partition import Partition
from tasks.model.request import SourceState
from tasks.model.source import FilesSource, S3Source
from tasks.verification.source import check_source
from tests.pipeline import Pipeline


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedStack]:
    with EmbeddedStack(tmp_path_factory.mktemp("s3")) as stack:
        stack.start("object_store")
        yield stack


def bucket(server: EmbeddedStack, name: str, secret: str | None = None) -> S3Bucket:
    address = server.object_store
    return S3Bucket(
        bucket_name=name,
        credentials=AwsCredentials(
            aws_access_key_id=address.access_key,
            aws_secret_access_key=SecretStr(secret or address.secret_key),
            aws_client_parameters=AwsClientParameters(endpoint_url=address.endpoint_url),
        ),
    )


@pytest.fixture
def store(server: EmbeddedStack, request: pytest.FixtureRequest) -> ObjectStore:
    name = f"b{abs(hash(request.node.name)) % 10**9}"
    block = bucket(server, name)
    block.credentials.get_s3_client().create_bucket(Bucket=name)
    return s3_store(block)


def s3(store: ObjectStore, scratch: Path, path: str = "in/**/*.csv*", **limits: Any) -> S3Connector:
    declared = {"kind": "s3", "block": "b", "path": path, "format": {"kind": "csv"}}
    if path.endswith("parquet"):
        declared["format"] = {"kind": "parquet"}
    source = S3Source.model_validate(declared)
    return S3Connector("things", source, store, scratch, PlanLimits(**limits), 1)


def ids(connector: Any, partition: Partition) -> list[str]:
    return [
        row["id"]
        for raw in connector.read(partition)
        if raw.batch is not None
        for row in raw.batch.to_pylist()
    ]


def committed(partitions: list[Partition]) -> SourceState:
    items = {(item.uri, item.version) for partition in partitions for item in partition.items}
    return SourceState(items=frozenset(items))


def test_new_and_changed_objects_are_work_and_nothing_else(
    store: ObjectStore, scratch: Path
) -> None:
    obstore.put(store, "in/2013/a.csv", b"id\n1\n")
    obstore.put(store, "in/b.csv.gz", gzip.compress(b"id\n2\n"))
    obstore.put(store, "in/readme.txt", b"no")
    obstore.put(store, "out/c.csv", b"id\n3\n")
    connector = s3(store, scratch)
    (partition,) = connector.plan(SourceState())
    assert ids(connector, partition) == ["1", "2"]
    state = committed([partition])
    assert connector.plan(state) == []
    obstore.put(store, "in/b.csv.gz", gzip.compress(b"id\n4\n"))
    (changed,) = connector.plan(state)
    assert ids(connector, changed) == ["4"]


def test_objects_are_packed_by_bytes_and_by_number(store: ObjectStore, scratch: Path) -> None:
    for number in range(10):
        obstore.put(store, f"in/{number}.csv", b"id\n%d\n" % number)
    by_bytes = s3(store, scratch, partition_bytes=15).plan(SourceState())
    assert [len(partition.items) for partition in by_bytes] == [3, 3, 3, 1]
    by_number = s3(store, scratch, partition_items=4).plan(SourceState())
    assert [len(partition.items) for partition in by_number] == [4, 4, 2]
    assert by_number[0].label == "in/0.csv … 3.csv (4 objects)"


def test_object_that_changes_after_it_was_listed_is_refused(
    store: ObjectStore, scratch: Path
) -> None:
    obstore.put(store, "in/a.csv", b"id\n1\n")
    connector = s3(store, scratch)
    (partition,) = connector.plan(SourceState())
    obstore.put(store, "in/a.csv", b"id\n2\n")
    with pytest.raises(SourceRejected, match=r"in/a.csv was overwritten"):
        ids(connector, partition)
    obstore.delete(store, "in/a.csv")
    with pytest.raises(SourceRejected, match=r"in/a.csv was deleted"):
        ids(connector, partition)


def test_odd_keys_are_read(store: ObjectStore, scratch: Path) -> None:
    keys = ["in/with space.csv", "in/a+b.csv", "in/100%.csv", "in/ümlaut 😀.csv", "in/[x].csv"]
    for number, key in enumerate(keys):
        obstore.put(store, key, b"id\n%d\n" % number)
    connector = s3(store, scratch)
    (partition,) = connector.plan(SourceState())
    assert {item.uri for item in partition.items} == set(keys)
    assert sorted(ids(connector, partition)) == ["0", "1", "2", "3", "4"]


def test_large_object_is_streamed(store: ObjectStore, scratch: Path) -> None:
    obstore.put(store, "in/large.csv", b"id\n" + b"12345678901\n" * 1_000_000)
    connector = s3(store, scratch)
    (partition,) = connector.plan(SourceState())
    rows = [raw.batch.num_rows for raw in connector.read(partition) if raw.batch]
    assert (sum(rows), len(rows) > 1) == (1_000_000, True)


def test_parquet_objects_keep_their_types(store: ObjectStore, scratch: Path) -> None:
    for name, start in (("a", 1), ("b", 3)):
        path = scratch / "made.parquet"
        table = pa.table({"id": [start, start + 1], "tags": [["x"], None]})
        pq.write_table(table, path, row_group_size=1)
        obstore.put(store, f"in/{name}.parquet", path)
    connector = s3(store, scratch, "in/*.parquet")
    (partition,) = connector.plan(SourceState())
    assert ids(connector, partition) == [1, 2, 3, 4]
    (first, *_) = connector.read(partition)
    assert first.batch is not None
    assert first.batch.to_pylist()[0]["tags"] == '["x"]'


def test_refused_credentials_and_missing_buckets_are_named(
    server: EmbeddedStack, scratch: Path
) -> None:
    wrong = s3(s3_store(bucket(server, "any", secret="wrong")), scratch)
    with pytest.raises((CredentialsRejected, SourceRejected)) as refusal:
        wrong.plan(SourceState())
    assert "s3 block 'b'" in str(refusal.value)
    missing = s3(s3_store(bucket(server, "nothing-here")), scratch)
    with pytest.raises(SourceRejected, match="s3 block 'b'"):
        missing.plan(SourceState())


def test_single_object_that_is_missing_is_an_error(store: ObjectStore, scratch: Path) -> None:
    with pytest.raises(SourceRejected, match=r"has no object in/a\.csv"):
        s3(store, scratch, "in/a.csv").plan(SourceState())
    assert s3(store, scratch, "in/*.csv").plan(SourceState()) == []


def test_lake_on_s3_keeps_its_promises(server: EmbeddedStack, tmp_path: Path) -> None:
    """Conditional puts decide races on a real S3 server too."""
    address = server.object_store
    credentials = MinIOCredentials(
        minio_root_user=address.access_key,
        minio_root_password=SecretStr(address.secret_key),
        aws_client_parameters=AwsClientParameters(endpoint_url=address.endpoint_url),
    )
    credentials.get_s3_client().create_bucket(Bucket="lake")
    lake = LakeStorage(uri="s3://lake/some/prefix", credentials=credentials).get_lake()
    assert [lake.put_new("manifests/a.json", b"1"), lake.put_new("manifests/a.json", b"2")] == [
        True,
        False,
    ]
    assert lake.get("manifests/a.json") == b"1"
    path = tmp_path / "file"
    path.write_bytes(b"content")
    lake.put_file(path, "raw/x")
    assert lake.local_path("raw/x", tmp_path).read_bytes() == b"content"
    assert (lake.get("nothing"), lake.size("nothing"), lake.sha256("nothing")) == (None, None, None)
    assert list(lake.keys("raw")) == ["raw/x"]
    lake.delete("raw/x")
    assert lake.size("raw/x") is None


@pytest.mark.parametrize(
    ("pattern", "prefix", "yes", "no"),
    [
        ("a/**/*.csv", "a", ["a/x.csv", "a/b/c/x.csv"], ["b/x.csv", "a/x.csv.gz"]),
        ("a/*.csv", "a", ["a/x.csv"], ["a/b/x.csv"]),
        ("a/b-?.csv", "a", ["a/b-1.csv"], ["a/b-12.csv"]),
        ("**", "", ["a", "a/b"], []),
        ("a/b.csv", "a/b.csv", ["a/b.csv"], ["a/bXcsv"]),
    ],
)
def test_patterns_match_as_globs_do(
    pattern: str, prefix: str, yes: list[str], no: list[str]
) -> None:
    assert literal_prefix(pattern) == prefix
    keys = KeyPattern(pattern)
    assert all(keys.match(key) for key in yes)
    assert not any(keys.match(key) for key in no)


def files(base: Path, path: str = "in/*.csv") -> FilesConnector:
    declared = {"kind": "files", "path": path, "format": {"kind": "csv"}}
    return FilesConnector("things", FilesSource.model_validate(declared), base, PlanLimits(), 1)


def test_file_is_known_by_its_content(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.csv").write_text("id\n1\n")
    connector = files(tmp_path)
    (partition,) = connector.plan(SourceState())
    assert (partition.items[0].uri, ids(connector, partition)) == ("in/a.csv", ["1"])
    state = committed([partition])
    (folder / "renamed.csv").write_text("id\n1\n")
    assert connector.plan(state) == []
    (folder / "a.csv").write_text("id\n2\n")
    (changed,) = connector.plan(state)
    assert ids(connector, changed) == ["2"]
    (folder / "a.csv").write_text("id\n3\n")
    with pytest.raises(SourceRejected, match="changed after it was planned"):
        ids(connector, changed)
    (folder / "a.csv").unlink()
    with pytest.raises(SourceRejected, match="missing"):
        ids(connector, changed)


def test_missing_file_and_missing_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(SourceRejected, match="no file"):
        files(tmp_path, "in/a.csv").plan(SourceState())
    with pytest.raises(ConfigError, match="there is no folder"):
        files(tmp_path, "in/*.csv").plan(SourceState())
    (tmp_path / "in").mkdir()
    assert files(tmp_path, "in/*.csv").plan(SourceState()) == []


class S3Pipeline(Pipeline):
    store: ObjectStore

    def connector(self, spec: DatasetSpec) -> S3Connector:
        return s3(self.store, self.scratch, partition_items=1)


def test_objects_are_read_again_and_compared(
    store: ObjectStore, engine: Engine, lake: Lake, scratch: Path, tmp_path: Path
) -> None:
    """An object that is as it was is proven so; one that is gone or changed is named."""
    for name in "abc":
        obstore.put(store, f"in/{name}.csv", f"id\n{name}\n".encode())
    declared = {"kind": "s3", "block": "b", "path": "in/**/*.csv*", "format": {"kind": "csv"}}
    spec = DatasetSpec.model_validate(
        {
            "name": "things",
            "description": "d",
            "source": declared,
            "key": ["id"],
            "columns": {"id": {"type": "string"}},
            "load": {"table": "analytics.things", "mode": "merge"},
        }
    )
    pipeline = S3Pipeline(engine, lake, scratch, tmp_path)
    pipeline.store = store
    pipeline.run(spec)
    (check,) = check_source(engine, lake, spec, pipeline.connector(spec), scratch)
    assert (check.holds, [one.found_rows for one in check.partitions]) == (True, [1, 1, 1])
    obstore.delete(store, "in/a.csv")
    obstore.put(store, "in/b.csv", b"id\nz\n")
    (check,) = check_source(engine, lake, spec, pipeline.connector(spec), scratch)
    assert check.differences == (
        "load 1: in/a.csv is gone from the source",
        "load 2: in/b.csv was changed since, and its new content is not loaded",
    )
