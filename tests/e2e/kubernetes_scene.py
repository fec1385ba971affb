"""The runs that the tests of Kubernetes watch, what is done to them, and what they leave behind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg2
from prefect.client.schemas.objects import FlowRun
from prefect.states import Cancelling
from prefect_aws import AwsCredentials, S3Bucket
from prefect_aws.client_parameters import AwsClientParameters
from pydantic import SecretStr

from blocks.object_store import LakeStorage
from blocks.warehouse import WarehouseCredentials
from embedded.postgres import ensure_database
from embedded.stack import EmbeddedStack
from tasks.catalog import load_catalog
from tasks.loading.table_check import ddl_script
from tests.e2e.cluster import DATASETS, Cluster, Reachable, Runs, wait_for

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
        self.home = home
        self._holds: dict[str, Any] = {}
        self._acted: dict[str, Future[Any]] = {}

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

    def act(self, acts: Mapping[str, Callable[[Scene], Any]]) -> None:
        """Disturb runs, each as soon as it has come so far, at the same time: starts take long."""
        pool = ThreadPoolExecutor(len(acts), "act")
        self._acted = {
            name: pool.submit(copy_context().run, act, self) for name, act in acts.items()
        }
        pool.shutdown(wait=False)

    def acted(self, name: str) -> Any:
        """Wait until a run was disturbed, and return what the act returned."""
        return self._acted[name].result(timeout=280)

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

    def final(self, name: str, *names: str, stopping: bool = False) -> FlowRun:
        """Wait for a state, and return the run.

        Args:
            name: The dataset.
            names: Of states.
            stopping: End its load meanwhile: a run that is ended waits for the partition under way.
        """

        def reached() -> FlowRun | None:
            if stopping:
                self.stop_load(name)
            run = self.runs.read(self.started[name])
            return run if run.state and run.state.name in names else None

        return wait_for(reached, f"{name} to be {names}")

    def exit_code(self, name: str) -> int:
        (pod,) = self.cluster.pods(self.started[name])
        ended = pod.status.container_statuses[0].state.terminated
        return int(ended.exit_code)


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
        if scene.cluster.fake is not None or name != "killed":
            scene.hold(name)


def kill(scene: Scene) -> None:
    if scene.cluster.fake is not None:  # a real cluster does it by itself, at a small limit
        run = scene.reach("killed")
        (pod,) = scene.cluster.pods(run.id)
        scene.cluster.fake.run_out_of_memory(pod.metadata.name)


def evict(scene: Scene) -> str:
    """Evict the pod, and return the name of its job."""
    run = scene.reach("evicted")
    (job,) = scene.cluster.jobs(run.id)
    (pod,) = scene.cluster.pods(run.id)
    scene.cluster.evict(pod.metadata.name)

    def another() -> bool:
        scene.stop_load("evicted")
        return len(scene.cluster.jobs(run.id)) == 2

    wait_for(another, "a second job")
    scene.release("evicted")
    return str(job.metadata.name)


def cancel(scene: Scene) -> None:
    run = scene.reach("cancelled")
    with scene.runs.client() as client:
        client.set_flow_run_state(run.id, Cancelling())
    scene.final("cancelled", "Cancelled", "Completed", "Failed", "Crashed", stopping=True)


def delete(scene: Scene) -> FlowRun:
    """Delete the job, and return the run as it ended."""
    run = scene.reach("deleted")
    (job,) = scene.cluster.jobs(run.id)
    scene.cluster.delete_job(job.metadata.name)

    def noticed() -> bool:
        scene.stop_load("deleted")
        return scene.runs.read(run.id).state_name != "Running"

    def settled() -> FlowRun | None:
        found = scene.runs.read(run.id)
        assert found.state
        crashed = found.state.is_crashed() and not scene.cluster.pods(run.id)
        return found if found.state.is_completed() or crashed else None

    wait_for(noticed, "its end to be noticed")
    scene.stop_load("deleted")
    scene.release("deleted")
    return wait_for(settled, "its end")


def give_up(scene: Scene) -> str:
    """Cancel, as the automation on pending runs does, a run whose image cannot be pulled."""

    def waits() -> bool:
        return any(
            status.state.waiting and status.state.waiting.reason.endswith(("Pull", "BackOff"))
            for pod in scene.cluster.pods(scene.started["stuck"])
            for status in pod.status.container_statuses or ()
        )

    wait_for(waits, "a pod without an image")
    run = scene.final("stuck", "Pending", "Submitting", "InfrastructurePending")
    (job,) = scene.cluster.jobs(run.id)
    assert run.infrastructure_pid == f"{scene.cluster.namespace}:{job.metadata.name}"
    with scene.runs.client() as client:
        client.set_flow_run_state(run.id, Cancelling())
    scene.final("stuck", "Cancelled", "Completed", "Failed", "Crashed")
    wait_for(lambda: not scene.cluster.jobs(run.id), "its job to be gone")
    return str(job.metadata.name)


ACTS = {"killed": kill, "evicted": evict, "cancelled": cancel, "deleted": delete, "stuck": give_up}
