"""Makes a dataset of a sample, and proves on the sample that it refuses nothing it should take."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.inference.columns import Guess, guess_text
from tasks.inference.found import Found, Sample
from tasks.inference.keys import suggest_key
from tasks.inference.names import column_names
from tasks.model.dataset import DatasetSpec
from tasks.model.errors import ConfigError
from tasks.transformation.query import FAILURES, compile_query
from tasks.transformation.session import column_types, duckdb_session

SCHEMA = "analytics"
MEMORY_BYTES = 256 << 20
ATTEMPTS = 3


@dataclass(slots=True)
class Proposal:
    """A dataset file in the making.

    Attributes:
        name: Of the dataset.
        found: Its source.
        columns: What each column is, by its name.
        sources: Column → its name in the source.
        key: Columns that tell rows apart.
        key_is_known: The source says so itself.
        never_null: Columns that always have a value in the sample.
        refused: Rows of the sample that the dataset refuses, by the rule.
    """

    name: str
    found: Found
    columns: dict[str, Guess]
    sources: dict[str, str]
    key: tuple[str, ...] = ()
    key_is_known: bool = False
    never_null: list[str] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)

    @property
    def mode(self) -> str:
        """How rows meet those that are there."""
        return "merge" if self.key else "append"

    def column(self, name: str) -> dict[str, Any]:
        """Return the declaration of a column, as plain values."""
        guess = self.columns[name]
        made: dict[str, Any] = {"type": guess.type}
        if self.sources[name] != name:
            made["source"] = self.sources[name]
        return {**made, **guess.options}

    def content(self) -> dict[str, Any]:
        """Return the dataset file as plain values."""
        made: dict[str, Any] = {
            "name": self.name,
            "description": f"{self.name}: say what a row is",
            "source": self.found.source,
        }
        if self.key:
            made["key"] = list(self.key)
        made["columns"] = {name: self.column(name) for name in self.columns}
        made["load"] = {"table": f"{SCHEMA}.{self.name}", "mode": self.mode}
        return made

    def spec(self) -> DatasetSpec:
        """Return the dataset."""
        return DatasetSpec.model_validate(self.content())


def propose(name: str, found: Found, scratch: Path) -> Proposal:
    """Propose a dataset for a source.

    Args:
        name: Its name.
        found: The source, and a sample of it.
        scratch: Folder for intermediate files.

    Raises:
        ConfigError: The sample has no column.
    """
    _settle_nulls(found)
    table = found.sample.table
    sources = list(found.types) if table is None else found.sample.columns
    if not sources:
        raise ConfigError(
            "the source has no row that can be read, so nothing tells its columns",
            _first_reason(found.sample),
        )
    names = column_names(sources)
    guesses = {names[source]: _guess(source, found, table) for source in sources}
    made = Proposal(name, found, guesses, {names[source]: source for source in sources})
    _correct(made, table, scratch)
    _choose_key(made, names, table)
    return made


def _first_reason(sample: Sample) -> str | None:
    return f"the first record: {sample.rejects[0].message}" if sample.rejects else None


def _settle_nulls(found: Found) -> None:
    """Declare that an empty field of delimited text is NULL, if there are any."""
    declared, table = found.source.get("format", {}), found.sample.table
    if declared.get("kind") not in ("csv", "fixed") or table is None:
        return
    columns = {name: table[name].to_pylist() for name in found.sample.columns}
    if any("" in values for values in columns.values()):
        declared["null_values"] = [""]
        found.doubts["null_values"] = (
            "empty fields are NULL; without this line they are the text ''"
            if declared["kind"] == "fixed"
            else "empty fields without quotes are NULL; without this they are the text ''"
        )


def _guess(source: str, found: Found, table: pa.Table | None) -> Guess:
    known = found.types.get(source)
    if table is None:
        return known or Guess("string")
    column = table[source]
    values = column.to_pylist()
    nulls = column.null_count
    if known is not None or not pa.types.is_string(column.type):
        guess = known or _of_arrow(column.type)
        unique = not nulls and len(set(map(str, values))) == len(values)
        return Guess(guess.type, guess.options, guess.doubts, nulls, unique)
    kind = found.source.get("format", {}).get("kind")
    if found.doubts.get("null_values"):
        values = [None if value == "" else value for value in values]
    guess = guess_text(source, values)
    if kind in ("parquet", "avro") and guess.type not in ("string", "json", "uuid"):
        doubt = f"text in the file; all values of the sample could be {guess.type}"
        return Guess("string", {}, (doubt,), guess.nulls, guess.is_unique)
    if guess.type == "json" and kind in ("json", "jsonl"):
        return guess.with_doubt(
            "nested: kept as JSON; 'flatten' in the format makes columns of objects"
        )
    return guess


def _of_arrow(kind: pa.DataType) -> Guess:
    if pa.types.is_decimal(kind):
        return Guess(f"decimal({kind.precision},{max(kind.scale, 0)})")
    if pa.types.is_timestamp(kind):
        return Guess("timestamp", {"timezone": "UTC"} if kind.tz else {})
    if pa.types.is_uint64(kind):
        return Guess("decimal(20,0)", doubts=("unsigned, so larger than int64 can hold",))
    for fits, name in (
        (pa.types.is_boolean, "boolean"),
        (pa.types.is_int8, "int16"),
        (pa.types.is_uint8, "int16"),
        (pa.types.is_int16, "int16"),
        (pa.types.is_uint16, "int32"),
        (pa.types.is_int32, "int32"),
        (pa.types.is_integer, "int64"),
        (pa.types.is_floating, "float"),
        (pa.types.is_date, "date"),
        (pa.types.is_time, "time"),
        (pa.types.is_binary, "bytes"),
        (pa.types.is_large_binary, "bytes"),
    ):
        if fits(kind):
            return Guess(name)
    return Guess("string")


def _correct(made: Proposal, table: pa.Table | None, scratch: Path) -> None:
    """Let the product's own query judge the sample; a column that refuses values becomes text."""
    if table is None:
        return
    path = scratch / "sample.parquet"
    pq.write_table(_with_nulls(made.found, table), path)
    for _ in range(ATTEMPTS):
        refused = _refused_columns(made.spec(), path, scratch)
        made.refused = refused
        wrong = [name for name in refused if name in made.columns and _can_be_text(made, name)]
        for name in wrong:
            guess = made.columns[name]
            doubt = f"{guess.type} would refuse {refused[name]} rows of the sample: kept as text"
            made.columns[name] = Guess("string", {}, (doubt,), guess.nulls, guess.is_unique)
        if not wrong:
            return


def _can_be_text(made: Proposal, name: str) -> bool:
    return made.columns[name].type != "string"


def _with_nulls(found: Found, table: pa.Table) -> pa.Table:
    """Read empty texts as the declared NULL, as the format will."""
    if "null_values" not in found.doubts:
        return table
    for position, name in enumerate(table.column_names):
        if pa.types.is_string(table[name].type):
            values = [None if value == "" else value for value in table[name].to_pylist()]
            table = table.set_column(position, name, pa.array(values, pa.string()))
    return table


def _refused_columns(spec: DatasetSpec, path: Path, scratch: Path) -> Counter[str]:
    """Count the rows that the dataset refuses, by column."""
    files = [str(path)]
    counted: Counter[str] = Counter()
    with duckdb_session(files, scratch, MEMORY_BYTES) as session:
        types = column_types(session, files)
        raw = {name: kind for name, kind in types.items() if not name.startswith("_source_")}
        query = compile_query(spec, raw, files, {})
        judged = f"SELECT {FAILURES}, count(*) FROM ({query.sql}) GROUP BY 1"  # noqa: S608 - ours
        for failures, rows in session.execute(judged).fetchall():
            for position in (failures or "").split(","):
                if position:
                    rule = query.rules[int(position)]
                    counted[rule.column or rule.name] += rows
    return counted


def _choose_key(made: Proposal, names: Mapping[str, str], table: pa.Table | None) -> None:
    made.never_null = [
        name
        for name, guess in made.columns.items()
        if table is not None and not guess.nulls and "nullable" not in guess.options
    ]
    if made.found.key:
        made.key, made.key_is_known = tuple(names[part] for part in made.found.key), True
        for part in made.key:
            made.columns[part].options.pop("nullable", None)
        return
    if table is None:
        return
    columns = {name: table[made.sources[name]].to_pylist() for name in made.columns}
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    made.key = suggest_key(made.name, made.columns, rows)
