"""The key of a row as a user types it: ``carrier=UA,flight=1545``. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tasks.model.dataset import DatasetSpec
from tasks.model.errors import ConfigError


def parse_key(spec: DatasetSpec, texts: Sequence[str]) -> dict[str, str]:
    """Return column → text of a key; a comma is one between columns only before a column's name.

    A dataset without a key is asked by any of its columns.

    Raises:
        ConfigError: A column is unknown, missing or there twice.
    """
    known = spec.key or tuple(spec.columns)
    example = ",".join(f"{name}=…" for name in known[:3])
    names = "|".join(sorted(map(re.escape, known), key=len, reverse=True))
    start = re.compile(rf"(?:^|,)\s*({names})=")
    found: dict[str, str] = {}
    for text in texts:
        matches = list(start.finditer(text))
        if not matches or matches[0].start():
            raise ConfigError(
                f"{spec.name}: --key {text.split('=')[0]!r} is no column of the key",
                f"write --key {example}; the columns are {', '.join(known)}",
            )
        ends = [*(match.start() for match in matches[1:]), len(text)]
        for match, end in zip(matches, ends, strict=True):
            if match[1] in found:
                raise ConfigError(f"{spec.name}: --key names {match[1]} twice", f"write {example}")
            found[match[1]] = text[match.end() : end]
    missing = [name for name in spec.key if name not in found]
    if missing:
        raise ConfigError(
            f"{spec.name}: --key lacks {', '.join(missing)}", f"write --key {example}"
        )
    return found
