"""``dpp lint``: what Prefect would ignore in silence is named, with file, line and key."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployments.lint.lint import lint
from deployments.lint.prefect_yaml import lint_prefect_file
from deployments.lint.schedules import wrong_cron
from deployments.prefect_file import read_prefect_file
from tasks.environments import load_environment
from tasks.model.environment import Environment

ROOT = Path(__file__).parents[3]
THINGS = """\
name: things
description: Things.
source: {kind: files, path: "inbox/*.csv", format: {kind: csv}}
key: [id]
columns: {id: {type: int64}}
load: {table: analytics.things, mode: merge}
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of a user: the flows are ours, the rest is to be broken."""
    made = tmp_path_factory.mktemp("project")
    shutil.copytree(ROOT / "flows", made / "flows", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "deployments/environments", made / "deployments/environments")
    shutil.copy(ROOT / "prefect.yaml", made)
    (made / "datasets").mkdir()
    (made / "datasets/things.yaml").write_text(THINGS)
    return made


@pytest.fixture
def project(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The project; what a test changed is changed back."""
    monkeypatch.setenv("DPP_HOME", str(root))
    before = {path: path.read_text() for path in root.rglob("*.yaml")}
    yield root
    for path, text in before.items():
        path.write_text(text)


def found(project: Path, only: str | None = None, **variables: str) -> list[str]:
    return [str(each).replace(f"{project}/", "") for each in lint(project, variables, only)]


@pytest.fixture(scope="module")
def environments() -> dict[str, Environment]:
    return {name: load_environment(name) for name in ("staging", "prod")}


def found_in_prefect_yaml(project: Path, environments: dict[str, Environment]) -> list[str]:
    """Lint one file as it is linted as a whole, but for dev: that is quicker."""
    variables = {"DPP_VERSION": "1", "DPP_IMAGE": "r/dpp:1", "DPP_HOME": "/app"}
    document, known = read_prefect_file(project), ["dev", "prod", "staging"]
    made = lint_prefect_file(project, document, environments, variables, known)
    return [str(each).replace(f"{project}/", "") for each in made]


def shorten(path: Path) -> None:
    """Leave out deployments that no case breaks: reading YAML is what takes the time."""
    unbroken = re.compile(r"  - .name: (\w+-dev|(backfill|replay|hourly)-)")
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if not unbroken.match(line)))


def change(project: Path, name: str, old: str, new: str) -> int:
    """Change a file once, and return the line."""
    path = project / name
    text = path.read_text()
    assert text.count(old) == 1, (old, text.count(old))
    path.write_text(text.replace(old, new))
    return text[: text.index(old)].count("\n") + 1


def test_the_projects_own_files_are_right(project: Path) -> None:
    assert found(project) == []


DAILY = "  - {name: daily-prod, schedules: [*nightly], <<: [*daily, *in_prod]}"
IN_PROD = "    work_pool: {name: prod, job_variables: {image: *image, labels: *of_prod, env: {DPP_ENV: prod}}}"
PULL = "[{prefect.deployments.steps.set_working_directory: {directory: /app}}]"

WRONG = {
    "unknown top-level key": (
        "name: data-processing-pipeline", "names: x",
        "names: unknown key; did you mean 'name'?",
    ),
    "unknown key of a deployment": (
        DAILY, DAILY.replace("schedules", "shcedules"),
        "deployments.daily-prod.shcedules: unknown key; did you mean 'schedules'?",
    ),
    "unknown key of a schedule": (
        DAILY, DAILY.replace("[*nightly]", "[{<<: *nightly, activ: true}]"),
        "deployments.daily-prod.schedules.0.activ: unknown key; did you mean 'active'?",
    ),
    "unknown key of a work pool": (
        IN_PROD, IN_PROD.replace("{name: prod,", "{name: prod, queue: x,"),
        "work_pool.queue: unknown key; allowed: job_variables, name, work_queue_name",
    ),
    "unknown key of a limit": (
        "alone {limit: 1, collision_strategy: CANCEL_NEW}", "alone {limit: 1, strategy: CANCEL_NEW}",
        "strategy: unknown key",
    ),
    "unknown strategy": (
        "alone {limit: 1, collision_strategy: CANCEL_NEW}",
        "alone {limit: 1, collision_strategy: CANCEL}",
        "'ENQUEUE' or 'CANCEL_NEW'",
    ),
    "unknown job variable": (
        IN_PROD, IN_PROD.replace("image: *image", "image: *image, memry: 1Gi"),
        "work_pool.job_variables.memry: the pool has no such variable; did you mean 'memory'?",
    ),
    "usual time after the deadline of the jobs": (
        IN_PROD, IN_PROD.replace("image: *image", "image: *image, active_deadline_seconds: 3600"),
        "active_deadline_seconds: jobs are ended after 60 minutes; alerts.usual_minutes.daily of",
    ),
    "label that Kubernetes does not take": (
        IN_PROD, IN_PROD.replace("*of_prod", "{dpp/cost-center: data platform}"),
        "labels.dpp/cost-center: found 'data platform'; allowed: at most 63 letters, digits",
    ),
    "name of a label that Kubernetes does not take": (
        IN_PROD, IN_PROD.replace("*of_prod", "{cost center: data}"),
        "labels.cost center: allowed as a name: at most 63 letters, digits",
    ),
    "label that is no text": (
        IN_PROD, IN_PROD.replace("*of_prod", "{dpp/cost-center: 4711}"),
        "labels.dpp/cost-center: found 4711; allowed: a text; put it in quotes",
    ),
    "automations belong elsewhere": (
        DAILY, DAILY.replace("<<", "triggers: [], <<"), "triggers: unknown key",
    ),
    "two spellings of schedules": (
        DAILY, DAILY.replace("<<", "schedule: {}, <<"), "schedule: unknown key",
    ),
    "unset variable": (
        IN_PROD, IN_PROD.replace("DPP_ENV: prod", "DPP_ENV: prod, R: '{{ $REGION }}'"),
        "env.R: {{ $REGION }} is filled by nothing: the environment variable REGION is not set",
    ),
    "unknown Prefect variable": (
        DAILY, DAILY.replace("<<", 'parameters: {parameters: {only: ["{{ prefect.variables.x }}"]}}, <<'),
        "{{ prefect.variables.x }} is filled by nothing: the environment declares no variable 'x'",
    ),
    "output of no step": (
        IN_PROD, IN_PROD.replace("*image", "'{{ build-image.image }}'"),
        "{{ build-image.image }} names the output of a build step, and there is none",
    ),
    "no placeholder": (
        IN_PROD, IN_PROD.replace("*image", "'{{ $A | lower }}'"),
        "{{ $A | lower }} is no placeholder that Prefect knows",
    ),
    "placeholder in a key": (
        IN_PROD, IN_PROD.replace("DPP_ENV: prod", "DPP_ENV: prod, '{{ $X }}': a"),
        "a key is never filled by Prefect",
    ),
    "block in job variables": (
        IN_PROD, IN_PROD.replace("DPP_ENV: prod", "DPP_ENV: prod, P: '{{ prefect.blocks.secret.db }}'"),
        "the block would be stored in the deployment in plain text",
    ),
    "secret by its name": (
        IN_PROD, IN_PROD.replace("DPP_ENV: prod", "DPP_ENV: prod, DB_PASSWORD: hunter2"),
        "env.DB_PASSWORD: looks like a secret, by its name",
    ),
    "secret by its form": (
        IN_PROD, IN_PROD.replace("DPP_ENV: prod", "DPP_ENV: prod, K: AKIAABCDEFGHIJKLMNOP"),
        "env.K: looks like an AWS access key, in plain text",
    ),
    "secret in a URL": (
        IN_PROD, IN_PROD.replace("DPP_ENV: prod", "DPP_ENV: prod, U: 'postgresql://u:p@h/d'"),
        "env.U: looks like a URL with a password",
    ),
    "secret from a variable": (
        IN_PROD, IN_PROD.replace("DPP_ENV: prod", "DPP_ENV: prod, X: '{{ $PREFECT_API_AUTH_STRING }}'"),
        "the value of PREFECT_API_AUTH_STRING would be stored in plain text",
    ),
    "unknown pool": (
        IN_PROD, IN_PROD.replace("name: prod", "name: production"),
        "work_pool.name: found 'production'; allowed: 'prod', the pool of prod",
    ),
    "environment of another": (
        IN_PROD, IN_PROD.replace("DPP_ENV: prod", "DPP_ENV: staging"),
        "env.DPP_ENV: found 'staging'; allowed: 'prod'",
    ),
    "image without tag": (
        IN_PROD, IN_PROD.replace("*image", "registry:5000/dpp"), "name a tag other than latest",
    ),
    "no image": (IN_PROD, IN_PROD.replace("image: *image, ", ""), "image: missing"),
    "tag of another": ("tags: [etl, prod]", "tags: [etl]", "tags: found ['etl']; 'prod' must be"),
    "no description": (
        "    description: |\n      Make partitions", "    x: |\n      Make partitions",
        "description: missing",
    ),
    "wrong cron": (
        'cron: "30 3 * * *"', 'cron: "30 25 * * *"',
        "schedules.0.cron: '30 25 * * *' is no cron expression",
    ),
    "cron that differs": (
        'cron: "30 3 * * *"', 'cron: "31 3 * * *"',
        "cron: found '31 3 * * *'; deployments/environments/staging.yaml says '30 3 * * *'",
    ),
    "wrong time zone": (
        "&timezone Europe/Berlin", "&timezone Europe/Berln",
        "'Europe/Berln' is not a time zone",
    ),
    "time zone that differs": (
        "&timezone Europe/Berlin", "&timezone UTC", "says 'Europe/Berlin'",
    ),
    "no slug": ("{slug: daily, cron", "{cron", "slug: missing"),
    "slug twice": (
        DAILY, DAILY.replace("[*nightly]", "[*nightly, *nightly]"), "'daily' is there twice",
    ),
    "no schedule": (
        DAILY, DAILY.replace("schedules: [*nightly], ", ""),
        "daily-prod.schedules: no schedule with slug 'daily'; deployments/environments/prod.yaml says",
    ),
    "cron and interval": (
        DAILY, DAILY.replace("[*nightly]", "[{<<: *nightly, interval: 5}]"),
        "found cron and interval of cron, interval, rrule; allowed: one",
    ),
    "no such file": (
        "flows/daily.py:daily", "flows/dayly.py:daily",
        "entrypoint: flows/dayly.py:daily: there is no file flows/dayly.py",
    ),
    "no such function": ("flows/daily.py:daily", "flows/daily.py:dayly", "cannot be imported"),
    "unknown parameter": (
        DAILY, DAILY.replace("<<", "parameters: {parameter: {}}, <<"),
        "flow 'daily' has no parameter of that name; did you mean 'parameters'?",
    ),
    "wrong parameter": (
        DAILY, DAILY.replace("<<", "parameters: {parameters: {only: 5}}, <<"),
        "parameters: flow 'daily': ",
    ),
    "schedule without what it needs": (
        "  - {name: dataset-prod, <<",
        "  - {name: dataset-prod, schedules: [{<<: *nightly, slug: x}], <<",
        "flow 'dataset': 'parameters' is a required property",
    ),
    "relative folder": (
        PULL, PULL.replace("/app", "app"), "found 'app'; allowed: an absolute folder",
    ),
    "no folder": ("pull: " + PULL, "pull: []", "pull"),
    "pull is missing": (
        "version: *version\n    pull: " + PULL, "version: *version",
        "pull: missing; Prefect would store the folder of who deploys",
    ),
    "unknown step": (PULL, PULL.replace("set_working_directory", "git_clone"), "unknown step"),
    "unknown environment": (DAILY, DAILY.replace("daily-prod", "daily-pord"), "must end with an"),
    "name twice": (DAILY, DAILY + "\n" + DAILY, "'daily-prod' is there twice"),
    "deployed elsewhere only": (DAILY, "", "daily-prod is missing; daily is deployed elsewhere"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_mistake_is_named_with_its_line(
    project: Path, environments: dict[str, Environment], case: str
) -> None:
    old, new, expected = WRONG[case]
    shorten(project / "prefect.yaml")
    change(project, "prefect.yaml", old, new)
    said = found_in_prefect_yaml(project, environments)
    hits = [message for message in said if expected in message]
    assert hits, said
    for hit in hits:
        path, line, _ = hit.split(":", 2)
        assert path == "prefect.yaml"
        assert int(line) > 1 or case == "unknown top-level key"


def test_usual_time_is_below_the_deadline_of_the_pools_jobs(
    project: Path, environments: dict[str, Environment]
) -> None:
    """A run that is ended before is started again, and its time begins anew: nobody is told."""
    shorten(project / "prefect.yaml")
    staging = environments["staging"]
    for minutes, wrong in ((119, False), (120, True)):
        usual = {**staging.alerts.usual_minutes, "daily": minutes}
        alerts = staging.alerts.model_copy(update={"usual_minutes": usual})
        changed = {"staging": staging.model_copy(update={"alerts": alerts})}
        said = [one for one in found_in_prefect_yaml(project, changed) if "usual_minutes" in one]
        assert len(said) == wrong, said


def test_line_of_an_anchor_is_where_it_is_written_and_is_reported_once(
    project: Path, environments: dict[str, Environment]
) -> None:
    line = change(project, "prefect.yaml", PULL, PULL.replace("/app", "app"))
    (only,) = found_in_prefect_yaml(project, environments)
    assert only.startswith(f"prefect.yaml:{line}: deployments.dataset-staging.pull.0."), only


def test_one_bad_deployment_hides_no_other(project: Path) -> None:
    """Prefect skips the whole file; here both mistakes are said."""
    change(project, "prefect.yaml", DAILY, DAILY.replace("<<", "colour: blue, <<"))
    change(project, "prefect.yaml", 'cron: "30 3 * * *"', 'cron: "x"')
    text = "\n".join(found(project))
    assert "daily-prod.colour: unknown key" in text and "daily-staging.schedules.0.cron" in text


def test_version_is_that_of_the_code(project: Path) -> None:
    change(project, "prefect.yaml", '&version "{{ $DPP_VERSION }}"', '&version "1.0"')
    assert "version: found '1.0'; allowed: '{{ $DPP_VERSION }}'" in "\n".join(found(project))


def test_variables_must_be_set_for_what_is_deployed_now(project: Path) -> None:
    """As a whole the file may name what is set when it is deployed; then it must be set."""
    given = {"DPP_VERSION": "1", "DPP_HOME": "/app"}
    assert found(project, "dev", **given) == []
    (lacking,) = found(project, "prod", **given)
    assert "{{ $DPP_IMAGE }} is filled by nothing" in lacking
    (unpinned,) = found(project, "prod", **given, DPP_IMAGE="r.example.org/dpp:latest")
    assert "name a tag other than latest, or a digest" in unpinned
    assert found(project, "prod", **given, DPP_IMAGE="r.example.org/dpp@sha256:ab") == []
    (relative,) = found(project, "dev", DPP_VERSION="1", DPP_HOME="here")
    assert "allowed: an absolute folder" in relative


def test_flow_that_is_deployed_nowhere_is_named(project: Path) -> None:
    path = project / "flows/forgotten.py"
    path.write_text("from prefect import flow\n\n\n@flow\ndef forgotten() -> None: ...\n")
    try:
        assert found(project) == ["flows/forgotten.py:5: forgotten: no deployment in prefect.yaml"]
    finally:
        path.unlink()


def test_dataset_files_and_environments_are_checked_too(project: Path) -> None:
    change(project, "datasets/things.yaml", "int64", "integer")
    change(project, "deployments/environments/dev.yaml", "concurrency: 2", "concurency: 2")
    change(project, "deployments/environments/prod.yaml", '"5 * * * *"', '"0 0 31 2 *"')
    text = "\n".join(found(project))
    assert "datasets/things.yaml:5: columns.id.type: 'integer' is not a column type" in text
    assert "deployments/environments/dev.yaml:9: concurency" in text
    assert "schedules.hourly: '0 0 31 2 *' never comes" in text


BLOCKS = """\
blocks:
  etl-warehouse-credentials/warehouse: {host: w, database: w, username: u, password: {variable: P}}
  etl-landing-queue/landing-queue: {url: "https://sqs.eu-central-1.amazonaws.com/1/landing"}
  etl-lake-storage/lake: {uri: "s3://lake/etl"}
  etl-privacy-keys/privacy: {key: {aws_secret: etl/privacy}}
"""


def without_blocks(path: Path) -> str:
    """Return an environment file that declares no block, and alerts nobody."""
    return path.read_text().partition("alerts:")[0]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("{variable: P}", "hunter2", "password: a secret must not be written down"),
        ("host: w", "hots: w", "hots: unknown field; did you mean 'host'?"),
        ("database: w, ", "", "etl-warehouse-credentials/warehouse.database: missing"),
        ("etl-lake-storage/lake", "etl-lake-store/lake", "no block type 'etl-lake-store'"),
        ("{variable: P}", "{block: secret/w}", "no block 'secret/w' is declared"),
        ("/privacy:", "/keys:", "privacy_block: blocks declares no etl-privacy-keys/privacy"),
    ],
)  # fmt: skip
def test_blocks_of_an_environment_are_whole(
    project: Path, old: str, new: str, expected: str
) -> None:
    assert BLOCKS.count(old) == 1
    path = project / "deployments/environments/prod.yaml"
    path.write_text(without_blocks(path) + BLOCKS.replace(old, new))
    text = "\n".join(found(project))
    assert expected in text


def test_source_without_its_block_is_named(project: Path) -> None:
    path = project / "deployments/environments/prod.yaml"
    path.write_text(without_blocks(path) + BLOCKS)
    change(project, "datasets/things.yaml", "{kind: files, path:", "{kind: s3, block: b, path:")
    place = "datasets/things.yaml:3: source.block"
    assert found(project) == [
        f"{place}: environment {name} declares no block s3-bucket/b" for name in ("prod", "staging")
    ]


def test_file_that_is_no_yaml_is_named(project: Path) -> None:
    (project / "prefect.yaml").write_text("name: [\n")
    assert found(project)[0].startswith("prefect.yaml:2: not valid YAML")
    (project / "prefect.yaml").write_text("name: x\ndeployments: 5\n")
    assert "prefect.yaml:2: deployments: " in "\n".join(found(project))


@pytest.mark.parametrize(
    ("cron", "wrong"),
    [
        ("5 * * * *", False),
        ("*/15 8-18 * * 1-5", False),
        ("0 5 29 2 *", False),  # every four years
        ("@daily", True),  # an alias of one implementation
        ("0 5 * * * *", True),  # seconds: Prefect takes them, and its form in the UI does not
        ("0 0 30 2 *", True),
        ("", True),
    ],
)
def test_cron(cron: str, wrong: bool) -> None:
    assert bool(wrong_cron(cron)) == wrong
