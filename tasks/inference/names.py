"""Names of columns and datasets for those of a source."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from tasks.model.columns import MAX_IDENTIFIER_BYTES

_LETTERS = str.maketrans(
    {"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss", "æ": "ae", "ø": "o", "å": "a", "ł": "l"}
)
ROOM = 4
"""Characters left for a number that tells two columns apart."""


def identifier_of(text: str, otherwise: str) -> str:
    """Return the name that comes nearest to a text: ``Unit Price (€)`` is ``unit_price``."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z][a-z])", "_", text).lower().translate(_LETTERS)
    plain = unicodedata.normalize("NFKD", spaced).encode("ascii", "ignore").decode()
    name = re.sub(r"[^a-z0-9]+", "_", plain).strip("_")
    if not name:
        return otherwise
    if not name[0].isalpha():
        name = f"c_{name}"
    return name[: MAX_IDENTIFIER_BYTES - ROOM].rstrip("_")


def column_names(sources: Iterable[str]) -> dict[str, str]:
    """Return source name → column name, each of them different."""
    made: dict[str, str] = {}
    taken: set[str] = set()
    for position, source in enumerate(sources, 1):
        # A name that is one already stays as it is, whatever the others are.
        wanted = identifier_of(source, f"column_{position}")
        if re.fullmatch(r"[a-z][a-z0-9_]*", source) and len(source) <= MAX_IDENTIFIER_BYTES:
            wanted = source
        name, number = wanted, 2
        while name in taken:
            name, number = f"{wanted}_{number}", number + 1
        taken.add(name)
        made[source] = name
    return made
