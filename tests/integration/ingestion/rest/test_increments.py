"""What a run asks for: windows of time, what changed since the mark, what is not known yet."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tasks.model.errors import ConfigError, SourceUnavailable
from tasks.model.request import SourceState, Window
from tests.integration.ingestion.rest.support import NOW, Api
from tests.misbehaving_http import Asked, Reply, data

MARKED = {"param": "since", "field": "changed", "start": "2013-01-01T00:00:00Z", "lookback": "1h"}


def changed(*records: tuple[int, Any]) -> Reply:
    body = {"data": [{"id": number, "changed": value} for number, value in records]}
    return Reply(200, json.dumps(body).encode())


def left(api: Api, connector: Any, state: SourceState) -> dict[str, Any]:
    """Read what is planned; return the state that the ledger would keep."""
    [partition] = connector.plan(state)
    merged = dict(partition.state)
    for raw in connector.read(partition):
        if raw.state is not None:
            merged |= raw.state
    return merged


def test_mark_is_the_largest_value_and_the_next_run_looks_back(api: Api) -> None:
    api.answer = lambda _asked, _n: changed(
        (1, "2013-02-01T10:00:00Z"), (2, "2013-02-02T12:00:00+02:00"), (3, "2013-02-01T11:00:00Z")
    )
    state = left(api, api.connector(incremental=MARKED), SourceState())
    assert api.asked[-1].query["since"] == "2013-01-01T00:00:00Z"
    assert state["mark"] == "2013-02-02T10:00:00+00:00"
    left(api, api.connector(incremental=MARKED), SourceState(latest=state))
    assert api.asked[-1].query["since"] == "2013-02-02T09:00:00Z"


def test_run_without_records_keeps_the_mark(api: Api) -> None:
    api.answer = lambda _asked, _n: data()
    known = {"field": "changed", "mark": "2013-02-02T10:00:00+00:00"}
    assert left(api, api.connector(incremental=MARKED), SourceState(latest=known)) == known


def test_mark_never_goes_back(api: Api) -> None:
    """B60: the source's clock, or its data, jumped back."""
    api.answer = lambda _asked, _n: changed((1, "2013-01-02T00:00:00Z"))
    known = {"field": "changed", "mark": "2013-02-02T10:00:00+00:00"}
    state = left(api, api.connector(incremental=MARKED), SourceState(latest=known))
    assert state["mark"] == known["mark"]


def test_value_of_the_future_or_none_is_loaded_and_moves_nothing(api: Api) -> None:
    """B60: one row with the year 9999 must not hide all that follow."""
    future = (NOW + timedelta(days=30)).isoformat()
    api.answer = lambda _asked, _n: changed(
        (1, "2013-02-01T10:00:00Z"), (2, future), (3, None), (4, "soon")
    )
    connector = api.connector(incremental=MARKED)
    assert api.ids(connector) == ["1", "2", "3", "4"]
    assert left(api, connector, SourceState())["mark"] == "2013-02-01T10:00:00+00:00"


def test_numbers_are_compared_as_numbers(api: Api) -> None:
    api.answer = lambda _asked, _n: changed((1, 9), (2, 10), (3, "11"))
    marked = {**MARKED, "type": "number", "start": 0, "lookback": "2"}
    state = left(api, api.connector(incremental=marked), SourceState())
    assert api.asked[-1].query["since"] == "0"
    assert state["mark"] == "11"
    left(api, api.connector(incremental=marked), SourceState(latest=state))
    assert api.asked[-1].query["since"] == "9"


def test_mark_of_another_field_is_not_used(api: Api) -> None:
    api.answer = lambda _asked, _n: data()
    known = {"field": "created", "mark": "2013-02-02T10:00:00+00:00"}
    left(api, api.connector(incremental=MARKED), SourceState(latest=known))
    assert api.asked[-1].query["since"] == "2013-01-01T00:00:00Z"


WINDOWS = {"start": "2013-01-01", "end": "2013-01-11", "every": "day"}


def test_windows_are_partitions_and_a_backfill_takes_those_it_touches(api: Api) -> None:
    api.answer = lambda asked, _n: data(asked.query["from"])
    connector = api.connector(windows=WINDOWS)
    assert len(connector.plan(SourceState())) == 10
    span = Window(start=datetime(2013, 1, 3, 12, tzinfo=UTC), end=datetime(2013, 1, 5, tzinfo=UTC))
    planned = connector.plan(SourceState(window=span))
    assert [partition.slice["from"][:10] for partition in planned] == ["2013-01-03", "2013-01-04"]
    assert all(partition.state == {} for partition in planned)
    known = frozenset({planned[0].fingerprint})
    again = connector.plan(SourceState(window=span, fingerprints=known))
    assert [partition.fingerprint for partition in again] == [planned[1].fingerprint]


def test_window_that_fails_is_read_again_alone(api: Api) -> None:
    def answer(asked: Asked, n: int) -> Reply:
        if asked.query["from"].startswith("2013-01-02") and n < 3:
            return Reply(200, b'{"data": [')
        return data(int(asked.query["from"][8:10]))

    api.answer = answer
    connector = api.connector(windows={**WINDOWS, "end": "2013-01-03"})
    first, second = connector.plan(SourceState())
    rows = [raw.batch.num_rows for part in (first, second) for raw in connector.read(part)]
    assert rows == [1, 1]
    assert [asked.query["from"][:10] for asked in api.asked] == [
        "2013-01-01",
        "2013-01-02",
        "2013-01-02",
    ]


def test_backfill_of_a_source_without_time_says_what_to_declare(api: Api) -> None:
    span = Window(start=datetime(2013, 1, 1, tzinfo=UTC), end=datetime(2013, 1, 5, tzinfo=UTC))
    with pytest.raises(ConfigError, match=r"no span of it can be loaded.*source\.windows"):
        api.connector().plan(SourceState(window=span))


def test_backfill_before_the_source_begins_says_so(api: Api) -> None:
    span = Window(start=datetime(2001, 1, 1, tzinfo=UTC), end=datetime(2002, 1, 1, tzinfo=UTC))
    with pytest.raises(ConfigError, match=r"nothing of the source is between"):
        api.connector(windows=WINDOWS).plan(SourceState(window=span))


class Conditional:
    """A document with a version."""

    def __init__(self, headers: dict[str, str]) -> None:
        self.headers = headers

    def __call__(self, asked: Asked, _n: int) -> Reply:
        known = asked.headers.get("If-None-Match"), asked.headers.get("If-Modified-Since")
        if self.headers.get("ETag", "-") == known[0] or (
            self.headers.get("Last-Modified", "-") == known[1]
        ):
            return Reply(304, b"", self.headers)
        return data(1, headers=self.headers)


@pytest.mark.parametrize(
    "headers",
    [
        {"ETag": '"1"'},
        {
            "Last-Modified": "Tue, 01 Jan 2013 00:00:00 GMT",
            "Date": "Tue, 01 Jan 2013 01:00:00 GMT",
        },
    ],
    ids=["etag", "last-modified"],
)
def test_unchanged_document_is_no_work(api: Api, headers: dict[str, str]) -> None:
    answer = api.answer = Conditional(dict(headers))
    connector = api.connector(conditional=True)
    state = left(api, connector, SourceState())
    assert connector.plan(SourceState(latest=state)) == []
    answer.headers = {**headers, "ETag": '"2"', "Last-Modified": "Tue, 01 Jan 2013 00:30:00 GMT"}
    assert len(connector.plan(SourceState(latest=state))) == 1
    other = api.connector(conditional=True, params={"x": 1})
    assert len(other.plan(SourceState(latest=state))) == 1


def test_document_that_changes_after_it_was_planned_is_not_recorded_as_the_old_one(
    api: Api,
) -> None:
    answer = api.answer = Conditional({"ETag": '"1"'})
    connector = api.connector(conditional=True)
    [partition] = connector.plan(SourceState())
    answer.headers = {"ETag": '"2"'}
    with pytest.raises(SourceUnavailable, match="the answer changed after it was planned"):
        list(connector.read(partition))
