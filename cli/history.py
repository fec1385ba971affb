"""``dpp trace`` and ``dpp unload``: where a row came from, and a load taken back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cli.console import console, reporting_errors, stderr
from cli.context import connections, open_project
from cli.options import AsJson, Dataset, Yes, confirm, person
from tasks.model.errors import ConfigError

if TYPE_CHECKING:
    from tasks.loading.unload import Unloaded


def trace(
    dataset: Dataset,
    key: Annotated[
        list[str],
        typer.Option(
            "--key", help="Value of each key column: carrier=UA,flight=1545; may be repeated."
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Show a row's whole story: source, raw and clean values, every load, and refused rows of its key.

    dpp trace flights --key carrier=UA,flight=1545,origin=EWR --key "time_hour=2013-01-01 10:00"

    Exit code 2 if no load ever had such a key.
    """
    with reporting_errors():
        environment, catalog = open_project()
        spec = catalog[dataset]
        with connections(environment, catalog, [], sources=False) as opened:
            from cli.trace_view import show_story
            from tasks.loading.ledger import ensure_ledger
            from tasks.trace.key import parse_key
            from tasks.trace.story import trace_row

            ensure_ledger(opened.warehouse())
            story = trace_row(opened.warehouse(), opened.lake(), spec, parse_key(spec, key))
        if as_json:
            typer.echo(story.model_dump_json(indent=2))
        else:
            show_story(story)


def unload(
    dataset: Dataset,
    load_id: Annotated[
        int, typer.Option("--load", help="The load; each row names its own in _load_id.")
    ],
    reason: Annotated[str, typer.Option(help="Why. It is kept in the audit.")],
    exclude: Annotated[
        bool, typer.Option("--exclude", help="Never load this part of the source again.")
    ] = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Take one load back, in one transaction; what it had replaced is restored from the lake.

    The next run loads the same part of the source again, unless --exclude is given.

    dpp unload flights --load 7 --reason "file of the wrong month"
    """
    with reporting_errors():
        environment, catalog = open_project()
        spec = catalog[dataset]
        if not reason.strip():
            raise ConfigError("taking a load back needs a reason", 'e.g. --reason "wrong file"')
        if not yes:
            confirm(f"Take load {load_id} of {dataset} back?", "unload")
        with connections(environment, catalog, [], sources=False) as opened:
            from tasks.loading.ledger import ensure_ledger
            from tasks.loading.unload import unload as take_back

            ensure_ledger(opened.warehouse())
            done = take_back(
                opened.warehouse(),
                opened.lake(),
                spec,
                load_id,
                actor=person(),
                reason=reason,
                exclude=exclude,
                lookups=catalog.lookups_of(spec),
            )
        if as_json:
            typer.echo(done.model_dump_json(indent=2))
            return
        if done.already:
            console.print(
                f"load {load_id} was taken back already, {done.unloaded_at:%Y-%m-%d %H:%M} UTC by "
                f"{done.unloaded_by}: nothing was done now",
                highlight=False,
            )
            return
        console.print(
            f"load {load_id} of [bold]{dataset}[/] is taken back: {done.rows_deleted:,} rows taken "
            f"out, {done.rows_restored:,} versions before put in their place",
            highlight=False,
        )
        stderr.print(_what_next(dataset, done), highlight=False, soft_wrap=True)


def _what_next(dataset: str, done: Unloaded) -> str:
    if done.excluded:
        return "its part of the source is left alone from now on"
    if done.was_replay:
        return f"the rows wait in quarantine again: dpp quarantine show {dataset}"
    if done.read_again:
        return f"the next run loads its part of the source again: dpp plan {dataset} shows it"
    return (
        "later loads have moved the position in the source on: no run reads this part again, unless "
        f"asked to by dpp backfill {dataset}"
    )
