"""The folder for intermediate files: one that cannot be used is named, with the remedy."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tasks.environments import load_environment
from tasks.model.errors import ConfigError
from tasks.stages import Work, left_scratch, stage_context, sweep_scratch

WORK = Work("dev", "things", "0" * 64, "i", "manifests/m.json", "run", "label")


@pytest.mark.parametrize("below", ["", "deeper/still"])
def test_file_in_the_place_of_the_folder_is_named(tmp_path: Path, below: str) -> None:
    """Not as an error of the warehouse, which is what is talked to next."""
    file = tmp_path / "dpp"
    file.write_text("")
    environment = load_environment("dev").model_copy(update={"scratch": file / below})
    with pytest.raises(ConfigError) as error, stage_context("ingestion", WORK, environment):
        pass
    assert error.value.message == (
        f"the folder for intermediate files, {file / below}, cannot be used: {file} is a file"
    )
    assert "DPP_SCRATCH" in str(error.value.remedy)
    assert left_scratch(environment) == []  # a run looks for folders before its first stage


def test_folder_that_a_killed_process_left_behind_is_swept_and_a_young_one_is_not(
    tmp_path: Path,
) -> None:
    environment = load_environment("dev").model_copy(update={"scratch": tmp_path})
    for name in ("old", "young"):
        (tmp_path / name).mkdir()
    long_ago = time.time() - 90_000
    os.utime(tmp_path / "old", (long_ago, long_ago))
    sweep_scratch(environment)
    assert [folder.name for folder in tmp_path.iterdir()] == ["young"]
