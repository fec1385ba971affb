"""Reads ranges of objects, each pinned to its version; several at once, in the order asked for."""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, BinaryIO, cast

import obstore
from obstore.store import ObjectStore
from tenacity import (
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    wait_random_exponential,
)

from tasks.ingestion.connectors.s3_errors import CLIENT_ERRORS, meaning
from tasks.model.errors import SourceUnavailable
from tasks.model.partition import SourceItem

if TYPE_CHECKING:
    from obstore import GetOptions

PIECE_BYTES = 8 << 20
"""Larger ranges are fetched in pieces of this size."""
AHEAD_BYTES = 64 << 20
"""Most bytes that are fetched before they are asked for; bounds memory."""
AHEAD_REQUESTS = 24
"""Most requests at a time: enough to hide the latency of small objects."""
ATTEMPTS = 4
MOST_WAIT_SECONDS = 10
BY_TIME = "modified "
"""Begins the version of an object that has no ETag."""


@dataclass(frozen=True, slots=True)
class Request:
    """Some bytes of an object."""

    item: SourceItem
    start: int
    end: int


def item_of(key: str, etag: str | None, modified: datetime, size: int) -> SourceItem:
    """Return an object in the version that was listed."""
    tag = (etag or "").strip('"') or f"{BY_TIME}{modified.isoformat()}"
    return SourceItem(uri=key, version=f"{tag}-{size}", bytes=size)


def pieces(item: SourceItem, start: int, end: int) -> Iterator[Request]:
    """Yield the requests for a range."""
    for at in range(start, end, PIECE_BYTES):
        yield Request(item, at, min(at + PIECE_BYTES, end))


class PinnedObjects:
    """The objects of a bucket.

    Args:
        store: The bucket.
        where: What messages call it.
    """

    def __init__(self, store: ObjectStore, where: str) -> None:
        self._store = store
        self._where = where
        self._repeated = Retrying(
            retry=retry_if_exception_type(SourceUnavailable),
            stop=stop_after_attempt(ATTEMPTS),
            wait=wait_random_exponential(multiplier=0.2, max=MOST_WAIT_SECONDS),
            reraise=True,
        )

    def fetch(self, request: Request) -> memoryview:
        """Return the bytes of a request; what fails for the moment is asked for again.

        Raises:
            SourceRejected: The object was overwritten or deleted after it was listed.
            PipelineError: What else the server says.
        """
        return self._repeated(self._fetch_once, request)

    def _fetch_once(self, request: Request) -> memoryview:
        item = request.item
        tag = item.version.rpartition("-")[0]
        options: GetOptions = {"if_match": f'"{tag}"'}
        if tag.startswith(BY_TIME):
            options = {"if_unmodified_since": datetime.fromisoformat(tag.removeprefix(BY_TIME))}
        if request.start or request.end != int(item.version.rpartition("-")[2]):
            options["range"] = (request.start, request.end)
        try:
            content = memoryview(obstore.get(self._store, item.uri, options=options).bytes())
        except CLIENT_ERRORS as error:
            raise meaning(error, self._where, item.uri) from None
        if len(content) != request.end - request.start:
            raise SourceUnavailable(
                f"{self._where}: object {item.uri}: {len(content)} bytes came for "
                f"{request.end - request.start}"
            )
        return content

    def open(self, item: SourceItem, start: int, end: int) -> BinaryIO:
        """Open a range; a large one is fetched ahead while it is read."""
        if end - start <= PIECE_BYTES:
            content = self.fetch(Request(item, start, end)) if end > start else b""
            return io.BytesIO(content)
        return _buffered(self._stream(item, start, end))

    def _stream(self, item: SourceItem, start: int, end: int) -> Iterator[memoryview]:
        with read_ahead(self.fetch, pieces(item, start, end)) as contents:
            yield from contents


def _buffered(contents: Iterator[memoryview]) -> BinaryIO:
    return cast(BinaryIO, io.BufferedReader(_Joined(contents), 1 << 20))


@contextmanager
def read_ahead(
    fetch: Callable[[Request], memoryview], requests: Iterable[Request]
) -> Iterator[Iterator[memoryview]]:
    """Give the bytes of requests in their order, while later ones are already on their way."""
    pool = ThreadPoolExecutor(AHEAD_REQUESTS, thread_name_prefix="s3-read")
    try:
        yield _in_order(pool, fetch, requests)
    finally:
        pool.shutdown(cancel_futures=True)


def _in_order(
    pool: ThreadPoolExecutor,
    fetch: Callable[[Request], memoryview],
    requests: Iterable[Request],
) -> Iterator[memoryview]:
    asked: deque[tuple[Future[memoryview], int]] = deque()
    on_the_way = 0
    for request in requests:
        size = request.end - request.start
        while asked and (on_the_way + size > AHEAD_BYTES or len(asked) >= AHEAD_REQUESTS):
            future, done = asked.popleft()
            yield future.result()
            on_the_way -= done
        asked.append((pool.submit(fetch, request), size))
        on_the_way += size
    while asked:
        yield asked.popleft()[0].result()


class _Joined(io.RawIOBase):
    """Pieces, one after the other, as a file."""

    def __init__(self, contents: Iterator[memoryview]) -> None:
        self._contents = contents
        self._left = memoryview(b"")

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        """Fetch no more."""
        if hasattr(self._contents, "close"):
            self._contents.close()
        super().close()

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._left:
            following = next(self._contents, None)
            if following is None:
                return 0
            self._left = following
        taken = self._left[: len(buffer)]
        buffer[: len(taken)] = taken
        self._left = self._left[len(taken) :]
        return len(taken)


class ItemReader:
    """Opens the items of a partition one after the other, with all of them fetched ahead.

    Args:
        objects: The bucket.
        items: Pairs of an item and the range of it that will be read.
    """

    def __init__(
        self, objects: PinnedObjects, items: Iterable[tuple[SourceItem, int, int]]
    ) -> None:
        ranges = list(items)
        self._requests = (request for spec in ranges for request in pieces(*spec))
        self._ahead = read_ahead(objects.fetch, self._requests)
        self._left = 0

    def __enter__(self) -> ItemReader:
        self._contents = self._ahead.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._ahead.__exit__(None, None, None)

    def open_next(self, start: int, end: int) -> BinaryIO:
        """Open the range of the next item; what was left of the one before is skipped."""
        for _ in range(self._left):
            next(self._contents)
        self._left = -(-(end - start) // PIECE_BYTES)
        if self._left <= 1:
            content = next(self._contents) if self._left else b""
            self._left = 0
            return io.BytesIO(content)
        return _buffered(self._taken())

    def _taken(self) -> Iterator[memoryview]:
        while self._left:
            self._left -= 1
            yield next(self._contents)
