"""Packs many objects into partitions of a target size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import structlog

from tasks.ingestion.connector import PlanLimits
from tasks.model.partition import Partition, SourceItem
from tasks.model.request import SourceState

log = structlog.get_logger("dpp.ingestion")


def new_items(
    items: Iterable[SourceItem], state: SourceState, *, same_content_is_known: bool
) -> Iterator[SourceItem]:
    """Yield the items that no committed partition has.

    Args:
        items: What the source lists.
        state: What the ledger knows.
        same_content_is_known: Is an item's version a hash of its content? Then an item whose
            content was loaded under another name is not new; that is logged.
    """
    loaded_as = {version: uri for uri, version in state.items} if same_content_is_known else {}
    for item in items:
        if (item.uri, item.version) in state.items:
            continue
        if other := loaded_as.get(item.version):
            log.warning("ingestion.same_content_skipped", uri=item.uri, loaded_as=other)
            continue
        if same_content_is_known:
            loaded_as[item.version] = item.uri
        yield item


def pack(dataset: str, items: Iterable[SourceItem], limits: PlanLimits) -> list[Partition]:
    """Pack items, in their order, into partitions of about ``limits.partition_bytes``."""
    partitions: list[Partition] = []
    pending: list[SourceItem] = []
    size = 0
    for item in items:
        full = size + item.bytes > limits.partition_bytes or len(pending) >= limits.partition_items
        if pending and full:
            partitions.append(_partition(dataset, pending))
            pending, size = [], 0
        pending.append(item)
        size += item.bytes
    if pending:
        partitions.append(_partition(dataset, pending))
    return partitions


def _partition(dataset: str, items: list[SourceItem]) -> Partition:
    return Partition(dataset=dataset, label=label_of(items), items=tuple(items))


def label_of(items: Sequence[SourceItem]) -> str:
    """Return what people call a partition of some items."""
    label = items[0].uri
    if len(items) > 1:
        label = f"{label} … {items[-1].uri.rsplit('/', 1)[-1]} ({len(items)} objects)"
    return label
