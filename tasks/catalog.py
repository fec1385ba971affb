"""The catalog: all datasets of a folder, each checked by itself and all against each other."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path

from tasks.catalog_checks import mistakes_between
from tasks.documents import parse, read_yaml
from tasks.model.dataset import DatasetSpec, LookedUp
from tasks.model.errors import ConfigError

DATASET_FILE = re.compile(r"^[a-z][a-z0-9_]*\.ya?ml$")
"""What a file of a dataset may be called."""


@dataclass(frozen=True, slots=True)
class Catalog:
    """All datasets of a folder, checked one by one and against each other."""

    datasets: dict[str, DatasetSpec]
    paths: dict[str, Path]

    def __getitem__(self, name: str) -> DatasetSpec:
        try:
            return self.datasets[name]
        except KeyError:
            close = difflib.get_close_matches(name, self.datasets, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            known = ", ".join(sorted(self.datasets)) or "none"
            raise ConfigError(f"no dataset {name!r}{hint}; declared are: {known}") from None

    def quarantine_of(self, name: str) -> tuple[DatasetSpec, str | None]:
        """Return the dataset whose refused rows are meant, and its child if items of one are.

        Args:
            name: A dataset, or a child table of one as ``orders.lines``.

        Raises:
            ConfigError: There is none of the name.
        """
        dataset, _, child = name.partition(".")
        spec = self[dataset]
        if "." not in name:
            return spec, None
        if child not in spec.children:
            known = ", ".join(f"{dataset}.{one}" for one in sorted(spec.children)) or "none"
            raise ConfigError(f"no child table {name!r}; those of {dataset} are: {known}")
        return spec, child

    def in_order(self, names: Iterable[str]) -> list[DatasetSpec]:
        """Return the named datasets so that each comes after those it looks up."""
        chosen = dict.fromkeys(names)
        graph = {
            name: [other for other in self[name].dependencies if other in chosen] for name in chosen
        }
        return [self[name] for name in TopologicalSorter(graph).static_order()]

    def scheduled(self, schedule: str) -> list[DatasetSpec]:
        """Return the datasets of a schedule, in dependency order."""
        return self.in_order(
            name for name, spec in self.datasets.items() if spec.schedule == schedule
        )

    def lookups_of(self, spec: DatasetSpec) -> dict[str, LookedUp]:
        """Return what one dataset looks up, by name: datasets, and what else it declares."""
        own = {lookup.lookup: lookup for lookup in spec.enrich if not lookup.is_dataset}
        return {**{name: self[name] for name in spec.dependencies}, **own}


def load_catalog(folder: Path) -> Catalog:
    """Read every dataset file of a folder.

    Raises:
        ConfigError: Every mistake of every file, one a line.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder of dataset files")
    datasets: dict[str, DatasetSpec] = {}
    paths: dict[str, Path] = {}
    mistakes: list[str] = []
    for path in sorted(folder.iterdir()):
        if path.suffix not in (".yaml", ".yml"):
            continue
        try:
            spec = load_dataset(path)
        except ConfigError as error:
            mistakes.append(error.message)
            continue
        if spec.name in datasets:
            mistakes.append(f"{path}: dataset {spec.name!r} is also in {paths[spec.name]}")
        datasets[spec.name], paths[spec.name] = spec, path
    if not mistakes:
        mistakes = list(mistakes_between(datasets, paths))
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    return Catalog(datasets, paths)


def load_dataset(path: Path) -> DatasetSpec:
    """Read one dataset file; its name must be that of the dataset.

    Raises:
        ConfigError: What is wrong, with file, line and key.
    """
    document = read_yaml(path)
    spec = parse(document, DatasetSpec)
    if not DATASET_FILE.match(path.name) or path.stem != spec.name:
        line = document.line(("name",))
        raise ConfigError(f"{path}:{line}: name: found {spec.name!r} in a file named {path.name}")
    return spec
