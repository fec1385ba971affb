"""Every kind of paging to its end, and the ways in which servers get it wrong (53, 54, B37)."""

from __future__ import annotations

from itertools import chain
from typing import Any

import pytest

from tasks.model.errors import PipelineError, SourceRejected, SourceUnavailable
from tasks.model.request import SourceState
from tests.integration.ingestion.rest.support import Api
from tests.misbehaving_http import Asked, Reply, data

PAGE = {"kind": "page", "size": 2}
OFFSET = {"kind": "offset", "limit": 2}


def counted(records: int, size: int = 2, **more: Any) -> Any:
    """A server with so many records, which gives ``size`` a page whatever it is asked for."""

    def answer(asked: Asked, _n: int) -> Reply:
        begin = (int(asked.query["page"]) - 1) * size
        return data(*range(begin + 1, min(begin + size, records) + 1), **more)

    return answer


def offset(records: int, most: int = 100, **more: Any) -> Any:
    """A server with so many records, which gives at most ``most`` from an offset on."""

    def answer(asked: Asked, _n: int) -> Reply:
        begin = int(asked.query["offset"])
        size = min(most, int(asked.query["limit"]))
        return data(*range(begin + 1, min(begin + size, records) + 1), **more)

    return answer


def ids(count: int) -> list[str]:
    return [str(number) for number in range(1, count + 1)]


def test_counted_pages_are_read_to_the_last(api: Api) -> None:
    api.answer = counted(5, pages=3)
    rows = api.read(api.connector(pagination={**PAGE, "pages": "pages"}))
    assert [row["id"] for row in rows] == ids(5)
    assert rows[2]["_source_uri"] == "rest:b/things?page_size=2&page=2"
    assert rows[2]["_source_row"] == 1
    assert len(api.asked) == 3


@pytest.mark.parametrize("total", [0, 1, 2, 3, 4])
def test_pages_without_a_number_end_with_an_empty_one(api: Api, total: int) -> None:
    api.answer = counted(total)
    assert api.ids(api.connector(pagination=PAGE)) == ids(total)


def test_page_after_a_short_one_may_be_not_there(api: Api) -> None:
    """Some servers answer 404 to the page after the last."""
    pages = counted(3)
    api.answer = lambda asked, n: Reply(404) if n == 3 else pages(asked, n)
    assert api.ids(api.connector(pagination=PAGE)) == ids(3)


def test_page_after_a_full_one_must_be_there(api: Api) -> None:
    pages = counted(4)
    api.answer = lambda asked, n: Reply(404) if n == 2 else pages(asked, n)
    with pytest.raises(SourceRejected, match="HTTP 404"):
        api.read(api.connector(pagination=PAGE))


@pytest.mark.parametrize("server_size", [1, 3, 7])
def test_ignored_page_size_loses_nothing(api: Api, server_size: int) -> None:
    """A short page is no proof of the end: the server may give less, or more, than it was asked for."""
    api.answer = counted(10, server_size)
    assert api.ids(api.connector(pagination={"kind": "page", "size": 5})) == ids(10)
    api.answer = offset(10, server_size)
    assert api.ids(api.connector(pagination={"kind": "offset", "limit": 5})) == ids(10)


def test_offsets_are_read_to_the_total(api: Api) -> None:
    api.answer = offset(5, total=5)
    assert api.ids(api.connector(pagination={**OFFSET, "total": "total"})) == ids(5)
    assert [asked.query["offset"] for asked in api.asked] == ["0", "2", "4"]


@pytest.mark.parametrize(
    ("answer", "pagination", "words"),
    [
        (
            counted(4, pages=9),
            {**PAGE, "pages": "pages"},
            "page 3 has no records, though there are 9",
        ),
        (
            counted(0, pages=2),
            {**PAGE, "pages": "pages"},
            "page 1 has no records, though there are 2",
        ),
        (counted(4, pages=1), {**PAGE, "pages": "pages"}, "page 2 has records, though by what"),
        (
            offset(4, total=9),
            {**OFFSET, "total": "total"},
            "no records from 4 on, though there are 9",
        ),
        (offset(4, total=2), {**OFFSET, "total": "total"}, "page 2 has records, though by what"),
        (counted(4), {**PAGE, "pages": "pages"}, "no whole number at 'pages' of the answer"),
        (counted(4, pages="many"), {**PAGE, "pages": "pages"}, "no whole number at 'pages'"),
    ],
)
def test_total_that_lies_is_an_error(
    api: Api, answer: Any, pagination: dict[str, Any], words: str
) -> None:
    api.answer = answer
    with pytest.raises(SourceUnavailable, match=words):
        api.read(api.connector(pagination=pagination))


@pytest.mark.parametrize(
    "after", [data(), Reply(404), Reply(400), data(3, 4)], ids=["empty", "404", "400", "clamped"]
)
def test_full_last_page_is_verified_to_be_the_last(api: Api, after: Reply) -> None:
    pages = counted(4, pages=2)
    api.answer = lambda asked, n: after if n == 3 else pages(asked, n)
    assert api.ids(api.connector(pagination={**PAGE, "pages": "pages"})) == ids(4)


def cursor_server(asked: Asked, _n: int) -> Reply:
    at = int(asked.query.get("cursor", 0))
    return data(at + 1, at + 2, meta={"next": str(at + 2) if at < 4 else None})


@pytest.mark.parametrize("last", [None, "", "missing"])
def test_cursor_is_followed_until_there_is_none(api: Api, last: str | None) -> None:
    def answer(asked: Asked, _n: int) -> Reply:
        at = int(asked.query.get("cursor", 0))
        following = {"meta": {"next": last if at == 4 else str(at + 2)}}
        return data(at + 1, at + 2, **({} if last == "missing" and at == 4 else following))

    api.answer = answer
    assert api.ids(api.connector(pagination={"kind": "cursor", "key": "meta.next"})) == ids(6)


def test_token_is_followed_until_a_page_is_empty(api: Api) -> None:
    def answer(asked: Asked, _n: int) -> Reply:
        at = int(asked.query.get("cursor", 0))
        return data(*([at + 1] if at < 3 else []), sync=str(min(at + 1, 3)))

    api.answer = answer
    paging = {"kind": "cursor", "key": "sync", "until": "empty"}
    assert api.ids(api.connector(pagination=paging)) == ids(3)


def test_last_record_is_the_cursor(api: Api) -> None:
    """Paging by key: what is inserted or deleted meanwhile moves nothing."""
    api.answer = lambda asked, _n: data(
        *range(int(asked.query.get("after", 0)) + 1, 6)[: int(asked.query["limit"])]
    )
    paging = {"kind": "cursor", "field": "id", "param": "after"}
    assert api.ids(api.connector(pagination=paging, params={"limit": 2})) == ids(5)
    api.answer = lambda _asked, _n: Reply(200, b'{"data": [{"name": "Ann"}]}')
    with pytest.raises(SourceUnavailable, match="the last record of a page has no 'id'") as refusal:
        api.read(api.connector(pagination=paging))
    assert "Ann" not in str(refusal.value)


def test_link_header_is_followed(api: Api) -> None:
    def answer(asked: Asked, _n: int) -> Reply:
        at = int(asked.query.get("at", 0))
        links = (
            f'</things?at=0>; rel="first", <?at={at + 1}>; rel="next"'
            if at < 2
            else "<x>; rel=last"
        )
        return data(at + 1, headers={"Link": links})

    api.answer = answer
    rows = api.read(api.connector(pagination={"kind": "link"}))
    assert [row["id"] for row in rows] == ids(3)
    assert [row["_source_uri"] for row in rows] == [
        "rest:b/things",
        "rest:b/things#2",
        "rest:b/things#3",
    ]


def test_links_of_the_body_are_followed(api: Api) -> None:
    api.answer = lambda asked, _n: (
        data(1, links={"next": "/things?after=1"}) if not asked.query else data(2, links={})
    )
    assert api.ids(api.connector(pagination={"kind": "next", "key": "links.next"})) == ids(2)


@pytest.mark.parametrize(
    ("pagination", "answer"),
    [
        ({"kind": "next"}, lambda _asked, _n: data(1, next="/things")),
        ({"kind": "next"}, lambda _asked, n: data(n, next="/things?x=" + "ab"[n % 2])),
        ({"kind": "next"}, lambda _asked, n: data(n, next="?")),
        ({"kind": "link"}, lambda _asked, n: data(n, headers={"Link": "<?a=1>; rel=next"})),
        ({"kind": "cursor", "key": "c"}, lambda _asked, n: data(n, c="same")),
        ({"kind": "cursor", "key": "c"}, lambda _asked, n: data(n, c="ab"[n % 2])),
        ({"kind": "cursor", "key": "c"}, lambda _asked, n: data(1, c=str(n))),
        ({"kind": "cursor", "key": "c"}, lambda _asked, _n: data(c="same")),
        ({"kind": "page", "size": 1}, lambda _asked, _n: data(1)),
        ({"kind": "page", "size": 5}, lambda _asked, _n: data(1)),
        ({"kind": "offset", "limit": 1}, lambda _asked, n: data(n % 2)),
    ],
)
def test_paging_in_circles_is_found(api: Api, pagination: dict[str, Any], answer: Any) -> None:
    api.answer = answer
    with pytest.raises(SourceRejected, match=r"things: page \d .*the paging goes in circles"):
        api.read(api.connector(pagination=pagination))
    assert len(api.asked) <= 4


def test_paging_without_end_is_stopped(api: Api) -> None:
    api.answer = lambda _asked, n: data(n, c=str(n))
    for pagination in ({"kind": "page", "size": 1}, {"kind": "cursor", "key": "c"}):
        with pytest.raises(SourceRejected, match="more than 7 pages"):
            api.read(api.connector(pagination=pagination, max_pages=7))


def test_exactly_the_most_pages_are_read(api: Api) -> None:
    api.answer = counted(6, pages=3)
    paging = {**PAGE, "pages": "pages"}
    assert api.ids(api.connector(pagination=paging, max_pages=3)) == ids(6)


def test_overlap_brings_what_moved_up(api: Api) -> None:
    """54: record 2 is deleted after page one was read; without an overlap record 4 is never seen."""
    rows = [[1, 2, 3, 4, 5, 6, 7], [1, 3, 4, 5, 6, 7]]

    def answer(asked: Asked, n: int) -> Reply:
        begin, size = int(asked.query["offset"]), int(asked.query["limit"])
        return data(*rows[min(n - 1, 1)][begin : begin + size])

    api.answer = answer
    without = api.ids(api.connector(pagination={"kind": "offset", "limit": 3}))
    assert "4" not in without
    api.asked.clear()
    read = api.ids(api.connector(pagination={"kind": "offset", "limit": 3, "overlap": 2}))
    assert set(read) == set(ids(7))


def test_more_than_the_overlap_moved_is_an_error(api: Api) -> None:
    rows = [[1, 2, 3, 4, 5, 6, 7, 8], [4, 5, 6, 7, 8]]

    def answer(asked: Asked, n: int) -> Reply:
        begin, size = int(asked.query["offset"]), int(asked.query["limit"])
        return data(*rows[min(n - 1, 1)][begin : begin + size])

    api.answer = answer
    with pytest.raises(SourceUnavailable, match="records moved up by 1 or more"):
        api.read(api.connector(pagination={"kind": "offset", "limit": 3, "overlap": 1}))


@pytest.mark.parametrize("total", [0, 1, 2, 3, 4, 7, 9])
@pytest.mark.parametrize("server_size", [1, 2, 3])
def test_overlap_comes_to_an_end(api: Api, total: int, server_size: int) -> None:
    api.answer = offset(total, server_size)
    read = api.ids(api.connector(pagination={"kind": "offset", "limit": 3, "overlap": 2}))
    assert list(dict.fromkeys(read)) == ids(total)


def test_ranges_of_pages_are_partitions_of_their_own(api: Api) -> None:
    """A range that fails is read again alone; the last one takes what was added meanwhile."""
    total = 9

    def growing(asked: Asked, number: int) -> Reply:
        return counted(total, pages=(total + 1) // 2)(asked, number)

    api.answer = growing
    paging = {**PAGE, "pages": "pages", "partition_pages": 2}
    connector = api.connector(pagination=paging)
    planned = connector.plan(SourceState())
    assert [partition.slice["pages"] for partition in planned] == [[1, 2], [3, 4], [5, None]]
    assert len({partition.fingerprint for partition in planned}) == 3
    assert planned[1].label == "things pages 3 to 4"
    total = 13
    read = [
        [
            row["id"]
            for raw in connector.read(partition)
            if raw.batch
            for row in raw.batch.to_pylist()
        ]
        for partition in planned
    ]
    assert [len(part) for part in read] == [4, 4, 5]
    assert list(chain.from_iterable(read)) == ids(13)


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        ({"pagination": {"kind": "cursor"}}, "give either 'key' or 'field'"),
        ({"pagination": {"kind": "page", "partition_pages": 2}}, "partition_pages needs 'pages'"),
        ({"pagination": {"kind": "offset", "overlap": 1000}}, "overlap must be smaller than limit"),
        ({"conditional": True, "pagination": {"kind": "link"}}, "sources of one page"),
        (
            {
                "windows": {"start": "2013-01-01"},
                "incremental": {"param": "p", "field": "f", "start": "2013-01-01"},
            },
            "either 'windows' or 'incremental'",
        ),
        ({"incremental": {"param": "p", "field": "f", "start": "soon"}}, "no date or time"),
        (
            {"incremental": {"param": "p", "field": "f", "type": "number", "start": "x"}},
            "no whole number",
        ),
    ],
)
def test_declarations_that_cannot_work_are_refused(
    api: Api, declared: dict[str, Any], words: str
) -> None:
    with pytest.raises((PipelineError, ValueError), match=words):
        api.connector(**declared)
