"""REST APIs that answer in JSON: windows of time, pages, and guards against paging for ever."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode, urljoin, urlsplit

import httpx

from tasks.ingestion.connector import PlanLimits, RawBatch
from tasks.ingestion.http import get_json
from tasks.ingestion.json_batches import RecordBatcher
from tasks.ingestion.json_select import records_at
from tasks.model.errors import SourceRejected, SourceUnavailable
from tasks.model.run import Partition, SourceState
from tasks.model.source import NextLink, PageNumbers, RestSource, TimeWindows

DECEMBER = 12


class RestConnector:
    """Reads a REST API.

    Args:
        dataset: Name of the dataset.
        source: Its declaration.
        client: Knows the server and the credentials.
        limits: Bounds of batches and values.
        now: Gives the time.
        sleep: Waits between two attempts of a request.
    """

    def __init__(
        self,
        dataset: str,
        source: RestSource,
        client: httpx.Client,
        limits: PlanLimits,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._dataset = dataset
        self._source = source
        self._client = client
        self._limits = limits
        self._now = now
        self._sleep = sleep

    def plan(self, state: SourceState) -> list[Partition]:
        """Return the windows that are not loaded; an open window is read again by every run."""
        now = self._now().replace(microsecond=0)
        if self._source.windows is None:
            return [self._partition(self._source.path, {"as_of": now.isoformat()})]
        planned = []
        for start, end in windows(self._source.windows, now):
            bounds = {"from": start.isoformat(), "to": end.isoformat()}
            if end > now:
                bounds["as_of"] = now.isoformat()
            partition = self._partition(f"{start:%Y-%m-%d} to {end:%Y-%m-%d}", bounds)
            if partition.fingerprint not in state.fingerprints:
                planned.append(partition)
        return planned

    def _partition(self, label: str, bounds: dict[str, str]) -> Partition:
        request = {"path": self._source.path, "params": self._source.params}
        return Partition(
            dataset=self._dataset,
            label=f"{self._dataset} {label}",
            slice={**request, **bounds},
        )

    def read(self, partition: Partition) -> Iterator[RawBatch]:
        """Stream the records of a window, page by page."""
        params = dict(self._source.params)
        if self._source.windows is not None:
            params[self._source.windows.from_param] = _instant(partition.slice["from"])
            params[self._source.windows.to_param] = _instant(partition.slice["to"])
        for uri, records in self._pages(params):
            batcher = RecordBatcher(uri, self._limits)
            for record in records:
                if made := batcher.add(record):
                    yield made
            if left := batcher.flush():
                yield left

    def _pages(self, params: dict[str, str | int]) -> Iterator[tuple[str, list[Any]]]:
        """Yield (name, records) of each page."""
        paging = self._source.pagination
        url, page = self._source.path, 1
        if isinstance(paging, PageNumbers):
            page = paging.first
            params |= {paging.size_param: paging.size}
        seen: set[str] = set()
        for _ in range(self._source.max_pages):
            asked = params | ({paging.page_param: page} if isinstance(paging, PageNumbers) else {})
            body, text = get_json(self._client, url, asked, sleep=self._sleep)
            records = self._records(body, text)
            if records:
                self._refuse_repeated(seen, text, page)
            yield self._name(url, asked), records
            if paging is None:
                return
            if isinstance(paging, PageNumbers):
                page += 1
                if self._is_last(paging, body, records, page):
                    return
            else:
                following = self._next_url(paging, body)
                if following is None:
                    return
                url, params = following, {}
                self._refuse_repeated(seen, url, page)
        raise SourceRejected(
            f"{self._dataset}: more than {self._source.max_pages} pages",
            "raise source.max_pages if that is right",
        )

    def _records(self, body: Any, text: str) -> list[Any]:
        records = records_at(body, self._source.records)
        if records is None:
            where = self._source.records or "the top of the answer"
            raise SourceUnavailable(
                f"{self._dataset}: no list of records at {where}: {text[:200]!r}",
                "correct 'records' in the dataset file, if it is not the server that fails",
            )
        return list(records)

    def _refuse_repeated(self, seen: set[str], content: str, page: int) -> None:
        digest = hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()
        if digest in seen:
            raise SourceRejected(
                f"{self._dataset}: page {page} is one that was read before; the paging goes in circles",
                "correct 'pagination' in the dataset file",
            )
        seen.add(digest)

    @staticmethod
    def _is_last(paging: PageNumbers, body: Any, records: list[Any], following: int) -> bool:
        if paging.pages is not None and isinstance(body, dict) and paging.pages in body:
            return following - paging.first >= int(body[paging.pages])
        return len(records) < paging.size

    def _next_url(self, paging: NextLink, body: Any) -> str | None:
        following = body.get(paging.key) if isinstance(body, dict) else None
        if following is None or following == "":
            return None
        base = str(self._client.base_url)
        target = urljoin(base, str(following))
        if urlsplit(target)[:2] != urlsplit(base)[:2]:
            host = urlsplit(target).hostname
            raise SourceRejected(
                f"{self._dataset}: the next page is on another server ({host}); "
                "the credentials are not sent there"
            )
        return target

    def _name(self, url: str, params: dict[str, str | int]) -> str:
        """Name a page by what we asked for; never by a URL that could hold a key."""
        path = urlsplit(url).path.lstrip("/")
        return f"rest:{self._source.block}/{path}?{urlencode(params)}"


def windows(declared: TimeWindows, now: datetime) -> Iterator[tuple[datetime, datetime]]:
    """Cut time into half-open windows, from the declared start to the declared end or now."""
    start = _aware(declared.start)
    last = _aware(declared.end) if declared.end else now
    while start < last:
        end = _step(start, declared.every)
        if declared.end is not None:
            end = min(end, last)
        yield start, end
        start = end


def _step(start: datetime, every: str) -> datetime:
    if every == "month":
        first = start.replace(day=1, hour=0, minute=0, second=0)
        if first.month == DECEMBER:
            return first.replace(year=first.year + 1, month=1)
        return first.replace(month=first.month + 1)
    return start + (timedelta(hours=1) if every == "hour" else timedelta(days=1))


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _instant(text: str) -> str:
    """Write an instant as APIs expect it: UTC, with a Z."""
    return datetime.fromisoformat(text).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
