"""Loads Python of the user's: functions and pandera schemas that a dataset file names."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import pandera.pandas as pandera

from tasks.environments import project_root
from tasks.model.dataset import DatasetSpec
from tasks.model.errors import ConfigError

# Partitions run side by side, and a module is known before all of it has been executed.
_IMPORTING = threading.RLock()


def load_object(spec: DatasetSpec, key: str, reference: str) -> Any:
    """Return what a reference ``module:name`` of a dataset file names.

    Args:
        spec: The dataset.
        key: Where in its file the reference is, for messages.
        reference: The reference.

    Raises:
        ConfigError: There is no such module, it cannot be imported, or it has no such name.
    """
    module_name, _, name = reference.partition(":")
    where = f"{spec.name}: {key}: {reference}"
    try:
        with _IMPORTING:
            module = _module(module_name)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{where}: there is no module {error.name}; looked for {_path(module_name)}"
        ) from None
    except Exception as error:  # whatever a user's module does when it is imported
        raise ConfigError(f"{where}: cannot be imported: {type(error).__name__}: {error}") from None
    if not hasattr(module, name):
        raise ConfigError(f"{where}: {module_name} has no {name}")
    return getattr(module, name)


def load_schema(spec: DatasetSpec) -> pandera.DataFrameSchema | None:
    """Return the pandera schema that a dataset names, None if it names none.

    Raises:
        ConfigError: It is no pandera schema.
    """
    if spec.user_schema is None:
        return None
    found = load_object(spec, "validate", spec.user_schema.schema_)
    if isinstance(found, type) and issubclass(found, pandera.DataFrameModel):
        with _IMPORTING:  # pandera keeps what it makes of a class
            return found.to_schema()
    if isinstance(found, pandera.DataFrameSchema):
        return found
    raise ConfigError(
        f"{spec.name}: validate: {spec.user_schema.schema_} is neither a DataFrameModel nor a "
        "DataFrameSchema of pandera"
    )


def code_digest(spec: DatasetSpec) -> str | None:
    """Return a hash of the modules that a dataset names, None if it names none.

    What these modules import is not part of it.
    """
    references = [spec.custom.function] if spec.custom else []
    references += [spec.user_schema.schema_] if spec.user_schema else []
    if not references:
        return None
    digest = hashlib.sha256()
    for reference in references:
        path = _path(reference.partition(":")[0])
        digest.update(reference.encode())
        digest.update(path.read_bytes() if path.is_file() else b"")
    return digest.hexdigest()


def _path(module: str) -> Path:
    return project_root().joinpath(*module.split(".")).with_suffix(".py")


def _module(name: str) -> ModuleType:
    """Import a file under the project's folder, or else an installed module."""
    path = _path(name)
    if not path.is_file():
        return importlib.import_module(name)
    unique = f"_dpp_{hashlib.sha256(str(path).encode() + path.read_bytes()).hexdigest()[:16]}"
    if unique in sys.modules:
        return sys.modules[unique]
    found = importlib.util.spec_from_file_location(unique, path)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[unique] = module  # pandera looks the module up to resolve annotations
    try:
        found.loader.exec_module(module)
    except BaseException:
        del sys.modules[unique]
        raise
    return module
