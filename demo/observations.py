"""The demo's weather as an API sees it: queries, pages of JSON, and a bad mood now and then."""

from __future__ import annotations

import json
import re
import zlib
from bisect import bisect_left
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from http import HTTPStatus
from threading import Lock
from typing import Any
from urllib.parse import parse_qs, urlencode

from demo.nycflights import NULL, rows

PATH = "/v1/observations"
TEXT_COLUMNS = frozenset({"origin", "time_hour"})
MAX_PAGE_SIZE = 5000
MOODY_OF_HUNDRED = 6
DEFAULTS = {
    "from": "0001-01-01",
    "to": "9999-12-31",
    "page": "1",
    "page_size": "1000",
}
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9]{2}:[0-9]{2}:[0-9]{2}Z?)?")
_COUNT = re.compile(r"0*[1-9][0-9]{0,8}")


class BadParameterError(ValueError):
    """A parameter of a request cannot be understood; the message is for the client."""


@dataclass(frozen=True)
class Query:
    """What a client asks for: a window of time, half open, and a page of it."""

    start: str
    end: str
    page: int
    page_size: int

    @classmethod
    def parse(cls, text: str) -> Query:
        """Read the query of a URL.

        Raises:
            BadParameterError: It says something that makes no sense.
        """
        named = parse_qs(text, keep_blank_values=True)
        asked = {name: values[-1] for name, values in named.items()}
        if unknown := sorted(asked.keys() - DEFAULTS.keys()):
            raise BadParameterError(f"unknown parameter {unknown[0]}; known: {', '.join(DEFAULTS)}")
        given = DEFAULTS | asked
        query = cls(
            _instant("from", given["from"]),
            _instant("to", given["to"]),
            _count("page", given["page"]),
            _count("page_size", given["page_size"]),
        )
        if query.page_size > MAX_PAGE_SIZE:
            raise BadParameterError(f"page_size is at most {MAX_PAGE_SIZE}")
        if query.start > query.end:
            raise BadParameterError("from is after to")
        return query

    @property
    def identity(self) -> str:
        """Name of the window and page, however the client wrote them."""
        return f"{self.start} {self.end} {self.page}"

    @property
    def following(self) -> str:
        """Address of the next page."""
        window = {"from": self.start, "to": self.end}
        return f"{PATH}?{urlencode(window | {'page': self.page + 1, 'page_size': self.page_size})}"


def _instant(name: str, text: str) -> str:
    """Write a day or a time as the data write theirs."""
    with suppress(ValueError):
        if _TIME.fullmatch(text):
            return f"{datetime.fromisoformat(text.removesuffix('Z')).isoformat()}Z"
    raise BadParameterError(f"{name} is a day or a time in UTC: 2013-02-01 or 2013-02-01T00:00:00Z")


def _count(name: str, text: str) -> int:
    if not _COUNT.fullmatch(text):
        raise BadParameterError(f"{name} is a whole number from 1")
    return int(text)


def record(row: dict[str, str]) -> str:
    """Write one observation as JSON; numbers keep the digits of the file."""
    fields = (
        f"{json.dumps(name)}:{json.dumps(text) if name in TEXT_COLUMNS else text}"
        if text != NULL
        else f"{json.dumps(name)}:null"
        for name, text in row.items()
    )
    return "{" + ",".join(fields) + "}"


def mood(identity: str) -> HTTPStatus:
    """Return how a page is answered the first time: 429, 503 or 200, always the same."""
    dice = zlib.crc32(identity.encode()) % 100
    if dice < MOODY_OF_HUNDRED:
        return HTTPStatus.TOO_MANY_REQUESTS
    if dice < 2 * MOODY_OF_HUNDRED:
        return HTTPStatus.SERVICE_UNAVAILABLE
    return HTTPStatus.OK


@dataclass
class Observations:
    """All observations in the order of their time, and what was asked of them."""

    times: list[str] = field(default_factory=list)
    records: list[str] = field(default_factory=list)
    refused: set[str] = field(default_factory=set)
    answered: Counter[HTTPStatus] = field(default_factory=Counter)
    lock: Lock = field(default_factory=Lock)

    @classmethod
    def load(cls) -> Observations:
        """Read the weather of the package."""
        ordered = sorted(rows("weather"), key=lambda row: (row["time_hour"], row["origin"]))
        return cls([row["time_hour"] for row in ordered], [record(row) for row in ordered])

    def admit(self, query: Query) -> HTTPStatus:
        """Return the status for a request, and count it; a page is refused once at most."""
        with self.lock:
            status = HTTPStatus.OK if query.identity in self.refused else mood(query.identity)
            if status != HTTPStatus.OK:
                self.refused.add(query.identity)
            self.answered[status] += 1
            return status

    def page(self, query: Query) -> str:
        """Write the answer to a query as JSON."""
        first, last = bisect_left(self.times, query.start), bisect_left(self.times, query.end)
        total, pages = last - first, -(-(last - first) // query.page_size)
        start = first + (query.page - 1) * query.page_size
        data = ",".join(self.records[start : min(start + query.page_size, last)])
        following = json.dumps(query.following if query.page < pages else None)
        return (
            f'{{"data":[{data}],"page":{query.page},"pages":{pages},'
            f'"total":{total},"next":{following}}}'
        )

    def health(self) -> dict[str, Any]:
        """Return what was answered so far."""
        with self.lock:
            return {
                "status": "ok",
                "served": self.answered[HTTPStatus.OK],
                "throttled": self.answered[HTTPStatus.TOO_MANY_REQUESTS],
                "unavailable": self.answered[HTTPStatus.SERVICE_UNAVAILABLE],
            }
