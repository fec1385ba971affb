"""Entrypoints that import, and parameters that their flows take."""

from __future__ import annotations

import ast
import difflib
import inspect
import warnings
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from prefect import Flow
from prefect.exceptions import ParameterTypeError
from prefect.flows import load_flow_from_entrypoint
from prefect.utilities.callables import parameter_schema
from prefect.utilities.schema_tools.validation import validate

from deployments.prefect_file import DeploymentEntry
from tasks.documents import Location


@cache
def load_flow(root: Path, entrypoint: str) -> Flow[..., Any] | str:
    """Import the flow of an entrypoint; what is wrong about it comes back as a text."""
    path, _, name = entrypoint.partition(":")
    if not (root / path).is_file():
        return f"there is no file {path}"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the same flow, defined again
            return load_flow_from_entrypoint(f"{root / path}:{name}", use_placeholder_flow=False)
    except Exception as error:  # whatever a module does when it is imported
        return f"cannot be imported: {type(error).__name__}: {error}"


def wrong_parameters(
    flow: Flow[..., Any], entry: DeploymentEntry
) -> Iterator[tuple[Location, str]]:
    """Yield what a flow does not take of its deployment's parameters, and of its schedules'.

    A deployment that people start may leave parameters to them; a schedule may not.
    """
    yield from _wrong(flow, entry.parameters, ("parameters",), complete=False)
    for position, schedule in enumerate(entry.schedules):
        # As Prefect merges them: a parameter of the schedule replaces the whole of the deployment's.
        given = {**entry.parameters, **schedule.parameters}
        place = ("schedules", position, "parameters")
        yield from _wrong(flow, given, place, complete=True)


def _wrong(
    flow: Flow[..., Any], given: Mapping[str, Any], place: Location, *, complete: bool
) -> Iterator[tuple[Location, str]]:
    known = inspect.signature(flow.fn).parameters
    unknown = sorted(set(given) - set(known))
    for name in unknown:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        yield (*place, name), f"flow {flow.name!r} has no parameter of that name{hint}"
    if unknown:
        return
    errors = validate(dict(given), _schema(flow), ignore_required=not complete)
    for error in errors:
        yield (*place, *error.absolute_path), f"flow {flow.name!r}: {error.message}"
    if errors or not complete:
        return
    try:
        flow.validate_parameters(dict(given))
    except ParameterTypeError as error:
        yield place, f"flow {flow.name!r}: {' '.join(str(error).split())}"


@cache
def _schema(flow: Flow[..., Any]) -> dict[str, Any]:
    return parameter_schema(flow).model_dump(mode="json")


def flows_of(root: Path) -> dict[str, int]:
    """Return the entrypoint of each flow below ``flows/``, with its line."""
    found: dict[str, int] = {}
    for path in sorted((root / "flows").glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and any(map(_is_flow, node.decorator_list)):
                found[f"flows/{path.name}:{node.name}"] = node.lineno
    return found


def _is_flow(decorator: ast.expr) -> bool:
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    return isinstance(called, ast.Name) and called.id == "flow"
