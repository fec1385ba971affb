"""``dpp quarantine``: the refused rows, counted, shown, corrected, replayed or left out for good."""

from __future__ import annotations

import getpass
import json
import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Literal

import typer

from cli.console import console, reporting_errors, stderr
from cli.context import connections, open_project
from tasks.model.errors import ConfigError, ExitCode
from tasks.model.replay import Selection

quarantine_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="The rows that broke a rule. None of them is lost: look at them, correct them, load them.",
    epilog="On duty: list → show → correct the dataset file and replay, or export, correct by hand "
    "and replay --from. What shall never be loaded: discard --reason. "
    "Exit codes: 0 done · 1 the run failed · 2 your mistake · 3 a dependency is unreachable.",
)

Dataset = Annotated[str, typer.Argument(help="The dataset.")]
Rule = Annotated[str | None, typer.Option(help="Only rows that broke this rule first.")]
Column = Annotated[str | None, typer.Option(help="Only rows that broke it in this column.")]
LoadId = Annotated[int | None, typer.Option("--load", help="Only rows of this load.")]
Row = Annotated[
    list[str] | None, typer.Option("--row", help="Only this row, e.g. 12-345; may be repeated.")
]
Older = Annotated[
    str | None, typer.Option("--older-than", help="Only rows first seen so long ago: 12h, 7d, 4w.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Reveal = Annotated[
    bool,
    typer.Option(
        "--reveal", help="With the values of protected columns; if the environment permits it."
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask; scripts need it.")]
_AGE = re.compile(r"(\d{1,5})([hdw])")
_HOURS = {"h": 1, "d": 24, "w": 168}


def selection_of(
    rule: str | None,
    column: str | None,
    load_id: int | None,
    rows: list[str] | None,
    older_than: str | None,
    *,
    resolved_too: bool = False,
) -> Selection:
    """Return the rows that the options of a command mean."""
    try:
        return Selection(
            rule=rule,
            column=column,
            load_id=load_id,
            rows=tuple(row.strip() for row in rows or ()),
            seen_before=_before(older_than),
            resolved_too=resolved_too,
        )
    except ValueError as error:
        text = str(error)
        if "no row of quarantine" not in text:
            raise
        raise ConfigError(
            f"--row {', '.join(rows or ())}: a row is named like 12-345",
            "dpp quarantine show prints the names",
        ) from None


def _before(older_than: str | None) -> datetime | None:
    if older_than is None:
        return None
    match = _AGE.fullmatch(older_than.strip())
    if not match:
        raise ConfigError(f"--older-than {older_than!r} is no age", "write e.g. 12h, 7d or 4w")
    return datetime.now(UTC) - timedelta(hours=int(match[1]) * _HOURS[match[2]])


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
    """Count the refused rows, and say what share of the rows read they are.

    dpp quarantine list

    dpp quarantine list flights --by age
    """
    with reporting_errors():
        environment, catalog = open_project()
        if dataset:
            catalog[dataset]
        before = _before(older_than)
        with connections(environment, catalog, [], sources=False) as opened:
            from cli.quarantine_view import counted, quarantine_table
            from tasks.loading.ledger import ensure_ledger
            from tasks.loading.resolutions import quarantine_reasons, rows_read

            engine = opened.warehouse()
            ensure_ledger(engine)
            reasons = [
                reason
                for reason in quarantine_reasons(engine, dataset)
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
        catalog[dataset]
        selection = selection_of(rule, column, load_id, row, older_than, resolved_too=resolved)
        with connections(environment, catalog, [], sources=False) as opened:
            from itertools import islice

            from cli.quarantine_view import refused_row, refused_title
            from tasks.loading.ledger import ensure_ledger
            from tasks.protection import UNPROTECTED
            from tasks.replay.reveal import permitted_protection
            from tasks.replay.select import selected_rows

            spec = catalog[dataset]
            protection = (
                permitted_protection(environment, opened, spec, _person())
                if reveal
                else UNPROTECTED
            )
            ensure_ledger(opened.warehouse())
            found = 0
            for selected in islice(
                selected_rows(opened.warehouse(), opened.lake(), dataset, selection), limit
            ):
                found += 1
                kept = selected.kept
                raw = protection.reveal(kept.raw, kept.sealed) if reveal else kept.raw
                if as_json:
                    typer.echo(json.dumps(selected.document(raw), ensure_ascii=False))
                else:
                    title = refused_title(selected)
                    console.print(title, style="bold", markup=False, highlight=False)
                    console.print(refused_row(spec, kept, raw))
        if not found and not as_json:
            console.print("no such row is in quarantine")


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
        spec = catalog[dataset]
        selection = selection_of(rule, column, load_id, row, older_than)
        if to.exists() and not force:
            raise ConfigError(f"{to} is there already", "choose another name, or --force")
        if not to.absolute().parent.is_dir():
            raise ConfigError(f"{to.parent} is no folder", "make it first, or choose another")
        with connections(environment, catalog, [], sources=False) as opened:
            from tasks.loading.ledger import ensure_ledger
            from tasks.protection import UNPROTECTED
            from tasks.replay.export import write_export
            from tasks.replay.reveal import permitted_protection
            from tasks.replay.select import selected_rows

            protection = (
                permitted_protection(environment, opened, spec, _person())
                if reveal
                else UNPROTECTED
            )
            engine, lake = opened.warehouse(), opened.lake()
            ensure_ledger(engine)
            with to.open("w", encoding="utf-8-sig", newline="") as file:
                count = write_export(
                    file,
                    spec,
                    lambda: selected_rows(engine, lake, dataset, selection),
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
        selection = selection_of(rule, column, load_id, row, older_than)
        raise typer.Exit(
            run_replay(
                environment,
                catalog,
                catalog[dataset],
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
        catalog[dataset]
        selection = selection_of(rule, column, load_id, row, older_than)
        with connections(environment, catalog, [], sources=False) as opened:
            from tasks.loading.ledger import ensure_ledger
            from tasks.replay.discard import discard_rows, rows_to_discard

            engine = opened.warehouse()
            ensure_ledger(engine)
            rows = rows_to_discard(engine, opened.lake(), dataset, selection)
            count = sum(reason.count for _, reasons in rows for reason in reasons)
            if not count:
                console.print("no such row is in quarantine")
                return
            if dry_run:
                console.print(f"{count:,} rows would be discarded", highlight=False)
                return
            if not yes:
                _confirm(f"Leave {count:,} rows of {dataset} out for good?")
            discard_rows(engine, rows, reason, _person())
        console.print(f"{count:,} rows are discarded", highlight=False)


def _confirm(question: str) -> None:
    if not sys.stdin.isatty():
        raise ConfigError("discarding needs a yes, and nobody is here to give it", "add --yes")
    if not typer.confirm(question):
        console.print("nothing was done")
        raise typer.Exit(ExitCode.DONE)


def _person() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"
