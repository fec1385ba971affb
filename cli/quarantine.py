"""``dpp quarantine``: the refused rows, counted, shown, corrected, replayed or left out for good."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cli.console import console, reporting_errors, stderr
from cli.context import connections, open_project
from cli.options import AsJson, Dataset, Yes, confirm, person
from cli.quarantine_options import (
    Column,
    DryRun,
    LoadId,
    Older,
    Reveal,
    Row,
    Rule,
    seen_before,
    selection_of,
)
from tasks.model.errors import ConfigError

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from tasks.model.dataset import DatasetSpec

quarantine_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="The rows that broke a rule. None of them is lost: look at them, correct them, load them.",
    epilog="On duty: list → show → correct the dataset file and replay, or export, correct by hand "
    "and replay --from. What shall never be loaded: discard --reason. "
    "Exit codes: 0 done · 1 the run failed · 2 your mistake · 3 a dependency is unreachable.",
)


@quarantine_app.command("list")
def list_reasons(
    dataset: Annotated[str | None, typer.Argument(help="Only this dataset.")] = None,
    by: Annotated[
        Literal["rule", "dataset", "age"], typer.Option(help="What the counts are of.")
    ] = "rule",
    rule: Rule = None,
    older_than: Older = None,
    resolved: Annotated[
        bool, typer.Option("--all", help="Also what is replayed or discarded altogether.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Count the refused rows and items, and say what share of those read they are.

    dpp quarantine list

    dpp quarantine list flights --by age
    """
    with reporting_errors():
        environment, catalog = open_project()
        spec, child = catalog.quarantine_of(dataset) if dataset else (None, None)
        before = seen_before(older_than)
        with connections(environment, catalog, [], sources=False) as opened:
            from cli.quarantine_view import counted, quarantine_table
            from tasks.loading.ledger import ensure_ledger
            from tasks.loading.resolutions import quarantine_reasons, rows_read

            engine = opened.warehouse()
            ensure_ledger(engine)
            reasons = [
                reason
                for reason in quarantine_reasons(engine, spec.name if spec else None, child)
                if rule in (None, reason.rule) and (before is None or reason.first_seen < before)
            ]
            entries = counted(reasons, rows_read(engine), by, datetime.now(UTC))
        if not resolved:
            entries = [entry for entry in entries if entry.open]
        if as_json:
            typer.echo(json.dumps([entry.document() for entry in entries], indent=2))
        elif entries:
            console.print(quarantine_table(entries, by))
        else:
            console.print("no row is in quarantine")


@quarantine_app.command()
def show(  # noqa: PLR0913, PLR0917 - each is an option
    dataset: Dataset,
    rule: Rule = None,
    column: Column = None,
    load_id: LoadId = None,
    row: Row = None,
    older_than: Older = None,
    limit: Annotated[int, typer.Option(min=1, help="Most rows to show.")] = 10,
    resolved: Annotated[
        bool, typer.Option("--all", help="Also rows that are replayed or discarded.")
    ] = False,
    reveal: Reveal = False,
    as_json: AsJson = False,
) -> None:
    """Show refused rows: what they said, which cell is at fault, and what became of them.

    dpp quarantine show flights --rule between --limit 3
    """
    with reporting_errors():
        environment, catalog = open_project()
        spec, child = catalog.quarantine_of(dataset)
        selection = selection_of(
            rule, column, load_id, row, older_than, child=child, resolved_too=resolved
        )
        with connections(environment, catalog, [], sources=False) as opened:
            from itertools import islice

            from cli.quarantine_view import permitted, refused_row, refused_title
            from tasks.loading.ledger import ensure_ledger
            from tasks.model.child_dataset import quarantined
            from tasks.protection import UNPROTECTED
            from tasks.replay.select import selected_rows

            refused = quarantined(spec, child)
            protection = permitted(environment, opened, spec) if reveal else UNPROTECTED
            ensure_ledger(opened.warehouse())
            found = 0
            for selected in islice(
                selected_rows(opened.warehouse(), opened.lake(), spec.name, selection), limit
            ):
                found += 1
                kept = selected.kept
                raw = protection.reveal(kept.raw, kept.sealed) if reveal else kept.raw
                if as_json:
                    typer.echo(json.dumps(selected.document(raw), ensure_ascii=False))
                else:
                    title = refused_title(selected)
                    console.print(title, style="bold", markup=False, highlight=False)
                    console.print(refused_row(refused, kept, raw))
            if not as_json:
                _tell_of_items(opened.warehouse(), spec, child)
        if not found and not as_json:
            console.print("no such row is in quarantine")


def _tell_of_items(engine: Engine, spec: DatasetSpec, child: str | None) -> None:
    """Say which child tables have refused items, which are shown by themselves."""
    from tasks.loading.resolutions import quarantine_reasons

    names = [f"{spec.name}.{name}" for name in spec.children] if child is None else []
    reasons = quarantine_reasons(engine, spec.name) if names else []
    for name in names:
        waiting = sum(reason.open for reason in reasons if reason.dataset == name)
        if waiting:
            stderr.print(
                f"{waiting:,} items of {name} are refused too: dpp quarantine show {name}",
                style="dim",
                markup=False,
                highlight=False,
            )


@quarantine_app.command()
def export(  # noqa: PLR0913, PLR0917 - each is an option
    dataset: Dataset,
    to: Annotated[Path, typer.Option("--to", help="The CSV file to write.")],
    rule: Rule = None,
    column: Column = None,
    load_id: LoadId = None,
    row: Row = None,
    older_than: Older = None,
    reveal: Reveal = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a file of that name.")] = False,
) -> None:
    r"""Write refused rows as a CSV file, to correct them by hand.

    Correct the cells, keep the column dpp:row, and load them with: replay NAME --from FILE.
    \N stands for NULL; an apostrophe in front keeps a spreadsheet from taking a cell for a formula.
    """
    with reporting_errors():
        environment, catalog = open_project()
        spec, child = catalog.quarantine_of(dataset)
        selection = selection_of(rule, column, load_id, row, older_than, child=child)
        if to.exists() and not force:
            raise ConfigError(f"{to} is there already", "choose another name, or --force")
        if not to.absolute().parent.is_dir():
            raise ConfigError(f"{to.parent} is no folder", "make it first, or choose another")
        with connections(environment, catalog, [], sources=False) as opened:
            from cli.quarantine_view import permitted
            from tasks.loading.ledger import ensure_ledger
            from tasks.model.child_dataset import quarantined
            from tasks.protection import UNPROTECTED
            from tasks.replay.export import write_export
            from tasks.replay.select import selected_rows

            protection = permitted(environment, opened, spec) if reveal else UNPROTECTED
            engine, lake = opened.warehouse(), opened.lake()
            ensure_ledger(engine)
            with to.open("w", encoding="utf-8-sig", newline="") as file:
                count = write_export(
                    file,
                    quarantined(spec, child),
                    lambda: selected_rows(engine, lake, spec.name, selection),
                    protection,
                    reveal=reveal,
                )
        console.print(f"{count:,} rows are in {to}", highlight=False)
        if count:
            stderr.print(
                f"correct them, then: dpp quarantine replay {dataset} --from {to}",
                style="dim",
                markup=False,
                highlight=False,
            )


@quarantine_app.command()
def replay(  # noqa: PLR0913, PLR0917 - each is an option
    dataset: Dataset,
    corrected: Annotated[
        Path | None, typer.Option("--from", help="A corrected export; only its rows are replayed.")
    ] = None,
    rule: Rule = None,
    column: Column = None,
    load_id: LoadId = None,
    row: Row = None,
    older_than: Older = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Take refused rows through the stages again, under today's dataset file.

    Rows that pass are in the table, once, however often this is repeated. Rows that are refused
    again stay in quarantine under a new name.

    dpp quarantine replay flights --rule between

    dpp quarantine replay flights --from corrected.csv
    """
    with reporting_errors():
        from cli.quarantine_run import run_replay

        environment, catalog = open_project()
        spec, child = catalog.quarantine_of(dataset)
        selection = selection_of(rule, column, load_id, row, older_than, child=child)
        raise typer.Exit(
            run_replay(
                environment,
                catalog,
                spec,
                selection,
                corrected,
                dry_run=dry_run,
                as_json=as_json,
            )
        )


@quarantine_app.command()
def discard(  # noqa: PLR0913, PLR0917 - each is an option
    dataset: Dataset,
    reason: Annotated[str, typer.Option(help="Why; it is kept for those who ask later.")],
    rule: Rule = None,
    column: Column = None,
    load_id: LoadId = None,
    row: Row = None,
    older_than: Older = None,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Leave refused rows out for good. They stay in the lake, marked, with the reason.

    dpp quarantine discard flights --rule between --older-than 30d --reason "sensor of 2013 broken"
    """
    with reporting_errors():
        environment, catalog = open_project()
        spec, child = catalog.quarantine_of(dataset)
        selection = selection_of(rule, column, load_id, row, older_than, child=child)
        with connections(environment, catalog, [], sources=False) as opened:
            from tasks.loading.ledger import ensure_ledger
            from tasks.replay.discard import discard_rows, rows_to_discard

            engine = opened.warehouse()
            ensure_ledger(engine)
            rows = rows_to_discard(engine, opened.lake(), spec.name, selection)
            count = sum(reason.count for _, reasons in rows for reason in reasons)
            if not count:
                console.print("no such row is in quarantine")
                return
            if dry_run:
                console.print(f"{count:,} rows would be discarded", highlight=False)
                return
            if not yes:
                confirm(f"Leave {count:,} rows of {dataset} out for good?")
            discard_rows(engine, rows, reason, person(), child)
        console.print(f"{count:,} rows are discarded", highlight=False)
