"""The structure holds: who may import whom, and what a user's terminal shows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_import_contracts_hold() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


STAGE_LOGIC = sorted(
    path
    for stage in ("ingestion", "transformation", "loading")
    for path in (ROOT / "tasks" / stage).rglob("*.py")
    if path.name not in ("ingest.py", "transform.py", "load.py")
)


@pytest.mark.parametrize("path", STAGE_LOGIC, ids=lambda path: path.stem)
def test_stage_logic_never_imports_prefect(path: Path) -> None:
    """Only the module named after the stage's verb holds tasks."""
    text = path.read_text()
    assert "import prefect" not in text
    assert "from prefect " not in text and "from prefect." not in text


def test_reading_sources_brings_neither_prefect_nor_pandas_into_a_process() -> None:
    """Not by way of others either: each of them takes a third of the memory that reading takes."""
    script = (
        "import sys, tasks.ingestion.read, tasks.ingestion.registry\n"
        "import pyarrow as pa\n"
        "pa.array([1])  # would import pandas\n"
        "print(sorted({'prefect', 'boto3', 'pandas', 'duckdb'} & set(sys.modules)))\n"
        "import pandas as pd\n"
        "print(pa.table({'a': [1.5]}).to_pandas().a.sum(), pa.array(pd.Series(['x'])).to_pylist())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines() == ["[]", "1.5 ['x']"], done.stderr


def test_committed_files_name_no_registry_and_no_machine() -> None:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.split()
    for name in listed:
        path = ROOT / name
        if path.suffix in (".png", ".gz", ".parquet") or not path.is_file():
            continue
        text = path.read_text(errors="replace")
        for forbidden in ("index-" + "url", "/sim" + "ple/", "/wo" + "rk/"):
            assert forbidden not in text, (name, forbidden)
