"""What all kinds of things on a Prefect server have in common, seen from bootstrap."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from typing import ClassVar, Protocol

import httpx
from prefect.exceptions import PrefectHTTPStatusError

from deployments.bootstrap.plan import Content, Present
from tasks.model.errors import ConfigError, CredentialsRejected, PipelineError, SourceUnavailable


class Kind(Protocol):
    """One kind of things: which are declared, which are there, and how they are made."""

    label: ClassVar[str]

    def declared(self) -> Mapping[str, Content]:
        """Return what should be there, by name, as it is compared."""
        ...

    def present(self, names: Collection[str]) -> Mapping[str, Present]:
        """Return which of some names are there; under another name what is ours once too often."""
        ...

    def create(self, name: str) -> str:
        """Make what is declared under a name, and return its id."""
        ...

    def change(self, name: str, present: Present, keys: Collection[str], /) -> None:
        """Give what is there the declared values of some keys; its id stays."""
        ...

    def remove(self, name: str, present: Present, /) -> None:
        """Remove what is no longer declared."""
        ...


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Turn the client's errors into ours; what a server quotes of a request is not repeated."""
    try:
        yield
    except PrefectHTTPStatusError as error:
        raise _of_status(what, error.response.status_code) from None
    except httpx.HTTPStatusError as error:
        raise _of_status(what, error.response.status_code) from None
    except httpx.TransportError as error:
        raise SourceUnavailable(
            f"the Prefect server does not answer ({type(error).__name__})",
            "start it with 'dpp up', or set PREFECT_API_URL",
        ) from None


def _of_status(what: str, status: int) -> PipelineError:
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return CredentialsRejected(
            f"{what}: the Prefect server refused the credentials (HTTP {status})",
            "set PREFECT_API_AUTH_STRING, or PREFECT_API_KEY",
        )
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return SourceUnavailable(f"{what}: the Prefect server failed (HTTP {status})", "try again")
    return ConfigError(
        f"{what}: the Prefect server refused it (HTTP {status})", "its log says why; run 'dpp lint'"
    )
