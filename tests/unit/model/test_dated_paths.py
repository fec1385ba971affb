"""A path tells the time of its content, exactly as it is declared."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tasks.model.dated_paths import DatedPath


def at(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("pattern", "path", "span"),
    [
        ("in/{date:%Y-%m-%d}/*.csv", "in/2013-02-28/a.csv", (at(2013, 2, 28), at(2013, 3, 1))),
        ("in/{date:%Y-%m-%d}/*.csv", "in/2013-02-30/a.csv", None),
        ("in/{date:%Y-%m-%d}/*.csv", "in/2013-02-28/b/a.csv", None),
        (
            "in/**/{date:%Y%m%d%H}.gz",
            "in/x/y/2013123123.gz",
            (at(2013, 12, 31, 23), at(2014, 1, 1)),
        ),
        ("{date:%Y}/{date:%m}/?.csv", "2013/12/a.csv", (at(2013, 12, 1), at(2014, 1, 1))),
        ("{date:%Y}.csv", "2016.csv", (at(2016, 1, 1), at(2017, 1, 1))),
        ("{date:%Y}-{date:%j}[ab].csv", "2016-366b.csv", (at(2016, 12, 31), at(2017, 1, 1))),
        ("a.csv", "a.csv", None),
    ],
)
def test_path_tells_its_time(pattern: str, path: str, span: object) -> None:
    assert DatedPath.parse(pattern).span(path) == span


@pytest.mark.parametrize(
    "pattern", ["{date}", "{date:%y-%m-%d}", "{date:%m-%d}", "{date:%B %Y}", "{date:}", "{date:%Y"]
)
def test_date_that_is_not_clear_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="date"):
        DatedPath.parse(pattern)


def test_windows_take_what_overlaps_them() -> None:
    pattern = DatedPath.parse("{date:%Y-%m-%d}")
    days = [f"2013-01-0{day}" for day in range(1, 6)]
    taken = [day for day in days if pattern.overlaps(day, at(2013, 1, 2, 12), at(2013, 1, 4))]
    assert taken == ["2013-01-02", "2013-01-03"]
