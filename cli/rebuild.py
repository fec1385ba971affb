"""``dpp rebuild``: the warehouse's tables and ledger made again from the lake."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from cli.console import console, reporting_errors, stderr
from cli.context import chosen, connections, open_project
from cli.options import AsJson, Yes, confirm, person

if TYPE_CHECKING:
    from tasks.loading.rebuild import Rebuilt


def rebuild(
    names: Annotated[
        list[str] | None, typer.Argument(help="Datasets; all that the lake has, if none is named.")
    ] = None,
    ledger: Annotated[
        str | None,
        typer.Option(help="Which ledger, where the lake has copies of several."),
    ] = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Make tables and ledger again from the lake: after the warehouse was lost.

    Every load is applied again, in its order, and committed with its ledger row. What is there already
    is left as it is; after an interruption, run it again.
    """
    with reporting_errors():
        environment, catalog = open_project()
        picked = [spec.name for spec in catalog.in_order(chosen(catalog, names or []))]
        if not yes:
            confirm(f"Make {len(picked)} datasets again in the warehouse?", "rebuild")
        made = []
        with connections(environment, catalog, [], sources=False) as opened:
            from tasks.loading.copies import copy_quietly
            from tasks.loading.rebuild import rebuild as make_again

            engine, lake = opened.warehouse(), opened.lake()
            for name in picked:
                spec = catalog[name]
                with stderr.status(f"making {name} again …"):
                    done = make_again(
                        engine,
                        lake,
                        spec,
                        actor=person(),
                        ledger=ledger,
                        lookups=catalog.lookups_of(spec),
                    )
                made.append(done)
                if not as_json:
                    console.print(_words(done), highlight=False)
            copy_quietly(engine, lake, wait=True)
        if as_json:
            typer.echo(json.dumps([asdict(done) for done in made], indent=2))
        elif any(done.loads for done in made):
            stderr.print("dpp reconcile proves that it is all there", highlight=False)


def _words(done: Rebuilt) -> str:
    if done.nothing:
        return f"[bold]{done.dataset}[/]: the lake has no copy of a ledger of it"
    there = f"; {done.already:,} were there already" if done.already else ""
    return (
        f"[bold]{done.dataset}[/]: {done.loads:,} loads applied again, {done.rows:,} rows inserted"
        f"{there}"
    )
