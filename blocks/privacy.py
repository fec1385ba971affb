"""The keys that protect personal values outside their table: one secret, two keys made from it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
from collections.abc import Sequence
from typing import Self

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from prefect.blocks.core import Block
from pydantic import Field, SecretStr, field_validator

from blocks.schema import CachedSchema

VARIABLE = "DPP_PRIVACY_KEY"
MIN_KEY_CHARACTERS = 32
TOKEN_DIGITS = 32


def _derived(secret: str, purpose: str) -> bytes:
    """Return 32 bytes for one purpose; from one of them nobody finds the others, or the secret."""
    return HKDF(hashes.SHA256(), 32, salt=None, info=f"dpp {purpose}".encode()).derive(
        secret.encode()
    )


class Privacy:
    """Seals values so that they can be opened again, and gives tokens that stand for them.

    Args:
        secrets: The secret in use, then older ones with which something may still be sealed.
    """

    def __init__(self, secrets: Sequence[str]) -> None:
        keys = [base64.urlsafe_b64encode(_derived(secret, "seal")) for secret in secrets]
        self._fernet = MultiFernet([Fernet(key) for key in keys])
        self._token_key = _derived(secrets[0], "token")

    def seal(self, text: str) -> str:
        """Encrypt a text."""
        return self._fernet.encrypt(text.encode("utf-8", "surrogatepass")).decode()

    def open(self, sealed: str) -> str:
        """Decrypt what ``seal`` made.

        Raises:
            ValueError: It was sealed with another key, or changed.
        """
        try:
            return self._fernet.decrypt(sealed.encode()).decode("utf-8", "surrogatepass")
        except InvalidToken:
            raise ValueError("sealed with another key, or changed") from None

    def token(self, text: str) -> str:
        """Return what stands for a value: the same for the same value, and no way back."""
        keyed = hmac.new(self._token_key, text.encode("utf-8", "surrogatepass"), hashlib.sha256)
        return f"tok_{keyed.hexdigest()[:TOKEN_DIGITS]}"


class PrivacyKeys(CachedSchema, Block):
    """The secret that protects columns marked ``pii``."""

    _block_type_name = "ETL Privacy Keys"
    _block_type_slug = "etl-privacy-keys"

    key: SecretStr = Field(description="32 characters or more, e.g. of: openssl rand -hex 32.")
    older_keys: list[SecretStr] = Field(
        default_factory=list,
        description="Keys that were in use before; what they sealed can still be opened.",
    )

    @field_validator("key")
    @classmethod
    def _key_is_long(cls, key: SecretStr) -> SecretStr:
        if len(key.get_secret_value()) < MIN_KEY_CHARACTERS:
            raise ValueError(f"the key has less than {MIN_KEY_CHARACTERS} characters")
        return key

    def get_privacy(self) -> Privacy:
        """Return what seals and opens values."""
        return Privacy([key.get_secret_value() for key in (self.key, *self.older_keys)])

    @classmethod
    def from_variable(cls) -> Self | None:
        """Return the keys in the environment variable, separated by commas, the one in use first."""
        keys = [SecretStr(key) for key in os.environ.get(VARIABLE, "").split(",") if key]
        return cls(key=keys[0], older_keys=keys[1:]) if keys else None
