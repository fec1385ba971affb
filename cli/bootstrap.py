"""``dpp bootstrap``: makes a Prefect server what the project's files say about an environment."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.table import Table

from cli.console import console, reporting_errors, starting, stderr
from cli.prefect_process import drain_prefect, quiet_prefect
from tasks.environments import environment_catalog, load_environment, project_root
from tasks.model.environment import Environment
from tasks.model.errors import ConfigError

if TYPE_CHECKING:
    from deployments.bootstrap.plan import Step

COLOURS = {"create": "green", "change": "yellow", "remove": "red", "leave": "dim"}


def bootstrap(
    environment: Annotated[str, typer.Option("--env", help="The environment: dev, staging, prod.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the plan, and do nothing.")
    ] = False,
    prune: Annotated[
        bool,
        typer.Option(
            "--prune", help="Remove what an earlier bootstrap made and is no longer declared."
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
) -> None:
    """Make a Prefect server what the files say: blocks, pool, limits, deployments, automations.

    It prints its plan, then does it. Run again, it has nothing to do.
    """
    with reporting_errors():
        os.environ["DPP_ENV"] = environment
        found = load_environment(environment)
        with _server(found) as given:
            steps = deploy(found, given, dry_run=dry_run, prune=prune)
            drain_prefect()
        if as_json:
            typer.echo(json.dumps([_as_json(step) for step in steps], indent=2))
        else:
            _show(steps, found.name, dry_run=dry_run)


def deploy(
    environment: Environment,
    given: Mapping[str, Any],
    *,
    dry_run: bool = False,
    prune: bool = False,
) -> list[Step]:
    """Plan, and do what is planned unless it is a dry run; Prefect is addressed already.

    Args:
        environment: The environment.
        given: Blocks that are made already, by ``<block type slug>/<name>``.
        dry_run: Plan only.
        prune: Remove what is no longer declared.

    Returns:
        The plan.
    """
    from prefect.client.orchestration import get_client

    from deployments.bootstrap.bootstrap import Bootstrap, deploy_variables

    root = project_root()
    with get_client(sync_client=True) as client:
        work = Bootstrap(client, environment, root, deploy_variables(root, os.environ), given)
        steps = work.plan(prune=prune)
        if not dry_run:
            work.apply(steps)
    return steps


def by_key(blocks: Mapping[str, Any]) -> dict[str, Any]:
    """Return blocks that are known by name by ``<block type slug>/<name>``."""
    return {f"{block.get_block_type_slug()}/{name}": block for name, block in blocks.items()}


@contextmanager
def _server(environment: Environment) -> Iterator[Mapping[str, Any]]:
    """Address the environment's Prefect server; dev's own is started, and gives its blocks."""
    if not environment.embedded:
        if not os.environ.get("PREFECT_API_URL"):
            raise ConfigError(
                f"PREFECT_API_URL is not set; it says where the server of {environment.name} is",
                "export PREFECT_API_URL=https://prefect.example.org/api",
            )
        quiet_prefect()
        yield {}
        return
    from cli.local import local_servers

    catalog = environment_catalog(environment)
    with local_servers(environment, catalog, sorted(catalog.datasets), starting) as local:
        with stderr.status("starting PostgreSQL, Prefect and the sources …"):
            local.start(prefect=True, sources=True)
        yield by_key(local.blocks(sources=True))


def _as_json(step: Step) -> dict[str, Any]:
    return {
        "kind": step.kind,
        "name": step.name,
        "action": step.action.value,
        "keys": list(step.keys),
    }


def _show(steps: Sequence[Step], environment: str, *, dry_run: bool) -> None:
    from deployments.bootstrap.plan import Action

    table = Table(box=box.SIMPLE, padding=(0, 1))
    for heading in ("", "kind", "name", "keys"):
        table.add_column(heading)
    shown = [step for step in steps if step.action is not Action.KEEP]
    for step in shown:
        colour = COLOURS[step.action.value]
        keys = ", ".join(step.keys)
        if step.action is Action.LEAVE:
            keys = "not declared, or once too often; --prune removes it"
        table.add_row(f"[{colour}]{step.action.value}[/]", step.kind, step.name, keys)
    if shown:
        console.print(table)
    counts = Counter(step.action.value for step in steps)
    summary = ", ".join(f"{count} {action}" for action, count in counts.items())
    todo = counts.total() - counts[Action.KEEP.value] - counts[Action.LEAVE.value]
    if not todo:
        console.print(f"[green]✓[/] {environment}: nothing to do ({summary})", highlight=False)
    elif dry_run:
        console.print(f"{environment}: {summary}; nothing was done (--dry-run)", highlight=False)
    else:
        console.print(f"[green]✓[/] {environment}: {summary}", highlight=False)
