"""A cluster of Kubernetes, a fake or a real one, and what flow runs in it need: pool, deployment, worker."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

from kubernetes_asyncio import client as api
from kubernetes_asyncio import config
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import FlowRun

from deployments.kubernetes.job_template import job_template
from embedded.prefect_server import QUIET, worker_is_online
from tests.fake_kubernetes import LOCALHOST, FakeKubernetes
from tests.tcp_cut import CuttingProxy

Answer = TypeVar("Answer")
NEVER = 1 << 62
POOL = "kubernetes"
SECRET = "dpp-flow-run"
DATASET = """\
name: {name}
description: Things that a run in Kubernetes loads
source: {{kind: s3, block: kubernetes-landing, path: "{name}/*.csv", format: {{kind: csv}}}}
key: [id]
columns:
  id: {{type: int64}}
  price: {{type: "decimal(8,2)", checks: {{between: [0, 1000]}}}}
  name: {{type: string, pii: mask}}
load: {{table: kubernetes.{name}, mode: merge}}
"""
GATED = "quality: {gates: [{quarantine_rate: 0.1}]}\n"
DATASETS = ("loaded", "refused", "killed", "evicted", "cancelled", "deleted")
ENVIRONMENT = """\
name: cluster
embedded: false
warehouse_block: kubernetes-warehouse
lake_block: kubernetes-lake
work_pool: {name: kubernetes, type: kubernetes, job_template: small}
memory_budget: 128MB
partition_bytes: 1KB
concurrency: 1
stage_timeout: 300
retention_days: 1
"""


def write_project(home: Path) -> None:
    """Write the datasets and the environment of the tests, for the image of a real cluster too."""
    for folder in (home / "datasets", home / "deployments" / "environments"):
        folder.mkdir(parents=True, exist_ok=True)
    (home / "deployments" / "environments" / "cluster.yaml").write_text(ENVIRONMENT)
    for name in DATASETS:
        gate = GATED if name == "refused" else ""
        (home / "datasets" / f"{name}.yaml").write_text(DATASET.format(name=name) + gate)


class Cluster:
    """What tests ask of Kubernetes, through its API.

    Args:
        kubeconfig: Of the cluster.
        namespace: Where jobs are made.
        fake: The fake, if it is one.
    """

    def __init__(self, kubeconfig: Path, namespace: str, fake: FakeKubernetes | None) -> None:
        self.kubeconfig = kubeconfig
        self.namespace = namespace
        self.fake = fake

    def _ask(self, question: Callable[[Any], Any]) -> Any:
        async def ask() -> Any:
            made = await config.new_client_from_config(config_file=str(self.kubeconfig))
            async with made:
                return await question(made)

        return asyncio.run(ask())

    def jobs(self, run: UUID) -> list[Any]:
        """Return the jobs of a flow run that are there."""
        of_run = f"prefect.io/flow-run-id={run}"
        found: list[Any] = self._ask(
            lambda made: api.BatchV1Api(made).list_namespaced_job(
                self.namespace, label_selector=of_run
            )
        ).items
        return found

    def pods(self, run: UUID) -> list[Any]:
        """Return the pods of a flow run that are there."""
        of_run = f"prefect.io/flow-run-id={run}"
        found: list[Any] = self._ask(
            lambda made: api.CoreV1Api(made).list_namespaced_pod(
                self.namespace, label_selector=of_run
            )
        ).items
        return found

    def submit(self, job: dict[str, Any]) -> None:
        """Make a job."""
        self._ask(lambda made: api.BatchV1Api(made).create_namespaced_job(self.namespace, job))

    def put_secret(self, name: str, values: Mapping[str, str]) -> None:
        """Make a Secret."""
        body = api.V1Secret(
            api_version="v1",
            kind="Secret",
            metadata=api.V1ObjectMeta(name=name),
            string_data=dict(values),
        )
        self._ask(lambda made: api.CoreV1Api(made).create_namespaced_secret(self.namespace, body))

    def delete_secret(self, name: str) -> None:
        """Remove a Secret."""
        self._ask(lambda made: api.CoreV1Api(made).delete_namespaced_secret(name, self.namespace))

    def evict(self, pod: str) -> None:
        """Do what draining a node does."""
        body = api.V1Eviction(metadata=api.V1ObjectMeta(name=pod, namespace=self.namespace))
        self._ask(
            lambda made: api.CoreV1Api(made).create_namespaced_pod_eviction(
                pod, self.namespace, body
            )
        )

    def delete_job(self, job: str) -> None:
        """Do what ``kubectl delete job`` does."""
        self._ask(
            lambda made: api.BatchV1Api(made).delete_namespaced_job(
                job, self.namespace, propagation_policy="Background"
            )
        )


class Runs:
    """Flow runs of the deployment, on the Prefect server."""

    def __init__(self, server_url: str, image: str, namespace: str) -> None:
        self.url = server_url
        self._namespace = namespace
        self._image = image
        self._deployment: UUID | None = None

    @contextmanager
    def client(self) -> Iterator[SyncPrefectClient]:
        with get_client(sync_client=True) as made:
            yield made

    def deploy(self) -> None:
        """Make the work pool from the job template, and the deployment of the flow ``dataset``."""
        with self.client() as client:
            pool = WorkPoolCreate(
                name=POOL, type="kubernetes", base_job_template=job_template("small")
            )
            client.create_work_pool(pool, overwrite=True)
            step = "prefect.deployments.steps.set_working_directory"
            self._deployment = client.create_deployment(
                flow_id=client.create_flow_from_name("dataset"),
                name="dataset-kubernetes",
                entrypoint="flows/dataset.py:dataset",
                work_pool_name=POOL,
                pull_steps=[{step: {"directory": "{{ $DPP_HOME }}"}}],
                job_variables={
                    "image": self._image,
                    "namespace": self._namespace,
                    "env": {"DPP_ENV": "cluster"},
                },
            )

    def start(self, name: str, **variables: Any) -> UUID:
        """Start a run of a dataset."""
        assert self._deployment
        with self.client() as client:
            run = client.create_flow_run_from_deployment(
                self._deployment,
                parameters={"parameters": {"dataset": name}},
                job_variables=variables or None,
            )
        return run.id

    def read(self, run: UUID) -> FlowRun:
        with self.client() as client:
            return client.read_flow_run(run)


def wait_for(question: Callable[[], Answer | None], what: str, seconds: float = 240) -> Answer:
    """Ask until the answer is a true value."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        answer = question()
        if answer:
            return answer
        time.sleep(0.2)
    raise AssertionError(f"waited {seconds:.0f} s in vain for {what}")


@contextmanager
def worker(url: str, cluster: Cluster, home: Path, variables: Mapping[str, str]) -> Iterator[Path]:
    """Run Prefect's Kubernetes worker as it is, with further variables; gives its log."""
    log = home / "worker.log"
    settings = {
        **QUIET,
        "PREFECT_API_URL": url,
        "PREFECT_HOME": str(home / "worker"),
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "KUBECONFIG": str(
            cluster.fake.kubeconfig("worker") if cluster.fake else cluster.kubeconfig
        ),
        **variables,
        "PREFECT_INTEGRATIONS_KUBERNETES_OBSERVER_NAMESPACES": cluster.namespace,
    }
    outside = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    options = ("--pool", POOL, "--type", "kubernetes", "--name", "e2e", "--install-policy", "never")
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "prefect", "worker", "start", *options],
            env=outside | settings,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            wait_for(lambda: worker_is_online(url, POOL, "e2e"), "the worker")
            yield log
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


class Reachable:
    """Ports of this machine, as pods see them: forwarded on an address that they can reach."""

    def __init__(self, host: str | None) -> None:
        self.host = host or LOCALHOST
        self._proxies: list[CuttingProxy] = []

    def port(self, local: int) -> int:
        """Return the port under which a local one is reached."""
        if self.host == LOCALHOST:
            return local
        self._proxies.append(CuttingProxy(local, NEVER, self.host))
        return self._proxies[-1].port

    def close(self) -> None:
        """Forward no more."""
        for proxy in self._proxies:
            proxy.close()


if __name__ == "__main__":
    write_project(Path(sys.argv[1]))
