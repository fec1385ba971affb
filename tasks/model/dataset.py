"""``DatasetSpec``: one target table and how it is filled, as declared in ``datasets/<name>.yaml``."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from tasks.model.anomaly import Anomaly
from tasks.model.children import ChildTable
from tasks.model.columns import ColumnSpec, Identifier, Strict
from tasks.model.contract import Contract
from tasks.model.dataset_checks import check_parts
from tasks.model.derive import DerivedColumn
from tasks.model.gates import Gate, QuarantineLimits, References
from tasks.model.load import LoadSpec, ReplacePartitionLoad, Scd2Load
from tasks.model.lookup import Lookup
from tasks.model.rules import Custom, Order, Reference, RowRule, UserSchema
from tasks.model.source import Source
from tasks.model.value import json_digest


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
        check_parts(self)
        return self

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
