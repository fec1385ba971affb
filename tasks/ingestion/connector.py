"""What a connector is: it plans partitions, and reads one of them as record batches and rejects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import pyarrow as pa
from pydantic import BaseModel

from tasks.model.dataset import DatasetSpec
from tasks.model.partition import Partition
from tasks.model.request import SourceState

if TYPE_CHECKING:
    from tasks.connections import Connections

SOURCE_URI = "_source_uri"
"""Column of every raw batch: which object, page or table the row came from."""
SOURCE_ROW = "_source_row"
"""Column of every raw batch: the row's number in it, starting at 1, refused rows included."""


@dataclass(frozen=True, slots=True)
class Reject:
    """A record that could not be read, with its text as far as there is one."""

    source_uri: str
    source_row: int
    rule: str
    message: str
    raw: str


@dataclass(frozen=True, slots=True)
class RawBatch:
    """Rows as the source said them, and the records among them that could not be read.

    ``batch`` carries the source's columns plus ``_source_uri`` (string) and ``_source_row`` (int64).
    Batches of one partition may differ in their columns; a column keeps its type within an object.
    """

    batch: pa.RecordBatch | None
    rejects: tuple[Reject, ...] = ()
    state: Mapping[str, Any] | None = None
    """Where the next plan goes on, for sources that know it only after reading; the last one counts."""


class Connector(Protocol):
    """Reads one kind of source."""

    def plan(self, state: SourceState) -> list[Partition]:
        """Return the work that the ledger does not know yet.

        Raises:
            SourceUnavailable: The source did not answer.
            SourceRejected: The source refused to be listed.
            CredentialsRejected: The source refused the credentials.
        """
        ...

    def read(self, partition: Partition) -> Iterator[RawBatch]:
        """Stream the partition in batches of bounded size.

        Raises:
            SourceUnavailable: The source stopped answering.
            SourceRejected: The slice is no longer what was planned, or cannot be read.
            ContractBroken: The slice is not of the declared form.
        """
        ...


@dataclass(frozen=True, slots=True)
class PlanLimits:
    """How sources are cut into partitions.

    Attributes:
        partition_bytes: Target size of a partition, in bytes of the source.
        partition_items: Most objects in a partition, so that its description stays small.
        batch_bytes: Size of a record batch, in bytes of text; bounds memory.
        max_value_bytes: A single value larger than this is refused.
        decoded_bytes: An object that decompresses to more than this is refused.
        decoded_ratio: So is one that grows to more than this many times its size,
        ratio_from_bytes: as soon as it has grown beyond this; short texts may well be all zeros.
    """

    partition_bytes: int = 128 << 20
    partition_items: int = 1000
    batch_bytes: int = 4 << 20
    max_value_bytes: int = 16 << 20
    decoded_bytes: int = 64 << 30
    decoded_ratio: int = 1000
    ratio_from_bytes: int = 64 << 20

    def whole_objects(self) -> PlanLimits:
        """Return limits under which each object is a partition of its own."""
        return replace(self, partition_bytes=1 << 62, partition_items=1)


@dataclass(frozen=True, slots=True)
class ConnectorContext:
    """What a connector may use.

    Attributes:
        connections: Opens blocks: ``connections.load(BlockClass, name)``.
        limits: How sources are cut, and how large a batch may be.
        scratch: Folder for files of this piece of work; removed at its end.
    """

    connections: Connections
    limits: PlanLimits
    scratch: Path


class ConnectorPlugin(Protocol):
    """The class that an entry point of the group ``dpp.connectors`` names."""

    declaration: ClassVar[type[BaseModel]]
    """What a dataset file says under ``source:``, beside ``kind``."""

    @classmethod
    def connect(cls, spec: DatasetSpec, declared: Any, context: ConnectorContext) -> Connector:
        """Return the connector of a dataset; ``declared`` is an instance of ``declaration``."""
        ...
