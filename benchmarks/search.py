"""A search index over a million documents: how long it takes to build, to change, and to answer.

    make bench-search
    python -m benchmarks.search --documents 100000

Documents are sentences of words with the frequencies of a natural language (Zipf), 10 to 70 words each;
titles have 3 to 8. Answers are timed one after the other, on one connection, after each was asked once.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from benchmarks.warehouse import Bench, warehouse
from tasks.loading.index import build_search_index
from tasks.loading.publish import load_partition
from tasks.loading.search import search
from tasks.model.dataset import DatasetSpec

VOCABULARY = 50_000
ROW_GROUP = 20_000
ASKED = 15
SYLLABLES = tuple(
    first + second for first in "bcdfghklmnprstvwz" for second in ("a", "e", "i", "o", "u")
)


def vocabulary() -> list[str]:
    """Return words that can be told apart, the frequent ones shorter."""
    words = []
    for number in range(VOCABULARY):
        word, rest = "", number
        while rest or not word:
            rest, syllable = divmod(rest, len(SYLLABLES))
            word += SYLLABLES[syllable]
        words.append(word)
    return words


def write_documents(path: Path, count: int, words: list[str], seed: int, first: int = 0) -> None:
    """Write documents as a clean Parquet file."""
    dice = np.random.default_rng(seed)
    ranks = 1.0 / np.arange(1, len(words) + 1)
    chances = ranks / ranks.sum()
    schema = pa.schema(
        [("id", pa.int64()), ("code", pa.string()), ("title", pa.string()), ("body", pa.string())]
    )
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for start in range(0, count, ROW_GROUP):
            rows = min(ROW_GROUP, count - start)
            lengths = dice.integers(10, 71, rows), dice.integers(3, 9, rows)
            texts = []
            for each in lengths:
                drawn = dice.choice(len(words), int(each.sum()), p=chances)
                ends = np.cumsum(each)
                texts.append(
                    [
                        " ".join(words[word] for word in drawn[end - length : end])
                        for end, length in zip(ends, each, strict=True)
                    ]
                )
            ids = range(first + start, first + start + rows)
            codes = [f"DOC-{number:08d}" for number in ids]
            writer.write_table(pa.table([list(ids), codes, texts[1], texts[0]], schema))


def dataset(index: dict[str, Any]) -> DatasetSpec:
    """Return the dataset of the documents."""
    load = {"table": "bench.documents", "mode": "merge", "index": index}
    return DatasetSpec.model_validate(
        {
            "name": "documents",
            "description": "Documents of the benchmark",
            "source": {"kind": "files", "path": "*.csv", "format": {"kind": "csv"}},
            "key": ["id"],
            "columns": {
                "id": {"type": "int64"},
                "code": {"type": "string"},
                "title": {"type": "string"},
                "body": {"type": "string"},
            },
            "load": load,
        }
    )


FIRST = {"search": {"title": "A", "body": "D"}, "fuzzy": ["title"], "exact": ["code"]}
CHANGED = {**FIRST, "search": {"title": "A", "body": {"weight": "B", "language": "english"}}}


def timed(table: Table, what: str, rows: int, work: Any) -> None:
    """Do some work and add a line to the table."""
    began = time.monotonic()
    work()
    seconds = time.monotonic() - began
    table.add_row(what, f"{seconds:.1f}", f"{rows / seconds:,.0f}")


def answers(bench: Bench, spec: DatasetSpec, words: list[str], count: int) -> Table:
    """Ask searches of each kind, and return how long the answers took."""
    dice = np.random.default_rng(7)
    frequent = [words[number] for number in range(5, 5 + ASKED)]
    rare = [words[number] for number in dice.integers(5_000, 20_000, ASKED)]
    asked = {
        "a rare word": rare,
        "two words, one of them frequent": [
            f"{a} {b}" for a, b in zip(rare, frequent, strict=True)
        ],
        "a frequent word, every 20th document": frequent,
        "a misspelt word": [word[:3] + "x" + word[3:] for word in rare],
        "a whole value": [f"DOC-{number:08d}" for number in dice.integers(0, count, ASKED)],
    }
    table = Table(title="answers, 20 rows each", title_justify="left")
    for heading in ("", "median ms", "slowest ms", "rows"):
        table.add_column(heading, justify="right" if heading else "left")
    for kind, texts in asked.items():
        taken, found = [], 0
        search(bench.engine, spec, texts[0])
        for text in texts:
            began = time.monotonic()
            found += len(search(bench.engine, spec, text))
            taken.append((time.monotonic() - began) * 1000)
        table.add_row(kind, f"{statistics.median(taken):.1f}", f"{max(taken):.1f}", f"{found}")
    return table


def main() -> None:
    """Load, build, change, load more, and ask."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--documents", type=int, default=1_000_000)
    count = parser.parse_args().documents
    console = Console(width=120)
    words = vocabulary()
    with warehouse() as bench:
        console.print("[dim]writing documents …[/]")
        files = [bench.folder / "documents.parquet", bench.folder / "more.parquet"]
        write_documents(files[0], count, words, seed=1)
        write_documents(files[1], count // 10, words, seed=2, first=count - count // 20)
        table = Table(title=f"{count:,} documents", title_justify="left")
        for heading in ("", "seconds", "rows/s"):
            table.add_column(heading, justify="right" if heading else "left")
        first, changed = dataset(FIRST), dataset(CHANGED)

        def load(spec: DatasetSpec, file: Path) -> None:
            load_partition(
                bench.engine, bench.lake, bench.folder, bench.load(spec, [file], file.name)
            )

        steps = [
            ("load with the words, indexes not built yet", count, lambda: load(first, files[0])),
            ("build the indexes", count, lambda: build_search_index(bench.engine, first)),
            ("merge a tenth more, half of it known, indexes kept", count // 10,
             lambda: load(first, files[1])),
            ("change the language: column filled and index built beside the loads", count,
             lambda: build_search_index(bench.engine, changed)),
            ("build every index anew", count,
             lambda: build_search_index(bench.engine, changed, rebuild=True)),
        ]  # fmt: skip
        for what, rows, work in steps:
            console.print(f"[dim]{what} …[/]")
            timed(table, what, rows, work)
            if what.startswith("merge"):
                said = answers(bench, first, words, count)
        console.print(table, said)
        for name, size in bench.run(
            "SELECT relname::text, pg_size_pretty(pg_total_relation_size(oid)) FROM pg_class "
            "WHERE relnamespace = 'bench'::regnamespace AND relkind IN ('r', 'i') ORDER BY 1"
        ):
            console.print(f"  {name}: {size}")


if __name__ == "__main__":
    main()
