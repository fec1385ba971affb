"""Lines of fixed width: where every line has a space, a field ends."""

from __future__ import annotations

import re
from typing import Any

from tasks.inference.dialect import LOOKED_AT
from tasks.inference.names import column_names
from tasks.inference.numbers import find_numbers

FEWEST_LINES = 3
WIDEST = 10_000


def find_fixed_width(text: str) -> tuple[dict[str, Any], dict[str, str]] | None:
    """Return the keys of a format of fixed widths, and its doubts; None if it is none.

    Args:
        text: The beginning of a file.
    """
    lines = [line for line in text.splitlines() if line][:LOOKED_AT]
    if len(lines) < FEWEST_LINES or len({len(line) for line in lines}) > 1:
        return None
    length = len(lines[0])
    if length > WIDEST:
        return None
    spaces = "".join(" " if all(line[n] == " " for line in lines) else "x" for n in range(length))
    starts = [found.start() for found in re.finditer(r"(?<!x)x", spaces)]
    if len(starts) < 2:  # noqa: PLR2004 - one field is no table
        return None
    ends = [*starts[1:], length]
    starts[0] = 0
    fields = [lines[0][a:b].strip() for a, b in zip(starts, ends, strict=True)]
    has_header = all(fields) and not any(find_numbers([field]) for field in fields)
    wanted = fields if has_header else [f"column {n}" for n in range(1, len(fields) + 1)]
    if len(set(wanted)) < len(wanted):
        wanted = [f"column {n}" for n in range(1, len(fields) + 1)]
    names = column_names(wanted)
    columns = [
        {"name": names[name], "width": end - start}
        for name, start, end in zip(wanted, starts, ends, strict=True)
    ]
    keys: dict[str, Any] = {"kind": "fixed", "columns": columns}
    if has_header:
        keys["skip_lines"] = 1
    why = "widths guessed from the columns of spaces that all lines share; compare with the description"
    return keys, {"columns": why}
