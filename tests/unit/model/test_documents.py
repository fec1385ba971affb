"""The examples of the documents are dataset files that work."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tasks.catalog import load_dataset
from tasks.environments import project_root

PAGES = sorted((project_root() / "docs" / "sources").glob("*.md"))
EXAMPLES = [
    pytest.param(example, id=f"{page.stem}-{number}")
    for page in PAGES
    for number, example in enumerate(
        re.findall(r"```yaml\n(name: .*?)```", page.read_text(), re.DOTALL)
    )
]


@pytest.mark.parametrize("example", EXAMPLES)
def test_example_is_a_dataset_file(example: str, tmp_path: Path) -> None:
    name = example.splitlines()[0].removeprefix("name: ").strip()
    path = tmp_path / f"{name}.yaml"
    path.write_text(example)
    assert load_dataset(path).name == name


def test_each_page_has_an_example() -> None:
    for page in PAGES:
        assert "```yaml\nname: " in page.read_text(), page.name
