"""``dpp new``: a dataset file from a sample of what it will read."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.markup import escape
from rich.table import Table

from cli.console import stderr
from cli.context import connections
from tasks.connections import Connections
from tasks.datasets import Catalog, load_dataset
from tasks.environments import load_environment, project_root
from tasks.inference.connected import block_of_url, find_answers, find_table
from tasks.inference.found import Found
from tasks.inference.names import identifier_of
from tasks.inference.origins import FileOrigin, ObjectOrigin, Origin, TableOrigin, parse_origin
from tasks.inference.propose import Proposal, propose
from tasks.inference.render import doubts_of, render
from tasks.inference.sources import find_files, find_objects
from tasks.model.dataset import DATASET_FILE
from tasks.model.environment import Environment
from tasks.model.errors import ConfigError

SHOWN_DOUBTS = 12


@dataclass(frozen=True, slots=True)
class Wish:
    """What the user asks for.

    Attributes:
        origin: What to read: a path, a URL or a table.
        name: Name of the dataset; that of the origin without it.
        block: Name of the block with the connection.
        records: Where in a JSON document the records are.
        rows: Rows of the sample.
        force: Replace a file that is there.
        dry: Only print the file.
    """

    origin: str
    name: str | None
    block: str | None
    records: str | None
    rows: int
    force: bool
    dry: bool


def propose_dataset(wish: Wish) -> tuple[Proposal, str, Path | None]:
    """Look into the source, and write the dataset file unless it is only to be printed.

    Returns:
        The proposal, the text of its file, and where that is.
    """
    environment = load_environment()
    origin = parse_origin(wish.origin, wish.block, Path.cwd())
    name = wish.name or identifier_of(origin.name, "dataset")
    target = project_root() / environment.datasets / f"{name}.yaml"
    if not DATASET_FILE.match(target.name):
        raise ConfigError(
            f"{name!r} is no name for a dataset", "small letters, digits and _, a letter first"
        )
    if not wish.dry:
        _refuse_to_overwrite(target, force=wish.force)
    with tempfile.TemporaryDirectory(prefix="dpp-new-") as folder:
        made = _look(wish, origin, name, environment, Path(folder))
        text = render(made, _shown(origin, wish))
        _prove(text, name, Path(folder))
    if wish.dry:
        return made, text, None
    _write(target, text, force=wish.force)
    return made, text, target


def _refuse_to_overwrite(target: Path, *, force: bool) -> None:
    for path in (target, target.with_suffix(".yml")):
        if path.exists() and not (force and path == target):
            raise ConfigError(
                f"{path} is there already",
                "--force replaces it; a name before --from makes another one",
            )


def _look(
    wish: Wish, origin: Origin, name: str, environment: Environment, scratch: Path
) -> Proposal:
    if isinstance(origin, FileOrigin):
        found = find_files(origin, project_root(), wish.rows, wish.records)
        return propose(name, found, scratch)
    with connections(
        environment, Catalog({}, {}), [], sources=True, blocks=[origin.block]
    ) as opened:
        found = _connected(wish, origin, opened, scratch)
        return propose(name, found, scratch)


def _connected(wish: Wish, origin: Origin, opened: Connections, scratch: Path) -> Found:
    if isinstance(origin, ObjectOrigin):
        return find_objects(origin, opened, scratch, wish.rows, wish.records)
    if isinstance(origin, TableOrigin):
        return find_table(origin, opened, scratch, wish.rows)
    assert not isinstance(origin, FileOrigin)
    block, is_new = block_of_url(origin, opened)
    found = find_answers(origin, block, wish.rows, wish.records)
    if is_new and not wish.dry:
        block.save(origin.block)
        found.notes.append(
            f"Block {origin.block!r} was saved for this: base URL only, no credentials."
        )
    return found


def _shown(origin: Origin, wish: Wish) -> str:
    """Name the origin without what may be private in a URL."""
    if isinstance(origin, FileOrigin):
        return Path(origin.pattern).name
    return wish.origin.partition("?")[0]


def _prove(text: str, name: str, folder: Path) -> None:
    """Read the file as every other command will."""
    path = folder / f"{name}.yaml"
    path.write_text(text, encoding="utf-8")
    load_dataset(path)


def _write(target: Path, text: str, *, force: bool) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    try:
        if force:
            temporary.replace(target)
        else:
            os.link(temporary, target)  # unlike replace it fails if someone else was faster
    except FileExistsError:
        raise ConfigError(f"{target} is there already", "--force replaces it") from None
    finally:
        temporary.unlink(missing_ok=True)


def show_proposal(made: Proposal, path: Path | None) -> None:
    """Tell what was found, and what to do next."""
    sample = made.found.sample
    table = Table(box=box.SIMPLE, padding=(0, 1))
    for title in ("column", "type", "NULL"):
        table.add_column(title)
    for name, guess in made.columns.items():
        mark = " [bold]key[/]" if name in made.key else ""
        table.add_row(f"{escape(name)}{mark}", guess.type, str(guess.nulls or ""))
    stderr.print(table)
    for doubt in (doubts := doubts_of(made))[:SHOWN_DOUBTS]:
        stderr.print(f"[yellow]?[/] {escape(doubt)}", highlight=False, soft_wrap=True)
    if len(doubts) > SHOWN_DOUBTS:
        stderr.print(f"[dim]  and {len(doubts) - SHOWN_DOUBTS} more, in the file[/]")
    refused = len(sample.rejects) + sum(made.refused.values())
    stderr.print(
        f"{sample.rows + len(sample.rejects):,} rows read, {refused:,} of them would be quarantined",
        highlight=False,
    )
    if path is not None:
        stderr.print(f"[green]✓[/] {path}", highlight=False, soft_wrap=True)
        stderr.print(f"  next: look at the comments, then dpp check {made.name}", highlight=False)
