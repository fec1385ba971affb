"""The client of a REST API: it keeps the credentials for the API that they belong to."""

from __future__ import annotations

from urllib.parse import quote

import httpx

from blocks.http_auth import HomeAuth, Origin

MASK = "***"
CONNECT_SECONDS = 10.0


class ApiClient(httpx.Client):
    """A client of one API: it sends the credentials to that origin only, and follows no redirect.

    Args:
        base_url: Scheme, host and common path.
        auth: Its credentials.
        transport: Goes to checked addresses only.
        timeout: Seconds to wait for the next piece of an answer.
        total_seconds: Seconds that a request with its answer may take.
        retry_seconds: Seconds for which a request that fails is tried again.
        requests_per_second: Not more than this, over all processes; None for no limit.
    """

    def __init__(
        self,
        base_url: str,
        auth: HomeAuth,
        transport: httpx.BaseTransport,
        *,
        timeout: float = 30,
        total_seconds: float = 300,
        retry_seconds: float = 180,
        requests_per_second: float | None = None,
    ) -> None:
        super().__init__(
            base_url=base_url,
            auth=auth,
            timeout=httpx.Timeout(timeout, connect=min(CONNECT_SECONDS, timeout)),
            follow_redirects=False,
            transport=transport,
            trust_env=False,
        )
        self._credentials = auth
        self.home = Origin.of(self.base_url)
        self.retry_seconds = retry_seconds
        self.requests_per_second = requests_per_second
        self.total_seconds = total_seconds

    def redacted(self, text: str) -> str:
        """Return a text, as a server may have said it, without the credentials."""
        for secret in self._credentials.secrets():
            for written in (secret, quote(secret, safe="")):
                if written:
                    text = text.replace(written, MASK)
        return text
