"""What the UI does: a deployment is run by a worker; and nothing secret is left on the server."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment
from prefect.settings import PREFECT_API_URL, temporary_settings

from blocks.object_store import LakeStorage
from blocks.warehouse import WarehouseCredentials
from cli.local import ui_url
from tests.e2e.conftest import ROOT, Project
from tests.e2e.prefect_ui import BROWSER, prefect_ui
from tests.secrets_manager import ACCESS_KEY, SecretsManager, running_secrets_manager

LOGS_ARRIVE_SECONDS = 30

FLOW_SETTINGS = {
    "PREFECT_LOGGING_EXTRA_LOGGERS": "dpp",
    "PREFECT_RESULTS_DEFAULT_SERIALIZER": "json",
}


WRONG_PASSWORD = "CANARY-rotated-and-wrong"
TABLES_AT_LEAST = 20


def run_by_a_person(project: Project, images: Path) -> FlowRun:
    """Find the deployment in a browser, fill in its form, watch the tasks, read the report."""
    with prefect_ui(ui_url(project.stack.prefect_api_url), images) as ui:
        ui.find_deployment("dataset-dev", "Load what is new in one dataset")
        started = ui.start("worked")
        ui.watch("plan worked", "ingest inbox", "transform inbox", "load inbox")
        report = ui.read_report()
    assert "Each row that was read is inserted, updated" in report
    assert "worked succeeded 1/1 5 2 0 0 1 2" in " ".join(report.split()), report
    with get_client(sync_client=True) as client:
        return client.read_flow_run(started)


def run_by_the_api() -> FlowRun:
    """Where no browser is installed, do what its form does."""
    parameters = {"parameters": {"dataset": "worked"}}
    return cast(
        FlowRun,
        run_deployment("dataset/dataset-dev", parameters=parameters, timeout=120, as_subflow=False),
    )


@pytest.fixture(scope="module")
def aws() -> Iterator[SecretsManager]:
    with running_secrets_manager() as server:
        yield server


def test_worker_runs_the_deployment_of_the_ui(
    project: Project, tmp_path: Path, aws: SecretsManager
) -> None:
    """``dpp bootstrap`` deploys, a worker runs what is asked, and its rows are in the table.

    The password is in AWS Secrets Manager. It is rotated to one that is wrong: the next run has it,
    and fails. Of neither run, and of no setting, is a secret stored.
    """
    done = project.dpp("bootstrap", "--env", "dev")
    assert done.returncode == 0, done.stderr
    address = project.stack.postgres
    with temporary_settings({PREFECT_API_URL: project.stack.prefect_api_url}):
        WarehouseCredentials(
            host=address.host,
            port=address.port,
            database="warehouse",
            username=address.user,
            aws_secret=aws.block("etl/dev/warehouse"),
        ).save("warehouse", overwrite=True)
        aws.put("etl/dev/warehouse", address.password)
        LakeStorage(uri=f"file://{project.root}/lake3").save("lake", overwrite=True)
        project.dataset("worked", project_dataset("worked"))
        project.stack.start_worker(
            "dev",
            {**FLOW_SETTINGS, "DPP_HOME": str(project.root), "PYTHONPATH": str(ROOT)},
        )
        run = run_by_a_person(project, tmp_path) if BROWSER else run_by_the_api()
        assert run.state and run.state.is_completed(), run.state
        assert "2 inserted" in str(run.state.message)
        logs, artifacts, deployments = read_server(run.id)
        aws.put("etl/dev/warehouse", WRONG_PASSWORD)
        failed = run_by_the_api()
        assert failed.state and failed.state.is_failed(), failed.state
        assert "the password was refused" in str(failed.state.message), failed.state
    assert project.query("SELECT count(*) FROM analytics.worked") == [(2,)]
    assert any(line.startswith("loading.committed run=") for line in logs), logs
    assert {"progress-worked"} < artifacts
    assert any(key.startswith("report-worked") for key in artifacts)
    assert deployments == {
        f"{flow}-dev"
        for flow in (
            "dataset",
            "backfill",
            "shard",
            "replay",
            "maintain",
            "daily",
            "hourly",
            "listen",
        )
    }
    check_no_secret_is_stored(project)


def project_dataset(name: str) -> str:
    from tests.e2e.conftest import THINGS

    return THINGS.replace("things", name)


def read_server(run_id: Any) -> tuple[list[str], set[str], set[str]]:
    with get_client(sync_client=True) as client:
        logs = wait_for_log(client, run_id, "loading.committed run=")
        artifacts = client.request("POST", "/artifacts/filter", json={}).json()
        names = {deployment.name for deployment in client.read_deployments()}
        deployments = {name for name in names if name.endswith("-dev")}
    return logs, {artifact["key"] for artifact in artifacts}, deployments


def wait_for_log(client: Any, run_id: Any, beginning: str) -> list[str]:
    """Return all messages of a run once one begins so: a run can be complete before its logs arrive."""
    from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId

    only = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run_id]))
    deadline = time.monotonic() + LOGS_ARRIVE_SECONDS
    messages: list[str] = []
    while time.monotonic() < deadline:
        messages = read_all_logs(client, only)
        if any(message.startswith(beginning) for message in messages):
            break
        time.sleep(0.5)
    return messages


def read_all_logs(client: Any, only: Any) -> list[str]:
    """Page through the messages: the server gives 200 at a time."""
    messages: list[str] = []
    while page := client.read_logs(only, limit=200, offset=len(messages)):
        messages += [log.message for log in page]
    return messages


def check_no_secret_is_stored(project: Project) -> None:
    """Nothing that the server stored, and no log on disk, holds a password."""
    tables = project.query(
        "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace",
        "prefect",
    )
    secrets = (
        project.stack.secrets.warehouse_password,
        project.stack.secrets.s3_secret_key,
        WRONG_PASSWORD,
        ACCESS_KEY,
    )
    assert len(tables) > TABLES_AT_LEAST
    for (table,) in tables:
        for row in project.query(f'SELECT t::text FROM public."{table}" t', "prefect"):
            assert not any(secret in row[0] for secret in secrets), table
    for log in (project.stack.local / "logs").glob("*.log"):
        text = log.read_text(errors="replace")
        assert not any(secret in text for secret in secrets), log.name
