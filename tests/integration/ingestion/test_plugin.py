"""A connector of another package: the example of the documents, as it stands there."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from blocks.object_store import LakeStorage
from tasks.catalog import load_dataset
from tasks.connections import Connections
from tasks.environments import load_environment, project_root
from tasks.ingestion.connector import PlanLimits
from tasks.ingestion.registry import connector_for
from tasks.loading.ledger import ensure_ledger
from tasks.model import plugins
from tasks.model.dataset import DatasetSpec
from tasks.model.errors import ConfigError
from tests.pipeline import Pipeline

PAGE = (project_root() / "docs" / "connectors.md").read_text()


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    assert found
    return found[1]


def install(folder: Path, name: str, points: str) -> None:
    """Do what ``pip install`` does with a package's entry points."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(points)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of installed packages."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    plugins._entry_points.cache_clear()
    yield folder
    plugins._entry_points.cache_clear()
    sys.modules.pop("dpp_logfmt", None)


@pytest.fixture
def logfmt(site: Path) -> Path:
    (site / "dpp_logfmt.py").write_text(block("python"))
    point = block("toml").splitlines()[1].replace('"', "")
    install(site, "dpp_logfmt", f"[dpp.connectors]\n{point}\n")
    return site


def spec_in(folder: Path, text: str) -> DatasetSpec:
    path = folder / "requests.yaml"
    path.write_text(text)
    return load_dataset(path)


class PluginPipeline(Pipeline):
    """Runs a dataset with whatever connector its source needs."""

    def connector(self, spec: DatasetSpec) -> object:  # type: ignore[override]
        connections = Connections(load_environment())
        return connector_for(spec, connections, PlanLimits(), self.scratch)


def test_example_is_short() -> None:
    assert len(block("python").splitlines()) < 60


def test_example_loads_what_is_new_and_quarantines_what_it_cannot_read(
    logfmt: Path, engine: Engine, tmp_path: Path
) -> None:
    logs, scratch = tmp_path / "web", tmp_path / "scratch"
    logs.mkdir()
    scratch.mkdir()
    (logs / "a.log").write_text("id=1 path=/ status=200\nnonsense\nid=2 path=/x\n")
    spec = spec_in(tmp_path, block("yaml").replace("/var/log/web", str(logs)))
    ensure_ledger(engine)
    lake = LakeStorage(uri=f"file://{tmp_path / 'lake'}").get_lake()
    pipeline = PluginPipeline(engine, lake, scratch, tmp_path)
    [receipt] = pipeline.run(spec)
    assert (receipt.counts.read, receipt.counts.inserted, receipt.counts.quarantined) == (3, 2, 1)
    assert receipt.reasons[0].message == "line 2: no pair"
    assert pipeline.rows(spec) == [
        {"id": 1, "path": "/", "status": 200},
        {"id": 2, "path": "/x", "status": None},
    ]
    assert pipeline.run(spec) == []
    (logs / "b.log").write_text("id=3 path=/y status=404\n")
    pipeline.run(spec)
    assert len(pipeline.rows(spec)) == 3


def test_mistake_in_its_declaration_is_told_like_any_other(logfmt: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"requests.yaml:3: source: .*foldr: Extra inputs"):
        spec_in(tmp_path, block("yaml").replace("folder:", "foldr:"))


def test_unknown_kind_names_those_that_are_installed(logfmt: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"source.kind: found 'logfm'.*'database', 'logfmt'"):
        spec_in(tmp_path, block("yaml").replace("kind: logfmt", "kind: logfm"))


@pytest.mark.parametrize(
    ("points", "words"),
    [
        ("logfmt = nowhere:Thing", "nowhere:Thing cannot be imported: ModuleNotFoundError"),
        ("logfmt = json:JSONDecoder", "json:JSONDecoder has no pydantic model 'declaration'"),
    ],
)
def test_package_that_is_no_connector_is_named(
    site: Path, tmp_path: Path, points: str, words: str
) -> None:
    install(site, "broken", f"[dpp.connectors]\n{points}\n")
    with pytest.raises(ConfigError, match=words):
        spec_in(tmp_path, block("yaml"))


def test_two_packages_of_one_kind_are_refused(logfmt: Path, tmp_path: Path) -> None:
    install(logfmt, "other", "[dpp.connectors]\nlogfmt = json:JSONDecoder\n")
    plugins._entry_points.cache_clear()
    with pytest.raises(ConfigError, match="exactly one package must"):
        spec_in(tmp_path, block("yaml"))


def test_package_cannot_take_the_name_of_a_kind_of_ours(site: Path) -> None:
    install(site, "thief", "[dpp.connectors]\nfiles = json:JSONDecoder\n")
    plugins._entry_points.cache_clear()
    assert plugins.plugin_kinds() == frozenset()
