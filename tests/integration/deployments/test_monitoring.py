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
from ruamel.yaml import YAML
from sqlalchemy import Engine, text

FOLDER = Path(__file__).parents[3] / "deployments" / "monitoring"
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


def test_rules_fire_as_they_should() -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool, which tests alert rules, is not installed")
    for command in (["check", "config", "prometheus.yml"], ["test", "rules", "alerts_test.yml"]):
        done = subprocess.run(
            ["promtool", *command], cwd=FOLDER, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


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
