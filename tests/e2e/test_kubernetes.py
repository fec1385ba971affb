"""Prefect's own Kubernetes worker, and what becomes of a run when its pod fails.

Without ``DPP_TEST_KUBECONFIG`` the cluster is a fake (``tests/fake_kubernetes``). With it, a real one
runs the same tests: docs/kubernetes.md says what its image, and this machine, must have.
"""

from __future__ import annotations

import json
import os
from base64 import b64encode
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from kubernetes_asyncio.client.exceptions import ApiException
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings
from ruamel.yaml import YAML

from embedded.stack import EmbeddedStack
from flows.dataset import DatasetParameters, dataset
from tests.e2e.cluster import (
    DATASETS,
    SECRET,
    Cluster,
    Reachable,
    Runs,
    wait_for,
    worker,
    write_project,
)
from tests.e2e.conftest import ROOT
from tests.e2e.kubernetes_scene import ACTS, Scene, prepare
from tests.fake_kubernetes import FakeKubernetes
from tests.integration.deployments.test_job_template import rendered
from tests.integration.deployments.test_monitoring import queries
from tests.kubernetes_schemas import without_what_prefect_misplaces

REAL = os.environ.get("DPP_TEST_KUBECONFIG")
NAMESPACE = os.environ.get("DPP_TEST_NAMESPACE", "dpp")
IMAGE = os.environ.get("DPP_TEST_IMAGE", "registry.example.org/dpp:test")
PRIVACY_KEY = "0123456789abcdef0123456789abcdef"
AUTH_STRING = "admin:CANARY-of-the-api"
"""The worker has it, as the chart gives it; the server of these tests asks nobody for it."""
UNKNOWN_IMAGE = "registry.invalid/dpp:1.0.0"
SMALL_LIMIT = "160Mi"
"""Memory with which a real cluster kills the run."""


@contextmanager
def cluster_of(folder: Path, home: Path) -> Iterator[Cluster]:
    if REAL:
        yield Cluster(Path(REAL), NAMESPACE, None)
        return
    keep = ("PATH", "LANG", "COVERAGE_PROCESS_CONFIG", "COVERAGE_PROCESS_START")
    environment = {name: os.environ[name] for name in keep if name in os.environ}
    documents = YAML(typ="safe").load_all(
        (ROOT / "deployments/kubernetes/base/worker.yaml").read_text()
    )
    (rules,) = (each["rules"] for each in documents if each["kind"] == "Role")
    image = {"/app": home}
    fake = FakeKubernetes(folder, image, {**environment, "PYTHONPATH": str(ROOT)}, rules)
    fake.start()
    try:
        yield Cluster(fake.kubeconfig("admin"), NAMESPACE, fake)
    finally:
        fake.close()


def told_by_the_chart() -> dict[str, str]:
    """Return what the worker is told in a cluster; its metrics would listen beyond this machine."""
    values = YAML(typ="safe").load(ROOT / "deployments/kubernetes/helm/prefect-worker.yaml")
    told = {each["name"]: each["value"] for each in values["worker"]["extraEnvVars"]}
    assert values["worker"]["selfHostedServerApiConfig"]["basicAuth"]["enabled"] is True
    told["PREFECT_API_AUTH_STRING"] = AUTH_STRING
    return told | {"PREFECT_CLIENT_METRICS_ENABLED": "false"}


@pytest.fixture(scope="module")
def scene(servers: EmbeddedStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("cluster")
    home = folder / "home"
    write_project(home)
    (home / "flows").symlink_to(ROOT / "flows")
    with ExitStack() as stack:
        reachable = Reachable(os.environ.get("DPP_TEST_HOST"))
        stack.callback(reachable.close)
        cluster = stack.enter_context(cluster_of(folder, home))
        api = int(servers.prefect_api_url.split(":")[2].split("/")[0])
        url = f"http://{reachable.host}:{reachable.port(api)}/api"
        stack.enter_context(
            temporary_settings({PREFECT_API_URL: url, PREFECT_HOME: folder / "prefect"})
        )
        cluster.put_secret(
            SECRET, {"privacy-key": PRIVACY_KEY, "prefect-api-auth-string": AUTH_STRING}
        )
        stack.callback(cluster.delete_secret, SECRET)
        runs = Runs(url, IMAGE, NAMESPACE)
        address = servers.postgres
        superuser = {
            "host": address.host,
            "port": address.port,
            "user": address.user,
            "password": address.password,
        }
        scene = Scene(cluster, runs, superuser, home)
        stack.callback(scene.close)
        prepare(scene, servers, reachable, home)
        runs.deploy()
        stack.enter_context(worker(url, cluster, folder, told_by_the_chart()))
        for name in DATASETS:
            memory = {"memory": SMALL_LIMIT} if REAL and name == "killed" else {}
            scene.started[name] = runs.start(name, **memory)
        scene.started["stuck"] = runs.start("loaded", image=UNKNOWN_IMAGE)
        scene.act(ACTS)
        yield scene


@pytest.fixture
def again(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run a dataset once more, in this process."""
    monkeypatch.setenv("DPP_HOME", str(scene.home))
    monkeypatch.setenv("DPP_ENV", "cluster")
    monkeypatch.setenv("DPP_SCRATCH", str(scene.home / "scratch"))
    monkeypatch.setenv("DPP_PRIVACY_KEY", PRIVACY_KEY)

    def run(name: str) -> None:
        scene.release(name)
        state: Any = dataset(DatasetParameters(dataset=name), return_state=True)
        assert state.is_completed(), state
        assert scene.rows(name) == [1, 2, 3]
        assert scene.loads(name) == 2
        scene.accounted(name)

    return run


def test_a_run_that_succeeds(scene: Scene) -> None:
    run = scene.final("loaded", "Completed", "Failed", "Crashed")
    assert run.state and run.state.is_completed(), run.state
    assert "3 inserted" in str(run.state.message) and "1 quarantined" in str(run.state.message)
    assert scene.rows("loaded") == [1, 2, 3]
    assert (scene.loads("loaded"), run.run_count) == (2, 1)
    (job,) = scene.cluster.jobs(run.id)
    wait_for(lambda: scene.cluster.jobs(run.id)[0].status.succeeded, "the job to succeed")
    assert job.spec.active_deadline_seconds == 2 * 3600
    assert job.spec.template.metadata.labels["dpp/size"] == "small"
    # The refused row was sealed with the key of the Secret, which is nowhere else.
    variables = {each.name: each for each in job.spec.template.spec.containers[0].env}
    assert variables["DPP_PRIVACY_KEY"].value is None
    assert variables["PREFECT_HOME"].value == "/prefect"
    assert variables["PREFECT_API_AUTH_STRING"].value is None


def test_an_invalid_job_is_refused(scene: Scene) -> None:
    """By a real cluster of itself; by the fake with the schemas of Kubernetes."""
    job = without_what_prefect_misplaces(rendered("small"))
    job["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"] = ["4Gi"]
    with pytest.raises(ApiException) as refused:
        scene.cluster.submit(job)
    assert refused.value.status in (400, 422)


def test_a_run_that_fails(scene: Scene) -> None:
    """The gate refuses both partitions: the state says so, the table is empty, the pod is not to blame."""
    run = scene.final("refused", "Failed", "Completed", "Crashed")
    assert run.state and run.state.is_failed(), run.state
    assert "quarantine" in str(run.state.message)
    assert scene.rows("refused") == [1, 2]
    assert scene.loads("refused") == 1


def test_a_run_that_is_killed_for_its_memory(scene: Scene, again: Any) -> None:
    scene.acted("killed")
    run = scene.final("killed", "Crashed")
    assert run.run_count <= 1
    assert scene.exit_code("killed") == 137
    scene.stop_load("killed")
    scene.accounted("killed")
    again("killed")


def test_a_run_that_is_cancelled(scene: Scene, again: Any) -> None:
    scene.acted("cancelled")
    run = scene.runs.read(scene.started["cancelled"])
    assert run.state and run.state.is_cancelled(), run.state
    scene.accounted("cancelled")
    wait_for(lambda: not [j for j in scene.cluster.jobs(run.id) if j.status.active], "its end")
    assert len(scene.cluster.jobs(run.id)) <= 1
    again("cancelled")


def test_a_run_whose_pod_never_begins(scene: Scene) -> None:
    """Its image cannot be pulled; cancelled, the run ends, and the worker removes its job."""
    scene.acted("stuck")
    run = scene.runs.read(scene.started["stuck"])
    assert run.state and run.state.is_cancelled(), run.state
    assert run.state.name == "Cancelled" and run.run_count == 0
    assert not scene.cluster.pods(run.id)


def test_a_run_whose_pod_is_evicted(scene: Scene) -> None:
    """It is run again in a new job, which goes on with what the first one left."""
    first = scene.acted("evicted")
    run = scene.final("evicted", "Completed", "Failed", "Crashed")
    assert run.state and run.state.is_completed(), run.state
    assert run.run_count == 2
    assert first in {job.metadata.name for job in scene.cluster.jobs(run.id)}
    assert scene.rows("evicted") == [1, 2, 3]
    assert scene.loads("evicted") == 2
    scene.accounted("evicted")


def test_a_run_whose_job_is_deleted(scene: Scene, again: Any) -> None:
    """The pod asks to be run again, the worker calls the run crashed: the later of them is heard."""
    run = scene.acted("deleted")
    scene.accounted("deleted")
    if run.state.is_crashed():
        assert run.state.message == "Kubernetes job was deleted"
        again("deleted")
    assert scene.rows("deleted") == [1, 2, 3]
    assert scene.loads("deleted") == 2


def test_the_role_of_the_worker_is_what_it_needs(scene: Scene) -> None:
    """Each of its rules was used; without what was denied, all of the above went well."""
    fake = scene.cluster.fake
    if fake is None:
        pytest.skip("a real cluster denies by itself")
    # Reading the pods' logs is for jobs whose process died before it reached the server.
    unused = {("get", "jobs"), ("get", "pods/log")}
    assert fake.used >= fake._allowed - unused
    assert not {asked for asked in fake.denied if asked[1] != "events"}, fake.denied


def test_queries_of_the_dashboard_find_the_runs(scene: Scene) -> None:
    found = {title: scene.query(sql, "prefect") for title, sql in queries("prefect")}
    assert {"Completed", "Failed"} <= {row[0] for row in found["Flow runs"]}
    assert any(row[0] == "dataset" and row[3] > 0 for row in found["Longest runs"])


def test_no_secret_is_on_the_server(scene: Scene, servers: EmbeddedStack) -> None:
    """Work pool, deployment, runs, logs, events and artifacts hold neither key nor password."""
    secrets = secrets_of(servers)
    tables = scene.query(
        "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace",
        "prefect",
    )
    assert tables
    for (table,) in tables:
        for secret in secrets:
            found = scene.query(
                f"SELECT count(*) FROM public.\"{table}\" t WHERE strpos(t::text, '{secret}') > 0",
                "prefect",
            )
            assert found == [(0,)], table


def secrets_of(servers: EmbeddedStack) -> tuple[str, ...]:
    return (
        *(PRIVACY_KEY, AUTH_STRING, AUTH_STRING.partition(":")[2]),
        *(b64encode(each.encode()).decode() for each in (PRIVACY_KEY, AUTH_STRING)),
        *(servers.postgres.password, servers.object_store.secret_key),
    )


def test_no_secret_is_in_a_manifest(scene: Scene, servers: EmbeddedStack) -> None:
    """Of all jobs and pods there ever were, also as they were while they ran; Secrets they name."""
    fake = scene.cluster.fake
    if fake is None:
        pytest.skip("a real cluster does not keep what it was sent")
    for name in ACTS:
        scene.acted(name)
    for kind, least in (("jobs", len(scene.started)), ("pods", len(scene.started))):
        found = fake.received(kind)
        assert len({each["metadata"]["name"] for each in found}) > least, kind
        for manifest in found:
            text = json.dumps(manifest)
            assert SECRET in text
            for secret in secrets_of(servers):
                assert secret not in text, manifest["metadata"]["name"]
