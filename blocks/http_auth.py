"""How a request proves who sends it; to another origin nothing of it is ever sent."""

from __future__ import annotations

import base64
import hashlib
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any, Literal, Self
from urllib.parse import quote

import httpx

Flow = Generator[httpx.Request, httpx.Response]

DEFAULT_PORTS = {"http": 80, "https": 443}
UNAUTHORIZED = 401
OK = 200
TOKEN_LATER = frozenset({408, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class Origin:
    """Scheme, host and port: credentials of one are nobody else's business."""

    scheme: str
    host: str
    port: int | None

    @classmethod
    def of(cls, url: httpx.URL) -> Self:
        """Return the origin of a URL."""
        return cls(url.scheme, url.host, url.port or DEFAULT_PORTS.get(url.scheme))

    def __str__(self) -> str:
        """Write host, and port unless it is the usual one."""
        usual = self.port in (None, DEFAULT_PORTS.get(self.scheme))
        return self.host if usual else f"{self.host}:{self.port}"


class TokenRefusedError(Exception):
    """The token server refused the client's id and secret."""


class TokenUnavailableError(httpx.TransportError):
    """The token server may answer later."""


class HomeAuth(httpx.Auth):
    """Credentials of one origin; this one has none, its subclasses do.

    Args:
        home: The only origin that the credentials are sent to.
    """

    def __init__(self, home: Origin) -> None:
        self._home = home

    def auth_flow(self, request: httpx.Request) -> Flow:
        """Sign a request to the home; take everything that could be a credential off another."""
        if Origin.of(request.url) == self._home:
            yield from self.signed(request)
        else:
            self.strip(request)
            yield request

    def signed(self, request: httpx.Request) -> Flow:
        """Send a request with its credentials."""
        yield request

    def strip(self, request: httpx.Request) -> None:
        """Take credentials off a request to another origin."""
        for name in ("Authorization", "Cookie", "Proxy-Authorization"):
            request.headers.pop(name, None)

    def secrets(self) -> tuple[str, ...]:
        """Return what must not be shown."""
        return ()


class HeaderKey(HomeAuth):
    """A header with a key, a token, or user and password."""

    def __init__(self, home: Origin, name: str, value: str, *secrets: str) -> None:
        super().__init__(home)
        self._name = name
        self._value = value
        self._secrets = (value, *secrets)

    def signed(self, request: httpx.Request) -> Flow:
        """Send a request with the header."""
        request.headers[self._name] = self._value
        yield request

    def secrets(self) -> tuple[str, ...]:
        """Return what must not be shown."""
        return self._secrets


class QueryKey(HomeAuth):
    """A key in the query of each request, added where no log of ours can see it."""

    def __init__(self, home: Origin, name: str, key: str) -> None:
        super().__init__(home)
        self._name = name
        self._key = key

    def signed(self, request: httpx.Request) -> Flow:
        """Send a request with the key."""
        request.url = request.url.copy_set_param(self._name, self._key)
        yield request

    def strip(self, request: httpx.Request) -> None:
        """Take the key off as well, if a server wrote it into a link."""
        super().strip(request)
        if request.url.params.get(self._name) == self._key:
            request.url = request.url.copy_remove_param(self._name)

    def secrets(self) -> tuple[str, ...]:
        """Return what must not be shown."""
        return (self._key,)


@dataclass
class _Token:
    """A token that all clients of this process share, so that each partition need not ask for one."""

    value: str = ""
    fetched_at: float = 0
    lifetime: float = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


_tokens: dict[str, _Token] = {}


@dataclass(frozen=True)
class ClientId:
    """What the token server knows of us.

    Attributes:
        token_url: Where tokens are given out.
        client_id: Who we are.
        secret: Proves it.
        scope: What the token is for, if the server asks for it.
        sent_in: Id and secret go into the ``Authorization`` header, or into the form.
    """

    token_url: str
    client_id: str
    secret: str = field(repr=False)
    scope: str | None = None
    sent_in: Literal["header", "form"] = "header"

    def token(self) -> _Token:
        """Return the token that this client shares with others in the process."""
        parts = (self.token_url, self.client_id, self.secret, self.scope or "")
        key = hashlib.sha256("\0".join(parts).encode()).hexdigest()
        return _tokens.setdefault(key, _Token())

    def request(self, timeout: dict[str, Any]) -> httpx.Request:
        """Return the request for a new token (RFC 6749, 4.4.2)."""
        form = {"grant_type": "client_credentials"}
        headers = {"Accept": "application/json"}
        if self.scope:
            form["scope"] = self.scope
        if self.sent_in == "header":
            pair = f"{quote(self.client_id, safe='')}:{quote(self.secret, safe='')}"
            headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        else:
            form |= {"client_id": self.client_id, "client_secret": self.secret}
        return httpx.Request(
            "POST", self.token_url, data=form, headers=headers, extensions={"timeout": timeout}
        )


class ClientCredentials(HomeAuth):
    """OAuth 2 client credentials: a token that is renewed at half of its life, and once on a 401.

    Args:
        home: The only origin that the token is sent to.
        client: What the token server knows of us.
        clock: Gives seconds.
    """

    def __init__(
        self, home: Origin, client: ClientId, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(home)
        self._client = client
        self._clock = clock
        self._token = client.token()

    def signed(self, request: httpx.Request) -> Flow:
        """Send a request with a token that is good for a while; ask for another one if refused."""
        used = yield from self._current(request, refused=None)
        request.headers["Authorization"] = f"Bearer {used}"
        response = yield request
        if response.status_code == UNAUTHORIZED:
            used = yield from self._current(request, refused=used)
            request.headers["Authorization"] = f"Bearer {used}"
            yield request

    def secrets(self) -> tuple[str, ...]:
        """Return what must not be shown."""
        return (self._client.secret, self._token.value)

    def _current(
        self, request: httpx.Request, *, refused: str | None
    ) -> Generator[httpx.Request, httpx.Response, str]:
        token = self._token
        with token.lock:
            age = self._clock() - token.fetched_at
            if not token.value or token.value == refused or age >= token.lifetime / 2:
                asked = self._clock()
                response = yield self._client.request(request.extensions.get("timeout", {}))
                response.read()
                token.value, token.lifetime = _granted(response)
                token.fetched_at = asked
            return token.value


def _granted(response: httpx.Response) -> tuple[str, float]:
    """Read a token and its lifetime in seconds; one without a lifetime holds until it is refused."""
    if response.status_code in TOKEN_LATER:
        raise TokenUnavailableError(f"HTTP {response.status_code}")
    try:
        said = response.json()
    except ValueError:
        said = {}
    value = said.get("access_token") if isinstance(said, dict) else None
    if response.status_code != OK or not isinstance(value, str) or not value:
        why = said.get("error") if isinstance(said, dict) else None
        raise TokenRefusedError(
            f"HTTP {response.status_code}"
            + (f": {why[:60]}" if isinstance(why, str) else "")
            + ("" if response.status_code != OK else ", without an access_token")
        )
    try:
        lifetime = float(said.get("expires_in") or "inf")
    except (TypeError, ValueError):
        lifetime = float("inf")
    return value, lifetime
