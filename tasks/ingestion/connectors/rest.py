"""REST APIs that answer in JSON: what to ask for, and the records of the answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from blocks.api_client import ApiClient
from tasks.ingestion.connector import PlanLimits, RawBatch
from tasks.ingestion.connectors.rest_increments import Mark, instant, windows_in
from tasks.ingestion.connectors.rest_pages import PageReader
from tasks.ingestion.connectors.rest_paging import Params, count_at, pager_of, parsed
from tasks.ingestion.http.guard import HostGuard
from tasks.ingestion.http.reader import ApiReader
from tasks.ingestion.json_batches import RecordBatcher
from tasks.model.errors import ConfigError, SourceUnavailable
from tasks.model.partition import Partition
from tasks.model.request import SourceState
from tasks.model.rest_source import PageNumbers, RestSource
from tasks.model.value import json_digest

TOGETHER = 500
"""Records that are taken apart together."""
SETTLED = timedelta(seconds=2)
"""A ``Last-Modified`` younger than this is no version: the document may change within that second."""


class RestConnector:
    """Reads a REST API.

    Args:
        dataset: Name of the dataset.
        source: Its declaration.
        client: Knows the server and the credentials.
        limits: Bounds of batches and values.
        guard: Keeps the rate, and leaves hosts alone that fail.
        now: Gives the time.
        sleep: Waits between two attempts of a request.
    """

    def __init__(
        self,
        dataset: str,
        source: RestSource,
        client: ApiClient,
        limits: PlanLimits,
        guard: HostGuard | None = None,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._dataset = dataset
        self._source = source
        self._limits = limits
        self._now = now
        self._reader = ApiReader(
            client,
            guard or HostGuard(),
            allow_hosts=source.allow_hosts,
            content_type=source.content_type,
            sleep=sleep,
            now=now,
        )
        self._pages = PageReader(dataset, source, self._reader, limits.max_value_bytes)

    def plan(self, state: SourceState) -> list[Partition]:
        """Return what is not loaded; an open window is read again by every run."""
        source, now = self._source, self._now().replace(microsecond=0)
        if source.windows is not None:
            return self._plan_windows(state, now)
        if state.window is not None:
            raise ConfigError(
                f"{self._dataset}: the source has no windows of time, so no span of it can be loaded",
                "declare source.windows with the parameters that bound a request in time",
            )
        as_of = {"as_of": now.isoformat()}
        if source.incremental is not None:
            mark = Mark(source.incremental, state.latest, now)
            since = mark.since()
            return [self._partition(f"since {since}", {"since": since, **as_of}, mark.state())]
        if source.conditional:
            return self._plan_conditional(state.latest, as_of)
        if isinstance(source.pagination, PageNumbers) and source.pagination.partition_pages:
            return self._plan_pages(source.pagination, source.pagination.partition_pages, as_of)
        return [self._partition(source.path, as_of)]

    def _plan_windows(self, state: SourceState, now: datetime) -> list[Partition]:
        assert self._source.windows is not None
        planned = []
        for start, end in windows_in(self._source.windows, now, state.window):
            bounds = {"from": start.isoformat(), "to": end.isoformat()}
            if end > now:
                bounds["as_of"] = now.isoformat()
            partition = self._partition(f"{start:%Y-%m-%d} to {end:%Y-%m-%d}", bounds)
            if partition.fingerprint not in state.fingerprints:
                planned.append(partition)
        return planned

    def _plan_pages(
        self, declared: PageNumbers, size: int, as_of: Mapping[str, str]
    ) -> list[Partition]:
        """Cut into ranges of pages; the last one is open, so that it takes what comes meanwhile."""
        pager = pager_of(declared, self._reader)
        answer = self._pages.first_answer(pager, dict(self._source.params))
        last = declared.first + max(count_at(answer, declared.pages or ""), 1) - 1
        planned = []
        for first in range(declared.first, last + 1, size):
            end = first + size - 1
            pages = [first, end if end < last else None]
            label = f"pages {first} to {min(end, last)}"
            planned.append(self._partition(label, {"pages": pages, **as_of}))
        return planned

    def _plan_conditional(
        self, latest: Mapping[str, Any], as_of: Mapping[str, str]
    ) -> list[Partition]:
        source = self._source
        request = json_digest([source.path, source.params])[:16]
        known = latest if latest.get("request") == request else {}
        headers = {}
        if known.get("etag"):
            headers["If-None-Match"] = str(known["etag"])
        elif known.get("last_modified"):
            headers["If-Modified-Since"] = str(known["last_modified"])
        found = self._reader.changed(source.path, source.params, headers)
        if found is None:
            return []
        version = _version(found)
        state = {"request": request, **version} if version else {}
        return [self._partition(source.path, as_of, state)]

    def _partition(
        self, label: str, bounds: Mapping[str, Any], state: Mapping[str, Any] | None = None
    ) -> Partition:
        request = {"path": self._source.path, "params": self._source.params}
        return Partition(
            dataset=self._dataset,
            label=f"{self._dataset} {label}",
            slice={**request, **bounds},
            state=dict(state or {}),
        )

    def read(self, partition: Partition) -> Iterator[RawBatch]:
        """Stream the records of a partition, page by page."""
        mark = None
        if self._source.incremental is not None:
            mark = Mark(self._source.incremental, partition.state, self._now())
        pager = pager_of(self._source.pagination, self._reader, partition.slice.get("pages"))
        for page in self._pages.pages(pager, self._params(partition)):
            if self._source.conditional:
                self._refuse_changed(partition, page.answer.headers)
            batcher = RecordBatcher(page.uri, self._limits, flatten=self._source.flatten)
            if mark is not None:
                for record in page.records:
                    mark.see(parsed(record))
            yield from _added(batcher, page.records)
            if left := batcher.flush():
                yield left
        if mark is not None:
            yield RawBatch(None, state=mark.state())

    def _params(self, partition: Partition) -> Params:
        params: Params = dict(self._source.params)
        if self._source.windows is not None:
            for name, bound in (
                (self._source.windows.from_param, "from"),
                (self._source.windows.to_param, "to"),
            ):
                params[name] = instant(datetime.fromisoformat(partition.slice[bound]))
        if self._source.incremental is not None:
            params[self._source.incremental.param] = partition.slice["since"]
        return params

    def _refuse_changed(self, partition: Partition, headers: httpx.Headers) -> None:
        planned = {name: value for name, value in partition.state.items() if name != "request"}
        if planned and _version(headers) != planned:
            raise SourceUnavailable(
                f"{self._dataset}: the answer changed after it was planned",
                "run again; if that does not help, the server's ETag is no version: "
                "leave out source.conditional",
            )


def _added(batcher: RecordBatcher, records: Sequence[Any]) -> Iterator[RawBatch]:
    if records and isinstance(records[0], bytes):
        for start in range(0, len(records), TOGETHER):
            yield from batcher.add_texts(records[start : start + TOGETHER])
        return
    for record in records:
        if made := batcher.add(record):
            yield made


def _version(headers: httpx.Headers) -> dict[str, str]:
    """Return what tells this version of a document from others; empty if nothing does."""
    if etag := headers.get("ETag"):
        return {"etag": etag}
    modified = headers.get("Last-Modified")
    try:
        age = parsedate_to_datetime(headers["Date"]) - parsedate_to_datetime(modified or "")
    except (KeyError, ValueError, TypeError, OverflowError):
        return {}
    return {"last_modified": str(modified)} if age >= SETTLED else {}
