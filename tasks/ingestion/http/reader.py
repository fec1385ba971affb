"""Gets JSON documents from an API, through all that can go wrong on the way."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, TypeVar

import httpx
import structlog
from tenacity import RetryCallState, Retrying, retry_if_exception_type

from blocks.api_client import ApiClient
from blocks.egress import AddressRefusedError, Reach
from blocks.http_auth import Origin, TokenRefusedError
from tasks.ingestion.http.answers import Answer, bounded_body, document, refusal
from tasks.ingestion.http.guard import HostGuard, LeftAloneError
from tasks.ingestion.http.links import target_of
from tasks.ingestion.http.waiting import Budget, wait
from tasks.model.classify import classify
from tasks.model.errors import CredentialsRejected, SourceRejected, SourceUnavailable

OK = 200
NOT_MODIFIED = 304
SERVER_ERRORS = range(500, 600)
NOT_THERE = frozenset({400, 404, 416, 422})
"""What servers answer to the number of a page that is not there."""
REDIRECTS = frozenset({301, 302, 303, 307, 308})
MAX_REDIRECTS = 5

Params = Mapping[str, str | int]
T = TypeVar("T")

log = structlog.get_logger("dpp.ingestion")


class ApiReader:
    """Asks one API.

    Args:
        client: Knows the server and the credentials.
        guard: Keeps the rate, and leaves hosts alone that fail.
        allow_hosts: Other hosts that a redirect or a link may lead to; they get no credentials.
        content_type: Content type that is taken for JSON beside the usual ones.
        sleep: Waits between two attempts.
        now: Gives the time, against which a ``Retry-After`` date is read.
    """

    def __init__(
        self,
        client: ApiClient,
        guard: HostGuard,
        *,
        allow_hosts: tuple[str, ...] = (),
        content_type: str | None = None,
        sleep: Callable[[float], None] = time.sleep,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._client = client
        self._guard = guard
        self._allow_hosts = allow_hosts
        self._content_type = content_type
        self._sleep = sleep
        self._now = now

    def get(self, url: str, params: Params) -> Answer:
        """Get a JSON document; see ``get_if_there``."""
        answer = self.get_if_there(url, params, absent=frozenset())
        assert answer is not None
        return answer

    def get_if_there(
        self, url: str, params: Params, absent: frozenset[int] = NOT_THERE
    ) -> Answer | None:
        """Get a JSON document that may not be there, like a page after the last one.

        Args:
            url: Path below the API's base URL, or a URL that ``following`` returned.
            params: Query parameters.
            absent: Statuses that say that there is none.

        Returns:
            The document; None if there is none.

        Raises:
            SourceUnavailable: No whole answer within the time for retries.
            SourceRejected: The server refuses the request, or leads elsewhere.
            CredentialsRejected: The server refuses the credentials.
        """
        return self._retried(lambda: self._get_once(url, params, absent))

    def changed(self, url: str, params: Params, headers: Mapping[str, str]) -> httpx.Headers | None:
        """Ask whether a document changed; its body is left unread.

        Args:
            url: Path below the API's base URL.
            params: Query parameters.
            headers: What is known of the document: ``If-None-Match``, ``If-Modified-Since``.

        Returns:
            The headers of its present version; None if it is the one that is known (304).
        """

        def ask() -> httpx.Headers | None:
            with self._asked(url, params, headers) as (response, where):
                if response.status_code == NOT_MODIFIED and headers:
                    return None
                if response.status_code != OK:
                    raise self._refusal(response, where)
                return response.headers

        return self._retried(ask)

    def following(self, link: str, answer: Answer) -> str:
        """Return the URL that a link in an answer leads to, if it may be asked.

        Raises:
            SourceRejected: It leads elsewhere.
        """
        return str(self._target(link, answer.url, "the next page"))

    def _retried(self, ask: Callable[[], T]) -> T:
        failure: SourceUnavailable | None = None
        for attempt in Retrying(
            retry=retry_if_exception_type(SourceUnavailable),
            stop=Budget(self._client.retry_seconds),
            wait=wait,
            sleep=self._sleep,
            before_sleep=_log_retry,
            reraise=True,
        ):
            with attempt:
                try:
                    return ask()
                except LeftAloneError as error:  # why it is left alone says more
                    said = failure.message if failure else error.message
                    raise SourceUnavailable(said, retry_after=error.retry_after) from None
                except SourceUnavailable as error:
                    failure = error
                    raise
        raise AssertionError("unreachable: tenacity raises the last error")

    def _get_once(self, url: str, params: Params, absent: frozenset[int]) -> Answer | None:
        with self._asked(url, params, {}) as (response, where):
            if response.status_code in absent:
                return None
            if response.status_code != OK:
                raise self._refusal(response, where)
            content = bounded_body(response, where)
            return document(response, content, where, self._content_type, self._client.redacted)

    def _refusal(self, response: httpx.Response, where: str) -> Exception:
        content = bounded_body(response, where)
        error = refusal(response, content, where, self._now(), self._client.redacted)
        if isinstance(error, SourceUnavailable) and error.retry_after:
            self._guard.hold(str(Origin.of(response.url)), error.retry_after)
        return error

    @contextmanager
    def _asked(
        self, url: str, params: Params, headers: Mapping[str, str]
    ) -> Iterator[tuple[httpx.Response, str]]:
        """Send a request and follow redirects; the answer is read while the context is open."""
        request = self._client.build_request(
            "GET", url, params=dict(params) or None, headers=dict(headers)
        )
        for _ in range(MAX_REDIRECTS + 1):
            where = f"GET {request.url.path}"
            with self._sent(request, where) as response:
                location = response.headers.get("Location")
                if response.status_code not in REDIRECTS or not location:
                    yield response, where
                    return
                target = self._target(location, response.url, f"{where}: the redirect")
            request = self._client.build_request("GET", target, headers=dict(headers))
        raise SourceRejected(
            f"GET {url.split('?', maxsplit=1)[0]}: more than {MAX_REDIRECTS} redirects"
        )

    def _target(self, link: str, seen_at: httpx.URL, what: str) -> httpx.URL:
        return target_of(
            link,
            seen_at=seen_at,
            home=self._client.home,
            allow_hosts=self._allow_hosts,
            what=what,
        )

    @contextmanager
    def _sent(self, request: httpx.Request, where: str) -> Iterator[httpx.Response]:
        host = str(Origin.of(request.url))
        rate = self._client.requests_per_second
        admission = self._guard.admit(host, 1 / rate if rate else 0)
        healthy = True
        try:
            response = self._client.send(request, stream=True)
            try:
                healthy = response.status_code not in SERVER_ERRORS
                yield response
            finally:
                response.close()
        except httpx.TransportError as error:
            healthy = False
            if isinstance(error, httpx.RemoteProtocolError):
                raise SourceUnavailable(
                    f"{where}: the connection ended before the answer was complete"
                ) from None
            raise classify(error, where) from None
        except httpx.DecodingError:
            coding = response.headers.get("Content-Encoding", "")
            raise SourceUnavailable(
                f"{where}: the answer is not the {coding} it says it is"
            ) from None
        except TokenRefusedError as error:
            raise CredentialsRejected(
                f"{where}: the token server refused: {error}",
                "check client id, secret, scope and token_url in the source's block",
            ) from None
        except AddressRefusedError as error:
            raise _refused_address(where, error) from None
        finally:
            if healthy:
                self._guard.succeeded(host, admission)
            else:
                self._guard.failed(host, admission)


def _refused_address(where: str, error: AddressRefusedError) -> SourceRejected:
    if error.reach is Reach.PRIVATE:
        return SourceRejected(
            f"{where}: {error.host} is {error.address}, an address of a private network",
            "set allow_private in the source's block if the API is in your own network",
        )
    return SourceRejected(
        f"{where}: {error.host} is {error.address}, an address that sources are never asked at"
    )


def _log_retry(state: RetryCallState) -> None:
    error: Any = state.outcome.exception() if state.outcome else None
    log.warning(
        "ingestion.retry",
        attempt=state.attempt_number,
        wait=state.next_action.sleep if state.next_action else 0.0,
        error=str(error),
    )
