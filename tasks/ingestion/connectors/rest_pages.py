"""Reads pages one after the other, with guards against reading for ever and against reading too few."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

from tasks.ingestion.connectors.rest_paging import Ask, Pager, Params
from tasks.ingestion.http.answers import Answer
from tasks.ingestion.http.reader import ApiReader
from tasks.ingestion.json_select import records_at
from tasks.model.errors import SourceRejected, SourceUnavailable
from tasks.model.rest_source import RestSource


@dataclass(frozen=True, slots=True)
class Page:
    """A page that was read.

    Attributes:
        uri: Names it by what we asked for; never by a URL that could hold a key.
        records: Its records: texts, or parsed where that had to be.
        answer: The whole of it.
    """

    uri: str
    records: Sequence[Any]
    answer: Answer


class PageReader:
    """Reads the pages of one source.

    Args:
        dataset: Name of the dataset, for messages.
        source: Its declaration.
        reader: Asks the API.
        longest: Longest record that is read as text, in bytes.
    """

    def __init__(self, dataset: str, source: RestSource, reader: ApiReader, longest: int) -> None:
        self._longest = longest
        self._dataset = dataset
        self._source = source
        self._reader = reader

    def pages(self, pager: Pager, params: Params) -> Iterator[Page]:
        """Read page after page.

        Raises:
            SourceRejected: The paging goes in circles, or beyond the declared number of pages.
            SourceUnavailable: A page is not what it should be, or contradicts another one.
        """
        ask: Ask | None = pager.first(self._source.path, params)
        asked, read = set[str](), set[bytes]()
        number = 0
        while ask is not None:
            number += 1
            if number > self._source.max_pages and not ask.past_the_end:
                raise SourceRejected(
                    f"{self._dataset}: more than {self._source.max_pages} pages",
                    "raise source.max_pages if that is right",
                )
            self._refuse_asked(asked, ask, number)
            answer = self._answer(ask, number)
            records = self.records(answer) if answer else []
            digest = _digest(records)
            if answer is None or ask.past_the_end:
                self._check_end(ask, number, repeated=not records or digest in read)
                return
            if records and digest in read:
                raise self._circle(f"page {number} is one that was read before")
            read.add(digest)
            yield Page(self._name(ask, number), records, answer)
            try:
                ask = pager.following(ask, answer, records)
            except SourceUnavailable as error:
                raise SourceUnavailable(f"{self._dataset}: {error.message}", error.remedy) from None

    def first_answer(self, pager: Pager, params: Params) -> Answer:
        """Get the first page only."""
        ask = pager.first(self._source.path, params)
        return self._reader.get(ask.url, ask.params)

    def records(self, answer: Answer) -> Sequence[Any]:
        """Return the records of a page.

        Raises:
            SourceUnavailable: There is no list of records where it should be.
        """
        texts = answer.take_records(self._source.records, self._longest)
        if texts is not None:
            return texts
        found = records_at(answer.body, self._source.records)
        if found is None:
            where = self._source.records or "the top of the answer"
            raise SourceUnavailable(
                f"{self._dataset}: no list of records at {where}; {answer.shape}",
                "correct 'records' in the dataset file, if it is not the server that fails",
            )
        return list(found)

    def _answer(self, ask: Ask, number: int) -> Answer | None:
        if number > 1 and (ask.may_be_absent or ask.past_the_end):
            return self._reader.get_if_there(ask.url, ask.params)
        return self._reader.get(ask.url, ask.params)

    def _check_end(self, ask: Ask, number: int, *, repeated: bool) -> None:
        if ask.past_the_end and not repeated:
            raise SourceUnavailable(
                f"{self._dataset}: page {number} has records, though by what the server says page "
                f"{number - 1} was the last one",
                "leave out pagination.pages or pagination.total: then pages are read to an empty one",
            )

    def _refuse_asked(self, asked: set[str], ask: Ask, number: int) -> None:
        key = f"{ask.url} {sorted(ask.params.items())}"
        if key in asked:
            raise self._circle(f"page {number - 1} leads to a page that was read before")
        asked.add(key)

    def _circle(self, what: str) -> SourceRejected:
        return SourceRejected(
            f"{self._dataset}: {what}; the paging goes in circles",
            "correct 'pagination' in the dataset file",
        )

    def _name(self, ask: Ask, number: int) -> str:
        path = urlsplit(ask.url).path.lstrip("/")
        name = f"rest:{self._source.block}/{path}"
        if ask.params:
            return f"{name}?{urlencode(ask.params)}"
        return name if number == 1 else f"{name}#{number}"


def _digest(records: Sequence[Any]) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for record in records:
        text = (
            record if isinstance(record, bytes) else repr(record).encode("utf-8", "surrogatepass")
        )
        digest.update(text)
        digest.update(b"\n")
    return digest.digest()
