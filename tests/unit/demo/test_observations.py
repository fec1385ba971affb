"""What the weather API understands, how it pages, and how moody it is."""

import itertools
import json
from datetime import date, timedelta
from http import HTTPStatus

import pytest

from demo.nycflights import rows
from demo.observations import BadParameterError, Observations, Query, mood, record

DAYS = [date(2013, 1, 1) + timedelta(number) for number in range(365)]


@pytest.fixture(scope="module")
def observations() -> Observations:
    return Observations.load()


def _pages(observations: Observations, text: str) -> list[dict]:
    first = json.loads(observations.page(Query.parse(text)))
    return [first] + [
        json.loads(observations.page(Query.parse(f"{text}&page={page}")))
        for page in range(2, first["pages"] + 1)
    ]


def test_numbers_keep_their_digits_and_na_is_null():
    row = {"origin": "EWR", "wind_speed": "10.357019999999999", "pressure": "1e3", "temp": "NA"}
    assert (
        record(row) == '{"origin":"EWR","wind_speed":10.357019999999999,"pressure":1e3,"temp":null}'
    )


def test_every_observation_is_served_with_the_text_of_the_file(observations):
    """Parsed with numbers as text, the records are the rows of the file."""
    served = [json.loads(text, parse_float=str, parse_int=str) for text in observations.records]
    expected = [
        {name: None if text == "NA" else text for name, text in row.items()}
        for row in rows("weather")
    ]
    by_key = lambda row: (row["time_hour"], row["origin"])  # noqa: E731
    assert served == sorted(expected, key=by_key)


def test_pages_make_up_the_window(observations):
    pages = _pages(observations, "from=2013-01-01&to=2013-02-01")
    assert [len(page["data"]) for page in pages] == [1000, 1000, 211]
    assert [page["page"] for page in pages] == [1, 2, 3]
    assert {(page["pages"], page["total"]) for page in pages} == {(3, 2211)}
    times = [record["time_hour"] for page in pages for record in page["data"]]
    assert times == sorted(times)


def test_next_leads_from_page_to_page(observations):
    pages = _pages(observations, "from=2013-01-01&to=2013-02-01")
    for page, following in itertools.pairwise(pages):
        query = Query.parse(page["next"].partition("?")[2])
        assert json.loads(observations.page(query)) == following
    assert pages[-1]["next"] is None


def test_windows_are_half_open(observations):
    """Hours at the bound belong to the window that begins there, so months add up to the year."""
    months = [f"2013-{month:02}-01" for month in range(1, 13)] + ["2014-01-01"]
    totals = [
        _pages(observations, f"from={start}&to={end}&page_size=5000")[0]["total"]
        for start, end in itertools.pairwise(months)
    ]
    assert sum(totals) == 26_115
    hour = "from=2013-01-01T06:00:00Z&to=2013-01-01T07:00:00Z"
    assert {r["time_hour"] for r in _pages(observations, hour)[0]["data"]} == {
        "2013-01-01T06:00:00Z"
    }


@pytest.mark.parametrize(
    "text",
    [
        "from=2014-06-01&to=2014-07-01",  # after the year
        "from=2013-05-01&to=2013-05-01",  # no hour lies in it
        "from=2013-01-01&to=2013-01-01T06:00:00Z",  # before the first hour
    ],
)
def test_an_empty_window_has_no_pages(observations, text):
    page = json.loads(observations.page(Query.parse(text)))
    assert page == {"data": [], "page": 1, "pages": 0, "total": 0, "next": None}


def test_a_page_after_the_last_is_empty(observations):
    page = json.loads(observations.page(Query.parse("from=2013-01-01&to=2013-01-02&page=9")))
    assert (page["data"], page["next"]) == ([], None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("from=yesterday", "from is a day"),
        ("from=2013-13-45", "from is a day"),  # shaped like a day, but none
        ("to=2013-02-30", "to is a day"),
        ("from=", "from is a day"),  # blank is not the same as missing
        ("from=2013-01-01T00:00:00%2B02:00", "from is a day"),  # only UTC
        ("from=2013-03-01&to=2013-02-01", "from is after to"),
        ("page=0", "page is a whole number"),
        ("page=-1", "page is a whole number"),
        ("page=%C2%B2", "page is a whole number"),  # a digit to isdigit, not to int
        ("page=99999999999999999999", "page is a whole number"),
        ("page_size=0", "page_size is a whole number"),
        ("page_size=5001", "at most 5000"),
        ("form=2013-01-01", "unknown parameter form"),  # a typo must not serve the whole year
    ],
)
def test_a_bad_parameter_is_named(text, message):
    with pytest.raises(BadParameterError, match=message):
        Query.parse(text)


def test_a_page_is_refused_once_at_most(observations):
    """Of the pages of all days, about 6 % are refused with 429 and 6 % with 503; then all are served."""
    api = Observations(observations.times, observations.records)
    queries = [Query.parse(f"from={day}&to={day + timedelta(1)}") for day in DAYS]
    first = [api.admit(query) for query in queries]
    assert 10 <= first.count(HTTPStatus.TOO_MANY_REQUESTS) <= 35
    assert 10 <= first.count(HTTPStatus.SERVICE_UNAVAILABLE) <= 35
    assert {api.admit(query) for query in queries} == {HTTPStatus.OK}
    refused = len(DAYS) - first.count(HTTPStatus.OK)
    assert api.health() == {
        "status": "ok",
        "served": 2 * len(DAYS) - refused,
        "throttled": first.count(HTTPStatus.TOO_MANY_REQUESTS),
        "unavailable": first.count(HTTPStatus.SERVICE_UNAVAILABLE),
    }


def test_the_mood_depends_on_the_window_and_page_only():
    """However a window is written, and whatever the size of a page, its mood is the same, always."""
    days = Query.parse("from=2013-03-01&to=2013-04-01&page=2")
    times = Query.parse("page_size=10&page=2&to=2013-04-01T00:00:00Z&from=2013-03-01T00:00:00")
    assert days.identity == times.identity
    assert mood(days.identity) == mood(times.identity)
    moody = [str(day) for day in DAYS if mood(f"{day} x 1") != HTTPStatus.OK]
    assert moody == [str(day) for day in DAYS if mood(f"{day} x 1") != HTTPStatus.OK]


@pytest.mark.parametrize("status", [HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE])
def test_the_months_of_the_demo_meet_both_moods(status):
    """A run of datasets/weather.yaml, months in pages of 1000, is throttled and refused at least once."""
    months = [f"2013-{month:02}-01" for month in range(1, 13)] + ["2014-01-01"]
    moods = [
        mood(Query.parse(f"from={start}&to={end}&page={page}").identity)
        for start, end in itertools.pairwise(months)
        for page in (1, 2, 3)
    ]
    assert status in moods
