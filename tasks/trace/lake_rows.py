"""Finds rows in files of the lake by values of theirs; many files at a time, none of them whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb

from blocks.lake import Lake
from tasks.model.errors import ConfigError
from tasks.model.manifest import LakeFile

BATCH_FILES = 200
BATCH_BYTES = 256 << 20
"""What is fetched at a time from a lake that is not on this machine."""
MEMORY = "256MB"

Row = dict[str, Any]


def quoted(name: str) -> str:
    """Quote a name."""
    return '"' + name.replace('"', '""') + '"'


class LakeRows:
    """Looks for rows in files of the lake.

    Args:
        connection: A session of DuckDB.
        lake: The lake.
        scratch: Folder for files that are fetched.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, lake: Lake, scratch: Path) -> None:
        self._connection = connection
        self._lake = lake
        self._scratch = scratch
        self.missing: list[str] = []
        """Keys of files that the lake has lost."""

    def by_values(self, files: Sequence[LakeFile], values: Mapping[str, str]) -> Iterator[Row]:
        """Yield rows with these values, as texts, with the key of their file as ``_file``.

        The value of each column is read in the type that the column has.

        Raises:
            ConfigError: A value is none of its column's type.
        """
        for paths in self._batches(files):
            types = self.types(list(paths))
            if any(name not in types for name in values):
                continue
            for name, text in values.items():
                self._check(name, text, types[name])
            condition = " AND ".join(
                f"{quoted(name)} = CAST(? AS {types[name]})" for name in values
            )
            columns = ", ".join(
                f"CAST({quoted(name)} AS VARCHAR) AS {quoted(name)}" for name in types
            )
            yield from self._rows(paths, columns, condition, list(values.values()))

    def by_origin(self, files: Sequence[LakeFile], uri: str, row: int) -> Row | None:
        """Return the raw row that came from there, None if the files do not have it."""
        for paths in self._batches(files):
            types = self.types(list(paths))
            columns = ", ".join(
                f"CAST({quoted(name)} AS VARCHAR) AS {quoted(name)}" for name in types
            )
            condition = "_source_uri = ? AND _source_row = ?"
            if "_source_uri" not in types:
                continue
            found = next(self._rows(paths, columns, condition, [uri, row]), None)
            if found is not None:
                return found
        return None

    def refused(
        self, files: Sequence[LakeFile], names: Mapping[str, str], values: Mapping[str, str]
    ) -> Iterator[tuple[int, Row]]:
        """Yield the refused rows whose key reads like these values, with their numbers.

        Args:
            files: The quarantine files of one load, in their order.
            names: Name in the source of each column.
            values: Text of each column.
        """
        before = 0
        same = " AND ".join(
            "(lower(trim(json_extract_string(raw, ?))) = lower(trim(?)) OR "
            "TRY_CAST(json_extract_string(raw, ?) AS DECIMAL(38,10)) = TRY_CAST(? AS DECIMAL(38,10)) "
            "OR TRY_CAST(json_extract_string(raw, ?) AS TIMESTAMPTZ) = TRY_CAST(? AS TIMESTAMPTZ))"
            for _ in values
        )
        arguments: list[Any] = []
        for name, text in values.items():
            arguments += [f'$."{names[name]}"', text] * 3
        for file in files:
            for paths in self._batches([file]):
                condition = f"stage = 'transformation' AND json_valid(raw) AND {same}"
                for row in self._rows(paths, "*", condition, arguments):
                    yield before + int(row["file_row_number"]) + 1, row
            before += file.rows

    def types(self, paths: Sequence[str]) -> dict[str, str]:
        """Return the columns of some files with their types, each file's own ones left out."""
        described = self._connection.execute(
            "DESCRIBE SELECT * FROM read_parquet(?, union_by_name = true)", [list(paths)]
        ).fetchall()
        return {str(row[0]): str(row[1]) for row in described}

    def _check(self, name: str, text: str, kind: str) -> None:
        found = self._connection.execute(f"SELECT TRY_CAST(? AS {kind}) IS NULL", [text]).fetchone()
        if found and found[0]:
            raise ConfigError(f"--key {name}: the value is no {kind.lower()}", "write it as in SQL")

    def _rows(
        self, paths: Mapping[str, str], columns: str, condition: str, arguments: Sequence[Any]
    ) -> Iterator[Row]:
        result = self._connection.execute(
            f"SELECT {columns}, _file, file_row_number FROM read_parquet(?, "
            f"union_by_name = true, filename = '_file', file_row_number = true) WHERE {condition}",
            [list(paths), *arguments],
        )
        names = [column[0] for column in result.description or ()]
        for values in result.fetchall():
            row = dict(zip(names, values, strict=True))
            yield {**row, "_file": paths[row["_file"]]}

    def _batches(self, files: Sequence[LakeFile]) -> Iterator[dict[str, str]]:
        """Yield path → key of files on this machine; what was fetched goes with the next batch."""
        batch: dict[str, str] = {}
        size = 0
        for file in {file.key: file for file in files}.values():
            if batch and (len(batch) == BATCH_FILES or size + file.bytes > BATCH_BYTES):
                yield batch
                self._drop(batch)
                batch, size = {}, 0
            try:
                batch[str(self._lake.local_path(file.key, self._scratch))] = file.key
                size += file.bytes
            except FileNotFoundError:
                self.missing.append(file.key)
        if batch:
            yield batch
            self._drop(batch)

    def _drop(self, batch: Mapping[str, str]) -> None:
        for path in map(Path, batch):
            if path.is_relative_to(self._scratch):
                path.unlink(missing_ok=True)


@contextmanager
def lake_rows(lake: Lake, scratch: Path) -> Iterator[LakeRows]:
    """Open a session that looks for rows in files of the lake."""
    config: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": MEMORY,
        "temp_directory": str(scratch / "spill"),
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
    }
    connection = duckdb.connect(":memory:", config=config)
    try:
        connection.execute("SET TimeZone = 'UTC'")
        yield LakeRows(connection, lake, scratch)
    finally:
        connection.close()
