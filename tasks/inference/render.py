"""Writes a proposed dataset as a file for people, with a comment on each thing that was not certain."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from textwrap import wrap
from typing import Any

from tasks.inference.propose import Proposal

WIDTH = 110
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_./%-]*")
_WORDS = frozenset({"null", "true", "false", "yes", "no", "on", "off", "y", "n", "nan", "inf"})


def render(made: Proposal, origin: str) -> str:
    """Return the text of the dataset file.

    Args:
        made: The proposal.
        origin: What it was made from, for the first comment.
    """
    lines = ["# yaml-language-server: $schema=../docs/dataset.schema.json"]
    sample = made.found.sample
    part = "all of its" if sample.whole else "the first"
    lines += _comment(
        f"Proposed by dpp new from {origin}, by {part} {sample.rows:,} rows. Comments say what these "
        "did not tell: look at them, and take them out."
    )
    lines += [f"name: {made.name}", f"description: {_scalar(made.content()['description'])}"]
    lines += _source(made)
    lines += _key(made)
    lines += _columns(made)
    lines += ["load: " + _flow(made.content()["load"])]
    return "\n".join(lines) + "\n"


def doubts_of(made: Proposal) -> list[str]:
    """Return what was not certain, for a person at a terminal."""
    listed = [f"{where}: {doubt}" for where, doubt in made.found.doubts.items()]
    listed += [f"{name}: {doubt}" for name, guess in made.columns.items() for doubt in guess.doubts]
    return [*listed, *_key_doubts(made), *made.found.notes]


def _source(made: Proposal) -> Iterator[str]:
    source, doubts = dict(made.found.source), made.found.doubts
    declared = source.pop("format", None)
    for note in made.found.notes:
        yield from _comment(note)
    yield "source:"
    for name, value in source.items():
        yield from _line(name, value, doubts.get(name), 2)
    if declared is None:
        return
    yield "  format:"
    for name, value in declared.items():
        yield from _line(name, value, doubts.get(name), 4)


def _line(name: str, value: Any, doubt: str | None, indent: int) -> Iterator[str]:
    pad = " " * indent
    if doubt:
        yield from _comment(doubt, indent)
    if isinstance(value, list) and value and isinstance(value[0], dict):
        yield f"{pad}{name}:"
        for item in value:
            yield f"{pad}  - {_flow(item)}"
        return
    yield f"{pad}{name}: {_flow(value)}"


def _key_doubts(made: Proposal) -> list[str]:
    sample = made.found.sample
    if made.key_is_known:
        return []
    if made.key:
        if sample.whole and not made.found.reads_all:
            return [f"key: unique in all {sample.rows:,} rows there are now; is it always?"]
        return [
            f"key: unique in the first {sample.rows:,} rows; of rows that share it the newest stays"
        ]
    unique = [name for name, guess in made.columns.items() if guess.is_unique and sample.rows > 1]
    hint = f" Unique in the sample: {', '.join(unique)}." if unique else ""
    repeated = " and every run appends all rows again" if made.found.reads_all else ""
    no_key = f"no key found: rows are appended, none is ever replaced{repeated}.{hint}"
    return [f"{no_key} With key: [column] and mode: merge the newest row of a key stays."]


def _key(made: Proposal) -> Iterator[str]:
    for doubt in _key_doubts(made):
        yield from _comment(doubt)
    if made.key:
        yield f"key: {_flow(list(made.key))}"
    if made.never_null:
        listed = ", ".join(name for name in made.never_null if name not in made.key)
        if listed:
            yield from _comment(f"Never NULL in the sample; nullable: false refuses NULL: {listed}")


def _columns(made: Proposal) -> Iterator[str]:
    yield "columns:"
    width = max(map(len, made.columns)) + 1
    for name, guess in made.columns.items():
        for doubt in guess.doubts:
            yield from _comment(doubt, 2)
        yield f"  {f'{name}:':<{width}} {_flow(made.column(name))}"


def _comment(text: str, indent: int = 0) -> list[str]:
    pad = " " * indent
    printable = "".join(c if c.isprintable() else "?" for c in text)
    return [f"{pad}# {line}" for line in wrap(printable, WIDTH - indent, break_long_words=False)]


def _flow(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_scalar(k)}: {_flow(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return _scalar(value)


def _scalar(value: Any) -> str:
    if not isinstance(value, str):
        return json.dumps(value)
    if _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
        return value
    return json.dumps(value, ensure_ascii=not value.isprintable())
