"""Answers of an API that cannot be trusted: waited for, refused, never taken for zero rows."""

from __future__ import annotations

import gzip
import json
import time

import pytest

from tasks.ingestion.http.waiting import ATTEMPTS, retry_after_seconds
from tasks.model.errors import (
    CredentialsRejected,
    PipelineError,
    SourceRejected,
    SourceUnavailable,
)
from tests.integration.ingestion.rest.support import CANARY, NOW, Api
from tests.misbehaving_http import Reply, data

HTML = b"<html><body>please log in</body></html>"
ZIPPED = gzip.compress(json.dumps({"data": [{"id": n} for n in range(500)]}).encode())


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_bad_moment_is_waited_for(api: Api, status: int) -> None:
    api.answer = lambda _asked, n: Reply(status) if n < 3 else data(1)
    assert api.ids(api.connector()) == ["1"]
    assert len(api.slept) == 2


TRANSIENT = {
    # B34, 50: pages of proxies and logins
    "html": (Reply(200, HTML, {"Content-Type": "text/html; charset=utf-8"}), "got text/html: '<ht"),
    "html as json": (Reply(200, HTML), "expected JSON, got: '<html>"),
    "csv": (Reply(200, b"id\n1\n", {"Content-Type": "text/csv"}), "got text/csv: 'id"),
    "empty": (Reply(200, b""), "empty answer"),
    "blank": (Reply(200, b" \n"), "empty answer"),
    # B34, 52: half an answer is none
    "short body": (Reply(200, b'{"data": []}', length=900), "ended before the answer was complete"),
    "long body": (
        Reply(200, b'{"data": [{"id": 1}]}', {"Connection": "close"}, length=9),
        "expected JSON",
    ),
    "cut chunk": (
        Reply(200, b'{"data": []}', chunked=True, cut_chunk=True),
        "the connection ended before",
    ),
    "reset": (Reply(200, b'{"data": [{"id": 1}]}', reset_after=5), "read error"),
    "no gzip": (Reply(200, b'{"data": []}', {"Content-Encoding": "gzip"}), "not the gzip it says"),
    "half a gzip": (Reply(200, ZIPPED[:60], {"Content-Encoding": "gzip"}), "expected JSON"),
    # 51: success in the status only
    "error with 200": (
        Reply(200, b'{"error": "no"}'),
        "no list of records at data; the server says",
    ),
    "other keys": (Reply(200, b'{"rows": [{"name": "Ann"}]}'), "its keys are rows"),
    "null": (Reply(200, b'{"data": null}'), "no list of records at data"),
    "an object": (Reply(200, b'{"data": {"id": 1}}'), "no list of records at data"),
}


@pytest.mark.parametrize("case", TRANSIENT)
def test_answer_that_is_no_data_is_an_error_and_never_zero_rows(api: Api, case: str) -> None:
    reply, words = TRANSIENT[case]
    api.answer = lambda _asked, _n: reply
    with pytest.raises(SourceUnavailable) as refusal:
        api.read(api.connector(params={"token": "CANARY"}))
    assert words in str(refusal.value)
    assert "CANARY" not in str(refusal.value) and "Ann" not in str(refusal.value)


@pytest.mark.parametrize("case", [case for case in TRANSIENT if "data" not in TRANSIENT[case][1]])
def test_answer_that_is_whole_the_second_time_is_read(api: Api, case: str) -> None:
    reply = TRANSIENT[case][0]
    if case == "other keys":
        pytest.skip("a document of another form is the contract's business, not the connection's")
    api.answer = lambda _asked, n: reply if n == 1 else data(1, 2)
    assert api.ids(api.connector()) == ["1", "2"]
    assert len(api.asked) == 2


def test_usual_compression_and_chunks_are_read(api: Api) -> None:
    api.answer = lambda _asked, _n: Reply(
        200,
        ZIPPED,
        {"Content-Encoding": "gzip", "Content-Type": "application/hal+json"},
        None,
        True,
    )
    assert len(api.read(api.connector())) == 500


def test_content_type_that_is_declared_is_taken_for_json(api: Api) -> None:
    api.answer = lambda _asked, _n: Reply(200, b'{"data": []}', {"Content-Type": "text/html"})
    assert api.read(api.connector(content_type="text/html")) == []


def test_server_that_stays_down_is_given_up_within_the_budget(api: Api) -> None:
    """B35: 503 for ever."""
    api.answer = lambda _asked, _n: Reply(503, b'{"message": "in repair"}')
    with pytest.raises(SourceUnavailable):
        api.read(api.connector(api.client(retry_seconds=100)))
    assert api.passed <= 100
    assert len(api.asked) <= ATTEMPTS


def test_server_that_recovers_within_the_budget_is_read(api: Api) -> None:
    api.answer = lambda _asked, _n: data(1) if api.passed > 20 else Reply(503)
    assert api.ids(api.connector()) == ["1"]


def test_nothing_listens(api: Api) -> None:
    client = api.client(base_url="http://127.0.0.1:1", retry_seconds=0)
    with pytest.raises(SourceUnavailable, match="GET /things: connect error"):
        api.read(api.connector(client))


def test_name_that_is_not_known(api: Api) -> None:
    client = api.client(base_url="http://nowhere.invalid", retry_seconds=0)
    with pytest.raises(SourceUnavailable, match="connect error"):
        api.read(api.connector(client))


def test_server_that_sends_a_byte_at_a_time_is_cut(api: Api) -> None:
    """B35: no single read is late, the whole is."""
    api.answer = lambda _asked, _n: Reply(200, b'{"data": []}' + b" " * 500, drip=0.05)
    began = time.monotonic()
    with pytest.raises(SourceUnavailable, match="GET /things: read timeout"):
        api.read(api.connector(api.client(total_timeout=0.6, retry_seconds=0)))
    assert time.monotonic() - began < 2


def test_server_that_says_nothing_is_left(api: Api) -> None:
    api.answer = lambda _asked, _n: Reply(200, drip=1)
    with pytest.raises(SourceUnavailable, match="GET /things: read timeout"):
        api.read(api.connector(api.client(timeout=0.2, retry_seconds=0)))


def test_body_that_is_too_large_is_refused(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """47: 50 MB out of 50 KB, stopped at the bound."""
    monkeypatch.setattr("tasks.ingestion.http.answers.MAX_BODY_BYTES", 1 << 20)
    bomb = gzip.compress(b'{"data": [' + b" " * (50 << 20) + b"]}")
    api.answer = lambda _asked, _n: Reply(200, bomb, {"Content-Encoding": "gzip"})
    with pytest.raises(SourceRejected, match=r"larger than 256 MB|larger than 1 MB"):
        api.read(api.connector())


def test_retry_after_is_obeyed_by_all(api: Api) -> None:
    """56, B35."""
    api.answer = lambda _asked, n: Reply(429, b"", {"Retry-After": "7"}) if n == 1 else data(1)
    assert api.ids(api.connector()) == ["1"]
    assert api.slept == [7.0]
    api.answer = lambda _asked, n: Reply(503, b"", {"Retry-After": "9"}) if n == 3 else data(1)
    with pytest.raises(SourceUnavailable, match="HTTP 503"):
        api.read(api.connector(api.client(retry_seconds=0)))
    with pytest.raises(SourceUnavailable, match="left alone for another 9 s"):
        api.read(api.connector(api.client(retry_seconds=0)))
    assert len(api.asked) == 3


def test_retry_after_beyond_the_budget_is_not_waited_for(api: Api) -> None:
    """Coming back early would be of no use: it is said, and left to the next run."""
    api.answer = lambda _asked, _n: Reply(429, b"slow down", {"Retry-After": "3000"})
    with pytest.raises(SourceUnavailable, match="HTTP 429: slow down"):
        api.read(api.connector())
    assert api.slept == []


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("5", 5),
        (" 0.5 ", 0.5),
        ("99999", 3600),
        ("9" * 300, 3600),
        ("9" * 3000, None),
        ("-3", None),
        ("1e9", None),
        ("nan", None),
        ("", None),
        ("٣", None),
        ("soon", None),
        ("Fri, 15 Feb 2013 12:00:10 GMT", 10),
        ("Fri, 15 Feb 2013 12:00:10", 10),
        ("Fri, 15 Feb 2013 11:00:00 GMT", 0),
        ("Fri, 15 Feb 9999 12:00:00 GMT", 3600),
        ("Fri, 15 Feb 99999 12:00:00 GMT", None),
        ("Fri, 99 Feb 2013 12:00:00 GMT", None),
        (None, None),
    ],
)
def test_retry_after_is_seconds_or_a_date_within_bounds(header: str, seconds: float) -> None:
    assert retry_after_seconds(header, NOW) == seconds


@pytest.mark.parametrize(
    ("reply", "error", "words"),
    [
        # B36
        (Reply(401, b'{"error": "expired"}'), CredentialsRejected, "HTTP 401: expired"),
        (Reply(403), CredentialsRejected, "HTTP 403 (check the credentials"),
        (Reply(404, b"<h1>gone</h1>"), SourceRejected, "HTTP 404: <h1>gone</h1>"),
        (Reply(400, b'{"detail": "bad from"}'), SourceRejected, "HTTP 400: bad from"),
        (Reply(422, b'{"error": {"message": "why"}}'), SourceRejected, "HTTP 422: why"),
        (Reply(204), SourceRejected, "HTTP 204"),
        (Reply(304), SourceRejected, "HTTP 304"),
        (Reply(302), SourceRejected, "HTTP 302"),
    ],
)
def test_refusal_is_told_and_not_repeated(
    api: Api, reply: Reply, error: type[PipelineError], words: str
) -> None:
    api.answer = lambda _asked, _n: reply
    with pytest.raises(error) as refusal:
        api.read(api.connector())
    assert words in str(refusal.value)
    assert len(api.asked) == 1


@pytest.mark.parametrize("auth", ["api_key_query", "api_key_header", "bearer", "basic"])
def test_server_that_repeats_our_secret_does_not_get_it_into_a_message(api: Api, auth: str) -> None:
    """B45, B36: token in the query of a failing request, told back by the server."""
    api.answer = lambda asked, _n: Reply(
        400, f"bad: {asked.target} {asked.headers}, see http://x/?a=b&token={CANARY}".encode()
    )
    client = api.client(auth=auth, secret=CANARY, username="u")
    with pytest.raises(SourceRejected) as refusal:
        api.read(api.connector(client, params={"token": "CANARY"}))
    assert "HTTP 400: bad" in str(refusal.value)
    assert "CANARY" not in str(refusal.value)
    assert "hunter2" not in str(refusal.value)
    assert (
        api.asked[0].headers.get("Authorization", "Basic").split()[-1] not in str(refusal.value)[9:]
    )


def test_record_that_cannot_be_trusted_is_refused_alone(api: Api) -> None:
    api.answer = lambda _asked, _n: Reply(
        200, b'{"data": [{"id": 1}, {"id": NaN}, {"id": 2, "id": 3}]}'
    )
    assert api.ids(api.connector()) == ["1"]
    assert [(reject.source_row, reject.rule) for reject in api.rejects] == [
        (2, "not_a_number"),
        (3, "duplicate_key"),
    ]


def test_nested_objects_become_columns_or_stay_json(api: Api) -> None:
    body = b'{"data": [{"id": 9007199254740993, "at": {"x": 0.1000, "y": [1, 2]}}]}'
    api.answer = lambda _asked, _n: Reply(200, body)
    [plain] = api.read(api.connector())
    assert (plain["id"], plain["at"]) == ("9007199254740993", '{"x":0.1000,"y":[1,2]}')
    [flat] = api.read(api.connector(flatten={}))
    assert (flat["at_x"], flat["at_y"]) == ("0.1000", "[1,2]")
