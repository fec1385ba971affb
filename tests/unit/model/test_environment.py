"""Environments: files, overrides, and what is wrong with them."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.environments import load_environment, project_root
from tasks.model.environment import parse_bytes
from tasks.model.errors import ConfigError
from tasks.stages import scratch_root

ROOT = Path(__file__).parents[3]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(ROOT / "deployments" / "environments", tmp_path / "deployments/environments")
    monkeypatch.setenv("DPP_HOME", str(tmp_path))
    return tmp_path


def test_intermediate_files_of_a_pod_are_in_its_temporary_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dev keeps them in the project; where no folder is named, TMPDIR decides."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert scratch_root(load_environment("prod")) == tmp_path / "dpp"
    assert scratch_root(load_environment("dev")) == project_root() / ".local" / "scratch"


def test_dev_is_the_default_and_embedded() -> None:
    environment = load_environment()
    assert (environment.name, environment.embedded) == ("dev", True)


@pytest.mark.parametrize("name", ["dev", "staging", "prod"])
def test_environment_file_is_valid(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DPP_ENV", name)
    assert load_environment().name == name


def test_files_are_kept_for_ninety_days_where_nothing_is_said(project: Path) -> None:
    path = project / "deployments/environments/prod.yaml"
    text = path.read_text()
    assert "retention_days: 365\n" in text
    path.write_text(text.replace("retention_days: 365\n", ""))
    assert load_environment("prod").retention_days == 90


def test_variable_overrides_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DPP_MEMORY_BUDGET", "2GB")
    monkeypatch.setenv("DPP_CONCURRENCY", "7")
    environment = load_environment("prod")
    assert (environment.memory_budget, environment.concurrency) == (2 << 30, 7)


def test_wrong_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DPP_CONCURRENCY", "many")
    with pytest.raises(ConfigError, match="environment variable DPP_CONCURRENCY"):
        load_environment()


def test_wrong_value_is_named_with_its_line(project: Path) -> None:
    path = project / "deployments/environments/dev.yaml"
    path.write_text(path.read_text().replace("memory_budget: 256MB", "memory_budget: lots"))
    with pytest.raises(ConfigError, match=r"dev.yaml:7: memory_budget: 'lots' is no size"):
        load_environment()


def test_unknown_key_is_named(project: Path) -> None:
    path = project / "deployments/environments/dev.yaml"
    path.write_text(path.read_text() + "colour: blue\n")
    with pytest.raises(ConfigError, match="colour"):
        load_environment()


def test_unknown_environment_is_refused() -> None:
    with pytest.raises(ConfigError, match="no environment 'test'; there are: dev, prod, staging"):
        load_environment("test")


@given(st.integers(0, 10**6), st.sampled_from([("KB", 10), ("MB", 20), ("gb", 30), ("M", 20)]))
def test_sizes_are_powers_of_1024(number: int, unit: tuple[str, int]) -> None:
    assert parse_bytes(f"{number}{unit[0]}") == number << unit[1]
