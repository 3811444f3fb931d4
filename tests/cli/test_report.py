"""``churn-train report`` against a minimal dbt project, whose macros stand in for the package's."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from tests.health_example import CHAMPION, RELATIONS, SETTINGS, make_warehouse

Invoke = Callable[..., Result]
PROJECT = """
name: churn_scoring
config-version: 2
version: "1.0.0"
profile: churn
macro-paths: [macros]
flags: {send_anonymous_usage_stats: false}
"""
PROFILES = """
churn:
  target: dev
  outputs:
    dev:
      type: duckdb
      path: "{{ env_var('TEST_WAREHOUSE') }}"
      schema: main
      settings: {TimeZone: UTC}
"""
CONTEXT: dict[str, Any] = {
    "settings": {**SETTINGS, "text_version": 1},
    "relations": RELATIONS,
    "features": [],
    "project": "shop",
    "target": {"name": "dev"},
    "dbt_version": "1.11.16",
}
MACROS = f"""
{{% macro churn_context() %}}{{% do return(tojson({json.dumps(CONTEXT)})) %}}{{% endmacro %}}
{{% macro input_settings_hash() %}}{{% do return('h') %}}{{% endmacro %}}
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("project")
    (folder / "macros").mkdir()
    (folder / "dbt_project.yml").write_text(PROJECT)
    (folder / "profiles.yml").write_text(PROFILES)
    (folder / "macros" / "context.sql").write_text(MACROS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEST_WAREHOUSE", str(folder / "warehouse.duckdb"))
        patch.setenv("DBT_LOG_PATH", str(folder / "logs"))
        yield folder


def options_of(project: Path) -> list[str]:
    folders = ["--project-dir", project, "--profiles-dir", project, "--models-dir"]
    return [*map(str, folders), str(project / "models")]


def test_report_writes_a_page_and_prints_its_facts(
    invoke: Invoke, project: Path, tmp_path: Path
) -> None:
    database = project / "warehouse.duckdb"
    make_warehouse(database, kind="act").close()
    out = tmp_path / "pages" / "health.html"
    result = invoke("report", "--out", out, "--users", "3", "--json", *options_of(project))
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    html = out.read_text(encoding="utf-8")
    assert facts["path"] == str(out)
    assert facts["verdict"]["level"] == "act"
    assert facts["champion"]["bundle_id"] == CHAMPION
    assert facts["as_of"].startswith("2026-03-31 06:00:00")
    assert len(facts["movers"]["movers"]) == 3
    assert html.count('class="id"') == 3
    assert facts["drift"]["counts"]["error"] == 3

    database.unlink()
    missing = invoke("report", "--out", tmp_path / "none.html", *options_of(project))
    assert missing.exit_code == 1
    assert missing.stderr.count("error: ") == 1
    assert "no warehouse at" in missing.stderr
    assert "dbt build" in missing.stderr
    assert not (tmp_path / "none.html").exists()


def test_report_for_people_says_the_verdict_and_where_the_page_is(
    invoke: Invoke, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_warehouse(project / "warehouse.duckdb").close()
    result = invoke("report", "--users", "0", "-q", *options_of(project))
    assert result.exit_code == 0, result.output
    headline, path = result.stdout.splitlines()
    assert headline.startswith("Healthy: ")
    assert Path(path) == tmp_path / "churn_report.html"
    assert "customer-0" not in Path(path).read_text(encoding="utf-8")
    (project / "warehouse.duckdb").unlink()


@pytest.mark.parametrize("users", ["-1", "1001", "all"])
def test_wrong_number_of_users_is_wrong_usage(invoke: Invoke, users: str) -> None:
    assert invoke("report", "--users", users).exit_code == 2
