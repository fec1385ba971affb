"""Values: what stages hand to each other, frozen JSON, and the digest that tells one from others."""

from __future__ import annotations

import hashlib
import json

from pydantic import BaseModel, ConfigDict


class Value(BaseModel):
    """Base of what stages hand to each other: frozen, and strict about its keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def json_digest(content: object) -> str:
    """Return the SHA-256 of a JSON value, in hexadecimal; values that are equal have the same."""
    # Keys are sorted, and no space is between them: one sequence of bytes stands for a value.
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
