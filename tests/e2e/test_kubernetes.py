"""Prefect's own Kubernetes worker, and what becomes of a run when its pod fails.

Without ``DPP_TEST_KUBECONFIG`` the cluster is a fake (``tests/fake_kubernetes.py``). With it, a real one
runs the same tests: docs/kubernetes.md says what its image, and this machine, must have.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg2
import pytest
from kubernetes_asyncio.client.exceptions import ApiException
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings
from prefect.states import Cancelling
from prefect_aws import AwsCredentials, S3Bucket
from prefect_aws.client_parameters import AwsClientParameters
from pydantic import SecretStr
from ruamel.yaml import YAML

from blocks.object_store import LakeStorage
from blocks.warehouse import WarehouseCredentials
from embedded.postgres import ensure_database
from embedded.stack import EmbeddedStack
from flows.dataset import DatasetParameters, dataset
from tasks.datasets import load_catalog
from tasks.loading.table_check import ddl_script
from tests.e2e.cluster import (
    DATASETS,
    POOL,
    SECRET,
    Cluster,
    Reachable,
    Runs,
    wait_for,
    worker,
    write_project,
)
from tests.e2e.conftest import ROOT
from tests.fake_kubernetes import FakeKubernetes
from tests.integration.deployments.test_job_template import rendered
from tests.integration.deployments.test_monitoring import queries
from tests.kubernetes_schemas import without_what_prefect_misplaces

REAL = os.environ.get("DPP_TEST_KUBECONFIG")
NAMESPACE = os.environ.get("DPP_TEST_NAMESPACE", "dpp")
IMAGE = os.environ.get("DPP_TEST_IMAGE", "registry.example.org/dpp:test")
PRIVACY_KEY = "0123456789abcdef0123456789abcdef"
SMALL_LIMIT = "160Mi"
"""Memory with which a real cluster kills the run."""
# A row that the loading of these datasets stops at, for as long as the test holds a lock.
HELD = ("killed", "evicted", "cancelled", "deleted")
HOLD = """
CREATE FUNCTION kubernetes.hold() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.id = 3 THEN PERFORM pg_advisory_xact_lock(hashtext(TG_TABLE_NAME)); END IF;
  RETURN NEW;
END $$;
"""
OBJECTS = {  # each is a partition, being larger than partition_bytes
    "a.csv": "id,price,name\n1,1.50,{x}\n2,2.00,{x}\n",
    "b.csv": "id,price,name\n3,3.50,{x}\n4,-1,{x}\n",
}


class Scene:
    """The cluster, the server and the warehouse, with a run of each dataset under way."""

    def __init__(self, cluster: Cluster, runs: Runs, address: dict[str, Any], home: Path) -> None:
        self.cluster = cluster
        self.runs = runs
        self.started: dict[str, UUID] = {}
        self._address = address
        self._home = home
        self._holds: dict[str, Any] = {}

    def query(self, sql: str, database: str = "kubernetes") -> list[tuple[Any, ...]]:
        connection = psycopg2.connect(**self._address, dbname=database)
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(sql)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()

    def hold(self, name: str) -> None:
        """Make the second partition of a dataset wait before its rows are published."""
        self.query(
            f"CREATE TRIGGER hold BEFORE INSERT ON kubernetes.{name} "
            "FOR EACH ROW EXECUTE FUNCTION kubernetes.hold()"
        )
        held = psycopg2.connect(**self._address, dbname="kubernetes")
        held.autocommit = True
        with held.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_lock(hashtext(%s))", (name,))
        self._holds[name] = held

    def release(self, name: str) -> None:
        if held := self._holds.pop(name, None):
            held.close()

    def close(self) -> None:
        for name in [*self._holds]:
            self.release(name)

    def waiting(self, name: str) -> int | None:
        """Return the process of the server in which a load waits for the test."""
        found = self.query(
            "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND NOT granted "
            f"AND ((classid::bigint << 32) | objid::bigint) = hashtext('{name}')"
        )
        return found[0][0] if found else None

    def reach(self, name: str) -> FlowRun:
        """Wait until the first partition is loaded, and the second waits."""
        wait_for(lambda: self.waiting(name), f"{name} to load")
        assert self.rows(name) == [1, 2]
        return self.runs.read(self.started[name])

    def stop_load(self, name: str) -> None:
        """End the load that waits, as the end of its process does sooner or later."""
        if pid := self.waiting(name):
            self.query(f"SELECT pg_terminate_backend({pid})")

    def rows(self, name: str) -> list[int]:
        return [row[0] for row in self.query(f"SELECT id FROM kubernetes.{name} ORDER BY id")]

    def loads(self, name: str) -> int:
        """Return the number of loads of a dataset, each of another partition."""
        count, fingerprints = self.query(
            f"SELECT count(*), count(DISTINCT fingerprint) FROM etl.loads WHERE dataset = '{name}'"
        )[0]
        assert count == fingerprints
        return int(count)

    def accounted(self, name: str) -> None:
        """Check that every row in the table is in the ledger, once."""
        inserted = self.query(
            f"SELECT coalesce(sum(rows_inserted), 0) FROM etl.loads WHERE dataset = '{name}'"
        )[0][0]
        assert len(self.rows(name)) == inserted

    def final(self, name: str, *names: str) -> FlowRun:
        """Wait for a state, and return the run."""

        def reached() -> FlowRun | None:
            run = self.runs.read(self.started[name])
            return run if run.state and run.state.name in names else None

        return wait_for(reached, f"{name} to be {names}")

    def exit_code(self, name: str) -> int:
        (pod,) = self.cluster.pods(self.started[name])
        ended = pod.status.container_statuses[0].state.terminated
        return int(ended.exit_code)


@contextmanager
def cluster_of(folder: Path, home: Path) -> Iterator[Cluster]:
    if REAL:
        yield Cluster(Path(REAL), NAMESPACE, None)
        return
    keep = ("PATH", "LANG", "COVERAGE_PROCESS_CONFIG", "COVERAGE_PROCESS_START")
    environment = {name: os.environ[name] for name in keep if name in os.environ}
    documents = YAML(typ="safe").load_all((ROOT / "deployments/kubernetes/base/worker.yaml").open())
    (rules,) = (each["rules"] for each in documents if each["kind"] == "Role")
    image = {"/app": home}
    fake = FakeKubernetes(folder, image, {**environment, "PYTHONPATH": str(ROOT)}, rules)
    fake.start()
    try:
        yield Cluster(fake.kubeconfig("admin"), NAMESPACE, fake)
    finally:
        fake.close()


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
        cluster.put_secret(SECRET, {"privacy-key": PRIVACY_KEY})
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
        stack.enter_context(worker(url, cluster, folder))
        for name in DATASETS:
            memory = {"memory": SMALL_LIMIT} if REAL and name == "killed" else {}
            scene.started[name] = runs.start(name, **memory)
        yield scene


def prepare(scene: Scene, servers: EmbeddedStack, reachable: Reachable, home: Path) -> None:
    """Make the blocks, the objects, the tables, and the locks that hold some of the loads."""
    address = servers.postgres
    ensure_database(address.port, address.password, "kubernetes")
    warehouse = WarehouseCredentials(
        host=reachable.host,
        port=reachable.port(address.port),
        database="kubernetes",
        username=address.user,
        password=SecretStr(address.password),
        sslmode="disable",
        lock_timeout=240,
    )
    warehouse.save("kubernetes-warehouse", overwrite=True)
    store = servers.object_store
    s3 = reachable.port(int(store.endpoint_url.rpartition(":")[2]))
    credentials = AwsCredentials(
        aws_access_key_id=store.access_key,
        aws_secret_access_key=SecretStr(store.secret_key),
        aws_client_parameters=AwsClientParameters(endpoint_url=f"http://{reachable.host}:{s3}"),
    )
    client = credentials.get_s3_client()
    for bucket in ("kubernetes-landing", "kubernetes-lake"):
        client.create_bucket(Bucket=bucket)
    S3Bucket(bucket_name="kubernetes-landing", credentials=credentials).save(
        "kubernetes-landing", overwrite=True
    )
    LakeStorage(uri="s3://kubernetes-lake/zones", credentials=credentials).save(
        "kubernetes-lake", overwrite=True
    )
    for name in DATASETS:
        for key, text in OBJECTS.items():
            body = text.format(x="x" * 400)
            client.put_object(Bucket="kubernetes-landing", Key=f"{name}/{key}", Body=body.encode())
    catalog = load_catalog(home / "datasets")
    engine = warehouse.get_engine("tests")
    scene.query(ddl_script(engine, [(catalog[name], {}) for name in DATASETS]))
    engine.dispose()
    scene.query(HOLD)
    for name in HELD:
        if not (REAL and name == "killed"):
            scene.hold(name)


@pytest.fixture
def again(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run a dataset once more, in this process."""
    monkeypatch.setenv("DPP_HOME", str(scene._home))
    monkeypatch.setenv("DPP_ENV", "cluster")
    monkeypatch.setenv("DPP_SCRATCH", str(scene._home / "scratch"))
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
    assert PRIVACY_KEY not in str(job.to_dict())


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
    if scene.cluster.fake is not None:
        run = scene.reach("killed")
        (pod,) = scene.cluster.pods(run.id)
        scene.cluster.fake.run_out_of_memory(pod.metadata.name)
    run = scene.final("killed", "Crashed")
    assert run.run_count <= 1
    assert scene.exit_code("killed") == 137
    scene.stop_load("killed")
    scene.accounted("killed")
    again("killed")


def test_a_run_whose_pod_is_evicted(scene: Scene) -> None:
    """It is run again in a new job, which goes on with what the first one left."""
    run = scene.reach("evicted")
    (first,) = scene.cluster.jobs(run.id)
    (pod,) = scene.cluster.pods(run.id)
    scene.cluster.evict(pod.metadata.name)
    wait_for(lambda: len(scene.cluster.jobs(run.id)) == 2, "a second job")
    scene.stop_load("evicted")
    scene.release("evicted")
    run = scene.final("evicted", "Completed", "Failed", "Crashed")
    assert run.state and run.state.is_completed(), run.state
    assert run.run_count == 2
    assert first.metadata.name in {job.metadata.name for job in scene.cluster.jobs(run.id)}
    assert scene.rows("evicted") == [1, 2, 3]
    assert scene.loads("evicted") == 2
    scene.accounted("evicted")


def test_a_run_that_is_cancelled(scene: Scene, again: Any) -> None:
    run = scene.reach("cancelled")
    with scene.runs.client() as client:
        client.set_flow_run_state(run.id, Cancelling())
    run = scene.final("cancelled", "Cancelled", "Completed", "Failed", "Crashed")
    assert run.state and run.state.is_cancelled(), run.state
    scene.stop_load("cancelled")
    scene.accounted("cancelled")
    wait_for(lambda: not [j for j in scene.cluster.jobs(run.id) if j.status.active], "its end")
    assert len(scene.cluster.jobs(run.id)) <= 1
    again("cancelled")


def test_a_run_whose_job_is_deleted(scene: Scene, again: Any) -> None:
    """The pod asks to be run again, the worker calls the run crashed: the later of them is heard."""
    run = scene.reach("deleted")
    (job,) = scene.cluster.jobs(run.id)
    scene.cluster.delete_job(job.metadata.name)

    def settled() -> FlowRun | None:
        scene.stop_load("deleted")
        found = scene.runs.read(run.id)
        assert found.state
        crashed = found.state.is_crashed() and not scene.cluster.pods(run.id)
        return found if found.state.is_completed() or crashed else None

    wait_for(lambda: scene.runs.read(run.id).state_name != "Running", "its end to be noticed")
    scene.stop_load("deleted")
    scene.release("deleted")
    ended = wait_for(settled, "its end")
    scene.accounted("deleted")
    if ended.state and ended.state.is_crashed():
        assert ended.state.message == "Kubernetes job was deleted"
        again("deleted")
    assert scene.rows("deleted") == [1, 2, 3]
    assert scene.loads("deleted") == 2


def test_the_role_of_the_worker_is_what_it_needs(scene: Scene) -> None:
    """Each of its rules was used; without what was denied, all of the above went well."""
    fake = scene.cluster.fake
    if fake is None:
        pytest.skip("a real cluster denies by itself")
    # Reading the pods' logs is for jobs that never came to run, deleting for runs cancelled before that.
    unused = {("get", "jobs"), ("get", "pods/log"), ("delete", "jobs")}
    assert fake.used >= fake._allowed - unused
    assert not {asked for asked in fake.denied if asked[1] != "events"}, fake.denied


def test_queries_of_the_dashboard_find_the_runs(scene: Scene) -> None:
    found = {title: scene.query(sql, "prefect") for title, sql in queries("prefect")}
    assert {"Completed", "Failed"} <= {row[0] for row in found["Flow runs"]}
    assert any(row[0] == "dataset" and row[3] > 0 for row in found["Longest runs"])


def test_no_secret_is_on_the_server(scene: Scene, servers: EmbeddedStack) -> None:
    """Work pool, deployment, runs, logs, events and artifacts hold neither key nor password."""
    secrets = (PRIVACY_KEY, servers.postgres.password, servers.object_store.secret_key)
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
    assert POOL
