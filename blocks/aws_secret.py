"""Secrets that stay in AWS Secrets Manager: a block names one, and it is read when it is needed.

So a rotated secret is taken by the next run, and the Prefect server never has it.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from prefect_aws.secrets_manager import AwsSecret

SECONDS_KEPT = 60
"""A run asks for the same secret before each partition: it is asked for once in this time."""
_REFUSED = frozenset(
    {
        "AccessDeniedException",
        "ExpiredTokenException",
        "InvalidSignatureException",
        "UnrecognizedClientException",
    }
)
_WRONG = frozenset({"ResourceNotFoundException", "InvalidRequestException", "ValidationException"})


class SecretError(Exception):
    """A secret cannot be read.

    Args:
        name: Its name in AWS Secrets Manager.
        reason: What was said, without any value.
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"secret {name!r} of AWS Secrets Manager: {reason}")


class SecretRefusedError(SecretError):
    """The identity of this process may not read it."""


class SecretWrongError(SecretError):
    """There is no such secret, or it is not of the form that is needed."""


class SecretUnavailableError(SecretError):
    """AWS Secrets Manager may answer later."""


class _Kept:
    """What was read lately, by name and place."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._texts: dict[tuple[str, ...], tuple[float, str]] = {}

    def get(self, key: tuple[str, ...], read: Callable[[], str]) -> str:
        with self._lock:
            until, text = self._texts.get(key, (0.0, ""))
            if until <= time.monotonic():
                text = read()
                self._texts[key] = (time.monotonic() + SECONDS_KEPT, text)
            return text

    def clear(self) -> None:
        with self._lock:
            self._texts.clear()


_kept = _Kept()


def forget_secrets() -> None:
    """Read every secret anew from now on."""
    _kept.clear()


def read_text(client: Any, name: str) -> str:
    """Read a secret with a client of AWS Secrets Manager.

    Raises:
        SecretError: It cannot be read; its classes say why.
    """
    try:
        answer = client.get_secret_value(SecretId=name)
    except ClientError as error:
        code = str(error.response["Error"]["Code"])
        if code in _REFUSED:
            raise SecretRefusedError(name, f"reading it is not allowed ({code})") from None
        if code in _WRONG:
            raise SecretWrongError(name, f"there is none ({code})") from None
        raise SecretUnavailableError(name, f"it cannot be read now ({code})") from None
    except BotoCoreError as error:
        raise SecretUnavailableError(name, type(error).__name__) from None
    if "SecretString" in answer:
        return str(answer["SecretString"])
    return bytes(answer["SecretBinary"]).decode()


def value_of(text: str, name: str, key: str) -> str:
    """Return the value of a key of a secret that is a JSON object.

    Raises:
        SecretWrongError: It is none, or has no such key.
    """
    found = _object(text)
    if found is None or key not in found:
        raise SecretWrongError(name, f"it is no JSON object with a key {key!r}")
    return str(found[key])


def secret_text(secret: AwsSecret) -> str:
    """Read what a block points at; within a minute it is read once."""
    credentials = secret.aws_credentials
    key = (
        secret.secret_name,
        str(credentials.region_name),
        str(credentials.profile_name),
        str(credentials.aws_access_key_id),
        str(credentials.aws_client_parameters.endpoint_url),
    )
    return _kept.get(
        key, lambda: read_text(credentials.get_secrets_manager_client(), secret.secret_name)
    )


def login(secret: AwsSecret, username: str | None) -> tuple[str | None, str]:
    """Return the user and the password of a secret.

    The secret is the password itself, or a JSON object with ``password`` and, as RDS makes it,
    ``username``, which then counts: rotation with two users in turn changes it as well.
    """
    text = secret_text(secret)
    found = _object(text)
    if found is None:
        return username, text
    password = value_of(text, secret.secret_name, "password")
    named = found.get("username")
    return (str(named) if named else username), password


def _object(text: str) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
