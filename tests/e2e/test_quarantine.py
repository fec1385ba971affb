"""A person on duty works through the quarantine: by the command line, and by the form of the UI."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings
from pydantic import SecretStr, ValidationError
from typer.testing import CliRunner

from blocks.object_store import LakeStorage
from blocks.warehouse import WarehouseCredentials
from cli.quarantine import quarantine_app
from flows.replay import ReplayParameters, replay
from tests.e2e.conftest import THINGS, Project

KEY = "0123456789abcdef" * 4
PARTS = (
    THINGS.replace("things", "parts").replace(
        "  price:", "  maker: {type: string, pii: mask}\n  price:"
    )
    + """\
children:
  lines: {table: analytics.part_lines, columns: {n: {type: int32}}}
"""
)
FORMS = (
    THINGS.replace("things", "forms").replace("inbox/*.csv", "forms/*.csv")
    + """\
children:
  lines: {table: analytics.form_lines, columns: {n: {type: int32}}}
"""
)
LINES = """id,price,lines
1,1.50,"[{""n"": 1}, {""n"": ""two""}, 3]"
2,2.00,[]
3,-1,[]
4,x,[]
"""
ROWS = """id,maker,price,lines
1,ann,1.50,"[{""n"": ""two""}]"
2,bob,-2,[]
3,cyd,x,[]
4,dan,-1,[]
5,eve,-9,[]
"""


def here(project: Project, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> str:
    """Run a command that needs no Prefect in this process; that takes no second."""
    monkeypatch.setenv("DPP_HOME", str(project.root))
    done = CliRunner().invoke(quarantine_app, arguments)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_person_on_duty_exports_corrects_replays_and_discards(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.dataset("parts", PARTS)
    (project.root / "inbox" / "a.csv").write_text(ROWS)
    (project.root / "inbox" / "b.csv").unlink()
    variables = {"DPP_PRIVACY_KEY": KEY}
    assert project.dpp("run", "parts", **variables).returncode == 0
    path = project.root / "refused.csv"
    path.unlink(missing_ok=True)
    assert "4 rows are in" in here(project, monkeypatch, "export", "parts", "--to", str(path))
    with path.open(encoding="utf-8-sig", newline="") as file:
        table = list(csv.DictReader(file))
    assert [(row["maker"], row["price"]) for row in table] == [
        ("***", "'-2"), ("***", "x"), ("***", "'-1"), ("***", "'-9"),
    ]  # fmt: skip
    table[0]["price"], table[1]["price"] = "2", "3"
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, table[0].keys())
        writer.writeheader()
        writer.writerows(table[:2])
    done = project.dpp("quarantine", "replay", "parts", "--from", str(path), "--json", **variables)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["datasets"][0]["counts"]["inserted"] == 2
    assert project.query("SELECT id, maker, price::text FROM analytics.parts ORDER BY id") == [
        (1, "ann", "1.50"), (2, "bob", "2.00"), (3, "cyd", "3.00"),
    ]  # fmt: skip
    shown = here(project, monkeypatch, "show", "parts", "--all", "--json")
    rows = [json.loads(line) for line in shown.splitlines()]
    assert [(row["resolution"] or {}).get("resolution") for row in rows] == [
        "replayed", "replayed", None, None,
    ]  # fmt: skip
    assert not any(name in shown for name in ("bob", "cyd", "dan"))
    monkeypatch.setenv("DPP_PRIVACY_KEY", KEY)
    revealed = here(project, monkeypatch, "show", "parts", "--reveal")
    assert "dan" in revealed and "◄" in revealed
    discarding = ("discard", "parts", "--reason", "test", "--row", rows[2]["id"], "--yes")
    assert "1 rows are discarded" in here(project, monkeypatch, *discarding)
    item = here(project, monkeypatch, "show", "parts.lines").splitlines()
    cells = [" ".join(line.split()) for line in item if line.strip()]
    first = cells.index("_parent.id 1")
    assert cells[first + 1] == "_position 1"
    assert cells[first + 2].startswith("n two ◄")
    assert "1 rows are in" in here(
        project, monkeypatch, "export", "parts.lines", "--to", str(path), "--force"
    )
    discarding = ("discard", "parts.lines", "--reason", "test", "--yes")
    assert "1 rows are discarded" in here(project, monkeypatch, *discarding)
    listed = json.loads(here(project, monkeypatch, "list", "parts", "--all", "--json"))
    counts = {(one["dataset"], one["open"], one["replayed"], one["discarded"]) for one in listed}
    assert counts == {("parts", 1, 1, 1), ("parts", 0, 1, 0), ("parts.lines", 0, 0, 1)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("replay", "things", "--from", "nowhere.csv"), "No such file"),
        (("show", "things", "--older-than", "soon"), "is no age"),
        (("discard", "things", "--reason", "x", "--row", "12"), "named like 12-345"),
        (("show", "things", "--reveal"), "does not permit --reveal"),
        (("show", "things.lines"), "no child table 'things.lines'; those of things are: none"),
    ],
)
def test_mistake_is_told_in_one_sentence(
    project: Project, arguments: tuple[str, ...], message: str
) -> None:
    done = project.dpp("quarantine", *arguments, DPP_REVEAL_PII="false")
    assert (done.returncode, message in " ".join(done.stderr.split())) == (2, True), done.stderr


def test_form_of_the_ui_does_the_same(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each action of the deployment, by its parameters; for items of a child table too."""
    monkeypatch.setenv("DPP_HOME", str(project.root))
    project.dataset("forms", FORMS)
    (project.root / "forms").mkdir(exist_ok=True)
    (project.root / "forms" / "a.csv").write_text(LINES)
    address = project.stack.postgres
    settings = {
        PREFECT_API_URL: project.stack.prefect_api_url,
        PREFECT_HOME: project.root / "prefect",
    }
    with temporary_settings(settings):
        from flows.dataset import DatasetParameters, dataset

        WarehouseCredentials(
            host=address.host, port=address.port, database="warehouse", username=address.user,
            password=SecretStr(address.password),
        ).save("warehouse", overwrite=True)  # fmt: skip
        lake = project.root / "lake9"
        LakeStorage(uri=f"file://{lake}").save("lake", overwrite=True)
        dataset(DatasetParameters(dataset="forms"), return_state=True)

        def act(dataset: str = "forms", **given: Any) -> str:
            state: Any = replay(ReplayParameters(dataset=dataset, **given), return_state=True)
            assert state.is_completed(), state.message
            return str(state.message)

        assert act(action="list") == "4 rows are in quarantine; see the artifact"
        exported = act(action="export", rule="between")
        assert exported.startswith("1 rows exported to exports/forms/")
        content = Path(lake, exported.split(" to ")[1].split(" ")[0]).read_text("utf-8-sig")
        (lake / "corrections").mkdir(parents=True, exist_ok=True)
        (lake / "corrections" / "forms.csv").write_text(content.replace("'-1", "1"))
        replayed = act(corrections="corrections/forms.csv")
        assert "1 rows read: 1 inserted" in replayed
        assert act(action="discard", reason="no number") == "1 rows discarded"
        exported = act("forms.lines", action="export", rule="type")
        assert exported.startswith("1 rows exported to exports/forms.lines/")
        content = Path(lake, exported.split(" to ")[1].split(" ")[0]).read_text("utf-8-sig")
        (lake / "corrections" / "lines.csv").write_text(content.replace('"two"', '"2"'))
        act("forms.lines", corrections="corrections/lines.csv")
        assert act("forms.lines", action="discard", reason="no line") == "1 rows discarded"
    items = project.query("SELECT id, _position, n FROM analytics.form_lines ORDER BY 2")
    assert items == [(1, 1, 1), (1, 2, 2)]
    listed = json.loads(here(project, monkeypatch, "list", "forms.lines", "--all", "--json"))
    assert {entry["rule"]: (entry["replayed"], entry["discarded"]) for entry in listed} == {
        "type": (1, 0), "not_an_object": (0, 1),
    }  # fmt: skip
    assert project.query("SELECT count(*)::int FROM analytics.forms") == [(3,)]
    with pytest.raises(ValidationError, match="needs a reason"):
        ReplayParameters(dataset="forms", action="discard")
