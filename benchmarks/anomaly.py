"""Learned checks on a year of real flights: which injected faults are noticed, and what is cried wolf.

    python -m benchmarks.anomaly            about three minutes
    python -m benchmarks.anomaly --every 30

Each day of 2013 is a partition. A day is judged by the days before it, as it is and with each fault put
into its rows. Precision is the share of faulty days among those that were complained of, recall the
share of faulty days that were.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
from rich.console import Console
from rich.progress import track
from rich.table import Table

from demo.nycflights import flight_lines
from tasks.model.anomaly import WATCHED, Anomaly
from tasks.model.profile import Profile
from tasks.quality.detect import Observation, judge
from tasks.transformation.profile import profile_clean_rows

FIRST_JUDGED = 60
DICE = "hash(flight, carrier, sched_dep_time, origin)"
FAULTS = {
    "half of the rows": f"SELECT * FROM day WHERE {DICE} % 2 = 0",
    "every row twice": "FROM day UNION ALL FROM day",
    "a quarter of tail numbers NULL": f"SELECT * REPLACE (CASE WHEN {DICE} % 4 > 0 THEN tailnum END "
    "AS tailnum) FROM day",
    "distances in kilometres": "SELECT * REPLACE (CAST(distance * 1.609 AS INTEGER) AS distance) "
    "FROM day",
    "delays in seconds": "SELECT * REPLACE (dep_delay * 60 AS dep_delay, arr_delay * 60 AS arr_delay) "
    "FROM day",
    "one airport missing": "SELECT * FROM day WHERE origin <> 'LGA'",
    "one carrier renamed": "SELECT * REPLACE (CASE carrier WHEN 'UA' THEN 'XX' ELSE carrier END "
    "AS carrier) FROM day",
    "columns swapped": "SELECT * REPLACE (origin AS dest, dest AS origin) FROM day",
    "a day late": "FROM day",
}
DAY = 86_400.0
ANOMALY = Anomaly(time="time_hour")


def profiles(folder: Path, every: int) -> Iterator[tuple[int, dict[str, Profile]]]:
    """Yield each day's profile, and for some days those with faults."""
    csv = folder / "flights.csv"
    with csv.open("w") as file:
        file.writelines(f"{line}\n" for line in flight_lines())
    with duckdb.connect(":memory:") as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(
            "CREATE TABLE flights AS SELECT *, make_date(year, month, day) AS on_day "
            f"FROM read_csv('{csv}', nullstr = 'NA')"
        )
        for number in track(range(365), "profiling a year"):
            chosen = number >= FIRST_JUDGED and number % every == 0
            found = {}
            connection.execute(
                "CREATE OR REPLACE TEMP TABLE day AS SELECT * EXCLUDE (on_day) FROM flights "
                "WHERE on_day = DATE '2013-01-01' + CAST(? AS INTEGER)",
                [number],
            )
            for name, fault in {"": "FROM day", **(FAULTS if chosen else {})}.items():
                path = folder / "day.parquet"
                connection.execute(f"COPY ({fault}) TO '{path}'")
                found[name] = profile_clean_rows(path, {}, folder, memory_bytes=256 << 20)
            yield number, found


def judged(folder: Path, every: int) -> Iterator[tuple[str, set[str]]]:
    """Yield, for each case, its fault ('' for none) and the checks that complained."""
    dice = random.Random(7)
    start = datetime(2013, 1, 1, 12, tzinfo=UTC)
    history: list[Observation] = []
    for number, found in profiles(folder, every):
        at = (start + timedelta(days=number)).timestamp()
        lag = 6 * 3600 + dice.uniform(-1200, 1200)
        if number >= FIRST_JUDGED:
            for fault, profile in found.items():
                if not fault and number % 2:
                    continue  # half of the usual days say enough
                late = DAY if fault == "a day late" else 0.0
                findings = judge(ANOMALY, history, Observation(at, lag + late, profile))
                yield fault, {str(one.metric) for one in findings if one.severity == "warn"}
        history.append(Observation(at, lag, found[""]))


def main() -> None:
    """Judge the days, and print what was noticed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--every", type=int, default=10, help="put faults into every n-th day")
    given = parser.parse_args()
    cases: Counter[str] = Counter()
    noticed: Counter[str] = Counter()
    by_check: Counter[tuple[str, str]] = Counter()
    with tempfile.TemporaryDirectory(prefix="dpp-benchmark-") as folder:
        for fault, checks in judged(Path(folder), given.every):
            cases[fault] += 1
            noticed[fault] += bool(checks)
            by_check.update((fault, check) for check in checks)
    table = Table(title="days complained of, and by which checks")
    table.add_column("fault")
    for name in ("days", "noticed", *WATCHED):
        table.add_column(name, justify="right")
    for fault in (*FAULTS, ""):
        counts: list[Any] = [cases[fault], f"{noticed[fault] / max(cases[fault], 1):.0%}"]
        counts += [by_check[fault, check] or "–" for check in WATCHED]
        table.add_row(fault or "none: false alarms", *map(str, counts))
    console = Console(width=120)
    console.print(table)
    right = sum(noticed[fault] for fault in FAULTS)
    total = sum(cases[fault] for fault in FAULTS)
    console.print(
        f"precision {right / max(right + noticed[''], 1):.3f}, recall {right / max(total, 1):.3f}, "
        f"false alarms on {noticed[''] / max(cases[''], 1):.1%} of {cases['']} usual days"
    )


if __name__ == "__main__":
    main()
