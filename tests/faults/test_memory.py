"""An input that is much larger than the memory that may be used for it."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.environments import project_root

INGEST = """
import json, resource, sys, tempfile
from pathlib import Path
import tasks.ingestion.ingest
from blocks.object_store import LakeStorage
from tasks.ingestion.connector import PlanLimits
from tasks.ingestion.connectors.files import FilesConnector
from tasks.ingestion.read import ingest_partition
from tasks.model.dataset import DatasetSpec
from tasks.model.request import SourceState

path, kind, folder = sys.argv[1:]
spec = DatasetSpec.model_validate({
    "name": "things", "description": "Things",
    "source": {"kind": "files", "path": path, "format": {"kind": kind}},
    "columns": {"id": {"type": "int64"}, "text": {"type": "string"}},
    "load": {"table": "analytics.things", "mode": "append"},
})
connector = FilesConnector("things", spec.source, Path(folder), PlanLimits(), 2)
[partition] = connector.plan(SourceState())
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
lake = LakeStorage(uri=(Path(folder) / "lake").as_uri()).get_lake()
manifest = ingest_partition(connector, partition, spec, lake, Path(folder))
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"rows": manifest.rows, "mb": (peak - before) / 1024}))
"""
RECORDS = {
    "csv": (b"id,text\n", b'%d,"a text, of some length, with ""quotes"" in it"\n'),
    "jsonl": (b"", b'{"id": %d, "text": "a text, of some length"}\n'),
}
ROWS = 20_000
BUDGET_MB = 256
"""What a partition may take beside what the process has anyway; ``memory_budget`` of dev."""


@pytest.mark.parametrize("kind", RECORDS)
def test_more_input_takes_no_more_memory(kind: str, tmp_path: Path) -> None:
    header, record = RECORDS[kind]
    member = gzip.compress(b"".join(record % number for number in range(ROWS)))
    took = {}
    for times in (20, 100):  # 20 are enough to fill every queue on the way
        folder = tmp_path / str(times)
        folder.mkdir()
        path = folder / "x.gz"
        path.write_bytes(gzip.compress(header) + member * times)
        done = subprocess.run(
            [sys.executable, "-c", INGEST, str(path), kind, str(folder)],
            capture_output=True,
            text=True,
            cwd=project_root(),
            check=False,
        )
        assert done.returncode == 0, done.stderr
        said = json.loads(done.stdout.splitlines()[-1])
        assert said["rows"] == ROWS * times
        took[times] = said["mb"]
    assert took[100] < BUDGET_MB, took
    assert took[100] < took[20] + 48, took
