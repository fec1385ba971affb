"""What a command needs of the servers of dev."""

from __future__ import annotations

from cli.local import with_dependencies
from tasks.catalog import load_catalog
from tasks.environments import project_root


def test_datasets_that_are_looked_up_come_along() -> None:
    """A dataset alone brings those that it looks up; the order of names does not matter."""
    catalog = load_catalog(project_root() / "datasets")
    for names in (["flights"], ["flights", "airlines"], ["airlines", "flights"]):
        assert with_dependencies(catalog, names) == {*names, "planes", "weather"}
    assert with_dependencies(catalog, ["airlines"]) == {"airlines"}
