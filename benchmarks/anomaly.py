"""Learned checks on a year of real flights: which injected faults are noticed, and what is cried wolf.

    make bench-anomaly                          about two minutes
    python -m benchmarks.anomaly --tuning       the slices and seeds that thresholds may be chosen by

Some slices of the flights (an airport, a carrier) are datasets, each day of 2013 a partition of them. A
day is judged by the days before it: as it is, and with each fault put into its rows. Which days, and
how much of a fault, is drawn by the seeds. Weekends are left as they are: a check that takes a usual
Saturday for a loss is wrong. Nothing that is printed was seen when the thresholds were chosen.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from demo.nycflights import flight_lines
from tasks.model.anomaly import WATCHED, Anomaly
from tasks.model.profile import Profile
from tasks.quality.detect import History, Observation
from tasks.transformation.profile import profile_clean_rows
from tasks.transformation.row_sample import RowSample
from tasks.transformation.session import duckdb_session

DAYS = 365
FIRST_JUDGED = 60
DAYS_OF_A_SEED = 3
USUAL_EVERY = 6
"""Of the days, one in so many is judged as it is."""
HOUR = 3600.0
ANOMALY = Anomaly(time="time_hour")


@dataclass(frozen=True)
class Experiment:
    """What is judged: slices of the flights, and seeds."""

    slices: tuple[str, ...]
    seeds: range


HELD_OUT = Experiment(("origin = 'EWR'", "origin = 'LGA'", "carrier = 'DL'"), range(100, 103))
TUNING = Experiment(("origin = 'JFK'", "carrier = 'UA'", "carrier = 'B6'"), range(3))

Dice = random.Random


def _thinned(dice: Dice) -> str:
    return f"FROM day WHERE chance < {dice.uniform(0.3, 0.7)}"


def _nulls(dice: Dice) -> str:
    column, share = (
        dice.choice(["tailnum", "dep_delay", "air_time", "dest"]),
        dice.uniform(0.1, 0.4),
    )
    return f"SELECT * REPLACE (CASE WHEN chance > {share} THEN {column} END AS {column}) FROM day"


def _drift(dice: Dice) -> str:
    change = dice.choice(
        [
            f"dep_delay + {dice.randint(15, 40)} AS dep_delay",
            f"CAST(air_time * {dice.uniform(1.25, 1.6)} AS INTEGER) AS air_time",
            f"CAST(distance * {dice.uniform(0.6, 0.8)} AS INTEGER) AS distance",
        ]
    )
    return f"SELECT * REPLACE ({change}) FROM day"


def _new_value(dice: Dice) -> str:
    column = dice.choice(["carrier", "origin", "dest"])
    top = f"(SELECT mode({column}) FROM day)"
    share = dice.uniform(0.6, 1)
    changed = f"CASE WHEN {column} = {top} AND chance < {share} THEN 'XX' ELSE {column} END"
    return f"SELECT * REPLACE ({changed} AS {column}) FROM day"


def _unit(dice: Dice) -> str:
    column = dice.choice(["distance", "air_time", "dep_delay"])
    return f"SELECT * REPLACE ({column} * 1000 AS {column}) FROM day"


def _many_small(dice: Dice) -> str:
    share, late = dice.uniform(0.05, 0.12), dice.randint(4, 10)
    return (
        f"SELECT * REPLACE (CASE WHEN chance > {share} THEN tailnum END AS tailnum, "
        f"CASE WHEN chance < {1 - share} THEN arr_delay + {late} END AS arr_delay, "
        f"dep_delay + {late} AS dep_delay, left(dest, 2) AS dest) FROM day"
    )


FAULTS: dict[str, Callable[[Dice], str]] = {
    "30–70 % of the rows": _thinned,
    "loaded twice": lambda _: "FROM day UNION ALL FROM day",
    "nothing after 14:00": lambda _: "FROM day WHERE hour < 14",
    "10–40 % of a column NULL": _nulls,
    "late by 6–48 hours": lambda _: "FROM day",
    "a distribution drifts": _drift,
    "new most frequent value": _new_value,
    "unit changed, ×1000": _unit,
    "NULL became 0": lambda _: (
        "SELECT * REPLACE (coalesce(dep_delay, 0) AS dep_delay, "
        "coalesce(arr_delay, 0) AS arr_delay, coalesce(air_time, 0) AS air_time) FROM day"
    ),
    "two columns swapped": lambda _: "SELECT * REPLACE (origin AS dest, dest AS origin) FROM day",
    "texts cut short": lambda _: "SELECT * REPLACE (left(tailnum, 4) AS tailnum) FROM day",
    "many small changes": _many_small,
}


class Case(NamedTuple):
    """One partition that is judged."""

    number: int
    fault: str
    profile: str
    lag: float


class Verdict(NamedTuple):
    """What was said of it."""

    slice: str
    number: int
    fault: str
    checks: tuple[str, ...]


def profiled(connection: duckdb.DuckDBPyConnection, rows: str, folder: Path) -> str:
    """Profile rows as the stage does."""
    path = folder / f"{os.getpid()}.parquet"
    found: pa.Table = connection.sql(f"SELECT * EXCLUDE (chance) FROM ({rows})").to_arrow_table()
    pq.write_table(found, path)
    sample = RowSample()
    for batch in found.to_batches():
        sample.add(batch)
    with duckdb_session([str(path)], folder, 256 << 20) as session:
        return profile_clean_rows(session, path, sample.table(), {}).model_dump_json()


def slice_profiles(
    folder: str, which: str, days: range, seeds: range
) -> tuple[list[str], list[Case]]:
    """Profile some days of a slice, and those with faults that the seeds draw."""
    drawn = {seed: _days_of(seed, which) for seed in seeds}
    clean, cases = [], []
    with duckdb.connect(str(Path(folder) / "flights.duckdb"), read_only=True) as connection:
        connection.execute("SET TimeZone = 'UTC'; SET threads = 1")
        for number in days:
            connection.execute(
                f"CREATE OR REPLACE TEMP TABLE day AS SELECT * FROM flights WHERE {which} AND "
                f"make_date(year, month, day) = DATE '2013-01-01' + {number}"
            )
            usual = profiled(connection, "SELECT *, 0 AS chance FROM day", Path(folder))
            clean.append(usual)
            for seed in (seed for seed, chosen in drawn.items() if number in chosen):
                for fault, make in FAULTS.items():
                    dice = Dice(f"{seed} {number} {fault}")
                    rows = make(dice).replace(
                        "FROM day", "FROM (SELECT *, random() AS chance FROM day)"
                    )
                    connection.execute(f"SELECT setseed({dice.random()})").fetchall()
                    is_late = fault.startswith("late")
                    profile = usual if is_late else profiled(connection, rows, Path(folder))
                    late = dice.uniform(6, 48) * HOUR if is_late else 0.0
                    cases.append(Case(number, fault, profile, late))
    return clean, cases


def _days_of(seed: int, which: str) -> list[int]:
    return Dice(f"{seed} {which}").sample(range(FIRST_JUDGED, DAYS), DAYS_OF_A_SEED)


def judged(which: str, profiles: list[str], cases: list[Case]) -> list[Verdict]:
    """Judge the cases of a few days of one slice, each by the days before it."""
    dice = Dice(which)
    start = datetime(2013, 1, 1, 12, tzinfo=UTC)
    days = [
        Observation(
            (start + timedelta(days=number)).timestamp(),
            6 * HOUR + dice.uniform(-1200, 1200),
            Profile.model_validate_json(profile),
        )
        for number, profile in enumerate(profiles)
    ]
    found = []
    for number, of_day in itertools.groupby(cases, key=lambda case: case.number):
        history, day = History(ANOMALY, days[:number]), days[number]
        for case in of_day:
            profile = Profile.model_validate_json(case.profile)
            findings = history.judge(Observation(day.at, (day.lag or 0.0) + case.lag, profile))
            checks = {str(one.metric) for one in findings if one.severity == "warn"}
            found.append(Verdict(which, number, case.fault, tuple(sorted(checks))))
    return found


def verdicts(folder: str, experiment: Experiment) -> Iterator[Verdict]:
    """Judge everything, on all cores."""
    month = 31
    with ProcessPoolExecutor() as pool:
        parts = [
            (which, pool.submit(slice_profiles, folder, which, days, experiment.seeds))
            for which in experiment.slices
            for days in (range(first, min(first + month, DAYS)) for first in range(0, DAYS, month))
        ]
        work = []
        for which, of_slice in itertools.groupby(parts, key=lambda part: part[0]):
            results = [part.result() for _, part in of_slice]
            profiles = [profile for clean, _ in results for profile in clean]
            cases = [case for _, some in results for case in some]
            cases += [
                Case(number, "", profiles[number], 0.0)
                for number in range(FIRST_JUDGED, DAYS)
                if number % USUAL_EVERY == 0
            ]
            cases.sort(key=lambda case: case.number)
            for worker in range(4):
                some = [case for case in cases if case.number % 4 == worker]
                work.append(pool.submit(judged, which, profiles, some))
        for done in work:
            yield from done.result()


def prepare(folder: Path) -> None:
    """Put the flights into a DuckDB file."""
    csv = folder / "flights.csv"
    with csv.open("w") as file:
        file.writelines(f"{line}\n" for line in flight_lines())
    with duckdb.connect(str(folder / "flights.duckdb")) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(f"CREATE TABLE flights AS FROM read_csv('{csv}', nullstr = 'NA')")


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.0%}" if whole else "–"


def show(console: Console, found: list[Verdict]) -> None:
    """Print recall per fault, precision per check, and both over all."""
    faulty = [one for one in found if one.fault]
    usual = [one for one in found if not one.fault]
    cases = Counter(one.fault for one in found)
    noticed = Counter(one.fault for one in found if one.checks)
    by_check = Counter((one.fault, check) for one in found for check in one.checks)
    table = Table(title="days complained of, and the share that each check complains of")
    table.add_column("fault")
    for name in ("days", "noticed", *WATCHED):
        table.add_column(name, justify="right")
    for fault in (*FAULTS, ""):
        shares = [_share(by_check[fault, check], cases[fault]) for check in WATCHED]
        name = fault or "none: false alarms"
        table.add_row(name, str(cases[fault]), _share(noticed[fault], cases[fault]), *shares)
    table.add_section()
    precision, recall = [], []
    for check in WATCHED:
        right = sum(check in one.checks for one in faulty)
        wrong = sum(check in one.checks for one in usual) * len(faulty) / len(usual)
        precision.append(f"{right / (right + wrong):.2f}" if right else "–")
        recall.append(f"{right / len(faulty):.2f}")
    right, wrong = (sum(bool(one.checks) for one in some) for some in (faulty, usual))
    weighted = wrong * len(faulty) / len(usual)
    overall = f"{right / (right + weighted):.2f}"
    table.add_row("precision, as many usual days as faulty", "", overall, *precision)
    table.add_row("recall", "", f"{right / len(faulty):.2f}", *recall)
    console.print(table)
    console.print(f"false alarms on {wrong} of {len(usual)} usual days: {_dates(usual)}")


def _dates(usual: Iterable[Verdict]) -> str:
    alarms = Counter(one.number for one in usual if one.checks)
    start = date(2013, 1, 1)
    return ", ".join(f"{start + timedelta(days=n):%a %d %b}" for n in sorted(alarms))


def main() -> None:
    """Judge the days, and print what was noticed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--tuning", action="store_true", help="the slices and seeds for choosing")
    experiment = TUNING if parser.parse_args().tuning else HELD_OUT
    console = Console(width=120)
    began = time.perf_counter()
    with (
        tempfile.TemporaryDirectory(prefix="dpp-benchmark-") as folder,
        console.status("profiling and judging a year of days"),
    ):
        prepare(Path(folder))
        found = list(verdicts(folder, experiment))
    show(console, found)
    seeds, slices = len(experiment.seeds), len(experiment.slices)
    took = time.perf_counter() - began
    console.print(f"{seeds} seeds, {slices} slices, {len(found)} judgements in {took:.0f} s")


if __name__ == "__main__":
    main()
