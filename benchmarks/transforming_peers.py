"""The peers' side of ``benchmarks/transformation.py``: run by the interpreter that has them installed.

Each function does to the raw flights what the dataset of ``flights_job.py`` declares, in the way that
the peer's own documentation shows, and leaves ``clean/all.parquet`` and ``refused.parquet``. Whether
they agree on every value is checked by who starts them.
"""

from __future__ import annotations

import json
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.process import peak_memory

WHOLE = {
    "year": None,
    "month": None,
    "day": None,
    "dep_time": (0, 2359),
    "sched_dep_time": None,
    "arr_time": (0, 2359),
    "sched_arr_time": None,
    "flight": (1, 9999),
    "air_time": (1, 1500),
    "distance": (1, 20000),
    "hour": None,
    "minute": None,
}
"""Columns that become integers, with their bounds."""
DELAYS = {"dep_delay": (-120, 3000), "arr_delay": None}
MOMENTS = ("time_hour", "updated_at")
REQUIRED = (
    *("year", "month", "day", "sched_dep_time", "sched_arr_time", "carrier", "flight", "origin"),
    *("dest", "distance", "hour", "minute", "time_hour", "updated_at"),
)
KEY = ["time_hour", "carrier", "flight", "origin"]
ORIGIN = ["_source_uri", "_source_row"]


def pandas(job: dict[str, Any], out: Path) -> dict[str, int]:
    import pandas as pd

    raw = pd.read_parquet(job["raw"])
    rows = raw.copy()
    broken: dict[str, Any] = {}

    rows["carrier"] = rows["carrier"].str.strip().str.upper()
    tailnum = rows["tailnum"].str.strip()
    rows["tailnum"] = tailnum.mask(tailnum.isin(["", "UNKNOWN"]))
    for name, bounds in WHOLE.items():
        number = pd.to_numeric(rows[name], errors="coerce")
        broken[f"{name} type"] = rows[name].notna() & (number.isna() | (number % 1 != 0))
        if bounds:
            broken[f"{name} between"] = number.notna() & ~number.between(*bounds)
        rows[name] = number.where(number % 1 == 0).astype("Int32")
    for name, bounds in DELAYS.items():
        number = pd.to_numeric(rows[name], errors="coerce")
        exact = number.round(1) == number
        broken[f"{name} type"] = rows[name].notna() & ~exact
        if bounds:
            broken[f"{name} between"] = exact & ~number.between(*bounds)
        rows[name] = number.where(exact)
    for name in MOMENTS:
        moment = pd.to_datetime(rows[name], format="%Y-%m-%dT%H:%M:%SZ", errors="coerce", utc=True)
        broken[f"{name} type"] = rows[name].notna() & moment.isna()
        rows[name] = moment
    for name in REQUIRED:
        broken[f"{name} required"] = raw[name].isna()
    for name, form in (("carrier", "[0-9A-Z]{2}"), ("dest", "[A-Z]{3}")):
        broken[f"{name} pattern"] = ~rows[name].str.fullmatch(form).fillna(True).astype(bool)
    broken["origin one_of"] = rows["origin"].notna() & ~rows["origin"].isin(["EWR", "JFK", "LGA"])
    broken["delays_agree"] = (rows["arr_delay"] - rows["dep_delay"]).abs() > 300

    reasons = pd.Series("", index=rows.index)
    for name, mask in broken.items():
        if mask.any():
            reasons[mask] += name + ";"
    bad = reasons != ""
    raw[bad].assign(reasons=reasons[bad]).to_parquet(out / "refused.parquet")
    del raw

    rows = rows[~bad]
    bookings = pd.read_parquet(job["lookup"])
    rows = rows.merge(bookings, on=KEY, how="left")
    newest = rows.sort_values(["updated_at", *ORIGIN]).drop_duplicates(KEY, keep="last")
    newest.to_parquet(out / "clean" / "all.parquet", compression="zstd", index=False)
    return {"refused": int(bad.sum()), "duplicates": len(rows) - len(newest)}


def polars(job: dict[str, Any], out: Path) -> dict[str, int]:
    import polars as pl

    raw = pl.scan_parquet(job["raw"])
    text = {name: f"{name} text" for name in (*WHOLE, *DELAYS, *MOMENTS)}
    broken: dict[str, Any] = {}
    made = [pl.col("carrier").str.strip_chars().str.to_uppercase()]
    tailnum = pl.col("tailnum").str.strip_chars()
    made.append(pl.when(~tailnum.is_in(["", "UNKNOWN"])).then(tailnum).alias("tailnum"))
    made += [pl.col(name).alias(kept) for name, kept in text.items()]
    made += [pl.col(name).cast(pl.Int32, strict=False) for name in WHOLE]
    for name in DELAYS:
        exact = pl.col(name).str.contains(r"^[+-]?[0-9]+(\.[0-9]?0*)?$")
        number = pl.col(name).cast(pl.Decimal(6, 1), strict=False)
        made.append(pl.when(exact).then(number).alias(name))
    made += [
        pl.col(name).str.to_datetime("%Y-%m-%dT%H:%M:%SZ", strict=False, time_zone="UTC")
        for name in MOMENTS
    ]
    for name, kept in text.items():
        broken[f"{name} type"] = pl.col(kept).is_not_null() & pl.col(name).is_null()
    for name, bounds in (WHOLE | DELAYS).items():
        if bounds:
            broken[f"{name} between"] = ~pl.col(name).is_between(*bounds)
    for name in REQUIRED:
        broken[f"{name} required"] = pl.col(text.get(name, name)).is_null()
    broken["carrier pattern"] = ~pl.col("carrier").str.contains("^[0-9A-Z]{2}$")
    broken["dest pattern"] = ~pl.col("dest").str.contains("^[A-Z]{3}$")
    broken["origin one_of"] = ~pl.col("origin").is_in(["EWR", "JFK", "LGA"])
    broken["delays_agree"] = (pl.col("arr_delay") - pl.col("dep_delay")).abs() > 300

    reasons = pl.concat_str(
        [pl.when(mask).then(pl.lit(f"{name};")) for name, mask in broken.items()],
        ignore_nulls=True,
    ).alias("reasons")
    judged = raw.with_columns(made).with_columns(reasons)
    is_bad = pl.col("reasons") != ""
    refused = judged.filter(is_bad).with_columns(
        [pl.col(kept).alias(name) for name, kept in text.items()]
    )
    refused = refused.drop(list(text.values()))

    clean = judged.filter(~is_bad).drop([*text.values(), "reasons"])
    joined = clean.join(pl.scan_parquet(job["lookup"]), on=KEY, how="left")
    newest = joined.sort(["updated_at", *ORIGIN]).unique(KEY, keep="last", maintain_order=True)
    bad, good = pl.collect_all([refused, newest], engine="in-memory")
    bad.write_parquet(out / "refused.parquet")
    good.write_parquet(out / "clean" / "all.parquet", compression="zstd")
    return {"refused": bad.height, "duplicates": job["rows"] - bad.height - good.height}


def main() -> None:
    """Run one contender, and say what it took."""
    name, described, out = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    imported = import_module(name)
    before = peak_memory()
    (out / "clean").mkdir()
    began = time.perf_counter()
    counts = {"pandas": pandas, "polars": polars}[name](json.loads(described), out)
    seconds = time.perf_counter() - began
    print(
        json.dumps(
            {
                **counts,
                "seconds": seconds,
                "before": before,
                "peak": peak_memory(),
                "version": imported.__version__,
            }
        )
    )


if __name__ == "__main__":
    main()
