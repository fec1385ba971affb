"""``dpp status``, ``profile`` and ``search``: what was loaded."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from cli.console import reporting_errors
from cli.context import chosen, connections, open_project
from cli.options import AsJson


def status(as_json: AsJson = False) -> None:
    """Show what each dataset holds, and when it was loaded last."""
    with reporting_errors():
        environment, catalog = open_project()
        with connections(environment, catalog, [], sources=False) as opened:
            from cli.status import read_status, show_status

            found = read_status(opened.warehouse())
        if as_json:
            typer.echo(json.dumps(found.as_json(), indent=2))
        else:
            show_status(found, catalog)


def profile(
    name: Annotated[str, typer.Argument(help="The dataset.")], as_json: AsJson = False
) -> None:
    """Show what the rows of the partition look like that was loaded last, and what is unusual."""
    with reporting_errors():
        environment, catalog = open_project()
        (picked,) = chosen(catalog, [name])
        with connections(environment, catalog, [], sources=False) as opened:
            from cli.profile import show_profile
            from tasks.loading.ledger import ensure_ledger
            from tasks.loading.profiles import latest_profile

            engine = opened.warehouse()
            ensure_ledger(engine)
            stored = latest_profile(engine, picked)
            if as_json:
                typer.echo(stored.model_dump_json() if stored else "null")
            else:
                show_profile(picked, stored)


def search(
    name: Annotated[str, typer.Argument(help="The dataset.")],
    text: Annotated[
        str,
        typer.Argument(help="Words; 'OR' between them, '-' before one, quotes around a phrase."),
    ],
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Most rows to show.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Find rows by what their texts say, the best first; misspelt words are found too.

    dpp search flights "boeing 737"
    """
    with reporting_errors():
        environment, catalog = open_project()
        (picked,) = chosen(catalog, [name])
        with connections(environment, catalog, [], sources=False) as opened:
            from cli.search import show_found
            from tasks.loading.search import search as find

            found = find(opened.warehouse(), catalog[picked], text, limit)
        if as_json:
            typer.echo(json.dumps(found, indent=2, default=str))
        else:
            show_found(catalog[picked], text, found)
