"""A REST API: where it is, and how a request proves who sends it."""

from __future__ import annotations

from collections.abc import Generator
from typing import Literal

import httpx
from prefect.blocks.core import Block
from pydantic import Field, SecretStr, model_validator


class _QueryKey(httpx.Auth):
    """Adds the key to the query of each request, where no log of ours can see it."""

    def __init__(self, name: str, key: SecretStr) -> None:
        self._name = name
        self._key = key

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response]:
        request.url = request.url.copy_merge_params({self._name: self._key.get_secret_value()})
        yield request


class RestApiCredentials(Block):
    """Base URL and credentials of a REST API."""

    _block_type_name = "ETL REST API Credentials"
    _block_type_slug = "etl-rest-api-credentials"

    base_url: str = Field(description="Scheme, host and common path, e.g. https://api.example.org.")
    auth: Literal["none", "api_key_header", "api_key_query", "basic", "bearer"] = "none"
    key_name: str = Field("X-API-Key", description="Header or query parameter of the API key.")
    username: str | None = None
    secret: SecretStr | None = Field(None, description="API key, password or token.")
    timeout: float = Field(30, gt=0, description="Seconds to wait for an answer to begin.")

    @model_validator(mode="after")
    def _secret_is_there(self) -> RestApiCredentials:
        if self.auth != "none" and (self.secret is None or not self.secret.get_secret_value()):
            raise ValueError(f"auth {self.auth!r} needs a secret")
        return self

    def get_client(self) -> httpx.Client:
        """Return a client that sends the credentials to this API and follows no redirect.

        Redirects are off because an API key in a header would follow one to another host.
        """
        headers: dict[str, str] = {}
        auth: httpx.Auth | None = None
        secret = self.secret.get_secret_value() if self.secret else ""
        if self.auth == "api_key_header":
            headers[self.key_name] = secret
        elif self.auth == "bearer":
            headers["Authorization"] = f"Bearer {secret}"
        elif self.auth == "basic":
            auth = httpx.BasicAuth(self.username or "", secret)
        elif self.auth == "api_key_query":
            auth = _QueryKey(self.key_name, SecretStr(secret))
        return httpx.Client(
            base_url=self.base_url,
            headers=headers,
            auth=auth,
            timeout=httpx.Timeout(self.timeout, connect=min(10.0, self.timeout)),
            follow_redirects=False,
            limits=httpx.Limits(max_connections=8),
        )
