"""Values that are not written down: environment variables, and secrets of AWS Secrets Manager."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from deployments.declared_blocks import Reference, reference_of, references
from tasks.model.errors import ConfigError, CredentialsRejected, SourceUnavailable

_REFUSED = frozenset(
    {
        "AccessDeniedException",
        "UnrecognizedClientException",
        "InvalidSignatureException",
        "ExpiredTokenException",
    }
)
_MISSING = "ResourceNotFoundException"


class Values:
    """Gives what references stand for; each secret is read once.

    Args:
        variables: The environment variables.
    """

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables
        self._secrets: dict[str, str] = {}

    def require(self, blocks: Mapping[str, Mapping[str, Any]]) -> None:
        """Check that each variable is set that the fields of some blocks name.

        Raises:
            ConfigError: Some are not; it names all of them.
        """
        lacking = [
            f"{reference.name}, for {key} {'.'.join(map(str, place))}"
            for key, fields in blocks.items()
            for place, reference in references(fields)
            if reference.kind == "variable" and not self._variables.get(reference.name)
        ]
        if lacking:
            raise ConfigError(
                f"environment variables are not set: {'; '.join(lacking)}",
                "docs/deployment.md says what each is",
            )

    def fill(self, node: Any) -> Any:
        """Replace the references to variables and secrets in the fields of a block."""
        reference = reference_of(node)
        if reference is not None and reference.kind != "block":
            return self._value(reference)
        if isinstance(node, Mapping):
            return {name: self.fill(value) for name, value in node.items()}
        if isinstance(node, list):
            return [self.fill(value) for value in node]
        return node

    def _value(self, reference: Reference) -> str:
        if reference.kind == "variable":
            return self._variables[reference.name]
        text = self._secret(reference.name)
        return text if reference.key is None else _value_of(text, reference)

    def _secret(self, name: str) -> str:
        if name not in self._secrets:
            try:
                answer = self._client.get_secret_value(SecretId=name)
            except ClientError as error:
                raise _explained(name, error.response["Error"]["Code"]) from None
            except BotoCoreError as error:
                raise SourceUnavailable(
                    f"AWS Secrets Manager cannot be asked for {name!r}: {type(error).__name__}",
                    "set AWS_REGION and credentials, or a role",
                ) from None
            self._secrets[name] = answer["SecretString"]
        return self._secrets[name]

    @cached_property
    def _client(self) -> Any:
        import boto3

        return boto3.client("secretsmanager")


def _value_of(text: str, reference: Reference) -> str:
    try:
        return str(json.loads(text)[reference.key])
    except (ValueError, TypeError, KeyError):
        raise ConfigError(
            f"secret {reference.name!r} of AWS Secrets Manager is no JSON object with a key "
            f"{reference.key!r}"
        ) from None


def _explained(name: str, code: str) -> Exception:
    if code == _MISSING:
        return ConfigError(f"AWS Secrets Manager has no secret {name!r}", "create it there")
    if code in _REFUSED:
        return CredentialsRejected(
            f"AWS Secrets Manager: reading {name!r} was refused ({code})",
            "allow secretsmanager:GetSecretValue on it",
        )
    return SourceUnavailable(f"AWS Secrets Manager: reading {name!r} failed ({code})", "try again")
