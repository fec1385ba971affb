"""``dpp lint``: what would go wrong on a server, said before."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from cli.console import console, reporting_errors, stderr
from cli.prefect_process import quiet_prefect
from tasks.environments import code_version, load_environment, project_root
from tasks.model.errors import ExitCode


def lint(
    environment: Annotated[
        str | None,
        typer.Option(
            "--env", help="Only what this environment deploys; its variables must be set."
        ),
    ] = None,
) -> None:
    """Check prefect.yaml, environments, automations and dataset files; needs no server.

    Prefect ignores unknown keys, unset variables and more in silence; this does not.
    """
    with reporting_errors():
        if environment is not None:
            load_environment(environment)  # its name may be wrong
        quiet_prefect()
        from deployments.lint.lint import lint as find

        root = project_root()
        variables = {"DPP_HOME": str(root), "DPP_VERSION": code_version(), **os.environ}
        found = find(root, variables, environment)
        for each in found:
            shown = str(each).replace(f"{root}/", "")
            stderr.print(shown, markup=False, highlight=False, soft_wrap=True)
        if found:
            count = f"{len(found)} mistake{'s' if len(found) > 1 else ''}"
            stderr.print(f"[bold red]{count}[/]", highlight=False)
            raise typer.Exit(ExitCode.USER_MISTAKE)
        console.print("[green]✓[/] deployments, environments and datasets", highlight=False)
