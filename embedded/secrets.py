"""Passwords of the embedded servers: made once, kept in a file that only its owner can read."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import secrets
from dataclasses import asdict, dataclass, fields
from pathlib import Path


@dataclass(frozen=True, repr=False)
class EmbeddedSecrets:
    """The secrets of one ``.local`` folder."""

    warehouse_password: str
    s3_secret_key: str
    prefect_encryption_key: str
    api_key: str


def load_secrets(local: Path) -> EmbeddedSecrets:
    """Return the secrets of a folder, made at the first call."""
    local.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = local / "secrets.json"
    with (local / "secrets.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        kept: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
        made = EmbeddedSecrets(
            **{
                field.name: kept.get(field.name) or _make(field.name)
                for field in fields(EmbeddedSecrets)
            }
        )
        if asdict(made) != kept:  # new, or of a version that had fewer
            partial = path.with_suffix(".partial")
            partial.unlink(missing_ok=True)
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as file:
                json.dump({**kept, **asdict(made)}, file)
            partial.replace(path)
        return made


def _make(name: str) -> str:
    if name == "prefect_encryption_key":  # a Fernet key
        return base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
    return secrets.token_urlsafe(24)
