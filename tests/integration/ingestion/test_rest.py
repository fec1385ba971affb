"""A REST API that behaves badly: waited for, refused, never followed elsewhere, never read for ever."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from tasks.ingestion.connector import PlanLimits
from tasks.ingestion.connectors.rest import RestConnector, windows
from tasks.ingestion.http import ATTEMPTS, retry_after_seconds
from tasks.model.errors import CredentialsRejected, PipelineError, SourceRejected, SourceUnavailable
from tasks.model.run import SourceState
from tasks.model.source import RestSource, TimeWindows

Answer = tuple[int, dict[str, str], bytes]
NOW = datetime(2013, 2, 15, 12, tzinfo=UTC)


class Api:
    """A server whose answers a test decides; it counts what it was asked."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.asked: list[str] = []
        self.answer: Callable[[dict[str, str], int], Answer] = lambda _query, _n: (200, {}, b"[]")
        self.slept: list[float] = []
        self.clients: list[httpx.Client] = []

    def connector(self, **source: Any) -> RestConnector:
        declared = RestSource.model_validate(
            {"kind": "rest", "block": "b", "path": "/things", "records": "data", **source}
        )
        client = httpx.Client(base_url=self.url, timeout=2)
        self.clients.append(client)
        return RestConnector(
            "things", declared, client, PlanLimits(), now=lambda: NOW, sleep=self.slept.append
        )

    def read(self, connector: RestConnector) -> list[dict[str, Any]]:
        rows = []
        for partition in connector.plan(SourceState()):
            for raw in connector.read(partition):
                rows += raw.batch.to_pylist() if raw.batch is not None else []
        return rows


@pytest.fixture
def api() -> Iterator[Api]:
    made: list[Api] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            query = {k: v[-1] for k, v in parse_qs(urlsplit(self.path).query).items()}
            made[0].asked.append(self.path)
            status, headers, body = made[0].answer(query, len(made[0].asked))
            self.send_response(status)
            length = headers.pop("Content-Length", str(len(body)))
            for name, value in {**headers, "Content-Length": length}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)
            if length != str(len(body)):
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        made.append(Api(f"http://127.0.0.1:{server.server_port}"))
        yield made[0]
        for client in made[0].clients:
            client.close()
        server.shutdown()
        thread.join()


def page(*ids: int, **more: Any) -> Answer:
    return 200, {}, json.dumps({"data": [{"id": number} for number in ids], **more}).encode()


def test_counted_pages_are_read_to_the_last(api: Api) -> None:
    pages = {"1": (1, 2), "2": (3, 4), "3": (5,)}
    api.answer = lambda query, _n: page(*pages[query["page"]], pages=3)
    rows = api.read(api.connector(pagination={"kind": "page", "size": 2, "pages": "pages"}))
    assert [row["id"] for row in rows] == ["1", "2", "3", "4", "5"]
    assert rows[2]["_source_uri"] == "rest:b/things?page_size=2&page=2"
    assert rows[2]["_source_row"] == 1


def test_pages_end_with_a_short_one(api: Api) -> None:
    api.answer = lambda query, _n: page(*{"1": (1, 2), "2": (3,)}[query["page"]])
    rows = api.read(api.connector(pagination={"kind": "page", "size": 2}))
    assert len(rows) == 3


def test_links_are_followed_on_the_same_server(api: Api) -> None:
    api.answer = lambda query, _n: (
        page(1, next="/things?after=1") if not query else page(2, next=None)
    )
    rows = api.read(api.connector(pagination={"kind": "next"}))
    assert [row["id"] for row in rows] == ["1", "2"]


@pytest.mark.parametrize(
    "link",
    ["http://169.254.169.254/x", "https://elsewhere.org/x", "file:///etc/passwd", "//evil/x"],
)
def test_link_to_another_server_is_refused(api: Api, link: str) -> None:
    api.answer = lambda _query, _n: page(1, next=link)
    with pytest.raises(SourceRejected, match="on another server"):
        api.read(api.connector(pagination={"kind": "next"}))
    assert len(api.asked) == 1


@pytest.mark.parametrize(
    ("pagination", "answer"),
    [
        ({"kind": "next"}, lambda _query, _n: page(1, next="/things")),
        ({"kind": "next"}, lambda _q, n: page(n, next="/things?x=" + "ab"[n % 2])),
        ({"kind": "page", "size": 1}, lambda _query, _n: page(1)),
    ],
)
def test_paging_in_circles_is_found(api: Api, pagination: dict[str, Any], answer: Any) -> None:
    api.answer = answer
    with pytest.raises(SourceRejected, match="in circles"):
        api.read(api.connector(pagination=pagination))
    assert len(api.asked) <= 4


def test_paging_without_end_is_stopped(api: Api) -> None:
    api.answer = lambda _query, n: page(n)
    with pytest.raises(SourceRejected, match="more than 7 pages"):
        api.read(api.connector(pagination={"kind": "page", "size": 1}, max_pages=7))


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_bad_moment_is_waited_for(api: Api, status: int) -> None:
    api.answer = lambda _query, n: (status, {}, b"") if n < 3 else page(1)
    assert len(api.read(api.connector())) == 1
    assert len(api.slept) == 2


def test_server_that_stays_down_is_given_up(api: Api) -> None:
    api.answer = lambda _query, _n: (503, {}, b'{"message": "in repair"}')
    with pytest.raises(SourceUnavailable, match="GET /things: HTTP 503: in repair"):
        api.read(api.connector())
    assert len(api.asked) == ATTEMPTS


def test_retry_after_is_obeyed(api: Api) -> None:
    api.answer = lambda _query, n: (429, {"Retry-After": "7"}, b"") if n == 1 else page(1)
    api.read(api.connector())
    assert api.slept == [7.0]


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("5", 5),
        ("0.5", 0.5),
        ("99999", 60),
        ("-3", None),
        ("soon", None),
        ("Fri, 15 Feb 2013 12:00:10 GMT", 10),
        ("Fri, 15 Feb 2013 11:00:00 GMT", 0),
        ("Fri, 15 Feb 9999 12:00:00 GMT", 60),
        ("Fri, 15 Feb 99999 12:00:00 GMT", None),
        (None, None),
    ],
)
def test_retry_after_is_seconds_or_a_date_within_bounds(header: str, seconds: float) -> None:
    assert retry_after_seconds(header, NOW) == seconds


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        ((401, {}, b'{"error": "expired"}'), CredentialsRejected, "HTTP 401: expired"),
        ((403, {}, b""), CredentialsRejected, "HTTP 403"),
        ((404, {}, b"<h1>gone</h1>"), SourceRejected, "HTTP 404: <h1>gone</h1>"),
        ((400, {}, b'{"detail": "bad from"}'), SourceRejected, "HTTP 400: bad from"),
        ((302, {"Location": "http://elsewhere/"}, b""), SourceRejected, "a redirect"),
        (
            (200, {}, b"<html>please log in</html>"),
            SourceUnavailable,
            "expected JSON, got: '<html>",
        ),
        ((200, {}, b""), SourceUnavailable, "empty answer"),
        ((200, {}, b'{"error": "no"}'), SourceUnavailable, "no list of records at data"),
        ((200, {"Content-Length": "900"}, b'{"data": []'), SourceUnavailable, ""),
    ],
)
def test_answer_that_is_no_data_is_an_error(
    api: Api, answer: Answer, error: type[PipelineError], words: str
) -> None:
    api.answer = lambda _query, _n: (answer[0], dict(answer[1]), answer[2])
    with pytest.raises(error) as refusal:
        api.read(api.connector(params={"token": "CANARY"}))
    assert words in str(refusal.value)
    assert "CANARY" not in str(refusal.value)


def test_windows_that_are_over_are_read_once_and_the_open_one_again(api: Api) -> None:
    connector = api.connector(windows={"start": "2013-01-01", "every": "month"})
    january, february = connector.plan(SourceState())
    assert january.slice["from"] == "2013-01-01T00:00:00+00:00"
    assert "as_of" in february.slice
    known = frozenset({january.fingerprint, february.fingerprint})
    assert api.connector(windows={"start": "2013-01-01", "every": "month"}).plan(
        SourceState(fingerprints=frozenset({january.fingerprint}))
    ) == [february]
    assert connector.plan(SourceState(fingerprints=known)) == []  # within one second
    api.answer = lambda _query, _n: page(1)
    list(connector.read(january))
    assert "from=2013-01-01T00%3A00%3A00Z&to=2013-02-01T00%3A00%3A00Z" in api.asked[0]


@pytest.mark.parametrize(("every", "count"), [("hour", 31 * 24), ("day", 31), ("month", 1)])
def test_windows_cover_the_time_without_gap_or_overlap(every: Any, count: int) -> None:
    declared = TimeWindows(start=datetime(2013, 12, 1), end=datetime(2014, 1, 1), every=every)
    cut = list(windows(declared, NOW))
    assert len(cut) == count
    assert (cut[0][0], cut[-1][1]) == (
        datetime(2013, 12, 1, tzinfo=UTC),
        datetime(2014, 1, 1, tzinfo=UTC),
    )
    assert all(one[1] == two[0] for one, two in pairwise(cut))


def test_record_that_cannot_be_trusted_is_refused_alone(api: Api) -> None:
    api.answer = lambda _query, _n: (
        200,
        {},
        b'{"data": [{"id": 1}, {"id": NaN}, {"id": 2, "id": 3}]}',
    )
    connector = api.connector()
    (raw,) = list(connector.read(connector.plan(SourceState())[0]))
    assert raw.batch is not None
    assert raw.batch.num_rows == 1
    assert [(r.source_row, r.rule) for r in raw.rejects] == [
        (2, "not_a_number"),
        (3, "duplicate_key"),
    ]
