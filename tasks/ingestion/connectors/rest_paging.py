"""How one page leads to the next, for each declared kind of paging."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tasks.ingestion.http.answers import Answer
from tasks.ingestion.http.reader import ApiReader
from tasks.json_records import parse_json
from tasks.model.errors import SourceUnavailable
from tasks.model.rest_source import (
    Cursor,
    LinkHeader,
    NextLink,
    OffsetLimit,
    PageNumbers,
    Pagination,
)

Params = dict[str, str | int]


@dataclass(frozen=True, slots=True)
class Ask:
    """One page to ask for.

    Attributes:
        url: Path below the API's base URL, or a URL that a link led to.
        params: Query parameters.
        may_be_absent: The page before was short, so there may be no such page.
        past_the_end: By what the server says there is no such page; asked to see whether that is so.
        again: Records at its beginning that the page before had too.
    """

    url: str
    params: Params
    may_be_absent: bool = False
    past_the_end: bool = False
    again: tuple[Any, ...] = ()


class Pager(Protocol):
    """Knows how one page leads to the next."""

    def first(self, url: str, params: Params) -> Ask:
        """Return the first page."""
        ...

    def following(self, ask: Ask, answer: Answer, records: Sequence[Any]) -> Ask | None:
        """Return the page after one that was read; None if it was the last one.

        Raises:
            SourceUnavailable: The server contradicts itself.
        """
        ...


def pager_of(
    declared: Pagination | None, reader: ApiReader, pages: Sequence[int | None] | None = None
) -> Pager:
    """Return the pager of a declaration.

    Args:
        declared: The declaration; None for an answer that is all.
        reader: Checks where links lead to.
        pages: First and last number of the pages to read; None for all of them.
    """
    match declared:
        case None:
            return OnePage()
        case PageNumbers():
            return CountedPages(declared, pages)
        case OffsetLimit():
            return OffsetPages(declared)
        case Cursor():
            return CursorPages(declared)
        case LinkHeader() | NextLink():
            return LinkedPages(declared, reader)


def parsed(record: Any) -> Any:
    """Return a record parsed, whether it was or not; None if it cannot be."""
    if not isinstance(record, bytes):
        return record
    try:
        return parse_json(record.decode())
    except ValueError:
        return None


def value_at(body: Any, path: str) -> Any:
    """Return the value at a dotted path of a parsed document, None if there is none."""
    for part in path.split("."):
        if not isinstance(body, dict) or part not in body:
            return None
        body = body[part]
    return body


def count_at(answer: Answer, key: str) -> int:
    """Return a number that an answer says.

    Raises:
        SourceUnavailable: It does not.
    """
    said = value_at(answer.body, key)
    try:
        return int(said)
    except (TypeError, ValueError):
        raise SourceUnavailable(
            f"no whole number at {key!r} of the answer; {answer.shape}",
            "correct it under source.pagination, if it is not the server that fails",
        ) from None


class OnePage:
    """The answer is all there is."""

    def first(self, url: str, params: Params) -> Ask:
        """Return the only page."""
        return Ask(url, params)

    def following(self, _ask: Ask, _answer: Answer, _records: Sequence[Any]) -> Ask | None:
        """Return that there is no other."""
        return None


class CountedPages:
    """Page 1, page 2, …: to the declared number of pages, or else to an empty page.

    A short page is no end: a server may give fewer records than it was asked for.
    """

    def __init__(self, declared: PageNumbers, pages: Sequence[int | None] | None) -> None:
        self._declared = declared
        self._first, self._last = pages or (declared.first, None)

    def first(self, url: str, params: Params) -> Ask:
        """Return the first page."""
        declared = self._declared
        return Ask(
            url,
            {**params, declared.size_param: declared.size, declared.page_param: self._first or 0},
        )

    def following(self, ask: Ask, answer: Answer, records: Sequence[Any]) -> Ask | None:
        """Return the next number, unless it was the last page."""
        declared = self._declared
        number = int(ask.params[declared.page_param])
        full = len(records) >= declared.size
        following = Ask(
            ask.url, {**ask.params, declared.page_param: number + 1}, may_be_absent=not full
        )
        if declared.pages is None:
            return following if records else None
        count, nth = count_at(answer, declared.pages), number - declared.first + 1
        if not records:
            if count > 1 and nth <= count:
                raise SourceUnavailable(
                    f"page {nth} has no records, though there are {count} pages by {declared.pages!r}"
                )
            return None
        if number == self._last:
            return None
        if nth < count:
            return following
        return Ask(following.url, following.params, past_the_end=True) if full else None


class OffsetPages:
    """Records from an offset on; the next offset counts what was given, not what was asked for."""

    def __init__(self, declared: OffsetLimit) -> None:
        self._declared = declared

    def first(self, url: str, params: Params) -> Ask:
        """Return the first page."""
        declared = self._declared
        return Ask(url, {**params, declared.limit_param: declared.limit, declared.offset_param: 0})

    def following(self, ask: Ask, answer: Answer, records: Sequence[Any]) -> Ask | None:
        """Return the page that begins where this one ends, or a few records before."""
        declared = self._declared
        offset = int(ask.params[declared.offset_param])
        self._refuse_gap(ask, offset, records)
        reached = offset + len(records)
        total = count_at(answer, declared.total) if declared.total else None
        if not records:
            if total is not None and offset < total:
                raise SourceUnavailable(
                    f"no records from {offset} on, though there are {total} by {declared.total!r}"
                )
            return None
        if len(records) <= len(ask.again):
            return None
        full = len(records) >= declared.limit
        if total is not None and reached >= total:
            params = {**ask.params, declared.offset_param: reached}
            return Ask(ask.url, params, past_the_end=True) if full else None
        back = min(declared.overlap, len(records) - 1)
        return Ask(
            ask.url,
            {**ask.params, declared.offset_param: reached - back},
            may_be_absent=not full,
            again=tuple(records[len(records) - back :]),
        )

    def _refuse_gap(self, ask: Ask, offset: int, records: Sequence[Any]) -> None:
        if ask.again and not any(record in records for record in ask.again):
            raise SourceUnavailable(
                f"records moved up by {self._declared.overlap} or more while pages were read, at "
                f"offset {offset}: some may be missed",
                "raise pagination.overlap, or page by a cursor",
            )


class CursorPages:
    """A cursor out of the body, or out of the last record, is sent as a parameter."""

    def __init__(self, declared: Cursor) -> None:
        self._declared = declared

    def first(self, url: str, params: Params) -> Ask:
        """Return the first page, which has no cursor."""
        return Ask(url, params)

    def following(self, ask: Ask, answer: Answer, records: Sequence[Any]) -> Ask | None:
        """Return the page at the cursor."""
        declared = self._declared
        if not records and (declared.until == "empty" or declared.field):
            return None
        if declared.field:
            cursor = value_at(parsed(records[-1]), declared.field)
        else:
            cursor = value_at(answer.body, declared.key or "")
        if cursor is None or cursor == "":
            self._check_end()
            return None
        if not isinstance(cursor, str):
            raise SourceUnavailable(f"the cursor is no text or number; {answer.shape}")
        return Ask(ask.url, {**ask.params, declared.param: str(cursor)})

    def _check_end(self) -> None:
        if self._declared.field:
            raise SourceUnavailable(
                f"the last record of a page has no {self._declared.field!r} to go on from",
                "correct pagination.field, or name a field that every record has",
            )


class LinkedPages:
    """The URL of the next page is in the body or in the ``Link`` header."""

    def __init__(self, declared: LinkHeader | NextLink, reader: ApiReader) -> None:
        self._declared = declared
        self._reader = reader

    def first(self, url: str, params: Params) -> Ask:
        """Return the first page."""
        return Ask(url, params)

    def following(self, _ask: Ask, answer: Answer, _records: Sequence[Any]) -> Ask | None:
        """Return the page that the link leads to."""
        declared = self._declared
        if isinstance(declared, LinkHeader):
            link: Any = answer.links.get(declared.rel)
        else:
            link = value_at(answer.body, declared.key)
        if link is None or link == "":
            return None
        if not isinstance(link, str):
            raise SourceUnavailable(f"the link to the next page is no text; {answer.shape}")
        return Ask(self._reader.following(link, answer), {})
