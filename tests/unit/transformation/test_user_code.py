"""Code of the user's, loaded by partitions that run side by side."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tasks.model.dataset import DatasetSpec
from tasks.transformation.user_code import load_object

SLOW = "import time\ntime.sleep(0.3)\n\n\ndef shout(frame):\n    return frame\n"


def test_module_is_whole_for_everyone_who_loads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    monkeypatch.setenv("DPP_HOME", str(tmp_path))
    spec = DatasetSpec.model_validate(
        {
            "name": "things", "description": "Things",
            "source": {"kind": "files", "path": "*.csv", "format": {"kind": "csv"}},
            "columns": {"id": {"type": "int64"}},
            "custom": "slow:shout",
            "load": {"table": "analytics.things", "mode": "append"},
        }
    )  # fmt: skip
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: load_object(spec, "custom", "slow:shout"), range(4)))
    assert len(set(found)) == 1
