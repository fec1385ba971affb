"""Manifests of ours by the schemas of Kubernetes, and what they must say together with the job template."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from prefect.settings import Settings
from prefect.settings.legacy import _get_valid_setting_names
from prefect_kubernetes.settings import KubernetesSettings
from ruamel.yaml import YAML

from deployments.kubernetes.job_template import job_template
from tasks.environments import load_environment
from tests.kubernetes_schemas import check

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "deployments" / "kubernetes"
CHARTS = sorted((FOLDER / "helm").glob("*.yaml"))
MANUAL = ROOT / "docs" / "kubernetes.md"
OVERLAYS = ("staging", "prod")
NOT_SETTINGS = {
    "PREFECT_REDIS_MESSAGING_URL",  # read by prefect-redis, which only the server's image has
    "PREFECT_SERVER_ENCRYPTION_KEY",  # a bare variable
    "PREFECT_LOGGING_HANDLERS_CONSOLE_FORMATTER",  # a key of logging.yml
}


def documents(text: str | Path) -> list[dict[str, Any]]:
    return [each for each in YAML(typ="safe").load_all(text) if each]


def base() -> list[dict[str, Any]]:
    files = sorted(set((FOLDER / "base").glob("*.yaml")) - {FOLDER / "base/kustomization.yaml"})
    return [each for path in files for each in documents(path)]


def of_kind(found: list[dict[str, Any]], kind: str) -> dict[str, dict[str, Any]]:
    return {
        f"{each['metadata'].get('namespace', '')}/{each['metadata']['name']}": each
        for each in found
        if each["kind"] == kind
    }


@pytest.fixture(scope="module", params=OVERLAYS)
def overlay(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    """What an environment gets, rendered by kustomize."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl, which renders overlays, is not installed")
    done = subprocess.run(
        ["kubectl", "kustomize", str(FOLDER / "overlays" / request.param)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return documents(done.stdout)


def test_base_is_valid() -> None:
    found = base()
    assert {each["kind"] for each in found} >= {"Role", "NetworkPolicy", "PodDisruptionBudget"}
    for each in found:
        check(each)


def test_every_file_is_part_of_the_base() -> None:
    listed = documents(FOLDER / "base/kustomization.yaml")[0]["resources"]
    there = {path.name for path in (FOLDER / "base").glob("*.yaml")} - {"kustomization.yaml"}
    assert set(listed) == there


def test_overlays_are_valid_and_have_addresses_of_their_own(overlay: list[dict[str, Any]]) -> None:
    for each in overlay:
        check(each)
    text = str(overlay)
    assert "192.0.2." not in text and "000000000000" not in text
    assert not of_kind(overlay, "ConfigMap")  # the settings themselves are not applied
    assert len(overlay) == len(base())


def test_worker_reaches_kubernetes_where_clients_ask_for_it(overlay: list[dict[str, Any]]) -> None:
    """At the address of the Service, and at those of the VPC that are behind it."""
    (environment,) = {each["metadata"]["labels"]["dpp/environment"] for each in overlay}
    settings = documents(FOLDER / "overlays" / environment / "settings.yaml")[0]["data"]
    policy = of_kind(overlay, "NetworkPolicy")["dpp/worker-reaches-kubernetes"]
    (rule,) = policy["spec"]["egress"]
    reached = [peer["ipBlock"]["cidr"] for peer in rule["to"]]
    assert reached == [settings["vpc"], settings["services"]] and len(set(reached)) == 2


def test_rights_are_the_least() -> None:
    """Only the worker has any, in its own namespace; no wildcard, no Secrets, no ClusterRole."""
    found = base()
    assert not of_kind(found, "ClusterRole") and not of_kind(found, "ClusterRoleBinding")
    (role,) = of_kind(found, "Role").values()
    named = {
        (resource, verb)
        for rule in role["rules"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert not any("*" in each for pair in named for each in pair)
    assert {resource for resource, _ in named} == {"jobs", "pods", "pods/log"}
    (binding,) = of_kind(found, "RoleBinding").values()
    assert binding["subjects"] == [
        {"kind": "ServiceAccount", "name": "prefect-worker", "namespace": "dpp"}
    ]
    flow_run = of_kind(found, "ServiceAccount")["dpp/dpp-flow-run"]
    assert flow_run["automountServiceAccountToken"] is False


def test_nothing_goes_out_that_is_not_named() -> None:
    policies = of_kind(base(), "NetworkPolicy")
    for namespace in ("dpp", "prefect"):
        denied = policies[f"{namespace}/deny-all"]["spec"]
        assert denied == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    for name, policy in policies.items():
        for rule in policy["spec"].get("egress", []):
            assert rule["to"] and rule["ports"], name
            for block in (peer["ipBlock"] for peer in rule["to"] if "ipBlock" in peer):
                if block["cidr"] == "0.0.0.0/0":
                    assert block["except"] == ["169.254.0.0/16"], name


def test_manifests_and_job_template_speak_of_the_same_things() -> None:
    template = job_template("small")
    properties = template["variables"]["properties"]
    accounts = of_kind(base(), "ServiceAccount")
    namespace = properties["namespace"]["default"]
    assert f"{namespace}/{properties['service_account_name']['default']}" in accounts
    labels = template["job_configuration"]["job_manifest"]["spec"]["template"]["metadata"]["labels"]
    component = labels["app.kubernetes.io/component"]
    selected = [
        policy
        for policy in of_kind(base(), "NetworkPolicy").values()
        if component in str(policy["spec"]["podSelector"])
    ]
    assert len(selected) == 3  # Prefect, the warehouse, https
    security = of_kind(base(), "Namespace")[f"/{namespace}"]["metadata"]["labels"]
    assert security["pod-security.kubernetes.io/enforce"] == "restricted"


def variables(found: Any) -> Iterator[Mapping[str, Any]]:
    """Give every environment variable in some values."""
    if isinstance(found, Mapping):
        if "name" in found and ("value" in found or "valueFrom" in found):
            yield found
        for each in found.values():
            yield from variables(each)
    elif isinstance(found, list):
        for each in found:
            yield from variables(each)


def known_settings() -> set[str]:
    integrations = {"PREFECT_INTEGRATIONS_KUBERNETES_CLUSTER_UID"}
    for part in ("worker", "observer"):
        fields = KubernetesSettings.model_fields[part].annotation.model_fields  # type: ignore[union-attr]
        integrations |= {
            f"PREFECT_INTEGRATIONS_KUBERNETES_{part}_{name}".upper() for name in fields
        }
    return set(_get_valid_setting_names(Settings)) | integrations | NOT_SETTINGS


@pytest.mark.parametrize("chart", CHARTS, ids=lambda path: path.stem)
def test_values_of_charts(chart: Path) -> None:
    """The charts are not at hand: checked is what Prefect and this project know of their values."""
    (values,) = documents(chart)
    found = [*variables(values)]
    assert found
    for variable in found:
        assert variable["name"] in known_settings(), variable["name"]
        if re.search(
            "KEY$|PASSWORD|AUTH_STRING$|(CONNECTION|DOCKET|MESSAGING)_URL$", variable["name"]
        ) and not variable["name"].endswith("SECRET_KEY"):
            assert "secretKeyRef" in variable["valueFrom"]
    text = chart.read_text()
    secrets = set(re.findall(r"(?:existingSecret|  name): (prefect-\w+)", text)) | {
        each["valueFrom"]["secretKeyRef"]["name"] for each in found if "valueFrom" in each
    }
    for secret in secrets - {"prefect-worker"}:
        assert f"create secret generic {secret}" in MANUAL.read_text(), secret


def test_server_and_background_services_share_what_is_to_be_cleaned() -> None:
    """Else the job of a run that was cancelled before it began is never removed: the one notes, the other tells."""
    (values,) = documents(FOLDER / "helm/prefect-server.yaml")
    assert values["backgroundServices"]["runAsSeparateDeployment"] is True
    shared = {each["name"]: each.get("value") for each in values["global"]["prefect"]["env"]}
    queue = "PREFECT_SERVER_WORKER_CHANNEL_CLEANUP_QUEUE_STORAGE"
    assert shared[queue] == "prefect_redis.cleanup_queue"


def test_address_of_the_server_is_one() -> None:
    """Ingress, UI and the links in alerts; the manual names all three places."""
    (values,) = documents(FOLDER / "helm/prefect-server.yaml")
    host = values["ingress"]["host"]["hostname"]
    assert values["server"]["uiConfig"]["prefectUiApiUrl"] == f"https://{host}/api"
    told = {each["name"]: each.get("value") for each in values["global"]["prefect"]["env"]}
    assert told["PREFECT_UI_URL"] == f"https://{host}"
    (step,) = re.findall(r"\*\*5\. .*?(?=\*\*6\. )", MANUAL.read_text(), re.DOTALL)
    for place in ("ingress", "prefectUiApiUrl", "PREFECT_UI_URL"):
        assert f"`{place}`" in step, place


def test_role_of_flow_runs_reads_the_secrets_that_their_blocks_name() -> None:
    """And no others: what bootstrap reads is not for pods. The queue is read where there is one."""
    environment = load_environment("prod")
    named = {
        fields["secret_name"]
        for key, fields in environment.blocks.items()
        if key.startswith("aws-secret/")
    }
    (step,) = re.findall(r"\*\*2\. .*?(?=\*\*3\. )", MANUAL.read_text(), re.DOTALL)
    assert f"dpp-flow-run-{environment.name}" in step
    assert named and set(re.findall(r"`(\w+/\w+/\w+)`", step)) == named
    assert environment.queue_block
    assert {"sqs:ReceiveMessage", "sqs:DeleteMessage"} <= set(re.findall(r"`(\w+:\w+)`", step))


def test_first_install_of_the_server_does_not_wait_for_tables_that_come_after_it() -> None:
    """The chart's job of migrations is a hook post-install: helm would wait for pods that wait for it."""
    (values,) = documents(FOLDER / "helm/prefect-server.yaml")
    told = {each["name"]: each.get("value") for each in values["global"]["prefect"]["env"]}
    assert told["PREFECT_SERVER_DATABASE_MIGRATE_ON_START"] == "false"
    (command,) = re.findall(
        r"helm install prefect-server .*?yaml[^\n]*", MANUAL.read_text(), re.DOTALL
    )
    assert "--wait" not in command
    assert "rollout status deployment/prefect-server\n" in MANUAL.read_text()


def test_containers_of_charts_are_locked_down() -> None:
    server, worker = (documents(chart)[0] for chart in CHARTS)
    for container in (
        server["server"]["containerSecurityContext"],
        server["backgroundServices"]["containerSecurityContext"],
        server["migrations"]["securityContext"],
        worker["worker"]["containerSecurityContext"],
    ):
        assert container["runAsNonRoot"] is True
        assert container["readOnlyRootFilesystem"] is True
        assert container["allowPrivilegeEscalation"] is False
        assert container["capabilities"] == {"drop": ["ALL"]}
    assert worker["worker"]["podSecurityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}


def test_worker_of_the_chart_has_the_rights_of_the_base() -> None:
    worker = documents(FOLDER / "helm/prefect-worker.yaml")[0]
    assert worker["role"] == {"create": False} and worker["rolebinding"] == {"create": False}
    assert f"dpp/{worker['serviceAccount']['name']}" in of_kind(base(), "ServiceAccount")
    told = {each["name"]: each["value"] for each in worker["worker"]["extraEnvVars"]}
    prefix = "PREFECT_INTEGRATIONS_KUBERNETES_"
    assert told[f"{prefix}OBSERVER_NAMESPACES"] == "dpp"
    reference = job_template("small")["job_configuration"]["job_manifest"]["spec"]["template"][
        "spec"
    ]["containers"][0]["env"][0]["valueFrom"]["secretKeyRef"]
    assert told[f"{prefix}WORKER_API_AUTH_STRING_SECRET_KEY"] == reference["key"]


def test_versions_of_prefect_are_those_of_the_lock() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    match = re.search(r"^prefect==(\S+)", lock, re.MULTILINE)
    assert match
    for path in (*CHARTS, ROOT / "deployments/docker/docker-compose.yml"):
        tags = re.findall(r"(?:prefectTag: |prefecthq/prefect:)([0-9.]+)-", path.read_text())
        assert set(tags) == {match[1]}, path.name
