"""``dpp new``: a first dataset file out of a sample."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import TypeAdapter, ValidationError

from cli.console import console
from cli.context import connections
from tasks.catalog import Catalog, load_dataset
from tasks.environments import project_root
from tasks.model.columns import Identifier
from tasks.model.environment import Environment
from tasks.model.errors import ConfigError

if TYPE_CHECKING:
    from tasks.connections import Connections


def write_dataset(
    environment: Environment,
    name: str,
    whence: str,
    block: str | None,
    rows: int,
    *,
    force: bool,
) -> Path:
    """Infer a dataset file from a sample, and write it; return its path.

    Raises:
        ConfigError: There is one of that name, or it cannot be told what the source is.
    """
    try:
        TypeAdapter(Identifier).validate_python(name)
    except ValidationError as error:
        raise ConfigError(error.errors()[0]["msg"].removeprefix("Value error, ")) from None
    path = project_root() / environment.datasets / f"{name}.yaml"
    if path.exists() and not force:
        raise ConfigError(f"{path}: is there already", "choose another name, or --force")
    with (
        tempfile.TemporaryDirectory(prefix="dpp-new-") as scratch,
        _opened(environment, block) as opened,
    ):
        from tasks.inference.proof import proven
        from tasks.inference.sample import draft_of

        draft = draft_of(name, whence, block, rows, opened, Path(scratch), project_root())
        text = proven(draft, Path(scratch))
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("w" if force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise ConfigError(f"{path}: is there already", "choose another name, or --force") from None
    spec = load_dataset(path)
    console.print(
        f"[green]✓[/] {path}: {len(spec.columns)} columns from {draft.sample.num_rows} rows; "
        f"look at its comments, then: dpp check {name}",
        highlight=False,
        soft_wrap=True,
    )
    return path


@contextmanager
def _opened(environment: Environment, block: str | None) -> Iterator[Connections]:
    """Open what a source needs; files need no server."""
    if block is None:
        from tasks.connections import Connections

        with Connections(environment) as opened:
            yield opened
        return
    nothing = Catalog({}, {})
    with connections(environment, nothing, [], sources=True, blocks=[block]) as opened:
        yield opened
