"""Parts of a dataset file as text: names, and values that YAML reads as they are meant."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from tasks.inference.values import Guess
from tasks.model.columns import MAX_IDENTIFIER_BYTES

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_./*-]*")
_WORDS = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n"})


def identifier(name: str, taken: set[str]) -> str:
    """Return a name for the warehouse that is like a name of the source, and not taken yet."""
    parts = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)
    made = re.sub(r"[^a-z0-9]+", "_", parts.lower()).strip("_") or "column"
    made = made if made[0].isalpha() else f"c_{made}"
    made = made[: MAX_IDENTIFIER_BYTES - 4]
    unique, number = made, 2
    while unique in taken:
        unique, number = f"{made}_{number}", number + 1
    taken.add(unique)
    return unique


def column_line(source: str, name: str, guess: Guess, width: int) -> str:
    """Write the declaration of a column; ``width`` is that of the longest name."""
    keys: dict[str, Any] = {"type": guess.type}
    if source != name:
        keys["source"] = source
    keys |= guess.options
    comment = f"  # {'; '.join(guess.doubts)}" if guess.doubts else ""
    return f"  {name + ':':<{width}} {flow(keys)}{comment}"


def block(mapping: Mapping[str, Any], indent: int = 2) -> list[str]:
    """Write a mapping, a key a line."""
    return [f"{' ' * indent}{key}: {flow(value)}" for key, value in mapping.items()]


def flow(value: Any) -> str:
    """Write a value on one line; texts are quoted where YAML could read them otherwise."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {flow(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(flow, value)) + "]"
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
        return value
    written = json.dumps(value, ensure_ascii=False)
    return "".join(each if each.isprintable() else f"\\U{ord(each):08X}" for each in written)
