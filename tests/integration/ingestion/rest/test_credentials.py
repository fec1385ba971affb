"""Who sends a request is proved to the API, and to nobody else."""

from __future__ import annotations

import json
import ssl
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from blocks import http_auth
from tasks.model.errors import CredentialsRejected, SourceRejected, SourceUnavailable
from tests.integration.ingestion.rest.support import CANARY, Api
from tests.misbehaving_http import Asked, Reply, data, misbehaving_server

AUTHS: dict[str, dict[str, Any]] = {
    "api_key_header": {"auth": "api_key_header", "key_name": "X-Key", "secret": CANARY},
    "api_key_query": {"auth": "api_key_query", "key_name": "key", "secret": CANARY},
    "basic": {"auth": "basic", "username": "u", "secret": CANARY},
    "bearer": {"auth": "bearer", "secret": CANARY},
}


@pytest.mark.parametrize(
    ("auth", "sent"),
    [
        ("api_key_header", lambda asked: asked.headers["X-Key"] == CANARY),
        ("api_key_query", lambda asked: asked.query["key"] == CANARY),
        (
            "basic",
            lambda asked: asked.headers["Authorization"] == "Basic dTpDQU5BUlktaHVudGVyMi89Jg==",
        ),
        ("bearer", lambda asked: asked.headers["Authorization"] == f"Bearer {CANARY}"),
    ],
)
def test_credentials_are_sent_with_each_page(api: Api, auth: str, sent: Any) -> None:
    api.answer = lambda asked, n: data(n, next="?after=1" if n == 1 else None)
    client = api.client(**AUTHS[auth])
    assert api.ids(api.connector(client, pagination={"kind": "next"})) == ["1", "2"]
    assert all(sent(asked) for asked in api.asked)


@pytest.mark.parametrize("how", ["redirect", "next", "link"])
@pytest.mark.parametrize("auth", AUTHS)
def test_listed_host_gets_no_credentials(api: Api, auth: str, how: str) -> None:
    """Nor cookies, nor a key that the server wrote into its link."""
    with misbehaving_server() as other:
        other.answer = lambda _asked, _n: data(2)
        there = f"{other.url}/rest?key={http_auth.quote(CANARY, safe='')}&page=2"

        def answer(asked: Asked, n: int) -> Reply:
            cookie = {"Set-Cookie": f"session={CANARY.replace('/=&', '')}"}
            if how == "redirect":
                return Reply(302, b"", {"Location": there, **cookie})
            if how == "link":
                return data(1, headers={"Link": f"<{there}>; rel=next", **cookie})
            return data(1, next=there, headers=cookie)

        api.answer = answer
        paging = {"kind": "link"} if how == "link" else {"kind": "next"}
        connector = api.connector(
            api.client(**AUTHS[auth]), pagination=paging, allow_hosts=[other.host]
        )
        assert api.ids(connector) == (["2"] if how == "redirect" else ["1", "2"])
        (asked,) = other.asked
        kept = "key" if auth != "api_key_query" else "page"
        sent = f"{asked.headers} {asked.target}"
        assert "page=2" in sent and kept in asked.query
        assert "Cookie" not in asked.headers and "Authorization" not in asked.headers
        assert "X-Key" not in asked.headers
        if auth == "api_key_query":
            assert "hunter2" not in sent


@pytest.mark.parametrize("how", ["redirect", "next", "link"])
def test_host_that_is_not_listed_is_not_asked(api: Api, how: str) -> None:
    with misbehaving_server() as other:
        there = f"{other.url}/rest?key=CANARY"
        api.answer = lambda _asked, _n: (
            Reply(302, b"", {"Location": there})
            if how == "redirect"
            else data(1, next=there, headers={"Link": f"<{there}>; rel=next"})
        )
        paging = {"kind": "link"} if how == "link" else {"kind": "next"}
        with pytest.raises(SourceRejected, match="is on another server") as refusal:
            api.read(api.connector(api.client(**AUTHS["bearer"]), pagination=paging))
        assert f"list {other.host} under source.allow_hosts" in str(refusal.value)
        assert "CANARY" not in str(refusal.value)
        assert other.asked == []


def test_redirects_of_the_same_server_are_followed(api: Api) -> None:
    def answer(asked: Asked, _n: int) -> Reply:
        if asked.path == "/v2/things":
            return data(1, next="?page=2") if "page" not in asked.query else data(2)
        query = asked.target.partition("?")[2]
        return Reply(308, b"moved", {"Location": f"/v2/things?{query}"})

    api.answer = answer
    client = api.client(**AUTHS["api_key_header"])
    assert api.ids(api.connector(client, pagination={"kind": "next"})) == ["1", "2"]
    assert all(asked.headers["X-Key"] == CANARY for asked in api.asked)


def test_redirects_come_to_an_end(api: Api) -> None:
    api.answer = lambda _asked, n: Reply(302, b"", {"Location": f"/things?{n}"})
    with pytest.raises(SourceRejected, match="GET /things: more than 5 redirects"):
        api.read(api.connector())
    assert len(api.asked) == 6


PAGES = {"kind": "page", "size": 1}


class TokenServer:
    """Gives out tokens 1, 2, 3, …, and knows which of them the API takes."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self.given = 0
        self.good: set[str] = set()
        self.lifetime: Any = 3600
        self.reply: Reply | None = None
        self.clock = 0.0
        api.answer = self.answer

    def answer(self, asked: Asked, n: int) -> Reply:
        if asked.path == "/token":
            if self.reply is not None:
                return self.reply
            self.given += 1
            self.good = {f"token-{self.given}"}
            body = {"access_token": f"token-{self.given}", "expires_in": self.lifetime}
            return Reply(200, json.dumps(body).encode())
        token = asked.headers.get("Authorization", "").removeprefix("Bearer ")
        if token not in self.good:
            return Reply(401, b'{"error": "token expired"}')
        page = int(asked.query["page"])
        return data(page) if page <= 4 else data()

    def connector(self, source: dict[str, Any] | None = None, **block: Any) -> Any:
        client = self.api.client(
            auth="oauth2",
            token_url=f"{self.api.url}/token",
            username="id:1",
            secret=CANARY,
            **block,
        )
        client._credentials._clock = lambda: self.clock
        return self.api.connector(client, **{"pagination": PAGES, **(source or {})})


@pytest.fixture
def tokens(api: Api, monkeypatch: pytest.MonkeyPatch) -> TokenServer:
    monkeypatch.setattr(http_auth, "_tokens", {})
    return TokenServer(api)


def asked_for_tokens(api: Api) -> list[Asked]:
    return [asked for asked in api.asked if asked.path == "/token"]


def test_token_is_fetched_once_and_shared(api: Api, tokens: TokenServer) -> None:
    for _ in range(2):
        assert api.ids(tokens.connector(scope="read all")) == ["1", "2", "3", "4"]
    (asked,) = asked_for_tokens(api)
    assert asked.method == "POST"
    assert parse_qs(asked.body.decode()) == {
        "grant_type": ["client_credentials"],
        "scope": ["read all"],
    }
    assert asked.headers["Authorization"] == (
        "Basic aWQlM0ExOkNBTkFSWS1odW50ZXIyJTJGJTNEJTI2"  # RFC 6749, 2.3.1: each part is encoded
    )


def test_client_is_told_in_the_form(api: Api, tokens: TokenServer) -> None:
    assert api.ids(tokens.connector(client_sent_in="form")) == ["1", "2", "3", "4"]
    form = parse_qs(asked_for_tokens(api)[0].body.decode())
    assert (form["client_id"], form["client_secret"]) == (["id:1"], [CANARY])


def test_token_is_renewed_at_half_of_its_life(api: Api, tokens: TokenServer) -> None:
    """57: not when it has expired, which may be in the middle of a request."""
    tokens.lifetime = "100"
    connector = tokens.connector()
    rows = connector.read(connector.plan(api_state())[0])
    next(rows)
    tokens.clock = 49
    next(rows)
    assert tokens.given == 1
    tokens.clock = 50
    next(rows)
    assert tokens.given == 2


def test_token_is_renewed_before_a_retry(api: Api, tokens: TokenServer) -> None:
    """57: it expired during the wait."""
    tokens.lifetime = 20
    answered = tokens.answer

    def answer(asked: Asked, n: int) -> Reply:
        if asked.path != "/token" and n == 2:
            tokens.clock += 30
            tokens.good = set()
            return Reply(503, b"", {"Retry-After": "30"})
        return answered(asked, n)

    api.answer = answer
    assert api.ids(tokens.connector()) == ["1", "2", "3", "4"]
    assert tokens.given == 2
    assert [asked.path for asked in api.asked[:4]] == ["/token", "/things", "/token", "/things"]


def test_token_that_is_refused_is_renewed_once(api: Api, tokens: TokenServer) -> None:
    """B36: 401 once."""
    connector = tokens.connector()
    rows = connector.read(connector.plan(api_state())[0])
    next(rows)
    tokens.good = set()
    assert len(list(rows)) == 3
    assert tokens.given == 2


def test_token_that_is_always_refused_is_not_renewed_for_ever(
    api: Api, tokens: TokenServer
) -> None:
    """B36: 401 always."""
    answered = tokens.answer
    api.answer = lambda asked, n: answered(asked, n) if asked.path == "/token" else Reply(401)
    with pytest.raises(CredentialsRejected, match="GET /things: HTTP 401"):
        api.read(tokens.connector())
    assert [asked.path for asked in api.asked] == ["/token", "/things"] * 2


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (Reply(400, b'{"error": "invalid_client"}'), "refused: HTTP 400: invalid_client"),
        (Reply(401, b"no"), "refused: HTTP 401"),
        (Reply(200, b"<html>"), "refused: HTTP 200, without an access_token"),
        (Reply(200, b'{"access_token": 7}'), "refused: HTTP 200, without an access_token"),
        (Reply(302, b"", {"Location": "http://elsewhere/"}), "refused: HTTP 302"),
    ],
)
def test_refusal_of_the_token_server_is_told(
    api: Api, tokens: TokenServer, reply: Reply, words: str
) -> None:
    tokens.reply = reply
    with pytest.raises(CredentialsRejected) as refusal:
        api.read(tokens.connector())
    assert words in str(refusal.value)
    assert "check client id, secret, scope and token_url" in str(refusal.value)
    assert "hunter2" not in str(refusal.value)


def test_token_server_that_is_down_is_waited_for(api: Api, tokens: TokenServer) -> None:
    tokens.reply = Reply(503)
    with pytest.raises(SourceUnavailable, match="token unavailable"):
        api.read(tokens.connector(retry_seconds=5))
    assert len(asked_for_tokens(api)) > 1
    tokens.reply = None
    api.passed += 100
    assert api.ids(tokens.connector()) == ["1", "2", "3", "4"]


def test_token_is_not_sent_to_a_listed_host(api: Api, tokens: TokenServer) -> None:
    with misbehaving_server() as other:
        other.answer = lambda _asked, _n: data(1)
        answered = tokens.answer
        api.answer = lambda asked, n: (
            answered(asked, n)
            if asked.path == "/token"
            else Reply(307, b"", {"Location": other.url + "/x"})
        )
        listed = other.host
        connector = tokens.connector(source={"allow_hosts": [listed], "pagination": None})
        assert api.ids(connector) == ["1"]
        assert "Authorization" not in other.asked[0].headers


def test_certificate_of_the_name_is_asked_for(tmp_path: Path) -> None:
    """The address is checked, and TLS still verifies the name: a self-signed server is refused."""
    from blocks.rest_api import RestApiCredentials

    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost"
    files = ["-keyout", "key.pem", "-out", "cert.pem"]
    made = subprocess.run(
        [*command.split(), *files], cwd=tmp_path, capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("no openssl here")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.handle_request, daemon=True).start()
        block = RestApiCredentials(
            base_url=f"https://localhost:{server.server_port}", allow_private=True
        )
        with block.get_client() as client, pytest.raises(Exception, match="CERTIFICATE_VERIFY"):
            client.get("/")


def api_state() -> Any:
    from tasks.model.request import SourceState

    return SourceState()
