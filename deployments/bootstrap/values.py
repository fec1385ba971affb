"""Values that are not written down: environment variables, and secrets of AWS Secrets Manager."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from blocks.aws_secret import read_text, value_of
from deployments.declared_blocks import Reference, reference_of, references
from tasks.connections import explained_secrets
from tasks.model.errors import ConfigError


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
        with explained_secrets():
            text = self._secret(reference.name)
            return text if reference.key is None else value_of(text, reference.name, reference.key)

    def _secret(self, name: str) -> str:
        if name not in self._secrets:
            self._secrets[name] = read_text(self._client, name)
        return self._secrets[name]

    @cached_property
    def _client(self) -> Any:
        import boto3

        return boto3.client("secretsmanager")
