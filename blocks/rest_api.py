"""A REST API: where it is, and how a request proves who sends it."""

from __future__ import annotations

import base64
from typing import Any, Literal, Self

import httpx
from prefect.blocks.core import Block
from prefect_aws.secrets_manager import AwsSecret
from pydantic import Field, SecretStr, field_validator, model_validator

from blocks.api_client import ApiClient
from blocks.aws_secret import secret_text
from blocks.egress import CheckedTransport, Resolve, resolve
from blocks.http_auth import (
    ClientCredentials,
    ClientId,
    HeaderKey,
    HomeAuth,
    Origin,
    QueryKey,
)
from blocks.schema import CachedSchema

CONNECTIONS = 8


class RestApiCredentials(CachedSchema, Block):
    """Base URL and credentials of a REST API."""

    _block_type_name = "ETL REST API Credentials"
    _block_type_slug = "etl-rest-api-credentials"

    base_url: str = Field(description="Scheme, host and common path, e.g. https://api.example.org.")
    auth: Literal["none", "api_key_header", "api_key_query", "basic", "bearer", "oauth2"] = Field(
        "none", description="oauth2: client credentials, with a token from token_url."
    )
    key_name: str = Field("X-API-Key", description="Header or query parameter of the API key.")
    username: str | None = Field(None, description="User of basic, client id of oauth2.")
    secret: SecretStr | None = Field(
        None, description="API key, password, token, or client secret; or else aws_secret."
    )
    aws_secret: AwsSecret | None = Field(
        None, description="Where the secret is instead: a secret whose text it is."
    )
    token_url: str | None = Field(None, description="Where oauth2 gets its tokens.")
    scope: str | None = Field(None, description="Scope that oauth2 asks for.")
    client_sent_in: Literal["header", "form"] = Field(
        "header", description="How the token server wants to be told client id and secret."
    )
    allow_private: bool = Field(
        False,
        description="The API is on loopback or in a private network; metadata services never.",
    )
    timeout: float = Field(30, gt=0, description="Seconds to wait for the next piece of an answer.")
    total_timeout: float = Field(
        300, gt=0, description="Seconds that a request with its answer may take."
    )
    retry_seconds: float = Field(
        180, ge=0, description="Seconds for which a request that fails is tried again."
    )
    requests_per_second: float | None = Field(
        None, gt=0, description="Not more than this, over all processes; no limit without it."
    )

    @field_validator("base_url", "token_url")
    @classmethod
    def _is_an_address(cls, address: str | None) -> str | None:
        if address is None:
            return None
        try:
            url = httpx.URL(address)
        except httpx.InvalidURL:
            raise ValueError("this is no URL") from None
        if url.scheme not in ("http", "https") or not url.host:
            raise ValueError("write a URL that begins with https:// (or http://) and a host")
        if url.userinfo:
            raise ValueError("user and password belong into username and secret, not into a URL")
        return address

    @model_validator(mode="after")
    def _credentials_are_whole(self) -> Self:
        written = self.secret is not None and bool(self.secret.get_secret_value())
        if self.auth != "none" and not written and self.aws_secret is None:
            raise ValueError(f"auth {self.auth!r} needs a secret")
        if written and self.aws_secret is not None:
            raise ValueError("give the secret, or the aws_secret that has it; not both")
        if self.auth == "oauth2" and not (self.token_url and self.username):
            raise ValueError("auth 'oauth2' needs a token_url and the client id as username")
        return self

    def get_client(self, resolve: Resolve = resolve) -> ApiClient:
        """Return a client that sends the credentials to this API and follows no redirect.

        Args:
            resolve: Gives the addresses of a name.
        """
        limits = httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS)
        transport = CheckedTransport(
            allow_private=self.allow_private,
            total_seconds=self.total_timeout,
            limits=limits,
            resolve=resolve,
        )
        return ApiClient(
            self.base_url,
            self._auth(),
            transport,
            timeout=self.timeout,
            total_seconds=self.total_timeout,
            retry_seconds=self.retry_seconds,
            requests_per_second=self.requests_per_second,
        )

    def _auth(self) -> HomeAuth:
        home = Origin.of(httpx.URL(self.base_url))
        secret = self.secret.get_secret_value() if self.secret else ""
        if self.aws_secret is not None:
            secret = secret_text(self.aws_secret)
        made: dict[str, Any] = {
            "none": lambda: HomeAuth(home),
            "api_key_header": lambda: HeaderKey(home, self.key_name, secret),
            "api_key_query": lambda: QueryKey(home, self.key_name, secret),
            "bearer": lambda: HeaderKey(home, "Authorization", f"Bearer {secret}", secret),
            "basic": lambda: _basic(home, self.username or "", secret),
            "oauth2": lambda: ClientCredentials(
                home,
                ClientId(
                    self.token_url or "",
                    self.username or "",
                    secret,
                    self.scope,
                    self.client_sent_in,
                ),
            ),
        }
        auth: HomeAuth = made[self.auth]()
        return auth


def _basic(home: Origin, username: str, password: str) -> HeaderKey:
    encoded = base64.b64encode(f"{username}:{password}".encode()).decode()
    return HeaderKey(home, "Authorization", f"Basic {encoded}", encoded, password)
