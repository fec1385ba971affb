"""A dataset file inferred by the command line: it passes the check as it is, and its sample loads whole."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blocks.rest_api import RestApiCredentials
from blocks.source_database import SourceDatabase
from tests.e2e.conftest import Project
from tests.e2e.test_command_line import save, without_embedded

LATIN = (
    "Nr;Betrag;Datum;PLZ;Name\n1;1.234,50;31.01.2024;01234;Müller\n2;3,00;01.02.2024;99999;Bär\n"
)


def write_files(folder: Path) -> None:
    folder.mkdir()
    (folder / "latin.csv").write_bytes(LATIN.encode("cp1252"))
    lines = [{"id": n, "big": 2**53 + n, "price": 1.5, "tags": ["a"]} for n in range(5)]
    (folder / "lines.jsonl").write_text("\n".join(map(json.dumps, lines)))
    table = pa.table({"id": [1, 2], "day": pa.array([1, 2], pa.date32()), "x": ["a", None]})
    pq.write_table(table, folder / "typed.parquet")


@pytest.mark.parametrize(
    ("file", "rows", "column", "value"),
    [
        ("latin.csv", 2, "betrag", "1234.50"),
        ("lines.jsonl", 5, "big", str(2**53)),
        ("typed.parquet", 2, "day", "1970-01-02"),
    ],
)
def test_file_is_inferred_checked_and_loaded(
    project: Project, file: str, rows: int, column: str, value: str
) -> None:
    folder = project.root / "samples"
    if not folder.exists():
        write_files(folder)
    name = file.partition(".")[0]
    made = project.dpp("new", name, "--from", f"samples/{file}")
    assert made.returncode == 0, made.stderr
    if file == "latin.csv":  # a run would find what is wrong too
        assert project.dpp("check", name).returncode == 0
    done = project.dpp("run", name, "--json")
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout)["datasets"][0]["counts"]
    assert (counts["read"], counts["inserted"], counts["quarantined"]) == (rows, rows, 0)
    found = project.query(f"SELECT min({column})::text FROM analytics.{name}")
    assert value in {
        found[0][0],
        project.query(f"SELECT max({column})::text FROM analytics.{name}")[0][0],
    }
    again = project.dpp("new", name, "--from", f"samples/{file}")
    assert again.returncode == 2
    assert "is there already" in again.stderr


class Orders(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = {"data": {"items": [{"id": 1, "total": 2.50}, {"id": 2, "total": 3}]}, "next": None}
        content = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


def test_api_and_table_are_inferred_through_their_blocks(project: Project) -> None:
    project.query(
        "CREATE TABLE IF NOT EXISTS public.shops AS SELECT 7 AS id, 'x' AS name; COMMIT; SELECT 1"
    )
    address = project.stack.postgres
    url = f"postgresql+psycopg2://{address.user}:{address.password}@127.0.0.1:{address.port}/warehouse"
    save(project, "shop-db", SourceDatabase.from_url(url))
    with ThreadingHTTPServer(("127.0.0.1", 0), Orders) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        base = f"http://127.0.0.1:{server.server_port}"
        save(project, "shop-api", RestApiCredentials(base_url=base, allow_private=True))
        variables = without_embedded(project)
        cases: dict[str, tuple[str, str, str]] = {
            "orders": (f"{base}/v1/orders", "shop-api", "pagination: {kind: next, key: next}"),
            "shops": ("public.shops", "shop-db", "table: public.shops"),
        }
        for name, (whence, block, words) in cases.items():
            made = project.dpp("new", name, "--from", whence, "--block", block, **variables)
            assert made.returncode == 0, made.stderr
            text = (project.root / "datasets" / f"{name}.yaml").read_text()
            assert words in text
            assert "type: int" in text
        server.shutdown()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["new", "Bad Name", "--from", "x.csv"], "'Bad Name' is no name"),
        (["new", "nothing", "--from", "nowhere/*.csv"], "no such file"),
        (["new", "nothing", "--from", "s3://bucket/x"], "--from needs --block"),
    ],
)
def test_mistakes_are_told(project: Project, arguments: list[str], words: str) -> None:
    done: Any = project.dpp(*arguments)
    assert (done.returncode, words in " ".join(done.stderr.split())) == (2, True), done.stderr
