"""Workflows that GitHub would take: checked by actionlint, pinned, with the least permissions."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from deployments.bootstrap.bootstrap import deploy_variables
from deployments.declared_blocks import references
from deployments.release import check_version, section_of
from tasks.environments import load_environment

ROOT = Path(__file__).parents[3]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
WRITES = {
    ("release", "image"): {"contents": "read", "packages": "write"},
    ("release", "release"): {"contents": "write"},
    ("release", "staging"): {"contents": "read", "id-token": "write"},
    ("release", "prod"): {"contents": "read", "id-token": "write"},
    ("deploy", "bootstrap"): {"contents": "read", "id-token": "write"},
}


def read(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = YAML(typ="safe", pure=True).load(path.read_text())
    return document


def steps_of(path: Path) -> list[dict[str, Any]]:
    return [step for job in read(path)["jobs"].values() for step in job.get("steps", ())]


def actionlint(*paths: Path) -> subprocess.CompletedProcess[str]:
    binary = Path(sys.executable).with_name("actionlint")
    return subprocess.run(
        [binary, "-no-color", *paths], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_actionlint_finds_nothing() -> None:
    done = actionlint(*WORKFLOWS)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


def test_actionlint_finds_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "ci.yml"
    text = (ROOT / ".github/workflows/ci.yml").read_text()
    path.write_text(text.replace("matrix.python }}\n", "matrix.pyton }}\n"))
    assert 'property "pyton" is not defined' in actionlint(path).stdout


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_actions_are_pinned_and_permissions_are_the_least(path: Path) -> None:
    for line in path.read_text().splitlines():
        used = re.search(r"uses: (\S+)", line)
        if used and not used[1].startswith("./"):
            assert re.search(r"uses: [\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$", line), line
    workflow = read(path)
    assert workflow["permissions"] == {"contents": "read"}
    for name, job in workflow["jobs"].items():
        assert job.get("permissions") == WRITES.get((path.stem, name)), name
        assert "uses" in job or job["timeout-minutes"] <= 45, name
    for step in steps_of(path):
        if "checkout" in step.get("uses", ""):
            assert step["with"]["persist-credentials"] is False


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_shell_steps_are_shell_and_take_no_text_of_others(path: Path) -> None:
    """An expression within a script would be run as code: what comes in comes in variables."""
    for step in steps_of(path):
        if "run" in step:
            script = step["run"]
            done = subprocess.run(["bash", "-n"], input=script, text=True, check=False)
            assert done.returncode == 0, script
            assert "${{" not in script, script


def test_tests_run_on_every_python_that_is_promised() -> None:
    matrix = read(ROOT / ".github/workflows/ci.yml")["jobs"]["test"]["strategy"]["matrix"]
    assert matrix["python"] == ["3.11", "3.12", "3.13"]
    assert any("make test" in step.get("run", "") for step in steps_of(WORKFLOWS[0]))


def test_prod_follows_staging_and_the_release_follows_the_checks() -> None:
    jobs = read(ROOT / ".github/workflows/release.yml")["jobs"]
    assert "staging" in jobs["prod"]["needs"]
    assert jobs["image"]["needs"] == ["check", "version"]
    assert 'deployments/release.py "$TAG"' in str(jobs["version"]["steps"])
    assert jobs["prod"]["if"] == "${{ !contains(github.ref_name, '-') }}"  # no release candidate
    assert "if" not in jobs["staging"]
    assert jobs["check"]["uses"].endswith("ci.yml")
    assert jobs["prod"]["with"]["image"] == jobs["staging"]["with"]["image"]


@pytest.mark.parametrize("name", ["staging", "prod"])
def test_deployment_sets_every_variable_that_an_environment_needs(name: str) -> None:
    (job,) = read(ROOT / ".github/workflows/deploy.yml")["jobs"].values()
    needed = {
        reference.name
        for fields in load_environment(name).blocks.values()
        for _, reference in references(fields)
        if reference.kind == "variable"
    }
    assert needed and needed | {"DPP_IMAGE", "PREFECT_API_URL"} <= set(job["env"])
    text = (ROOT / "docs/deployment.md").read_text()
    secrets = {
        reference.name.replace(name, "<env>")
        for fields in load_environment(name).blocks.values()
        for _, reference in references(fields)
        if reference.kind == "aws_secret"
    }
    for each in needed | secrets:
        assert f"`{each}`" in text, each


CHANGELOG = (
    "# Changelog\n\n## Unreleased\n\n## 1.4.0 - 2026-01-01\n\n### Added\n- A.\n\n## [1.3.0]\n- B\n"
)


@pytest.mark.parametrize(
    ("tag", "expected"), [("v1.4.0", "### Added\n- A."), ("1.3.0", "- B"), ("v1.3.0", "- B")]
)
def test_section_of_a_version(tag: str, expected: str) -> None:
    assert section_of(CHANGELOG, tag) == expected


@pytest.mark.parametrize("tag", ["v1.4", "v1.4.00", "v2.0.0", "Unreleased", "v1x4.0"])
def test_version_without_a_section_is_no_release(tag: str) -> None:
    with pytest.raises(ValueError, match="changelog"):
        section_of(CHANGELOG, tag)


@pytest.mark.parametrize(
    ("version", "tag"),
    [
        ("1.4.0", "v1.4.0"),
        ("1.4.0rc1", "v1.4.0-rc1"),
        ("1.4.0-rc1", "v1.4.0-rc.1"),
        ("2.0.0b3", "v2.0.0-b3"),
    ],
)
def test_tag_of_the_version_is_released(version: str, tag: str) -> None:
    check_version(f'[project]\nversion = "{version}"\n', tag)


@pytest.mark.parametrize("tag", ["v1.4.1", "v1.40.0", "v1.4.0-rc1", "v2.4.0-b1"])
def test_tag_of_another_version_is_not(tag: str) -> None:
    with pytest.raises(ValueError, match=r"pyproject\.toml '1\.4\.0'"):
        check_version('[project]\nversion = "1.4.0"\n', tag)


@pytest.mark.parametrize(
    "tag", ["v1.4.0rc1", "1.4.0", "v1.4", "v1.4.0-1", "v1.4.0.dev1", "v1.4.0-rc1x"]
)
def test_tag_whose_form_does_not_say_where_it_goes_is_not(tag: str) -> None:
    """v1.4.0rc1 has no hyphen, and would go to prod."""
    with pytest.raises(ValueError, match="candidate"):
        check_version(f'[project]\nversion = "{tag.removeprefix("v")}"\n', tag)


def test_release_is_refused_before_anything_is_pushed(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "1.4.0"\n')
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG)

    def release(tag: str) -> subprocess.CompletedProcess[str]:
        script = [sys.executable, str(ROOT / "deployments/release.py"), tag]
        return subprocess.run(script, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert release("v1.4.0").stdout == "### Added\n- A.\n"
    assert release("v1.3.0").returncode == 1
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## Unreleased\n- A\n")
    lacking = release("v1.4.0")
    assert lacking.returncode == 1 and "no section '1.4.0'" in lacking.stderr


def test_images_are_built_on_the_base_that_the_repository_names() -> None:
    """By digest; without that variable on the tag of the Dockerfile. What is scanned is what is pushed."""
    (pinned,) = re.findall(
        r"^ARG PYTHON_IMAGE=(\S+)$",
        (ROOT / "deployments/docker/Dockerfile").read_text(),
        re.MULTILINE,
    )
    expected = f"PYTHON_IMAGE=${{{{ vars.PYTHON_IMAGE || '{pinned}' }}}}"
    builds = [
        step["with"]
        for path in WORKFLOWS
        for step in steps_of(path)
        if "build-push-action" in step.get("uses", "")
    ]
    assert [build.get("build-args") for build in builds] == [expected] * 4


def test_image_that_is_too_large_fails(tmp_path: Path) -> None:
    """The step as it is, with a docker that tells a size."""
    (script,) = (step["run"] for step in steps_of(WORKFLOWS[0]) if "700 MB" in step.get("name", ""))
    docker = tmp_path / "docker"
    for size, code in (("700000000", 0), ("700000001", 1)):
        docker.write_text(
            f"#!/bin/sh\n[ \"$*\" = 'image inspect --format {{{{.Size}}}} dpp:ci' ] && echo {size}\n"
        )
        docker.chmod(0o755)
        path = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
        done = subprocess.run(
            ["bash", "-e", "-c", script], env=path, capture_output=True, check=False
        )
        assert done.returncode == code, size


def test_deployment_runs_where_the_server_is_reached() -> None:
    (job,) = read(ROOT / ".github/workflows/deploy.yml")["jobs"].values()
    assert job["runs-on"] == "${{ vars.DEPLOY_RUNNER || 'ubuntu-24.04' }}"
    text = (ROOT / "docs/deployment.md").read_text()
    assert "`DEPLOY_RUNNER`" in text and "`PYTHON_IMAGE`" in text


def test_version_is_what_git_says_unless_it_is_given(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        who = ("-c", "user.name=t", "-c", "user.email=t@example.org")
        subprocess.run(["git", *who, *arguments], cwd=tmp_path, check=True, capture_output=True)

    assert deploy_variables(tmp_path, {})["DPP_VERSION"]  # of the package, where there is no git
    git("init")
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "-m", "one")
    git("tag", "v1.4.0")
    assert deploy_variables(tmp_path, {})["DPP_VERSION"] == "v1.4.0"
    (tmp_path / "a").write_text("2")
    assert deploy_variables(tmp_path, {})["DPP_VERSION"] == "v1.4.0-dirty"
    assert deploy_variables(tmp_path, {"DPP_VERSION": "x", "DPP_HOME": ""}) == {
        "DPP_VERSION": "x",
        "DPP_HOME": str(tmp_path),
    }
