"""The JSON schema of a block, made once in a process."""

from __future__ import annotations

from copy import deepcopy
from functools import cache
from typing import Any


class CachedSchema:
    """Mixin of blocks whose schema is kept; to be named before ``Block``.

    Prefect asks a block for its schema again for each of its fields when it saves one, and makes it
    anew each time: half a minute for the blocks of an environment.
    """

    @classmethod
    def model_json_schema(cls, *given: Any, **named: Any) -> dict[str, Any]:
        """Return the schema as ``Block`` makes it; callers may change what they get."""
        block: Any = cls
        return deepcopy(_made(block, given, tuple(sorted(named.items()))))


@cache
def _made(block: Any, given: tuple[Any, ...], named: tuple[tuple[str, Any], ...]) -> dict[str, Any]:
    made: dict[str, Any] = super(CachedSchema, block).model_json_schema(*given, **dict(named))
    return made
