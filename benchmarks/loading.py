"""Loading, side by side: this project, raw COPY, pandas, ADBC, dlt and sling fill PostgreSQL tables.

    make bench-loading                    a million rows, about seven minutes
    python -m benchmarks.loading --rows 200000 --only ours --only raw

Every contender runs alone in a process of its own, on one server that stays up for all of them. The
clock runs from the Parquet file (of sling: the CSV file) to the committed table, without imports.
Ours stages, checks, publishes and writes its ledger; nobody else validates anything.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from rich.console import Console
from rich.table import Table

from benchmarks.lineitem import lineitem, write_rows
from benchmarks.process import cpu_seconds, peak_memory, run_alone
from benchmarks.warehouse import Bench, warehouse
from tasks.loading.session import session

CONTENDERS = {
    "append": (
        "ours", "adbc_append", "dlt_append_tuned", "dlt_append", "sling_append",
        "pandas_append",
    ),
    "merge": ("ours", "dlt_upsert_tuned", "dlt_merge_tuned", "dlt_merge", "sling_merge"),
}  # fmt: skip
TITLES = {
    "append": "append into a new table",
    "merge": "merge: half of the rows are new, half are newer versions of rows that are there",
}
TEMPORARY = "raw: the same, TEMP table"
ROUNDS = 3
"""Of ours in mode append, each beside raw COPY: the machine's speed changes. The median counts."""
LIMITS = {"raw: server-side COPY": "bench", TEMPORARY: "pg_temp"}
"""The schema into which the server copies by itself."""


def prepare_raw(bench: Bench) -> Path:
    """Have the server write a binary file of the rows that ours loaded, and return it."""
    file = bench.folder / "rows.bin"
    columns = ", ".join(lineitem("append", "append").columns)
    bench.run(f"COPY (SELECT {columns} FROM bench.append) TO '{file}' (FORMAT binary)")
    return file


def raw_copy(bench: Bench, file: Path, schema: str) -> dict[str, Any]:
    """Let the server copy a ready-made binary file: the limit of every loader."""
    columns = ", ".join(lineitem("append", "append").columns)
    before = wal(bench)
    with session(bench.engine) as connection, connection.cursor() as cursor:
        cursor.execute(
            f"CREATE TABLE {schema}.raw_copy AS SELECT {columns} FROM bench.append LIMIT 0"
        )
        began = time.perf_counter()
        cursor.execute(f"COPY {schema}.raw_copy FROM '{file}' (FORMAT binary)")
        seconds = time.perf_counter() - began
        rows = cursor.rowcount
        connection.rollback()
    return {
        "rows": rows, "seconds": seconds, "cpu": 0.0, "peak": 0,
        "wal": wal(bench) - before, "version": "PostgreSQL",
    }  # fmt: skip


def wal(bench: Bench) -> int:
    """Return the bytes of WAL that were ever written."""
    return int(bench.run("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn")[0][0])


def run_ours(described: str) -> None:
    """Load one file in this process, and say what it took."""
    from obstore.store import LocalStore

    from blocks.lake import Lake
    from blocks.warehouse import WarehouseCredentials
    from tasks.loading.publish import load_partition

    job = json.loads(described)
    password = SecretStr(job["block"].pop("password"))
    credentials = WarehouseCredentials(**job["block"], password=password)
    root = Path(job["lake"])
    bench = Bench(root, credentials, credentials.get_engine("ours"), Lake(LocalStore(root), root))
    load = bench.load(lineitem(job["mode"], job["table"]), [Path(job["path"])], job["path"])
    at: dict[str, float] = {}
    used = cpu_seconds()
    began = time.perf_counter()
    receipt = load_partition(
        bench.engine, bench.lake, root, load,
        on_step=lambda step: at.setdefault(step, time.perf_counter()) and None,
    )  # fmt: skip
    seconds = time.perf_counter() - began
    used = cpu_seconds() - used
    said = {
        "rows": receipt.counts.read, "seconds": seconds,
        "copy": at["copied"] - at["staged"], "merge": at["merged"] - at["evolved"],
        "cpu": used, "peak": peak_memory(), "version": "this",
    }  # fmt: skip
    print(json.dumps(said))


def measure(bench: Bench, contender: str, job: dict[str, Any], peers: str) -> dict[str, Any]:
    """Run one contender in a process of its own; say what it took, or why it failed."""
    command = [peers, "-m", "benchmarks.loading_peers", contender, json.dumps(job)]
    if contender == "ours":
        command = [sys.executable, "-m", "benchmarks.loading", "--ours", json.dumps(job)]
    before = wal(bench)
    return {**run_alone(command), "wal": wal(bench) - before}


def show(console: Console, mode: str, size: int, found: dict[str, dict[str, Any]]) -> None:
    """Print the table of one mode."""
    table = Table(title=TITLES[mode], title_justify="left")
    table.add_column("")
    headings = ("seconds", "rows/s", "MB/s", "client CPU s", "peak MB", "WAL MB", "time, ours = 1")
    for heading in headings:
        table.add_column(heading, justify="right")
    ours = found.get("ours", {})
    for contender, said in found.items():
        label = contender.replace("_append", "").replace("_", " ")
        if "seconds" not in said:
            table.add_row(label, said["failed"])
            continue
        rate = said["rows"] / said["seconds"]
        cells = [
            f"{said['seconds']:.2f}", f"{rate:,.0f}", f"{rate * size / 1e6:.1f}",
            f"{said['cpu']:.1f}", f"{said['peak'] / 1e6:.0f}", f"{said['wal'] / 1e6:.0f}",
        ]  # fmt: skip
        if "seconds" in ours:
            cells.append(f"{ours['rows'] / ours['seconds'] / rate:.2f}")
        table.add_row(label, *cells)
    console.print(table)
    versions = {said["version"] for said in found.values() if "version" in said}
    console.print(f"[dim]{', '.join(sorted(versions - {'this', 'PostgreSQL'}))}[/]")


def main() -> None:
    """Prepare the rows, run every contender, and print a table for each mode."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--only", action="append", help="these contenders, by their first word")
    parser.add_argument("--peers", default=".venv-peers/bin/python", help="Python that has dlt")
    parser.add_argument("--ours", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.ours:
        run_ours(given.ours)
        return
    console = Console(width=120)
    with warehouse() as bench:
        compare(bench, given.rows, given.only, given.peers, console)


def described(bench: Bench, mode: str, contender: str, number: int, rows: int) -> dict[str, Any]:
    """Write the rows of one load, and describe it.

    Args:
        bench: Where it goes.
        mode: In an append each load has a table of its own; a merge's second one half known keys.
        contender: Who loads.
        number: Which of its loads.
        rows: How many.
    """
    moved = number if mode == "merge" else 0
    path = bench.folder / f"{mode}-{number}.parquet"
    csv = path.with_suffix(".csv")
    for file in (path, csv) if contender.startswith("sling") else (path,):
        write_rows(file, moved * rows // 2, rows, changed=moved)
    return {
        "path": str(path), "csv": str(csv), "rows": rows, "mode": mode,
        "table": f"{mode}_{number}" if number and not moved else mode,
        "lake": str(bench.folder / "lake"), "pipeline": contender,
        "pipelines": str(bench.folder / "pipelines"),
    }  # fmt: skip


@dataclass(frozen=True)
class Run:
    """Contenders on one server.

    Attributes:
        bench: The server.
        rows: Rows of a load.
        peers: Python that has the peers.
        secret: How a process reaches the server.
        url: The same, as a URL.
    """

    bench: Bench
    rows: int
    peers: str
    secret: dict[str, Any]
    url: str

    def load(self, mode: str, contender: str, number: int) -> dict[str, Any]:
        """Have a contender load once."""
        job = described(self.bench, mode, contender, number, self.rows)
        url = self.url
        if contender.startswith("pandas"):
            url = url.replace("postgresql:", "postgresql+psycopg2:")
        return measure(self.bench, contender, {**job, "url": url, "block": self.secret}, self.peers)

    def beside_copy(self, *, raw: bool) -> tuple[dict[str, dict[str, Any]], int]:
        """Append with ours, each time beside what the server does alone.

        Returns:
            What was said of each; and the bytes of a row in the server's own binary file.
        """
        said = defaultdict(list)
        file = None
        for number in range(ROUNDS):
            said["ours"].append(self.load("append", "ours", number))
            if raw:
                file = file or prepare_raw(self.bench)
                for label, schema in LIMITS.items():
                    said[label].append(raw_copy(self.bench, file, schema))
        size = file.stat().st_size // self.rows if file else 0
        return {label: median(each) for label, each in said.items()}, size


def median(said: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the medians of what was said, or what was said of a run that failed."""
    failed = [each for each in said if "seconds" not in each]
    if failed:
        return failed[0]
    numbers = {name for name, value in said[0].items() if not isinstance(value, str)}
    return {**said[0], **{name: statistics.median(one[name] for one in said) for name in numbers}}


def compare(bench: Bench, rows: int, only: list[str] | None, peers: str, console: Console) -> None:
    """Run the contenders in both modes."""
    block = bench.credentials.model_dump(
        include={"host", "port", "database", "username", "sslmode"}
    )
    password = bench.credentials.password.get_secret_value()
    url = f"postgresql://{block['username']}:{password}@{block['host']}:{block['port']}/postgres"
    run = Run(bench, rows, peers, {**block, "password": password}, url)
    console.print(f"[dim]{bench.run('SELECT version()')[0][0].split(' on ')[0]}[/]")
    (bench.folder / "pipelines").mkdir()
    size = 0
    for mode, contenders in CONTENDERS.items():
        found: dict[str, dict[str, Any]] = {}
        picked = [name for name in contenders if not only or name.split("_")[0] in only]
        for contender in picked:
            console.print(f"[dim]{mode}: {contender} …[/]")
            if mode == "merge":  # it meets what its first load brought
                found[contender] = [run.load(mode, contender, number) for number in range(2)][-1]
            elif contender == "ours":
                beside, size = run.beside_copy(raw="raw" in (only or ["raw"]))
                found.update(beside)
            else:
                found[contender] = run.load(mode, contender, 0)
        show(console, mode, size, found)
        show_share(console, found)


def show_share(console: Console, found: dict[str, dict[str, Any]]) -> None:
    """Print how near ours comes to what the server does alone."""
    ours, limit = found.get("ours", {}), found.get(TEMPORARY, {})
    if "copy" in ours and limit:
        share = limit["seconds"] / ours["copy"]
        console.print(
            f"copy phase of ours: {ours['copy']:.2f} s, {share:.0%} of the speed of COPY of a "
            f"ready-made file into a temporary table; publishing took {ours['merge']:.2f} s"
        )


if __name__ == "__main__":
    main()
