"""The command line ``dpp``: the same verbs as the flows, for people and for scripts.

Exit codes: 0 done, 1 the run failed, 2 the user's mistake, 3 a dependency is unreachable.
"""

from __future__ import annotations

from collections.abc import Callable

import typer

from cli.bootstrap import bootstrap
from cli.console import reporting_errors
from cli.declare import check, explain, new
from cli.history import trace, unload
from cli.lint import lint
from cli.load import backfill, plan, run
from cli.quarantine import quarantine_app
from cli.rebuild import rebuild
from cli.show import profile, search, status
from cli.upkeep import index, maintain, reconcile

app = typer.Typer(
    name="dpp",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Declare a dataset in one YAML file; get an exact, restartable run into PostgreSQL.",
    epilog="Exit codes: 0 done · 1 the run failed · 2 your mistake · 3 a dependency is unreachable. "
    "DPP_ENV chooses the environment (dev, staging, prod), DPP_LOG_LEVEL=INFO shows every step.",
)
app.add_typer(quarantine_app, name="quarantine")


def demo() -> None:
    """Run the main job on real data: a year of flights from New York."""
    with reporting_errors():
        from cli.demo import run_demo

        raise typer.Exit(run_demo())


def up() -> None:
    """Open the Prefect UI with a worker for the dev deployments, until Ctrl-C."""
    with reporting_errors():
        from cli.up import serve

        serve()


COMMANDS: tuple[Callable[..., None], ...] = (
    demo,
    new,
    check,
    plan,
    run,
    backfill,
    explain,
    status,
    profile,
    search,
    index,
    reconcile,
    lint,
    bootstrap,
    trace,
    unload,
    rebuild,
    maintain,
    up,
)
"""In the order of the help."""
for command in COMMANDS:
    app.command()(command)


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
