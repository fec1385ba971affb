"""The text of a query without the values in it, so that it can be shown. Pure."""

from __future__ import annotations

import re

SHOWN_CHARACTERS = 300

_PARTS = re.compile(
    r"""
      (?P<name>"(?:[^"]|"")*(?:"|\Z))                        # "a name": kept
    | (?P<comment>--[^\n]*|/\*.*?(?:\*/|\Z))                # may hold anything
    | (?P<dollar>\$(?P<tag>[^\W\d]\w*|)\$.*?(?:\$(?P=tag)\$|\Z))
    | (?P<escaped>[eE]'(?:[^'\\]|''|\\.)*(?:'|\Z))
    | (?P<text>(?:[bBxXnN]|[uU]&)?'(?:[^']|'')*(?:'|\Z))
    | (?P<parameter>\$\d+)                                   # $1: kept
    | (?P<word>[^\W\d][\w$]*)                                # kept, with digits in it
    | (?P<number>(?:\d[\w.]*|\.\d[\w.]*)(?:(?<=[eE])[+-]\d+)?)
    """,
    re.VERBOSE | re.DOTALL,
)
_KEPT = ("name", "parameter", "word")


def without_literals(text: str) -> str:
    """Return a query with ``?`` in place of each text and number, without comments, on one line.

    A text that was cut off may end in the middle of a literal: what is left of it goes too. Where a
    backslash before a quote may be an escape or not, as the session has it, nothing behind it is shown.
    """
    doubtful = re.search(r"\\'", text)
    shown = _PARTS.sub(_masked, text[: doubtful.start()] if doubtful else text)
    if doubtful:
        shown += " …"
    words = " ".join(shown.split())
    return words if len(words) <= SHOWN_CHARACTERS else f"{words[:SHOWN_CHARACTERS]}…"


def _masked(found: re.Match[str]) -> str:
    kind = found.lastgroup
    if any(found[name] is not None for name in _KEPT):
        return found[0]
    return " " if kind == "comment" else "?"
