"""``dpp bootstrap``: a server becomes what the files say; a second time there is nothing to do."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from moto.server import ThreadedMotoServer
from prefect.blocks.core import Block
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import VariableCreate, WorkPoolCreate
from prefect.events import EventTrigger
from prefect.events.schemas.automations import AutomationCore
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Completed
from ruamel.yaml import YAML

from deployments.docker.prepare import blocks_of, credentials_of
from tests.e2e.conftest import ROOT, Project

SETTINGS = ("block_type", "block_schema", "block_document", "work_pool", "work_queue", "variable",
            "concurrency_limit_v2", "flow", "deployment", "deployment_schedule", "automation")  # fmt: skip
BLOCKS = """\
concurrency_limits: {etl-staging-apis: {limit: 5, slot_decay_per_second: 0.5}}
variables: {etl_staging_region: eu-central-1}
blocks:
  aws-credentials/etl: {region_name: eu-central-1}
  etl-warehouse-credentials/warehouse-s:
    {host: w.example.org, database: w, username: u, password: {variable: WAREHOUSE_PASSWORD}}
  etl-lake-storage/lake-s: {uri: "s3://lake/etl", credentials: {block: aws-credentials/etl}}
  etl-landing-queue/landing-queue: {url: "https://sqs.eu-central-1.amazonaws.com/1/landing"}
  etl-privacy-keys/privacy-s: {key: {variable: PRIVACY_KEY}, older_keys: [{variable: OLD_KEY}]}
  slack-webhook/etl-staging: {url: {variable: SLACK_URL}}
"""
SECRETS = {
    "WAREHOUSE_PASSWORD": "CANARY-warehouse",
    "PRIVACY_KEY": "CANARY-privacy-" * 4,
    "OLD_KEY": "CANARY-older-" * 4,
    "SLACK_URL": "https://hooks.slack.com/services/CANARY/slack",
}


@pytest.fixture
def staging(project: Project) -> Iterator[Project]:
    """The project, with an environment whose blocks are declared."""
    path = project.root / "deployments/environments/staging.yaml"
    before = {each: each.read_text() for each in (path, project.root / "prefect.yaml")}
    text = before[path]
    for name in ("warehouse", "lake", "privacy"):
        text = text.replace(f"{name}_block: {name}", f"{name}_block: {name}-s")
    head, _, _ = text.partition("alerts:")
    alerts = "alerts: {critical: [slack-webhook/etl-staging], usual_minutes: {daily: 60}}\n"
    path.write_text(head + alerts + BLOCKS)
    yield project
    for each, text in before.items():
        each.write_text(text)


@pytest.fixture
def client(project: Project) -> Iterator[SyncPrefectClient]:
    with (
        temporary_settings({PREFECT_API_URL: project.stack.prefect_api_url}),
        get_client(sync_client=True) as made,
    ):
        yield made


def change(project: Project, name: str, *pairs: tuple[str, str]) -> None:
    path = project.root / name
    text = path.read_text()
    for old, new in pairs:
        assert text.count(old) == 1, (old, text.count(old))
        text = text.replace(old, new)
    path.write_text(text)


def bootstrap(project: Project, *options: str, **variables: str) -> CompletedProcess[str]:
    given = {
        "PREFECT_API_URL": project.stack.prefect_api_url,
        "DPP_IMAGE": "registry.example.org/dpp:1.2.3",
        "DPP_VERSION": "v1.2.3",
        **SECRETS,
        **variables,
    }
    done = project.dpp("bootstrap", "--env", "staging", *options, **given)
    for secret in SECRETS.values():
        assert secret not in done.stdout + done.stderr
    return done


def steps(project: Project, *options: str, **variables: str) -> dict[str, dict[str, Any]]:
    """Run it, and return what was not left as it was, by kind and name."""
    done = bootstrap(project, "--json", *options, **variables)
    assert done.returncode == 0, done.stderr
    found = {f"{each['kind']} {each['name']}": each for each in json.loads(done.stdout)}
    return {name: each for name, each in found.items() if each["action"] != "unchanged"}


def content(project: Project) -> dict[str, list[str]]:
    """Return every row of every setting, ids included, but for what the server writes by itself."""
    own = "- 'last_polled' - 'status' - 'updated'"
    return {
        table: sorted(
            str(row[0])
            for row in project.query(
                f'SELECT (to_jsonb(t) {own})::text FROM "{table}" t', "prefect"
            )
        )
        for table in SETTINGS
    }


def test_second_bootstrap_has_nothing_to_do_and_does_nothing(staging: Project) -> None:
    planned = steps(staging, "--dry-run")
    assert not staging.query("SELECT 1 FROM deployment WHERE name LIKE '%-staging'", "prefect")
    first = steps(staging)
    assert first == planned
    assert {each["action"] for each in first.values()} == {"create"}
    assert {"work pool staging", "variable etl_staging_region", "deployment daily/daily-staging",
            "concurrency limit etl-staging-apis", "block etl-lake-storage/lake-s",
            "automation staging: run failed"} <= set(first)  # fmt: skip
    before = content(staging)
    assert len(before["deployment"]) >= 6 and len(before["automation"]) >= 3
    done = bootstrap(staging)
    assert "nothing to do" in done.stdout, done.stdout
    assert content(staging) == before
    documents = before["block_document"]
    assert len(documents) >= 5
    assert not [row for rows in before.values() for row in rows if "CANARY" in row]


EXTRA = """\
  - name: extra-staging
    schedules:
      - {<<: *nightly, slug: a, parameters: &things {parameters: {dataset: things}}}
      - {<<: *each_hour, slug: b, parameters: *things}
    <<: [*dataset, *in_staging]
"""
ENVIRONMENT = "deployments/environments/staging.yaml"


def test_what_differs_is_changed_and_prune_removes_what_it_made_only(
    staging: Project, client: SyncPrefectClient
) -> None:
    change(staging, "prefect.yaml", ("deployments:\n", "deployments:\n" + EXTRA))
    steps(staging)
    made = client.read_deployment_by_name("dataset/extra-staging")
    kept = {each.slug: each.id for each in made.schedules}
    change(
        staging, "prefect.yaml",
        ("slug: a,", "slug: a, active: false,"),
        ("      - {<<: *each_hour, slug: b, parameters: *things}\n", ""),
    )  # fmt: skip
    change(
        staging, ENVIRONMENT,
        ("limit: 5,", "limit: 6,"), ("eu-central-1}\nblocks", "eu-west-1}\nblocks"),
        ("concurrency_limit: 10", "concurrency_limit: 11"),
        ("critical: [slack", "warning: [slack"),
    )  # fmt: skip
    changed = steps(staging, WAREHOUSE_PASSWORD="CANARY-rotated")
    assert {name: each["keys"] for name, each in changed.items()} == {
        "block etl-warehouse-credentials/warehouse-s": ["password"],
        "work pool staging": ["concurrency_limit"],
        "concurrency limit etl-staging-apis": ["limit"],
        "variable etl_staging_region": ["value"],
        "deployment dataset/extra-staging": ["schedules"],
        **{name: each["keys"] for name, each in changed.items() if name.startswith("automation ")},
    }
    there = client.read_deployment_by_name("dataset/extra-staging")
    assert there.id == made.id
    (schedule,) = there.schedules
    assert (schedule.id, schedule.slug, schedule.active) == (kept["a"], "a", False)
    # No longer declared: a deployment, a block, a limit, a variable. Two things of other people.
    change(staging, "prefect.yaml", (EXTRA.replace("slug: a,", "slug: a, active: false,").replace(
        "      - {<<: *each_hour, slug: b, parameters: *things}\n", ""), ""))  # fmt: skip
    limits, variables, _ = BLOCKS.replace("limit: 5", "limit: 6").split("\n", 2)
    change(staging, ENVIRONMENT, (limits, ""),
           (variables.replace("central", "west"), "variables: {}"))  # fmt: skip
    client.create_variable(VariableCreate(name="etl_staging_of_somebody", value=1))
    client.delete_variable_by_name("etl_staging_region")
    client.create_variable(VariableCreate(name="etl_staging_region", value="by hand"))
    rotated = {"WAREHOUSE_PASSWORD": "CANARY-rotated"}
    left = steps(staging, **rotated)
    assert {name: each["action"] for name, each in left.items()} == dict.fromkeys(left, "leave")
    assert {"deployment dataset/extra-staging", "concurrency limit etl-staging-apis"} <= set(left)
    removed = steps(staging, "--prune", **rotated)
    assert set(removed) == set(left)
    assert {each["action"] for each in removed.values()} == {"remove"}
    assert not staging.query("SELECT 1 FROM deployment WHERE name = 'extra-staging'", "prefect")
    assert staging.query("SELECT name FROM variable ORDER BY name", "prefect") == [
        ("etl_staging_of_somebody",), ("etl_staging_region",),
    ]  # fmt: skip


def test_longer_than_usual_is_learned_from_completed_runs(
    staging: Project, client: SyncPrefectClient
) -> None:
    change(staging, ENVIRONMENT, ("critical: [slack", "warning: [slack"))
    steps(staging)
    name = "staging: daily-staging takes long"

    def waits() -> timedelta:
        (found,) = client.read_automations_by_name(name)
        assert isinstance(found.trigger, EventTrigger)
        return found.trigger.within

    assert waits() == timedelta(minutes=60)  # as declared
    deployment = client.read_deployment_by_name("daily/daily-staging")
    for _ in range(10):
        run = client.create_flow_run_from_deployment(deployment.id)
        client.set_flow_run_state(run.id, Completed(), force=True)
    staging.query(
        "UPDATE flow_run SET total_run_time = interval '4 minutes' * (CASE WHEN id = '"
        f"{run.id}' THEN 3 ELSE 1 END) WHERE deployment_id = '{deployment.id}'; COMMIT; SELECT 1",
        "prefect",
    )
    assert steps(staging)[f"automation {name}"]["action"] == "change"
    assert waits() == timedelta(minutes=30)
    assert steps(staging) == {}


def test_second_automation_of_a_name_is_removed_if_it_is_ours(
    staging: Project, client: SyncPrefectClient
) -> None:
    """One that a bootstrap made beside another; one of that name that somebody made stays."""
    name = "staging: run failed"
    steps(staging)
    (first,) = client.read_automations_by_name(name)
    again = AutomationCore.model_validate(first.model_dump(exclude={"owner_resource"}))
    second = client.create_automation(again)
    somebodys = client.create_automation(again.model_copy(update={"tags": ["team"]}))
    assert steps(staging)[f"automation {name} ({second})"]["action"] == "leave"
    removed = steps(staging, "--prune")
    assert removed[f"automation {name} ({second})"]["action"] == "remove"
    assert f"automation {name} ({somebodys})" not in removed
    assert {each.id for each in client.read_automations_by_name(name)} == {first.id, somebodys}
    client.delete_automation(somebodys)


def test_compose_prepares_its_server_as_bootstrap_does(
    project: Project, client: SyncPrefectClient, tmp_path: Path
) -> None:
    """With the variables of the compose file, an S3 server of the test, and this Prefect server."""
    service = YAML(typ="safe").load(ROOT / "deployments/docker/docker-compose.yml")["services"]
    s3 = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    s3.start()
    variables = {
        **service["prepare"]["environment"],
        "LOCAL_PASSWORD": "only-in-blocks",
        "PREFECT_API_URL": project.stack.prefect_api_url,
        "PREFECT_HOME": str(tmp_path),
        "S3_URL": "http://{}:{}".format(*s3.get_host_and_port()),
        "DPP_HOME": str(project.root),
        "PYTHONPATH": str(ROOT),
        "PATH": os.environ["PATH"],
    }

    def prepare() -> str:
        done = subprocess.run(
            [sys.executable, "-m", "deployments.docker.prepare"],
            env=variables,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "only-in-blocks" not in done.stdout + done.stderr
        return done.stdout

    try:
        assert "create" in prepare()
        assert re.fullmatch(r"\d+ unchanged\n", prepare())
        buckets = credentials_of(variables).get_s3_client().list_buckets()["Buckets"]
    finally:
        s3.stop()
    assert {each["Name"] for each in buckets} == {"landing", "lake"}
    assert "dataset-dev" in {each.name for each in client.read_deployments()}
    assert {"dev: run pending", "dev: run without a sign of life"} <= {
        each.name for each in client.read_automations()
    }
    for key in blocks_of(variables):
        assert Block.load(key).get_block_type_slug() == key.partition("/")[0]


def ids(project: Project) -> dict[str, list[str]]:
    """Return the id of every setting."""
    return {
        table: sorted(json.loads(row)["id"] for row in rows)
        for table, rows in content(project).items()
    }


def test_mistakes_end_before_anything_is_done(staging: Project, client: SyncPrefectClient) -> None:
    before = ids(staging)
    lacking = bootstrap(staging, SLACK_URL="", OLD_KEY="")
    assert lacking.returncode == 2
    for name, key in (("SLACK_URL", "slack-webhook/etl-staging url"), ("OLD_KEY", "older_keys.0")):
        assert name in lacking.stderr and key in lacking.stderr, lacking.stderr
    short = bootstrap(staging, PRIVACY_KEY="short")
    assert short.returncode == 2 and "the key has less than 32 characters" in short.stderr
    gone = bootstrap(staging, PREFECT_API_URL="http://127.0.0.1:9/api")
    assert gone.returncode == 3 and "does not answer" in gone.stderr
    pool = f"pool-{uuid.uuid4().hex[:8]}"
    client.create_work_pool(WorkPoolCreate(name=pool, type="process"))
    change(staging, "prefect.yaml", ("name: staging\n", f"name: {pool}\n"))
    change(staging, ENVIRONMENT, ("work_pool: {name: staging", f"work_pool: {{name: {pool}"))
    other = bootstrap(staging)
    assert other.returncode == 2 and "is of type 'process' on the server" in other.stderr
    client.delete_work_pool(pool)
    assert ids(staging) == before
