"""Answers of APIs, kept in the warehouse until they expire, so that a key is asked for once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta

from sqlalchemy import Engine, text

_FORGET = text(
    "DELETE FROM etl.lookup_answers WHERE request = :request AND asked_at < now() - :expires"
)
_KNOWN = text(
    "SELECT key, answer FROM etl.lookup_answers "
    "WHERE request = :request AND key = ANY(:keys) AND asked_at >= now() - :expires"
)
_KEEP = text(
    "INSERT INTO etl.lookup_answers (request, key, answer) "
    "SELECT :request, a.key, a.answer "
    "FROM unnest(CAST(:keys AS text[]), CAST(:answers AS text[])) AS a (key, answer) "
    "ORDER BY a.key "  # two workers that keep the same answers wait for each other in one order
    "ON CONFLICT (request, key) DO UPDATE SET answer = excluded.answer, asked_at = now()"
)


class Answers:
    """The answers to one kind of request.

    Args:
        engine: The warehouse.
        request: Hash of all that is asked beside the key.
        expires: How long an answer is good.
    """

    def __init__(self, engine: Engine, request: str, expires: timedelta) -> None:
        self._engine = engine
        self._request = request
        self._expires = expires

    def forget_expired(self) -> None:
        """Remove what is too old."""
        with self._engine.begin() as connection:
            connection.execute(_FORGET, {"request": self._request, "expires": self._expires})

    def known(self, keys: Sequence[str]) -> dict[str, str | None]:
        """Return the answers that are kept: a JSON object for each key, None where there is none."""
        with self._engine.begin() as connection:
            rows = connection.execute(
                _KNOWN, {"request": self._request, "keys": list(keys), "expires": self._expires}
            )
            return {row.key: row.answer for row in rows}

    def keep(self, answers: Mapping[str, str | None]) -> None:
        """Keep answers from now on."""
        if not answers:
            return
        with self._engine.begin() as connection:
            connection.execute(
                _KEEP,
                {
                    "request": self._request,
                    "keys": list(answers),
                    "answers": list(answers.values()),
                },
            )
