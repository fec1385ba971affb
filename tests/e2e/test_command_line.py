"""The command line as a user meets it: real servers, exit codes, one clear message per mistake."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect_aws import AwsCredentials, S3Bucket
from prefect_aws.client_parameters import AwsClientParameters
from pydantic import SecretStr

from blocks.content import save_if_changed
from blocks.object_store import LakeStorage
from blocks.rest_api import RestApiCredentials
from blocks.warehouse import WarehouseCredentials
from embedded.ports import free_port
from tests.e2e.conftest import THINGS, Project

CANARY = "CANARY-7f3a"


def save(project: Project, name: str, block: Any) -> None:
    with temporary_settings({PREFECT_API_URL: project.stack.prefect_api_url}):
        save_if_changed(block, name)


def without_embedded(project: Project, **more: str) -> dict[str, str]:
    """Variables of an environment whose blocks come from the Prefect server."""
    return {"DPP_EMBEDDED": "false", "PREFECT_API_URL": project.stack.prefect_api_url, **more}


def test_own_files_are_loaded_once_and_accounted_for(project: Project) -> None:
    first = project.dpp("run", "things", "--json")
    assert first.returncode == 0, first.stderr
    counts = json.loads(first.stdout)["datasets"][0]["counts"]
    assert counts == {
        "read": 5, "inserted": 2, "updated": 0, "unchanged": 0, "deduplicated": 1, "quarantined": 2,
        "deleted": 0, "restored": 0,
    }  # fmt: skip
    rows = project.query("SELECT id, price::text FROM analytics.things ORDER BY id")
    assert rows == [(1, "1.50"), (2, "2.50")]
    again = project.dpp("run", "things")
    assert again.returncode == 0
    assert "0 read = " in again.stdout
    shown = project.dpp("quarantine", "show", "things", "--json")
    raw = [json.loads(line)["raw"] for line in shown.stdout.splitlines()]
    assert raw == ['{"id":"3","price":"-1"}', '{"id":"4","price":"x"}']
    for command in (["status"], ["plan"], ["quarantine", "list"], ["reconcile"]):
        done = project.dpp(*command)
        assert done.returncode == 0, done.stderr
        assert "things" in done.stdout
    checked = project.dpp("check", "things")
    assert checked.returncode == 0
    assert "things: analytics.things is as the dataset file says" in checked.stdout
    script = project.dpp("check", "things", "--dry-run")
    assert (script.returncode, "CREATE" in script.stdout) == (0, False), script.stderr
    assert script.stdout.endswith("-- is as the dataset file says\n")
    maintained = project.dpp("maintain", "things", "--json")
    assert maintained.returncode == 0, maintained.stderr
    assert json.loads(maintained.stdout) == {
        "tables": [
            {
                "dataset": "things", "table": "analytics.things", "exists": True, "made": [],
                "dropped": [], "built": [],
            }
        ],
        "retained": {"erased": [], "planned": [], "skipped": [], "hints": []},
        "failures": [],
    }  # fmt: skip
    for file in (project.root / ".local" / "lake").rglob("*.parquet"):
        os.utime(file, (0, 0))
    shown = project.dpp("maintain", "things", "--dry-run")
    assert (
        "nothing is past its retention" in shown.stdout
    )  # its loads are not, whatever the files say
    assert "WITH raw AS" in project.dpp("explain", "things").stdout


def test_reconcile_finds_a_deleted_row_and_a_damaged_file(project: Project) -> None:
    project.dataset("more", THINGS.replace("things", "more"))
    assert project.dpp("run", "more").returncode == 0
    assert project.dpp("reconcile", "more").returncode == 0
    project.query("DELETE FROM analytics.more WHERE id = 1 RETURNING id; COMMIT; SELECT 1")
    done = project.dpp("reconcile", "more")
    assert (
        done.returncode,
        "rows inserted + restored - deleted = rows in the table" in done.stdout,
    ) == (
        1,
        True,
    )
    project.query(
        "INSERT INTO analytics.more SELECT 1, 1.50, max(load_id) FROM etl.loads; COMMIT; SELECT 1"
    )
    clean = next((project.stack.local / "lake" / "clean" / "more").glob("*.parquet"))
    content = clean.read_bytes()
    clean.write_bytes(content[:-1] + b"X")
    done = project.dpp("reconcile", "more")
    assert (done.returncode, "content changed" in done.stdout) == (1, True)
    clean.unlink()
    done = project.dpp("reconcile", "more")
    assert (done.returncode, "missing" in done.stdout) == (1, True)


def test_broken_dataset_file_is_the_users_mistake(project: Project) -> None:
    project.dataset("things", THINGS.replace("int64", "integer"))
    done = project.dpp("run", "things")
    assert done.returncode == 2
    assert "things.yaml:6: columns.id.type" in done.stderr.replace("\n", "")
    assert project.dpp("check", "--offline").returncode == 2


def test_unknown_names_are_the_users_mistake(project: Project) -> None:
    done = project.dpp("run", "thing")
    assert (done.returncode, "did you mean 'things'" in done.stderr) == (2, True)
    done = project.dpp("status", DPP_ENV="production")
    assert (done.returncode, "there are: dev, prod, staging" in done.stderr) == (2, True)
    assert project.dpp("run", "--schedule", "weekly").returncode == 2
    assert project.dpp("fly").returncode == 2


def test_environment_without_a_prefect_server_says_so(project: Project) -> None:
    done = project.dpp("run", "things", DPP_EMBEDDED="false")
    assert (done.returncode, "PREFECT_API_URL is not set" in done.stderr) == (2, True)
    dead = f"http://127.0.0.1:{free_port()}/api"
    done = project.dpp("run", "things", DPP_EMBEDDED="false", PREFECT_API_URL=dead)
    assert (done.returncode, "Prefect server does not answer" in done.stderr) == (3, True)


def test_unreachable_warehouse_wrong_password_and_missing_block(project: Project) -> None:
    address = project.stack.postgres
    save(project, "lake", LakeStorage(uri=f"file://{project.root}/lake2"))
    good = {"host": address.host, "database": "warehouse", "username": address.user}
    nobody = WarehouseCredentials(**good, port=free_port(), password=SecretStr(CANARY))
    save(project, "unreachable", nobody)
    wrong = WarehouseCredentials(**good, port=address.port, password=SecretStr(CANARY))
    save(project, "wrong-password", wrong)
    for block, code, words in (
        ("unreachable", 3, "Connection refused"),
        ("wrong-password", 2, "the password was refused"),
        ("nowhere", 2, "no block 'nowhere' of type 'etl-warehouse-credentials'"),
    ):
        done = project.dpp("run", "things", **without_embedded(project, DPP_WAREHOUSE_BLOCK=block))
        assert done.returncode == code, done.stderr
        assert words in " ".join(done.stderr.split()), done.stderr
        assert CANARY not in done.stdout + done.stderr


class Refusing(BaseHTTPRequestHandler):
    """An API that knows nobody."""

    def do_GET(self) -> None:
        body = b'{"message": "unknown key"}'
        self.send_response(401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def refusing_api() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_refused_api_key_and_missing_object(project: Project, refusing_api: str) -> None:
    address = project.stack.postgres
    warehouse = WarehouseCredentials(
        host=address.host,
        port=address.port,
        database="warehouse",
        username=address.user,
        password=SecretStr(address.password),
    )
    save(project, "warehouse", warehouse)
    save(project, "lake", LakeStorage(uri=f"file://{project.root}/lake2"))
    key = RestApiCredentials(
        base_url=refusing_api,
        auth="api_key_query",
        key_name="key",
        secret=SecretStr(CANARY),
        allow_private=True,
    )
    save(project, "refusing", key)
    store = project.stack.object_store
    bucket = S3Bucket(
        bucket_name="empty",
        credentials=AwsCredentials(
            aws_access_key_id=store.access_key,
            aws_secret_access_key=SecretStr(store.secret_key),
            aws_client_parameters=AwsClientParameters(endpoint_url=store.endpoint_url),
        ),
    )
    client = bucket.credentials.get_s3_client()
    client.create_bucket(Bucket="empty")
    save(project, "empty", bucket)
    files = 'source: {kind: files, path: "inbox/*.csv", format: {kind: csv}}'
    rest = "source: {kind: rest, block: refusing, path: /things, records: data}"
    missing = 'source: {kind: s3, block: empty, path: "a/b.csv", format: {kind: csv}}'
    for source, code, words in (
        (rest, 2, "HTTP 401: unknown key"),
        (missing, 1, "has no object a/b.csv"),
    ):
        project.dataset("things", THINGS.replace(files, source))
        done = project.dpp("run", "things", **without_embedded(project))
        assert done.returncode == code, done.stderr
        assert words in " ".join(done.stderr.split()), done.stderr
        assert done.stderr.count(words) <= 2  # the log line and the report
        assert CANARY not in done.stdout + done.stderr


def test_help_teaches(project: Project) -> None:
    done = project.dpp("--help")
    assert done.returncode == 0
    for verb in (
        "demo",
        "check",
        "plan",
        "run",
        "explain",
        "status",
        "quarantine",
        "reconcile",
        "up",
    ):
        assert verb in done.stdout
    assert "0 done" in done.stdout


def test_span_of_time_is_shown_then_loaded_and_not_again(project: Project) -> None:
    folder = project.root / "daily"
    folder.mkdir()
    for day in range(1, 5):
        (folder / f"2013-01-0{day}.csv").write_text(f"id,price\n{day},1.50\n")
    text = THINGS.replace("things", "days").replace("inbox/*.csv", "daily/{date:%Y-%m-%d}.csv")
    project.dataset("days", text)
    span = ["days", "--from", "2013-01-02", "--to", "2013-01-04"]
    shown = project.dpp("backfill", *span, "--dry-run")
    assert shown.returncode == 0, shown.stderr
    assert "days 2013-01-02 00:00 to 2013-01-04 00:00: 1 partitions" in shown.stdout
    assert project.query("SELECT to_regclass('analytics.days')") == [(None,)]
    done = project.dpp("backfill", *span)
    assert done.returncode == 0, done.stderr
    assert project.query("SELECT id FROM analytics.days ORDER BY id") == [(2,), (3,)]
    assert "declares no cursor" in done.stderr
    again = project.dpp("backfill", *span)
    assert (again.returncode, "nothing is missing" in again.stdout) == (0, True)
    project.query("UPDATE analytics.days SET price = 9; COMMIT; SELECT 1")
    refreshed = project.dpp("run", "days", "--refresh", "--json")
    assert refreshed.returncode == 0, refreshed.stderr
    counts = json.loads(refreshed.stdout)["datasets"][0]["counts"]
    assert (counts["read"], counts["inserted"], counts["updated"]) == (4, 2, 2)
    mistakes = {
        ("backfill", "days", "--from", "yesterday", "--to", "2013-01-04"): "is no date or time",
        ("backfill", "days", "--from", "2013-01-04", "--to", "2013-01-04"): "is not after --from",
        ("backfill", "things", "--from", "2013-01-01", "--to", "2013-01-02"): "tells no date",
        ("run", "--refresh"): "needs the names of the datasets",
    }
    for arguments, words in mistakes.items():
        refused = project.dpp(*arguments)
        said = " ".join(refused.stderr.replace("│", " ").split())
        assert (refused.returncode, words in said) == (2, True), refused.stderr
