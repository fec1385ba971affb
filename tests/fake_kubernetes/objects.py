"""What a cluster of the fake holds, and what happened to it."""

from __future__ import annotations

import asyncio
import copy
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

KINDS = {"jobs": ("batch/v1", "Job"), "pods": ("v1", "Pod"), "secrets": ("v1", "Secret")}
"""Name in addresses → group and version, and kind."""
Manifest = dict[str, Any]


def now() -> str:
    """Return the time as Kubernetes writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass
class Store:
    """Objects of one kind, and all that happened to them, for those who watch."""

    objects: dict[tuple[str, str], Manifest] = field(default_factory=dict)
    history: list[tuple[int, str, Manifest]] = field(default_factory=list)


class Objects:
    """All objects; each change has a version, and is told to those who watch."""

    def __init__(self) -> None:
        self.stores = {plural: Store() for plural in KINDS}
        self.version = 0
        self.changed = asyncio.Condition()

    async def add(self, plural: str, namespace: str, body: Manifest) -> Manifest:
        made = copy.deepcopy(body)
        metadata = made.setdefault("metadata", {})
        beginning = metadata.pop("generateName", None)
        metadata.setdefault("name", f"{beginning}{uuid.uuid4().hex[:5]}")
        metadata.update(namespace=namespace, uid=str(uuid.uuid4()), creationTimestamp=now())
        await self.put(plural, "ADDED", made)
        return made

    async def put(self, plural: str, event: str, manifest: Manifest) -> None:
        """Store an object as it is now, and tell those who watch; DELETED takes it away."""
        store, metadata = self.stores[plural], manifest["metadata"]
        self.version += 1
        metadata["resourceVersion"] = str(self.version)
        key = (metadata["namespace"], metadata["name"])
        if event == "DELETED":
            store.objects.pop(key, None)
        elif event == "ADDED" or key in store.objects:
            store.objects[key] = manifest
        else:
            return  # it was deleted meanwhile
        api, kind = KINDS[plural]
        snapshot = copy.deepcopy({"apiVersion": api, "kind": kind, **manifest})
        store.history.append((self.version, event, snapshot))
        async with self.changed:
            self.changed.notify_all()

    def pods_of(self, job: Manifest) -> list[Manifest]:
        return [
            pod
            for pod in self.stores["pods"].objects.values()
            if pod["metadata"]["labels"].get("job-name") == job["metadata"]["name"]
        ]
