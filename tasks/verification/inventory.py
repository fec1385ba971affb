"""What a source lists now, compared with what the ledger says was loaded from it. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from tasks.model.partition import Partition, SourceItem


@dataclass(frozen=True, slots=True)
class Inventory:
    """The objects of a source, in the versions that they have now.

    Attributes:
        items: Each object, or part of one, by its identity.
        versions: The version of each object by its name.
        by_content: Objects by their version, where that is a hash of the content.
    """

    items: dict[tuple[str, ...], SourceItem]
    versions: dict[str, str]
    by_content: dict[str, SourceItem]


@dataclass(frozen=True, slots=True)
class Found:
    """What has become of the objects of a load.

    Attributes:
        there: Those that have the very content that was loaded.
        renamed: Names that such objects had when they were loaded, by the name that they have now.
        differences: What is gone or was changed, in words.
        replaced: Objects whose newer version was loaded since.
        cut: Objects that are cut into other parts now.
    """

    there: tuple[SourceItem, ...]
    renamed: dict[str, str]
    differences: tuple[str, ...]
    replaced: int = 0
    cut: int = 0


def inventory(partitions: Iterable[Partition], *, content_versions: bool) -> Inventory:
    """Return what a plan of all of a source lists.

    Args:
        partitions: The plan.
        content_versions: Is an object's version a hash of its content? Then it may be listed under
            another name than the one that it was loaded as.
    """
    items = [item for partition in partitions for item in partition.items]
    return Inventory(
        {item.identity: item for item in items},
        {item.uri: item.version for item in items},
        {item.version: item for item in items} if content_versions else {},
    )


def find_items(
    identities: Iterable[tuple[str, ...]],
    now: Inventory,
    committed: Collection[tuple[str, str]],
) -> Found:
    """Look for the objects of a load among those that are listed now.

    Args:
        identities: The objects, as (uri, version) or (uri, version, part).
        now: What the source lists.
        committed: (uri, version) of all objects that any load has.
    """
    there, renamed, differences = [], {}, []
    replaced = cut = 0
    for identity in sorted(identities):
        uri, version = identity[:2]
        current = now.versions.get(uri)
        is_part = len(identity) > len((uri, version))
        same = None if is_part else now.by_content.get(version)
        if identity in now.items:
            there.append(now.items[identity])
        elif current == version:
            cut += 1
        elif same is not None:
            there.append(same)
            renamed[same.uri] = uri
        elif current is None:
            differences.append(f"{uri} is gone from the source")
        elif (uri, current) in committed:
            replaced += 1
        else:
            differences.append(f"{uri} was changed since, and its new content is not loaded")
    return Found(tuple(there), renamed, tuple(differences), replaced, cut)
