"""Alert rules and dashboard ask only for what exists: metrics of Prefect, tables of the warehouse."""

from __future__ import annotations

import importlib
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from prefect.settings import Settings
from ruamel.yaml import YAML
from sqlalchemy import Engine, text

from tests.integration.deployments.test_manifests import base, documents, of_kind, variables

FOLDER = Path(__file__).parents[3] / "deployments" / "monitoring"
CHARTS = FOLDER.parent / "kubernetes" / "helm"
MONITORING = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
DASHBOARD = json.loads((FOLDER / "grafana/dashboards/pipeline.json").read_text())
MACROS = {
    r"\$__timeGroup\(([^,]+), '1h'\)": r"date_trunc('hour', \1)",
    r"\$__timeFilter\((.*?)\)(?= GROUP| ORDER|$)": r"\1 > now() - interval '1 day'",
}
"""What Grafana puts in place of its macros, nearly."""


def expressions() -> list[str]:
    rules = YAML(typ="safe").load(FOLDER / "alerts.yml")["groups"][0]["rules"]
    asked = [target.get("expr") for panel in DASHBOARD["panels"] for target in panel["targets"]]
    return [rule["expr"] for rule in rules] + [expr for expr in asked if expr]


def queries(source: str) -> list[tuple[str, str]]:
    found = []
    for panel in DASHBOARD["panels"]:
        if panel["datasource"]["uid"] == source:
            sql = panel["targets"][0]["rawSql"]
            for macro, replacement in MACROS.items():
                sql = re.sub(macro, replacement, sql)
            found.append((panel["title"], sql))
    return found


def test_metrics_are_those_of_prefect() -> None:
    from prometheus_client import REGISTRY

    for module in ("api.server", "worker_communication.cleanup_queue"):  # they register them
        importlib.import_module(f"prefect.server.{module}")
    there = {"up"}
    for metric in REGISTRY.collect():
        there |= {metric.name, f"{metric.name}_total"}
    named = {
        name
        for expression in expressions()
        for name in re.findall(r"\b(?:prefect|process)_\w+|\bup\b", re.sub('".*?"', "", expression))
    }
    assert named and named <= there, named - there


def test_rules_fire_as_they_should(tmp_path: Path) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool, which tests alert rules, is not installed")
    # Debian's promtool is built without the discovery of pods; the rest of the file is the same to it.
    text = (FOLDER / "prometheus-kubernetes.yml").read_text()
    text = re.sub(r"kubernetes_sd_configs: \[.*\]", "static_configs: [{targets: [a]}]", text)
    in_cluster = tmp_path / "prometheus.yml"
    in_cluster.write_text(text.replace("alerts.yml", str(FOLDER / "alerts.yml")))
    for command in (
        ["check", "config", "prometheus.yml"],
        ["check", "config", "--syntax-only", str(in_cluster)],  # the password's file is not here
        ["test", "rules", "alerts_test.yml"],
    ):
        done = subprocess.run(
            ["promtool", *command], cwd=FOLDER, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


def scraped(file: str) -> dict[str, dict[str, Any]]:
    return {
        each["job_name"]: each for each in YAML(typ="safe").load(FOLDER / file)["scrape_configs"]
    }


@pytest.mark.parametrize("file", ["prometheus.yml", "prometheus-kubernetes.yml"])
def test_what_the_rules_ask_for_is_scraped(file: str) -> None:
    jobs = {job for expression in expressions() for job in re.findall(r'job="(.*?)"', expression)}
    assert jobs >= {"prefect-server", "prefect-worker"}
    assert jobs <= set(scraped(file))


@pytest.mark.parametrize(
    ("job", "setting"),
    [
        ("prefect-server", "PREFECT_SERVER_METRICS_ENABLED"),
        ("prefect-worker", "PREFECT_CLIENT_METRICS_ENABLED"),
    ],
)
def test_metrics_are_on_in_the_cluster_and_let_through(job: str, setting: str) -> None:
    """Prometheus asks pods of a component, at a port that a network policy opens to its namespace."""
    (chart,) = documents(CHARTS / f"{job}.yaml")
    assert {"name": setting, "value": "true"} in [*variables(chart)]
    found = scraped("prometheus-kubernetes.yml")[job]
    ((namespace,),) = (each["namespaces"]["names"] for each in found["kubernetes_sd_configs"])
    (component,) = (each["regex"] for each in found["relabel_configs"] if "regex" in each)
    (address,) = (each["replacement"] for each in found["relabel_configs"] if "replacement" in each)
    selected = {"matchLabels": {"app.kubernetes.io/component": component}}
    opened = [
        port["port"]
        for policy in of_kind(base(), "NetworkPolicy").values()
        if policy["metadata"]["namespace"] == namespace
        and policy["spec"]["podSelector"] == selected
        for rule in policy["spec"].get("ingress", [])
        if MONITORING in rule["from"]
        for port in rule["ports"]
    ]
    assert opened == [int(address.removeprefix("$1:"))]
    if job == "prefect-worker":
        assert opened == [Settings.model_validate({}).client.metrics.port]


def test_queries_of_the_warehouse_run(engine: Engine) -> None:
    """Against a ledger with one load: each says something of it."""
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO etl.loads (dataset, fingerprint, label, run, target, rows_read, "
                "rows_inserted, rows_updated, rows_unchanged, rows_deduplicated, rows_quarantined, "
                "manifest_key, manifest_digest, config_hash, code_version, source_state, seconds) "
                "VALUES ('d', 'f', 'l', 'r', 't.t', 4, 2, 1, 0, 0, 1, 'k', 'd', 'c', '1', '{}', 3)"
            )
        )
        found = {title: connection.execute(text(sql)).one() for title, sql in queries("warehouse")}
    assert found["Rows published"].value == 3
    assert found["Rows refused"].value == pytest.approx(0.25)
    assert found["Datasets"].partitions == 1


def test_every_datasource_is_provisioned() -> None:
    known: Any = YAML(typ="safe").load(FOLDER / "grafana/provisioning/datasources/datasources.yaml")
    uids = {source["uid"] for source in known["datasources"]}
    assert {panel["datasource"]["uid"] for panel in DASHBOARD["panels"]} == uids
