"""The weather API as a real process, asked over real HTTP."""

import itertools
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from demo.observations import Query, mood
from demo.weather_api import make_server

KEY = "a key of the test"
PATH = "/v1/observations"
ROOT = Path(__file__).parents[3]
MONTHS = [f"2013-{month:02}-01" for month in range(1, 13)] + ["2014-01-01"]


def _start(port: int, key: str | None) -> subprocess.Popen:
    environment = {name: text for name, text in os.environ.items() if name != "WEATHER_API_KEY"}
    return subprocess.Popen(
        [sys.executable, "-m", "demo.weather_api", "--port", str(port)],
        cwd=ROOT,
        env=environment | ({} if key is None else {"WEATHER_API_KEY": key}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextmanager
def running() -> Iterator[tuple[httpx.Client, subprocess.Popen]]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = _start(port, KEY)
    with (
        process,
        httpx.Client(
            base_url=f"http://127.0.0.1:{port}", headers={"X-API-Key": KEY}, trust_env=False
        ) as client,
    ):
        try:
            _wait_until_ready(client, process)
            yield client, process
        finally:
            process.terminate()


def _wait_until_ready(client: httpx.Client, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        assert process.poll() is None, process.stderr.read()
        try:
            assert client.get("/healthz").json()["status"] == "ok"
        except httpx.TransportError:
            time.sleep(0.05)
        else:
            return
    pytest.fail("the weather API did not become ready")


@pytest.fixture(scope="module")
def api() -> Iterator[httpx.Client]:
    with running() as (client, _):
        yield client


def _calm_day() -> str:
    """A window of one day that is answered at once."""
    for day in range(1, 28):
        text = f"from=2013-07-{day:02}&to=2013-07-{day + 1:02}"
        if mood(Query.parse(text).identity) == 200:
            return text
    raise AssertionError("every day is moody")


def _moody_day(status: int) -> str:
    for month in range(1, 13):
        for day in range(1, 28):
            text = f"from=2013-{month:02}-{day:02}&to=2013-{month:02}-{day + 1:02}"
            if mood(Query.parse(text).identity) == status:
                return text
    raise AssertionError(f"no day is answered with {status}")


def _get(client: httpx.Client, url: str) -> httpx.Response:
    answer = client.get(url)
    return client.get(url) if answer.status_code in {429, 503} else answer


@pytest.mark.parametrize(
    "headers",
    [
        {},  # none
        {"X-API-Key": "another"},
        {"X-API-Key": ""},
        {"X-API-Key": "\xe9\xe9".encode("latin-1")},  # not ASCII
        {"Authorization": f"Bearer {KEY}"},  # the key in the wrong place
    ],
    ids=["none", "another", "empty", "not ASCII", "bearer"],
)
def test_no_data_without_the_key(api, headers):
    answer = httpx.get(f"{api.base_url}{PATH}?{_calm_day()}", headers=headers, trust_env=False)
    assert answer.status_code == 401
    assert answer.json() == {"message": "missing or unknown API key"}


def test_too_many_requests_is_answered_once_with_the_time_to_wait(api):
    url = f"{PATH}?{_moody_day(429)}"
    first, second = api.get(url), api.get(url)
    assert (first.status_code, second.status_code) == (429, 200)
    assert first.headers["Retry-After"] == "1"
    assert first.json() == {"message": "slow down"}


def test_unavailable_is_answered_once(api):
    url = f"{PATH}?{_moody_day(503)}"
    first, second = api.get(url), api.get(url)
    assert (first.status_code, second.status_code) == (503, 200)


@pytest.mark.parametrize(
    "query",
    ["from=x", "from=2013-02-30", "page=0", "page=%C2%B2", "page_size=5001", "form=1", "to="],
)
def test_a_bad_parameter_is_answered_with_a_message(api, query):
    answer = api.get(f"{PATH}?{query}")
    assert answer.status_code == 400
    assert answer.json()["message"]


def test_an_unknown_path_is_not_found(api):
    assert api.get("/v2/observations").status_code == 404


def test_an_empty_window_is_an_answer(api):
    answer = _get(api, f"{PATH}?from=2015-01-01&to=2015-02-01")
    assert answer.status_code == 200
    assert answer.json() == {"data": [], "page": 1, "pages": 0, "total": 0, "next": None}


def test_following_next_reads_the_whole_year(api):
    """Month by month and page by page, every observation comes exactly once."""
    keys = []
    for start, end in itertools.pairwise(MONTHS):
        url = f"{PATH}?from={start}&to={end}&page_size=1000"
        while url:
            page = _get(api, url).json()
            keys += [(record["origin"], record["time_hour"]) for record in page["data"]]
            url = page["next"]
    assert len(keys) == len(set(keys)) == 26_115


def test_numbers_travel_with_their_digits(api):
    text = _get(api, f"{PATH}?from=2013-01-01&to=2013-01-01T07:00:00Z").text
    assert '"wind_speed":10.357019999999999,"wind_gust":null' in text


def test_connections_are_kept(api):
    """One connection serves many requests, refusals among them."""
    opened: list[str] = []
    trace = {"trace": lambda name, _: opened.append(name)}
    with httpx.Client(base_url=api.base_url, headers=api.headers, trust_env=False) as client:
        for query in [_calm_day(), "page=0", _calm_day(), "from=x", _calm_day()]:
            client.get(f"{PATH}?{query}", extensions=trace)
    assert opened.count("connection.connect_tcp.started") == 1


def test_health_counts_answers_and_needs_no_key():
    with running() as (client, _):
        url = f"{PATH}?{_moody_day(429)}"
        statuses = [client.get(url).status_code for _ in range(3)]
        client.get(f"{PATH}?{_moody_day(503)}")
        client.get(f"{PATH}?page=0")
        health = httpx.get(f"{client.base_url}/healthz", trust_env=False).json()
    assert statuses == [429, 200, 200]
    assert health == {"status": "ok", "served": 2, "throttled": 1, "unavailable": 1}


def test_clients_at_the_same_time_get_one_refusal_for_a_page():
    with running() as (client, _), ThreadPoolExecutor(16) as pool:
        url = f"{PATH}?{_moody_day(503)}"
        statuses = list(pool.map(lambda _: client.get(url).status_code, range(64)))
    assert sorted(statuses) == [200] * 63 + [503]


def test_nothing_is_logged_but_errors():
    """Requests, and clients that leave in the middle of an answer, leave no trace in the log."""
    with running() as (client, process):
        for _ in range(5):
            client.get(f"{PATH}?{_calm_day()}")
            client.get(f"{PATH}?page=0")
            with socket.create_connection(("127.0.0.1", client.base_url.port)) as leaver:
                leaver.sendall(
                    f"GET {PATH}?page_size=5000 HTTP/1.1\r\nX-API-Key: {KEY}\r\n\r\n".encode()
                )
                leaver.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.get("/healthz")
        process.terminate()
        out, errors = process.communicate(timeout=10)
    assert (out, errors) == ("", "")


def test_only_loopback_listens():
    with make_server(0, KEY) as server:
        assert server.server_address[0] == "127.0.0.1"


@pytest.mark.parametrize("key", [None, ""], ids=["missing", "empty"])
def test_a_server_without_a_key_does_not_start(key):
    """An empty key would let everybody in."""
    with _start(0, key) as process:
        _, errors = process.communicate(timeout=15)
    assert process.returncode == 2
    assert "WEATHER_API_KEY" in errors
