"""Lines of fixed width: where every line has a space, a field ends."""

from __future__ import annotations

import re
from typing import Any

from tasks.inference.values import guess_text

FEWEST_LINES = 3
LOOKED_AT = 500
"""Lines that are looked at."""
WIDEST = 10_000


def guess_fixed_width(text: str) -> dict[str, Any] | None:
    """Return the declaration of a format of fixed widths, None if the lines have none.

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
    is_header = all(fields) and all(guess_text([field]).type == "string" for field in fields)
    has_names = is_header and len({field.lower() for field in fields}) == len(fields)
    columns = [
        {"name": name if has_names else f"column_{number}", "width": end - start}
        for number, (name, start, end) in enumerate(zip(fields, starts, ends, strict=True), 1)
    ]
    made: dict[str, Any] = {"kind": "fixed", "columns": columns}
    if is_header:
        made["skip_lines"] = 1
    return made
