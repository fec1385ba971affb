"""A row's story as people read it: from the source to the table, what changed marked."""

from __future__ import annotations

from rich import box
from rich.markup import escape
from rich.table import Table

from cli.console import console
from tasks.trace.model import RefusedAncestor, Story, Version


def show_story(story: Story) -> None:
    """Print the story of a row."""
    key = ", ".join(f"{name}={value}" for name, value in story.key.items())
    if story.row is None:
        console.print(f"[bold]{story.table}[/] has no row with {escape(key)}", highlight=False)
    else:
        console.print(
            f"[bold]{story.table}[/] {escape(key)}: written by load {story.load_id}",
            highlight=False,
        )
    for version in story.versions:
        _title(
            f"load {version.load_id} {version.what}{' ◄ in the table' if version.is_current else ''}"
        )
        _about(version)
        if version.cells and version.what != "unchanged":
            console.print(_cells(version))
    for refused in story.refused:
        _title(f"refused in load {refused.load_id}: {refused.failures}")
        _about_refused(refused)
    for note in story.notes:
        console.print(f"note: {note}", style="yellow", markup=False, highlight=False)


def _title(text: str) -> None:
    console.print()
    console.print(text, style="bold", markup=False, highlight=False)


def _about(version: Version) -> None:
    where = (
        f"{version.source_uri} row {version.source_row}" if version.source_uri else version.label
    )
    when = f"{version.loaded_at.astimezone():%Y-%m-%d %H:%M:%S}"
    console.print(f"  from {where}\n  in run {version.run}, {when}", markup=False, highlight=False)


def _cells(version: Version) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("column", "raw", "clean"):
        table.add_column(name, overflow="fold")
    for cell in version.cells:
        raw = "[dim]NULL[/]" if cell.raw is None else escape(cell.raw)
        if cell.origin != "source":
            raw = f"[dim]{cell.origin}[/]"
        clean = "[dim]NULL[/]" if cell.clean is None else escape(cell.clean)
        table.add_row(escape(cell.column), raw, f"[yellow]{clean} ◄[/]" if cell.changed else clean)
    return table


def _about_refused(refused: RefusedAncestor) -> None:
    fate = "waits in quarantine"
    if refused.resolution == "replayed":
        fate = f"replayed as load {refused.replay_load_id} by {refused.resolved_by}"
    elif refused.resolution:
        fate = f"{refused.resolution} by {refused.resolved_by}"
    console.print(
        f"  {refused.id} from {refused.source_uri} row {refused.source_row}\n  {fate}",
        markup=False,
        highlight=False,
    )
    values = ", ".join(f"{name}={value}" for name, value in refused.raw.items())
    console.print(f"  {values}", markup=False, highlight=False)
