"""``DatasetSpec``: one target table and how it is filled, as declared in ``datasets/<name>.yaml``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from tasks.model.anomaly import Anomaly
from tasks.model.children import ChildTable, child_mistakes
from tasks.model.columns import SYSTEM_COLUMNS, ColumnSpec, Identifier, Strict, _identifier
from tasks.model.contract import Contract
from tasks.model.database_source import DatabaseSource
from tasks.model.derive import DerivedColumn
from tasks.model.gates import Gate, QuarantineLimits, References, check_column, gate_columns
from tasks.model.json_path import ITEM, parse_value_path
from tasks.model.load import LoadSpec, MergeLoad, ReplacePartitionLoad, Scd2Load
from tasks.model.lookup import Lookup
from tasks.model.rest_source import RestSource
from tasks.model.rules import Custom, Order, Reference, RowRule, UserSchema, ordered_column
from tasks.model.search import SearchIndex
from tasks.model.source import Source
from tasks.model.table import check_indexes, check_partitions, check_version_partitions
from tasks.model.value import json_digest

RESERVED_PREFIX = "_"
TEXTS = frozenset(("string", "enum"))
"""Types of columns whose words can be found."""
TYPED_WHOLE = TEXTS | {
    "uuid",
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
}
"""Types of columns that can be found by a whole value: as PostgreSQL writes them, so people do."""


class Quality(Strict):
    """What must hold before anything of a partition is published."""

    gates: tuple[Gate, ...] = Field(
        (),
        description="What must hold of the staged rows; else nothing of the partition is published.",
    )
    anomaly: Anomaly | None = Field(
        None, description="Learn from the partitions before what is usual, and say what is not."
    )
    quarantine: QuarantineLimits = Field(default_factory=QuarantineLimits)


class DatasetSpec(Strict):
    """One dataset: a source, its contract, and the table that it fills."""

    name: Identifier
    description: str
    owner: str | None = None
    schedule: Literal["daily", "hourly", "manual"] = "manual"
    after: tuple[Identifier, ...] = Field(
        (),
        description="Datasets after which this one runs: when each of them has completed a run.",
    )
    source: Source
    key: tuple[Identifier, ...] = ()
    cursor: Identifier | None = Field(
        None, description="Among rows of one key the one with the largest cursor wins."
    )
    columns: dict[Identifier, ColumnSpec] = Field(min_length=1)
    contract: Contract = Field(
        default_factory=Contract,
        description="What to do about columns that are unknown, missing or of another type.",
    )
    tie_break: tuple[Order, ...] = Field(
        (),
        description="Among rows of one key and one cursor the first in this order wins, e.g. "
        "[version desc]; then the one that was read last.",
    )
    rules: tuple[RowRule, ...] = ()
    unique: tuple[tuple[Identifier, ...], ...] = Field(
        (),
        description="Lists of columns whose values no two rows have alike; NULL is like nothing.",
    )
    references: tuple[Reference, ...] = Field(
        (), description="Columns whose values must be keys of other datasets."
    )
    custom: Custom | None = Field(
        None, description="A Python function that is given the clean rows: module:function."
    )
    user_schema: UserSchema | None = Field(
        None, alias="validate", description="A pandera schema for the clean rows: module:Schema."
    )
    derive: dict[Identifier, DerivedColumn] = Field(
        default_factory=dict,
        description="Columns that are computed: by SQL over columns, those taken by enrich included.",
    )
    enrich: tuple[Lookup, ...] = ()
    children: dict[Identifier, ChildTable] = Field(
        default_factory=dict,
        description="Lists inside of rows whose items become rows of tables of their own.",
    )
    quality: Quality = Field(default_factory=Quality)
    load: LoadSpec
    shard_above: int | None = Field(
        None,
        ge=1,
        description="A run of more partitions is split into shards of at most so many; as the "
        "environment says without it.",
    )

    @field_validator("custom", "user_schema", mode="before")
    @classmethod
    def _name_alone_will_do(cls, given: object, info: ValidationInfo) -> object:
        if not isinstance(given, str):
            return given
        return {"function" if info.field_name == "custom" else "schema": given}

    @model_validator(mode="after")
    def _parts_fit_together(self) -> Self:
        self._check_names()
        self._check_after()
        self._check_columns()
        self._require_columns("key", self.key)
        if self.cursor:
            self._require_columns("cursor", (self.cursor,))
        self._check_load()
        if isinstance(self.source, RestSource):
            self._check_repeats(self.source)
        if isinstance(self.source, DatabaseSource) and self.source.deletes:
            self._check_deletes()
        taken = [*self._check_lookups(), *self._check_made("derive", self.derive)]
        self._check_rules(taken)
        taken += self._check_made("custom.columns", self.custom_columns)
        for gate in self.quality.gates:
            self._require_columns(f"quality.gates: {gate.label}", gate_columns(gate), also=taken)
            check_column(gate, {**self.columns, **self.made_columns})
        self._check_anomaly(self.quality.anomaly)
        self._check_table(taken)
        return self

    def _check_after(self) -> None:
        if self.after and self.schedule != "manual":
            raise ValueError(
                f"after: a dataset that runs after others has no schedule, found {self.schedule!r}: "
                "two runs at a time would take it from each other"
            )
        if len(set(self.after)) < len(self.after):
            raise ValueError("after: a dataset is there twice")

    def _check_names(self) -> None:
        for name in self.all_columns:
            if name.startswith(RESERVED_PREFIX):
                raise ValueError(f"column {name!r}: names with a leading '_' belong to the product")
            if name in SYSTEM_COLUMNS:
                raise ValueError(f"column {name!r}: every table of PostgreSQL has a hidden {name}")

    def _check_table(self, taken: list[str]) -> None:
        if self.load.index:
            self._check_search(self.load.index, taken)
        check_indexes(self.load.indexes, self.all_columns)
        if by := self.load.partition_by:
            if isinstance(self.load, Scd2Load):
                check_version_partitions(by, self.load.valid_from, self.cursor)
            made = self.made_columns.get(self.partition_source)
            needed = self.partition_source in self.required_columns
            check_partitions(
                by,
                self.partition_column,
                required=needed if made is None else not made.nullable,
                table_key=self.table_key,
                columns=[*self.columns, *self.made_columns],
                indexes=self.load.indexes,
            )

    def _check_columns(self) -> None:
        for name, column in self.columns.items():
            if column.path is not None and parse_value_path(column.path).column == ITEM:
                raise ValueError(f"columns.{name}.path: begins with no name of the source")
        for mistake in child_mistakes(self.children, self.key, self.load):
            raise ValueError(mistake)

    def _check_repeats(self, source: RestSource) -> None:
        why = source.repeats_records
        if why and not (self.key and self.load.takes_repeats):
            raise ValueError(
                f"source.{why}: records come more than once; it needs a 'key' and load mode 'merge'"
            )

    def _check_load(self) -> None:
        load = self.load
        if load.needs_key and not self.key:
            raise ValueError(f"load mode '{load.mode}' needs a 'key'")
        if isinstance(load, Scd2Load):
            self._check_versions(load)
        if isinstance(load, MergeLoad | Scd2Load) and load.delete:
            load.delete.check_column(self.columns.get(load.delete.column))
            if load.delete.column in self.key:
                raise ValueError(f"load.delete: column {load.delete.column!r} is part of the key")
        if isinstance(load, ReplacePartitionLoad):
            column = self.columns.get(load.by) or self.made_columns.get(load.by)
            load.check_column(column, declared=load.by in self.columns)

    def _check_versions(self, load: Scd2Load) -> None:
        if self.cursor is None or self.cursor in self.key:
            raise ValueError(
                "load mode 'scd2' needs a 'cursor' beside the key: it says from when a version holds"
            )
        if self.unique:
            raise ValueError(
                "unique: versions of a key have values alike; not with load mode 'scd2'"
            )
        there = [*self.columns, *self.made_columns, *self.taken_columns, *load.own_columns]
        for name in load.own_columns:
            if there.count(name) > 1:
                raise ValueError(f"load: column {name!r} is there twice; choose another name")

    def _check_deletes(self) -> None:
        if not (self.key and self.load.mode == "merge"):
            raise ValueError("source.deletes compares keys; it needs a 'key' and load mode 'merge'")
        for name in self.key:
            if self.columns[name].default is not None:
                raise ValueError(
                    f"source.deletes: key column {name!r} has a default, so several rows of the "
                    "source may be one of the table"
                )

    def _check_lookups(self) -> list[str]:
        taken = [column for lookup in self.enrich for column in lookup.take]
        for column in taken:
            _identifier(column)
            if column in self.columns or taken.count(column) > 1:
                raise ValueError(f"enrich: column {column!r} is there twice; rename it under take")
        own = [lookup.lookup for lookup in self.enrich if not lookup.is_dataset]
        for lookup in self.enrich:
            where = f"enrich {lookup.lookup}"
            self._require_columns(f"{where}: by", tuple(lookup.matched), also=[*self.derive])
            if own.count(lookup.lookup) + lookup.is_dataset > 1:
                raise ValueError(f"{where}: the name is there twice; choose another")
        return taken

    def _check_anomaly(self, anomaly: Anomaly | None) -> None:
        where = "quality.anomaly.time"
        if anomaly is None or anomaly.time is None:
            return
        self._require_columns(where, (anomaly.time,))
        column = self.columns[anomaly.time]
        if column.type not in ("date", "timestamp"):
            raise ValueError(f"{where}: column {anomaly.time!r} is {column.type}, not a time")
        if getattr(column, "pii", None) not in (None, "none"):
            raise ValueError(f"{where}: the values of column {anomaly.time!r} must not be shown")

    def _check_rules(self, taken: list[str]) -> None:
        ordered = tuple(ordered_column(order)[0] for order in self.tie_break)
        self._require_columns("tie_break", ordered, also=taken)
        for names in self.unique:
            self._require_columns("unique", names, also=taken)
        for reference in self.references:
            names = tuple(reference.columns)
            self._require_columns(f"references {reference.dataset}", names, also=[*self.derive])

    def _check_made(self, where: str, made: Mapping[str, ColumnSpec]) -> list[str]:
        there = {*self.columns, *self.taken_columns}
        if where != "derive":
            there.update(self.derive)
        for name in made:
            if name in there:
                raise ValueError(f"{where}: column {name!r} is there already")
        return list(made)

    def _check_search(self, index: SearchIndex, taken: list[str]) -> None:
        texts = {*index.search, *index.fuzzy_columns}
        for name in index.columns:
            where = f"load.index.{'search' if name in texts else 'exact'}"
            self._require_columns(where, (name,), also=taken)
            column = self.columns.get(name) or self.made_columns.get(name)
            if column is None:
                continue
            allowed = TEXTS if name in texts else TYPED_WHOLE
            if column.type not in allowed:
                raise ValueError(
                    f"{where}: column {name!r} is {column.type}; "
                    f"allowed: {', '.join(sorted(allowed))}"
                )

    def _require_columns(
        self, where: str, names: tuple[str, ...], also: list[str] | None = None
    ) -> None:
        known = [*self.columns, *(also or [])]
        for name in names:
            if name not in known:
                raise ValueError(f"{where}: no column {name!r}; declared are {', '.join(known)}")

    @property
    def schema_name(self) -> str:
        """Schema of the target table."""
        return self.load.table.split(".")[0]

    @property
    def table_name(self) -> str:
        """Name of the target table, without its schema."""
        return self.load.table.split(".")[1]

    @property
    def table_key(self) -> tuple[str, ...]:
        """Columns of the target table's primary key; none if the mode lets keys repeat."""
        load = self.load
        if isinstance(load, Scd2Load):
            return (*self.key, load.valid_from)
        in_key = isinstance(load, ReplacePartitionLoad) and load.by in self.key
        return self.key if load.one_row_per_key or in_key else ()

    @property
    def row_key(self) -> tuple[str, ...]:
        """Columns by whose values rows of a partition are one, and all but one are left out."""
        versions = isinstance(self.load, Scd2Load) and self.cursor is not None
        return (*self.key, str(self.cursor)) if versions else self.key

    @property
    def partition_source(self) -> str:
        """Name of the column whose values say in which partition of the table a row is.

        It is the one that ``partition_by`` names, but that ``valid_from`` gets those of the cursor.
        """
        by = self.load.partition_by
        assert by is not None, "only partitioned tables have one"
        of_versions = isinstance(self.load, Scd2Load) and by.column == self.load.valid_from
        return str(self.cursor) if of_versions else by.column

    @property
    def partition_column(self) -> ColumnSpec | None:
        """The column of ``partition_source``; None if there is none of that name."""
        return {**self.columns, **self.made_columns}.get(self.partition_source)

    @property
    def required_columns(self) -> tuple[str, ...]:
        """Columns in which NULL is refused: of the key, those declared so, and what the mode needs."""
        needed = {*self.key}
        if isinstance(self.load, ReplacePartitionLoad):
            needed.add(self.load.by)
        if isinstance(self.load, Scd2Load) and self.cursor:
            needed.add(self.cursor)
        return tuple(
            name for name, column in self.columns.items() if name in needed or not column.nullable
        )

    @property
    def dependencies(self) -> tuple[str, ...]:
        """Datasets that this one looks up, or that its gates refer to, so that they run before it."""
        looked_up = [lookup.lookup for lookup in self.lookups if lookup.is_dataset]
        return tuple(dict.fromkeys([*looked_up, *self.datasets_of_gates]))

    @property
    def datasets_of_gates(self) -> tuple[str, ...]:
        """Datasets whose tables the gates refer to."""
        gates = [gate.references for gate in self.quality.gates if isinstance(gate, References)]
        return tuple(reference.dataset for reference in gates if reference.dataset)

    @property
    def taken_columns(self) -> tuple[str, ...]:
        """Columns that lookups add."""
        return tuple(column for lookup in self.enrich for column in lookup.take)

    @property
    def lookups(self) -> tuple[Lookup, ...]:
        """What rows look up in other datasets: columns to take, and keys that must be there."""
        references = [
            Lookup(lookup=reference.dataset, by=reference.columns, take={})
            for reference in self.references
        ]
        return (*self.enrich, *references)

    @property
    def custom_columns(self) -> dict[str, ColumnSpec]:
        """Columns that the user's function adds."""
        return dict(self.custom.columns) if self.custom else {}

    @property
    def made_columns(self) -> dict[str, ColumnSpec]:
        """Columns that no source has: derived ones, and those that the user's function adds."""
        return {**self.derive, **self.custom_columns}

    @property
    def all_columns(self) -> tuple[str, ...]:
        """Names of all columns that the dataset file gives the table."""
        return (*self.columns, *self.made_columns, *self.taken_columns)

    @property
    def source_columns(self) -> tuple[str, ...]:
        """Names of the declared columns in the source, each once."""
        names = [column.source_column(name) for name, column in self.columns.items()]
        names += [child.list_path(name).column for name, child in self.children.items()]
        return tuple(dict.fromkeys(names))

    @property
    def source_key(self) -> tuple[str, ...]:
        """Names of the key's columns in the source."""
        return tuple(dict.fromkeys(self.columns[name].source_column(name) for name in self.key))

    def keys_only(self) -> DatasetSpec:
        """Return what is left of the dataset when only its keys are read: they are made alike."""
        return self.model_copy(
            update={
                "columns": {name: self.columns[name] for name in self.key},
                "cursor": None,
                "contract": Contract(unknown="ignore"),
                "rules": (),
                "tie_break": (),
                "unique": (),
                "references": (),
                "custom": None,
                "user_schema": None,
                "derive": {},
                "enrich": (),
                "children": {},
                "quality": Quality(),
            }
        )

    @property
    def config_hash(self) -> str:
        """SHA-256 of everything that decides how a row is transformed and loaded.

        Texts for people, what starts runs and in how many processes they are, the learned checks,
        and what only the table has are left out: changing them loads nothing again.
        """
        for_people = dict.fromkeys(
            ("description", "owner", "schedule", "after", "shard_above"), True
        )
        of_the_table = {"index", "indexes", "grants", "partition_by"}
        of_quality: Any = {"anomaly": True, "quarantine": {"alert_rows", "alert_share"}}
        apart = {"quality": of_quality, "load": of_the_table}
        content = self.model_dump(mode="json", exclude={**for_people, **apart})
        return json_digest(content)


LookedUp = DatasetSpec | Lookup
"""What rows are looked up in: it has ``columns``, and a ``key`` that tells its rows apart."""
