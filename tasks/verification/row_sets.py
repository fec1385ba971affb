"""Raw rows of the source and of the lake compared as sets, whatever order they come in; on disk."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import duckdb

from tasks.ingestion.connector import SOURCE_ROW, SOURCE_URI
from tasks.loading.canonical import duckdb_hash, quoted
from tasks.protection import MASK

Side = Literal["lake", "source"]
MEMORY = "256MB"
LISTED = 20
"""Rows that are named; the others are counted."""


@dataclass(frozen=True, slots=True)
class Sums:
    """A number of rows, and their checksum, which does not depend on their order."""

    rows: int
    checksum: int


@dataclass(frozen=True, slots=True)
class RowWords:
    """How rows are told apart and named.

    Attributes:
        key: Columns of the source that tell its rows apart; none if nothing does.
        protected: Columns whose values are never shown.
    """

    key: Sequence[str]
    protected: Collection[str]


class RowSets:
    """Compares what is read of a source now with what the lake has of it.

    A row takes about twenty bytes on disk while its partition is compared; what differs is kept until
    all partitions were compared, because a row that left one may be in a later one.

    Args:
        folder: Where the session may write.
        words: How rows are named.
    """

    def __init__(self, folder: Path, words: RowWords) -> None:
        self._words = words
        self._connection = duckdb.connect(
            str(folder / "row_sets.duckdb"),
            config={
                "memory_limit": MEMORY,
                "temp_directory": str(folder / "spill"),
                "autoinstall_known_extensions": False,
                "autoload_known_extensions": False,
            },
        )
        self._connection.execute("SET TimeZone = 'UTC'")
        self._connection.execute("CREATE TABLE diff (load BIGINT, h BIGINT, k BIGINT, n BIGINT)")
        self._connection.execute("CREATE TABLE names (load BIGINT, h BIGINT, name VARCHAR)")
        self._connection.execute("CREATE TABLE elsewhere (load BIGINT, h BIGINT, k BIGINT)")

    def close(self) -> None:
        """End the session."""
        self._connection.close()

    def sums(self, paths: Sequence[Path], uris: Collection[str] | None = None) -> Sums:
        """Return the sums of the rows of some files.

        Args:
            paths: The files.
            uris: Count only rows of these origins; None for all.
        """
        rows = checksum = 0
        for path in paths:
            found = self._connection.execute(
                f"SELECT count(*), coalesce(sum(h), 0) FROM ({self._rows(path)}) WHERE {_WHERE}",
                [str(path), *_origins(uris)],
            ).fetchone()
            assert found is not None, "an aggregate gives a row"
            rows, checksum = rows + found[0], checksum + int(found[1])
        return Sums(rows, checksum)

    def compare(
        self,
        load: int,
        lake: Sequence[Path],
        source: Sequence[Path],
        uris: Collection[str] | None = None,
    ) -> None:
        """Keep what differs between the files of a load and what was read of the source now."""
        self._connection.execute(
            "CREATE OR REPLACE TEMP TABLE sides (h BIGINT, k BIGINT, n BIGINT)"
        )
        for paths, sign, only in ((lake, 1, uris), (source, -1, None)):
            for path in paths:
                self._connection.execute(
                    f"INSERT INTO sides SELECT h, k, {sign} FROM ({self._rows(path)}) WHERE {_WHERE}",
                    [str(path), *_origins(only)],
                )
        self._connection.execute(
            "INSERT INTO diff SELECT ?, h, any_value(k), sum(n) AS n FROM sides GROUP BY h "
            "HAVING sum(n) <> 0",
            [load],
        )
        for path in (*lake, *source):
            self._connection.execute(
                f"INSERT INTO names SELECT DISTINCT ON (h) ?, h, name FROM ({self._rows(path)}) "
                "WHERE h IN (SELECT h FROM diff WHERE load = ?)",
                [load, str(path), load],
            )
        self._connection.execute("DROP TABLE sides")

    def differing(self) -> set[int]:
        """Return the loads of which something differs so far."""
        return {row[0] for row in self._connection.execute("SELECT load FROM diff").fetchall()}

    def look_elsewhere(self, load: int, paths: Sequence[Path]) -> None:
        """Note which of the differing rows another load has too, or a row of the same key."""
        for path in paths:
            self._connection.execute(
                f"INSERT INTO elsewhere SELECT DISTINCT ?, h, k FROM ({self._rows(path)}) "
                "WHERE k IN (SELECT k FROM diff) OR h IN (SELECT h FROM diff)",
                [load, str(path)],
            )

    def verdicts(self) -> Mapping[int, Mapping[str, int]]:
        """Return, by load, how many rows are missing from the source, new in it, or changed in it.

        A row that left a window is not missing if a later load has a row of its key; one that came into
        it is not new if a later load has it.
        """
        self._connection.execute(f"CREATE OR REPLACE TEMP TABLE told AS {_TOLD}")
        found: dict[int, dict[str, int]] = {}
        for load, what, rows in self._connection.execute(
            "SELECT load, what, sum(rows) FROM told GROUP BY ALL ORDER BY load, what"
        ).fetchall():
            found.setdefault(load, {})[what] = int(rows)
        return found

    def lines(self) -> list[str]:
        """Return a line for each of the first rows that differ; ``verdicts`` comes before."""
        rows = self._connection.execute(
            "SELECT load, what, min(coalesce(name, 'a row')) AS name FROM told "
            "LEFT JOIN names USING (load, h) GROUP BY load, what, told.k, told.h "
            f"ORDER BY load, what, name LIMIT {LISTED}"
        ).fetchall()
        return [f"load {load}: {what}: {name}" for load, what, name in rows]

    def _rows(self, path: Path) -> str:
        """Return a query for the hashes, the key and the name of each row of a file, ``?``."""
        described = self._connection.execute("DESCRIBE SELECT * FROM read_parquet(?)", [str(path)])
        columns = sorted(str(row[0]) for row in described.fetchall())
        data = [name for name in columns if name not in (SOURCE_URI, SOURCE_ROW)]
        key = list(self._words.key)
        has_key = bool(key) and set(key) <= set(data)
        k = duckdb_hash(_text(key)) if has_key else "NULL::BIGINT"
        name = (
            _named(key, self._words.protected)
            if has_key
            else f"{quoted(SOURCE_URI)} || ' row ' || {quoted(SOURCE_ROW)}"
        )
        return (
            f"SELECT {duckdb_hash(_text(data))} AS h, {k} AS k, {name} AS name, "
            f"{quoted(SOURCE_URI)} AS uri FROM read_parquet(?)"
        )


_WHERE = "?::VARCHAR[] IS NULL OR uri IN (SELECT unnest(?::VARCHAR[]))"

_TOLD = """
WITH lost AS (SELECT * FROM diff WHERE n > 0), come AS (SELECT * FROM diff WHERE n < 0)
SELECT load, h, k, 'changed in the source' AS what, -n AS rows FROM come c
WHERE EXISTS (SELECT 1 FROM lost l WHERE l.load = c.load AND l.k = c.k)
UNION ALL
SELECT load, h, k, 'new in the source', -n FROM come c
WHERE NOT EXISTS (SELECT 1 FROM lost l WHERE l.load = c.load AND l.k = c.k)
  AND NOT EXISTS (SELECT 1 FROM elsewhere e WHERE e.load > c.load AND e.h = c.h)
UNION ALL
SELECT load, h, k, 'missing from the source', n FROM lost l
WHERE NOT EXISTS (SELECT 1 FROM come c WHERE l.load = c.load AND l.k = c.k)
  AND NOT EXISTS (SELECT 1 FROM elsewhere e WHERE e.load > l.load AND e.k = l.k)
"""


def _origins(uris: Collection[str] | None) -> list[list[str] | None]:
    found = None if uris is None else sorted(uris)
    return [found, found]


def _text(names: Sequence[str]) -> str:
    """Return SQL for the one text of some values; a column that is not there is as one with NULL."""
    parts = []
    for name in names:
        value = f"{quoted(name)}::VARCHAR"
        label = name.replace("'", "''")
        parts.append(f"coalesce('{label}=' || strlen({value}) || ':' || {value} || '|', '')")
    return f"concat({', '.join(parts)})" if parts else "''"


def _named(key: Sequence[str], protected: Collection[str]) -> str:
    parts = []
    for name in key:
        label = name.replace("'", "''")
        value = f"'{MASK}'" if name in protected else f"coalesce({quoted(name)}::VARCHAR, 'NULL')"
        parts.append(f"'{label}=' || {value}")
    return " || ',' || ".join(parts)
