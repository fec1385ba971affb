"""Finds the project and reads the environment that ``DPP_ENV`` names."""

from __future__ import annotations

import os
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tasks.catalog import Catalog, load_catalog
from tasks.documents import Document, read_yaml
from tasks.model.environment import Environment
from tasks.model.errors import ConfigError

DEFAULT_ENVIRONMENT = "dev"
FOLDER = Path("deployments") / "environments"


def project_root() -> Path:
    """Return the folder of the project: ``DPP_HOME``, or where this code is."""
    home = os.environ.get("DPP_HOME")
    return Path(home).resolve() if home else Path(__file__).resolve().parent.parent


def load_environment(name: str | None = None) -> Environment:
    """Read an environment: the named one, else ``DPP_ENV``, else dev.

    Raises:
        ConfigError: There is no such environment, or its file or an override is wrong.
    """
    name = name or os.environ.get("DPP_ENV") or DEFAULT_ENVIRONMENT
    folder = project_root() / FOLDER
    known = sorted(path.stem for path in folder.glob("*.yaml"))
    if name not in known:
        raise ConfigError(f"no environment {name!r}; there are: {', '.join(known) or 'none'}")
    document = read_yaml(folder / f"{name}.yaml")
    content = {str(key): value for key, value in document.content.items()}
    try:
        environment = Environment(**content)
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(document, dict(e)) for e in error.errors())) from None
    if environment.name != name:
        raise ConfigError(f"{document.path}:{document.line(('name',))}: name: expected {name!r}")
    return environment


def _explain(document: Document, detail: dict[str, Any]) -> str:
    location: tuple[int | str, ...] = detail["loc"]
    key = ".".join(str(part) for part in location)
    variable = f"DPP_{str(location[0]).upper()}" if location else ""
    where = (
        f"environment variable {variable}"
        if variable in os.environ
        else f"{document.path}:{document.line(location)}: {key}"
    )
    message = str(detail["msg"]).removeprefix("Value error, ")
    return f"{where}: {message}"


def environment_catalog(environment: Environment) -> Catalog:
    """Read the dataset files of an environment; a relative folder is below the project."""
    return load_catalog(project_root() / environment.datasets)


def code_version() -> str:
    """Return the version of the product that does the work."""
    try:
        return version("data-processing-pipeline")
    except PackageNotFoundError:
        return "unknown"
