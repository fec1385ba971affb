"""Fixtures for the whole suite: one PostgreSQL server, an empty database and a lake per test."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from obstore.store import LocalStore
from sqlalchemy import Engine
from xdist.scheduler import LoadFileScheduling

from blocks.lake import Lake
from blocks.warehouse import WarehouseCredentials
from tasks.loading.ledger import ensure_ledger
from tests.mariadb import mariadb, mariadb_port
from tests.server import ledger_template, postgres_port, warehouse

__all__ = ["ledger_template", "mariadb", "mariadb_port", "postgres_port", "warehouse"]

# A busy machine is no failure of ours.
settings.register_profile("suite", deadline=None)
settings.load_profile("suite")

DPP_VARIABLES = ("DPP_ENV", "DPP_HOME", "DPP_EMBEDDED", "DPP_LOG_LEVEL", "PREFECT_API_URL")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Two workers more than cores: many tests wait for servers and time limits."""
    return (os.cpu_count() or 1) + 2


class SharedServers(LoadFileScheduling):
    """Gives a file to one worker, and all of e2e to one: its servers take long to start."""

    def _split_scope(self, nodeid: str) -> str:
        file: str = super()._split_scope(nodeid)
        return "tests/e2e" if file.startswith("tests/e2e/") else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling:
    """Return how tests are shared among the workers."""
    nothing_beside = bool(os.environ.get("DPP_TEST_PLATFORM"))
    return (LoadFileScheduling if nothing_beside else SharedServers)(config, log)


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
