"""The lake keeps what it was given, trusts nothing that changed, and lets the first writer win."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from obstore.store import LocalStore, MemoryStore

from blocks.lake import Lake
from tasks.lake import broken_file, intact_manifest, manifest_key, publish_manifest, store_file
from tasks.model.manifest import Manifest


@pytest.fixture(params=["local", "remote"])
def any_lake(request: pytest.FixtureRequest, tmp_path: Path) -> Lake:
    if request.param == "remote":
        return Lake(MemoryStore(), None)
    (tmp_path / "lake").mkdir()
    return Lake(LocalStore(tmp_path / "lake"), tmp_path / "lake")


def _stored(lake: Lake, folder: Path, content: bytes = b"rows"):
    path = folder / "file"
    path.write_bytes(content)
    return store_file(lake, "raw", "things", path, 4)


def _manifest(lake: Lake, folder: Path, second: int = 0) -> Manifest:
    return Manifest(
        stage="ingestion",
        dataset="things",
        fingerprint="f",
        config_hash="c",
        files=(_stored(lake, folder),),
        quarantine=(),
        rows_read=4,
        rows_deduplicated=0,
        rows_quarantined=0,
        created_at=datetime(2013, 1, 1, second=second, tzinfo=UTC),
        seconds=0,
    )


def test_file_is_named_after_its_content_and_read_back(any_lake: Lake, tmp_path: Path) -> None:
    file = _stored(any_lake, tmp_path)
    assert file.key == f"raw/things/{file.sha256}.parquet"
    assert any_lake.local_path(file.key, tmp_path).read_bytes() == b"rows"
    assert broken_file(any_lake, file) is None
    assert list(any_lake.keys("raw")) == [file.key]
    assert _stored(any_lake, tmp_path) == file  # the same content is the same file


def test_missing_things_are_missing(any_lake: Lake, tmp_path: Path) -> None:
    assert any_lake.get("nothing") is None
    assert any_lake.size("nothing") is None
    assert any_lake.sha256("nothing") is None
    any_lake.delete("nothing")
    with pytest.raises(FileNotFoundError):
        any_lake.local_path("nothing", tmp_path)


def test_first_manifest_wins_while_its_files_are_intact(any_lake: Lake, tmp_path: Path) -> None:
    key = manifest_key("ingestion", "things", "f", "i")
    first, second = (_manifest(any_lake, tmp_path, second) for second in (1, 2))
    assert publish_manifest(any_lake, key, first) == first
    assert publish_manifest(any_lake, key, second) == first
    any_lake.delete(first.files[0].key)
    assert intact_manifest(any_lake, key) is None
    assert broken_file(any_lake, first.files[0]) == "missing"
    third = _manifest(any_lake, tmp_path, 3)
    any_lake.delete(third.files[0].key)
    assert publish_manifest(any_lake, key, third) == third


def test_changed_file_is_found(tmp_path: Path) -> None:
    lake = Lake(LocalStore(tmp_path), tmp_path)
    file = _stored(lake, tmp_path)
    (tmp_path / file.key).write_bytes(b"swor")
    assert broken_file(lake, file) == "content changed"
    (tmp_path / file.key).write_bytes(b"row")
    assert broken_file(lake, file) == "3 bytes instead of 4"


def test_manifest_that_cannot_be_read_does_not_count(any_lake: Lake) -> None:
    any_lake.put_new("manifests/x.json", b"{}")
    assert intact_manifest(any_lake, "manifests/x.json") is None
