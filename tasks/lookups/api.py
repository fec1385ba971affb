"""Asks an API for the keys that a partition has: many at once, and each only once until it expires."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote

from tasks.ingestion.connector import PlanLimits, RawBatch
from tasks.ingestion.http.reader import ApiReader
from tasks.ingestion.json_batches import RecordBatcher
from tasks.ingestion.json_select import records_at
from tasks.json_records import Flattener, RefusedRecordError, record_texts
from tasks.lookups.answers import Answers
from tasks.model.errors import ContractBroken, SourceUnavailable
from tasks.model.lookup import LookupApi
from tasks.model.partition import Partition
from tasks.model.request import SourceState
from tasks.model.value import json_digest

KEYS_TOGETHER = 5000
"""Keys that are looked for among the kept answers at once; bounds memory."""
NOT_FOUND = frozenset({404})

Fields = Mapping[str, str | None]


def request_of(api: LookupApi) -> str:
    """Return a hash of all that decides an answer, beside the key."""
    asked = api.model_dump(mode="json", exclude={"batch", "expires", "allow_hosts"})
    return json_digest(asked)


class LookupApiConnector:
    """Reads the records of some keys.

    Args:
        lookup: Name of the lookup, for messages.
        api: Its declaration.
        key: Field of the records that holds the key.
        keys: The keys, each once.
        reader: Asks the API.
        answers: What was answered before.
        limits: Bounds of values.
    """

    def __init__(
        self,
        lookup: str,
        api: LookupApi,
        key: str,
        keys: Iterable[str],
        reader: ApiReader,
        answers: Answers,
        limits: PlanLimits,
    ) -> None:
        self._lookup = lookup
        self._api = api
        self._key = key
        self._keys = keys
        self._reader = reader
        self._answers = answers
        self._limits = limits
        self._flattener = Flattener(api.flatten) if api.flatten else None

    def plan(self, state: SourceState) -> list[Partition]:  # noqa: ARG002 - nothing is kept of it
        """Return the one piece of work."""
        return [Partition(dataset=self._lookup, label=self._lookup)]

    def read(self, partition: Partition) -> Iterator[RawBatch]:  # noqa: ARG002 - there is one
        """Stream the records of the keys, in their order.

        Raises:
            SourceUnavailable: The API does not answer.
            ContractBroken: It answers something else than what it was asked for.
        """
        self._answers.forget_expired()
        batcher = RecordBatcher(f"rest:{self._api.block}/{self._api.path}", self._limits)
        for keys in _batched(self._keys, KEYS_TOGETHER):
            found = self._answers.known(keys)
            unknown = [key for key in keys if key not in found]
            for asked in _batched(unknown, self._api.batch if self._api.param else 1):
                answers = self._ask(asked)
                self._answers.keep(answers)
                found.update(answers)
            for key in keys:
                answer = found[key]
                if answer is not None and (made := batcher.add(json.loads(answer))):
                    yield made
        if left := batcher.flush():
            yield left

    def _ask(self, keys: tuple[str, ...]) -> dict[str, str | None]:
        answers: dict[str, str | None] = dict.fromkeys(keys)
        for fields in self._records(keys):
            key = fields.get(self._key)
            if key not in answers:
                said = "no " + self._key if key is None else "one that was not asked for"
                raise ContractBroken(
                    f"lookup {self._lookup}: the API answers a record with {said}",
                    f"correct {'param' if self._api.param else 'path'}, or the 'source' of the column "
                    "that it is looked up by",
                )
            if answers[key] is not None:
                raise ContractBroken(
                    f"lookup {self._lookup}: the API answers several records with one {self._key}, "
                    "so it cannot be told which one is meant"
                )
            answers[key] = json.dumps(fields)
        return answers

    def _records(self, keys: tuple[str, ...]) -> Iterator[Fields]:
        path, params = self._api.path, dict(self._api.params)
        if self._api.param:
            params[self._api.param] = self._api.separator.join(keys)
        else:
            path = path.replace("{key}", quote(keys[0], safe=""))
        answer = self._reader.get_if_there(path, params, absent=NOT_FOUND)
        if answer is None:
            return
        body = answer.body
        records = records_at(body, self._api.records)
        alone = self._api.param is None
        if alone and self._api.records is None and isinstance(body, dict):
            records = [body]
        if records is None:
            where = self._api.records or "the top of the answer"
            raise SourceUnavailable(
                f"lookup {self._lookup}: no list of records at {where}; {answer.shape}",
                "correct 'records' in the dataset file, if it is not the server that fails",
            )
        for record in records:
            fields = self._texts(record)
            yield {**fields, self._key: keys[0]} if alone and self._key not in fields else fields

    def _texts(self, record: Any) -> dict[str, str | None]:
        try:
            return record_texts(record, self._flattener)
        except RefusedRecordError as error:
            raise ContractBroken(f"lookup {self._lookup}: a record of the API: {error}") from None


def _batched(items: Iterable[str], size: int) -> Iterator[tuple[str, ...]]:
    gathered: list[str] = []
    for item in items:
        gathered.append(item)
        if len(gathered) == size:
            yield tuple(gathered)
            gathered = []
    if gathered:
        yield tuple(gathered)
