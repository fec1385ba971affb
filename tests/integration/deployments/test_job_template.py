"""The job that the worker's own code makes of the template: valid, locked down, as large as asked."""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.server.schemas.actions import WorkPoolCreate
from prefect.settings import (
    PREFECT_CLIENT_METRICS_ENABLED,
    PREFECT_HOME,
    temporary_settings,
)
from prefect_kubernetes.worker import KubernetesWorkerJobConfiguration

from deployments.kubernetes.job_template import SIZES, job_template
from deployments.prefect_file import PrefectFile, read_prefect_file
from tasks.model.environment import MIN_MEMORY_BYTES, parse_bytes
from tests.kubernetes_schemas import check, without_what_prefect_misplaces

ROOT = Path(__file__).parents[3]
MIB = 1 << 20
IMAGE = "registry.example.org/dpp:1.2.3"


def rendered(size: str, **variables: Any) -> dict[str, Any]:
    """Make the job of a flow run as the worker does, with the variables of its deployment."""

    async def render() -> dict[str, Any]:
        configuration = await KubernetesWorkerJobConfiguration.from_template_and_values(
            job_template(size),
            {"image": IMAGE, **variables},
            client=object(),  # type: ignore[arg-type]  # there is nothing to look up
        )
        run = FlowRun(
            id=uuid.uuid4(),
            flow_id=uuid.uuid4(),
            name="small Falcon_7",
            state=State(type=StateType.PENDING),
        )
        configuration.prepare_for_flow_run(run)
        return configuration.job_manifest

    return asyncio.run(render())


def pod_of(job: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = job["spec"]["template"]["spec"]
    return spec


def variables_of(job: dict[str, Any]) -> dict[str, Any]:
    return {each["name"]: each for each in pod_of(job)["containers"][0]["env"]}


@pytest.fixture(scope="module")
def job() -> dict[str, Any]:
    return rendered("medium", env={"DPP_ENV": "prod"})


def test_metrics_of_the_worker_are_not_those_of_its_jobs() -> None:
    """The processes of a pod would take the same port one after another, and the second would crash."""
    with temporary_settings({PREFECT_CLIENT_METRICS_ENABLED: True}):
        variable = variables_of(rendered("small"))["PREFECT_CLIENT_METRICS_ENABLED"]
    assert variable["value"] == "false"


@pytest.mark.parametrize("size", SIZES)
def test_template_is_taken_by_the_server_and_its_job_by_kubernetes(size: str) -> None:
    template = job_template(size)
    jsonschema.Draft202012Validator.check_schema(template["variables"])
    WorkPoolCreate(name="pool", type="kubernetes", base_job_template=template)
    check(without_what_prefect_misplaces(rendered(size)))


def test_schemas_refuse_a_misspelt_field(job: dict[str, Any]) -> None:
    """Also that of the worker itself, which is why it is taken out by name."""
    with pytest.raises(kubernetes_validate.ValidationError, match="parallelism"):
        check(job)
    wrong = without_what_prefect_misplaces(job)
    pod_of(wrong)["containers"][0]["securityContext"]["readOnlyRootFileSystem"] = True
    with pytest.raises(kubernetes_validate.ValidationError, match="readOnlyRootFileSystem"):
        check(wrong)


@pytest.mark.parametrize("size", SIZES)
def test_job_is_locked_down(size: str) -> None:
    pod = pod_of(rendered(size))
    container = pod["containers"][0]
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    assert pod["serviceAccountName"] == "dpp-flow-run"
    assert pod["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 10001,
        "runAsGroup": 10001,
        "fsGroup": 10001,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "privileged": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & set(pod)
    assert all(set(volume) == {"name", "emptyDir"} for volume in pod["volumes"])
    assert all(volume["emptyDir"]["sizeLimit"] for volume in pod["volumes"])


def test_every_folder_that_is_written_to_is_mounted(job: dict[str, Any]) -> None:
    container = pod_of(job)["containers"][0]
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    assert set(mounts.values()) == {volume["name"] for volume in pod_of(job)["volumes"]}
    written = ("PREFECT_HOME", "HOME", "TMPDIR", "DPP_SCRATCH")
    assert {variables_of(job)[name]["value"] for name in written} == set(mounts)


def test_job_ends_and_goes(job: dict[str, Any]) -> None:
    spec = job["spec"]
    assert spec["activeDeadlineSeconds"] == 6 * 3600
    assert spec["ttlSecondsAfterFinished"] == 3600
    assert (spec["backoffLimit"], spec["parallelism"], spec["completions"]) == (0, 1, 1)
    assert pod_of(job)["restartPolicy"] == "Never"
    assert pod_of(job)["terminationGracePeriodSeconds"] == 60


def test_secrets_are_named_and_never_written(job: dict[str, Any]) -> None:
    found = variables_of(job)
    for variable, key in (
        ("PREFECT_API_AUTH_STRING", "prefect-api-auth-string"),
        ("DPP_PRIVACY_KEY", "privacy-key"),
    ):
        reference = {"name": "dpp-flow-run", "key": key, "optional": True}
        assert found[variable] == {"name": variable, "valueFrom": {"secretKeyRef": reference}}


def test_settings_of_the_worker_do_not_reach_the_job() -> None:
    """It hands down each of its settings; those that would break a job are overruled."""
    with temporary_settings({PREFECT_HOME: "/home/worker"}):
        found = variables_of(rendered("small", env={"DPP_ENV": "staging"}))
    assert found["PREFECT_HOME"]["value"] == "/prefect"
    assert found["PREFECT_SERVER_EPHEMERAL_ENABLED"]["value"] == "false"
    assert found["DPP_ENV"]["value"] == "staging"
    assert found["PREFECT_FLOW_RUN_EXECUTE_SIGTERM_BEHAVIOR"]["value"] == "reschedule"


@pytest.mark.parametrize("size", SIZES)
def test_pods_are_found_by_size_and_run(size: str) -> None:
    """Costs and logs are added up by the pod's labels."""
    job = rendered(size, labels={"cost-center": "4711"})
    labels = job["spec"]["template"]["metadata"]["labels"]
    assert labels["dpp/size"] == size
    assert labels["app.kubernetes.io/component"] == "flow-run"
    assert labels["cost-center"] == "4711"
    assert uuid.UUID(labels["prefect.io/flow-run-id"])


@pytest.mark.parametrize("environment", ["staging", "prod"])
def test_pod_of_every_deployment_says_whose_cost_it_is(environment: str) -> None:
    entries = PrefectFile.model_validate(read_prefect_file(ROOT).content).deployments
    ours = [entry for entry in entries if entry.name.endswith(f"-{environment}")]
    assert ours
    for given in {str(entry.work_pool.job_variables): entry for entry in ours}.values():
        job = rendered("small", **given.work_pool.job_variables)
        for labels in (job["metadata"]["labels"], job["spec"]["template"]["metadata"]["labels"]):
            assert labels["dpp/environment"] == environment
            assert labels["dpp/cost-center"] == "data-platform"


def test_variables_reach_the_manifest() -> None:
    taint = {"key": "etl", "operator": "Exists", "effect": "NoSchedule"}
    job = rendered(
        "small",
        node_selector={"karpenter.sh/capacity-type": "spot"},
        tolerations=[taint],
        priority_class_name="batch",
        env_from=[{"secretRef": {"name": "erp"}}],
        secret_name="other",
        mount_service_account_token=True,
        active_deadline_seconds=90,
        memory="2Gi",
        scratch_size="5Gi",
        namespace="elsewhere",
        backoff_limit=1,
    )
    check(without_what_prefect_misplaces(job))
    pod = pod_of(job)
    container = pod["containers"][0]
    assert pod["nodeSelector"] == {"karpenter.sh/capacity-type": "spot"}
    assert pod["tolerations"] == [taint]
    assert pod["priorityClassName"] == "batch"
    assert pod["automountServiceAccountToken"] is True
    assert container["envFrom"] == [{"secretRef": {"name": "erp"}}]
    assert container["resources"]["limits"] == {"memory": "2Gi"}
    assert container["resources"]["requests"]["memory"] == "2Gi"
    assert pod["volumes"][-1] == {"name": "scratch", "emptyDir": {"sizeLimit": "5Gi"}}
    assert variables_of(job)["DPP_PRIVACY_KEY"]["valueFrom"]["secretKeyRef"]["name"] == "other"
    assert job["spec"]["activeDeadlineSeconds"] == 90
    assert job["metadata"]["namespace"] == "elsewhere"


@pytest.mark.parametrize("size", SIZES)
def test_memory_of_the_pod_holds_the_budget_and_everything_beside_it(size: str) -> None:
    """The arithmetic of docs/kubernetes.md."""
    found = SIZES[size]
    budget = parse_bytes(found.memory_budget)
    assert isinstance(budget, int) and budget >= MIN_MEMORY_BYTES
    units = {"Mi": MIB, "Gi": 1 << 30}
    memory = int(found.memory[:-2]) * units[found.memory[-2:]]
    processes, of_each_partition = 600 * MIB, 256 * MIB
    assert memory >= budget + processes + int(found.concurrency) * of_each_partition


def test_sizes_differ_by_their_table_only() -> None:
    small, large = job_template("small"), job_template("large")
    for template, size in ((small, "small"), (large, "large")):
        for variable in vars(SIZES[size]):
            del template["variables"]["properties"][variable]["default"]
        del template["job_configuration"]["job_manifest"]["spec"]["template"]["metadata"]["labels"][
            "dpp/size"
        ]
    assert small == large
    with pytest.raises(KeyError, match="small, medium, large"):
        job_template("huge")
