"""Which dataset takes an object: the one, or those, whose source has it."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from tasks.ingestion.connectors.s3_keys import KeyPattern
from tasks.landing.notifications import Landed
from tasks.model.dataset import DatasetSpec
from tasks.model.load import ReplaceLoad
from tasks.model.request import Window
from tasks.model.source import S3Source
from tasks.reporting.events import MOST_OBJECTS, ObjectLanded

EVENTS_OF = uuid.UUID("6f1d2c0a-6a53-5c39-9d0f-2f6f3b7f4c11")
"""Names the ids of these events, so that one that is posted twice is the same."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the objects of a source are.

    Attributes:
        bucket: Name of the bucket.
        folder: Folder that its keys begin with, '' for none; the source does not name it.
    """

    bucket: str
    folder: str = ""


class Routes:
    """From objects to datasets.

    Args:
        specs: The datasets.
        places: Where the bucket of each S3Bucket block is, by the block's name.
    """

    def __init__(self, specs: Iterable[DatasetSpec], places: Mapping[str, Place]) -> None:
        self._routes = [
            _Route.of(spec, spec.source, places[spec.source.block])
            for spec in specs
            if isinstance(spec.source, S3Source) and spec.source.block in places
        ]

    def events(self, environment: str, landed: Iterable[Landed]) -> Iterator[Posted]:
        """Yield the events that tell of some objects, few for many of one dataset."""
        taken: dict[str, dict[str, Landed]] = {}
        by_name = {route.dataset: route for route in self._routes}
        for one in landed:
            for route in self._routes:
                if (name := route.name_of(one)) is not None:
                    taken.setdefault(route.dataset, {})[name] = one
        for dataset, objects in taken.items():
            names = sorted(objects)
            for start in range(0, len(names), MOST_OBJECTS):
                chosen = names[start : start + MOST_OBJECTS]
                told = [objects[name] for name in chosen]
                yield _posted(environment, by_name[dataset], chosen, told)
                if by_name[dataset].whole:
                    break  # one run loads all there is


@dataclass(frozen=True, slots=True)
class Posted:
    """An event, and its id: the same for the same writings of the same objects."""

    event: ObjectLanded
    id: uuid.UUID


@dataclass(frozen=True, slots=True)
class _Route:
    dataset: str
    place: Place
    keys: KeyPattern
    span: Window | None
    whole: bool

    @classmethod
    def of(cls, spec: DatasetSpec, source: S3Source, place: Place) -> _Route:
        span = None
        if source.start is not None:
            start = datetime.combine(source.start, datetime.min.time(), UTC)
            span = Window(start=start, end=datetime.max.replace(tzinfo=UTC))
        whole = isinstance(spec.load, ReplaceLoad)
        return cls(spec.name, place, KeyPattern(source.path), span, whole)

    def name_of(self, one: Landed) -> str | None:
        """Return what the source calls an object, None if it is none of it."""
        folder = f"{self.place.folder}/" if self.place.folder else ""
        if one.bucket != self.place.bucket or not one.key.startswith(folder):
            return None
        name = one.key[len(folder) :]
        return name if self.keys.match(name, self.span) else None


def _posted(
    environment: str, route: _Route, names: Sequence[str], told: Sequence[Landed]
) -> Posted:
    identity = [environment, route.dataset, route.place.bucket]
    identity += [f"{one.key}\0{one.version}" for one in told]
    event = ObjectLanded(
        environment=environment,
        dataset=route.dataset,
        bucket=route.place.bucket,
        objects=() if route.whole else tuple(names),
    )
    return Posted(event, uuid.uuid5(EVENTS_OF, "\0".join(identity)))
