"""Fixtures for the whole suite: one PostgreSQL server, an empty database and a lake per test."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from obstore.store import LocalStore
from sqlalchemy import Engine

from blocks.lake import Lake
from blocks.warehouse import WarehouseCredentials
from tasks.loading.ledger import ensure_ledger
from tests.mariadb import mariadb, mariadb_port
from tests.server import postgres_port, warehouse

__all__ = ["mariadb", "mariadb_port", "postgres_port", "warehouse"]

# A busy machine is no failure of ours.
settings.register_profile("suite", deadline=None)
settings.load_profile("suite")

DPP_VARIABLES = ("DPP_ENV", "DPP_HOME", "DPP_EMBEDDED", "DPP_LOG_LEVEL", "PREFECT_API_URL")


PLATFORM = (
    "test_automations test_bootstrap test_dask test_fan_out test_kubernetes test_stop test_worker"
)
"""Tests of ``e2e`` that need workers and clusters."""


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """One worker more than cores: many tests wait for servers and time limits."""
    return (os.cpu_count() or 1) + 1


# xdist reads the marks in a hook of its own, which would be called before that of a conftest.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Say which tests run one after the other on one worker, as they share what takes long to start.

    Those of a file; those of ``e2e``, in two halves that begin at once.
    """
    root = Path(__file__).parent
    for item in items:
        path = item.path.relative_to(root)
        group = str(path)
        if path.parts[0] == "e2e":
            group = "platform" if path.stem in PLATFORM.split() else "e2e"
        item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of the person who runs the tests decides what they do."""
    for name in DPP_VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def engine(warehouse: WarehouseCredentials) -> Iterator[Engine]:
    """An engine for an empty database that has a ledger."""
    made = warehouse.get_engine("tests")
    ensure_ledger(made)
    yield made
    made.dispose()


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """An empty lake in a local directory."""
    root = tmp_path / "lake"
    root.mkdir()
    return Lake(LocalStore(root), root)


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """A folder for intermediate files."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder
