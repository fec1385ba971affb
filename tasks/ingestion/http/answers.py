"""An answer is believed only when it is whole and of the declared kind; what it is not is said."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable
from datetime import datetime
from functools import cached_property
from typing import Any

import httpx
import msgspec

from tasks.ingestion.http.waiting import retry_after_seconds
from tasks.ingestion.json_array import taken_apart
from tasks.json_records import parse_json
from tasks.model.classify import classify_status
from tasks.model.errors import PipelineError, SourceRejected, SourceUnavailable

MAX_BODY_BYTES = 256 << 20
KEYS_SHOWN = 20
SHOWN = 200
"""Characters of a server's message that are shown."""

_JSON_TYPE = re.compile(
    r"(application|text)/(json|[\w.+-]+\+json|(x-)?javascript|plain)|application/octet-stream"
)

Redacted = Callable[[str], str]


class Answer:
    """A JSON document, and where it came from.

    Args:
        response: The answer.
        content: Its body, which is JSON.
        redacted: Takes credentials out of a text.
        is_strict: A strict parser has read it; else only ``parse_json`` has, which lets ``NaN`` pass.

    Attributes:
        url: The URL that was asked in the end; it may hold a key, so it is never shown.
        links: URLs of the ``Link`` header by relation.
        headers: All headers.
    """

    def __init__(
        self, response: httpx.Response, content: bytes, redacted: Redacted, *, is_strict: bool
    ) -> None:
        self.url: httpx.URL = response.url
        self.headers: httpx.Headers = response.headers
        self.links = {
            name: str(link.get("url", "")) for name, link in response.links.items() if name
        }
        self._content = content
        self._redacted = redacted
        self._is_strict = is_strict

    @cached_property
    def body(self) -> Any:
        """The parsed document; without its records, if those were taken out."""
        return parse_json(self._content.decode())

    @property
    def shape(self) -> str:
        """What the document is, without values of records, for messages."""
        return _shape(self.body, self._redacted)

    def take_records(self, path: str | None, most: int) -> list[bytes] | None:
        """Take the texts of the records out, which is faster than to parse them.

        Args:
            path: Where they are.
            most: Longest record, in bytes.

        Returns:
            None if that cannot be done for certain; ``body`` has them then.
        """
        found = taken_apart(self._content, "", path, most) if self._is_strict else None
        if found is None:
            return None
        texts, self._content = found
        return texts


def bounded_body(response: httpx.Response, where: str) -> bytes:
    """Read the body, decompressed.

    Raises:
        SourceRejected: It is too large.
    """
    pieces = bytearray()
    for piece in response.iter_bytes():
        pieces += piece
        if len(pieces) > MAX_BODY_BYTES:
            raise SourceRejected(
                f"{where}: the answer is larger than {MAX_BODY_BYTES >> 20} MB",
                "ask for smaller pages or windows",
            )
    return bytes(pieces)


def document(
    response: httpx.Response, content: bytes, where: str, expected: str | None, redacted: Redacted
) -> Answer:
    """Parse an answer.

    Args:
        response: The answer, read.
        content: Its body, decompressed.
        where: Method and address, for messages.
        expected: Content type that is taken for JSON beside the usual ones.
        redacted: Takes credentials out of a text.

    Raises:
        SourceUnavailable: It is no JSON document; a page of a proxy, say.
    """
    if not content.strip():
        raise SourceUnavailable(f"{where}: empty answer")
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    beginning = _beginning(content, redacted)
    if kind and not _JSON_TYPE.fullmatch(kind) and kind != expected:
        raise SourceUnavailable(
            f"{where}: expected JSON, got {kind}: {beginning!r}",
            "if the API calls its JSON so, set source.content_type",
        )
    content = content.removeprefix(codecs.BOM_UTF8)
    try:
        text = content.decode()
        is_strict = _is_strict(content)
        if not is_strict:
            parse_json(text)
    except ValueError:
        raise SourceUnavailable(f"{where}: expected JSON, got: {beginning!r}") from None
    return Answer(response, content, redacted, is_strict=is_strict)


def _is_strict(content: bytes) -> bool:
    """Tell whether a document is JSON without any of the liberties that Python's parser takes."""
    try:
        msgspec.json.decode(content, type=msgspec.Raw)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def refusal(
    response: httpx.Response, content: bytes, where: str, now: datetime, redacted: Redacted
) -> PipelineError:
    """Say what an answer that is no success means."""
    said = _said(content, redacted)
    error = classify_status(response.status_code, where, said)
    if isinstance(error, SourceUnavailable):
        error.retry_after = retry_after_seconds(response.headers.get("Retry-After"), now)
    return error


def _said(content: bytes, redacted: Redacted) -> str:
    """Return what the server says about a refusal: its message, else the beginning of the body."""
    try:
        body = parse_json(content.decode())
    except ValueError:
        body = None
    return _message(body, redacted) or _beginning(content, redacted)


def _message(body: Any, redacted: Redacted) -> str | None:
    for key in ("message", "error_description", "error", "detail", "title"):
        said = body.get(key) if isinstance(body, dict) else None
        if isinstance(said, dict):
            said = said.get("message")
        if isinstance(said, str):
            return _beginning(said.encode("utf-8", "replace"), redacted)
    return None


def _shape(body: Any, redacted: Redacted) -> str:
    """Describe a document: what the server says is wrong, else its keys; it may hold records."""
    if message := _message(body, redacted):
        return f"the server says {message!r}"
    if isinstance(body, dict):
        keys = ", ".join(map(str, list(body)[:KEYS_SHOWN]))
        return f"its keys are {keys[:SHOWN]}" if body else "it is an empty object"
    return "it is a list" if isinstance(body, list) else "it is a single value"


def _beginning(content: bytes, redacted: Redacted) -> str:
    """Return the beginning of a text, without credentials and without queries of URLs."""
    text = redacted(content[: SHOWN * 50].decode("utf-8", "replace"))
    return re.sub(r"\?[^\s\"'<>]*=[^\s\"'<>]*", "?…", text)[:SHOWN].strip()
