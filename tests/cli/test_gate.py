"""`churn-train promote` through the gate."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from cli.conftest import parse
from click.testing import Result
from gate_example import copy_of_bundle
from training_example import TINY_FLAGS, Trained

from churn_udf.registry import read_registry

Invoke = Callable[..., Result]
MODELS = Path("models")
ALLOW = ("--set", "gate.unchecked=allow", "--set", "evaluate.num_bootstrap=50")


@pytest.fixture
def bad(trained: Trained) -> str:
    return copy_of_bundle(MODELS, trained.outcome.bundle_id)


def champion() -> str | None:
    return read_registry(MODELS).champion_id


def test_refused_bundle_exits_3_and_shows_every_check(
    trained: Trained, invoke: Invoke, bad: str
) -> None:
    result = invoke("promote", bad, *ALLOW)
    assert result.exit_code == 3
    assert result.stderr.splitlines()[-1].startswith("error: not promoted")
    assert "shipped_auroc: AUROC" in result.stderr
    assert "at least 0.550" in result.stderr
    for name in ("snapshot_files", "test_auroc", "labelled_rows", "parity"):
        assert name in result.stdout
    assert "FAILED  shipped_auroc" in result.stdout
    assert f"{bad} is refused" in result.stdout
    assert champion() == trained.outcome.bundle_id


def test_refused_bundle_as_json_lists_the_checks(
    trained: Trained, invoke: Invoke, bad: str
) -> None:
    result = invoke("promote", bad, *ALLOW, "--json", "--dry-run")
    assert result.exit_code == 3
    document = json.loads(result.stdout)
    assert (document["was_moved"], document["is_refused"], document["is_passed"]) == (
        False,
        True,
        False,
    )
    by_name = {check["name"]: check for check in document["checks"]}
    assert not by_name["shipped_auroc"]["is_passed"]
    assert by_name["shipped_auroc"]["value"] < by_name["shipped_auroc"]["limit"] == 0.55
    assert by_name["test_auroc"]["is_passed"]


def test_override_needs_a_reason(trained: Trained, invoke: Invoke, bad: str) -> None:
    for reason in ((), ("--reason", " ")):
        result = invoke("promote", bad, *ALLOW, "--override", *reason)
        assert result.exit_code == 2
        assert "--override needs --reason" in result.stderr
    assert champion() == trained.outcome.bundle_id


def test_only_champions_pass_the_gate(trained: Trained, invoke: Invoke, bad: str) -> None:
    shadow = parse(invoke("models", "promote", bad, "--stage", "shadow", "--json"))
    assert (shadow["to_stage"], shadow["was_moved"]) == ("shadow", True)
    useless = invoke("promote", bad, "--stage", "shadow", "--override", "--reason", "x")
    assert useless.exit_code == 2
    assert champion() == trained.outcome.bundle_id


def test_override_is_logged_with_reason_and_checks(
    trained: Trained, invoke: Invoke, bad: str
) -> None:
    planned = parse(
        invoke("promote", bad, *ALLOW, "--override", "--reason", "x", "--dry-run", "--json")
    )
    assert (planned["was_moved"], planned["is_override"]) == (False, True)
    assert champion() == trained.outcome.bundle_id
    told = invoke("promote", bad, *ALLOW, "--override", "--reason", "to see")
    assert told.exit_code == 0
    assert "although the gate refused it: to see" in told.stdout
    entry = read_registry(MODELS).transitions[-1]
    assert (entry.bundle_id, entry.is_override, entry.reason) == (bad, True, "to see")
    assert not all(check["is_passed"] for check in entry.checks)


def test_plain_folder_says_what_the_gate_lacks(
    trained: Trained, invoke: Invoke, tmp_path: Path
) -> None:
    other = copy_of_bundle(MODELS, trained.outcome.bundle_id, None, _marked)
    nowhere = ["--runs-dir", tmp_path / "none", "--snapshots-dir", tmp_path / "none"]
    result = invoke("promote", other, *nowhere)
    assert result.exit_code == 3
    for option in ("--project-dir", "--snapshots-dir", "--override"):
        assert option in result.stderr
    assert "REFUSED parity" in result.stdout
    assert invoke("promote", other, *nowhere, "--set", "gate.unchecked=allow").exit_code == 0
    assert champion() == other


def _marked(training: dict[str, object]) -> None:
    training["seed"] = 77


def test_former_champion_comes_back_without_the_gate(
    trained: Trained, invoke: Invoke, bad: str
) -> None:
    assert invoke("promote", bad, "--override", "--reason", "x").exit_code == 0
    back = invoke("promote", trained.outcome.bundle_id, "--reason", "it was better")
    assert back.exit_code == 0
    assert "the gate was not asked" in back.stdout
    assert champion() == trained.outcome.bundle_id


def test_rollback_to_a_forced_model_does_not_spare_it_the_gate(
    trained: Trained, invoke: Invoke, bad: str
) -> None:
    good = trained.outcome.bundle_id
    assert invoke("promote", bad, *ALLOW, "--override", "--reason", "x").exit_code == 0
    assert invoke("promote", good).exit_code == 0
    assert invoke("models", "rollback").exit_code == 0
    assert champion() == bad
    assert invoke("promote", good).exit_code == 0
    assert invoke("promote", bad, *ALLOW).exit_code == 3
    assert champion() == good


def test_champion_that_is_promoted_again_is_left_alone(trained: Trained, invoke: Invoke) -> None:
    again = invoke("promote", trained.outcome.bundle_id)
    assert again.exit_code == 0
    assert (
        again.stdout
        == f"{trained.outcome.bundle_id} is champion already: nothing to do\nnext: dbt build\n"
    )


def test_wrong_gate_setting_exits_1(trained: Trained, invoke: Invoke, bad: str) -> None:
    result = invoke("promote", bad, "--set", "gate.unchecked=perhaps")
    assert result.exit_code == 1
    assert "allowed: refuse, allow" in result.stderr


def test_run_shows_the_checks_and_logs_them(
    trained: Trained, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = trained.snapshot
    monkeypatch.setattr("trainer.pipeline.export_snapshot", lambda *_, **__: snapshot)
    flags = ["run", "--models-dir", MODELS, *TINY_FLAGS, "--set", "thresholds.strategy=capacity"]
    result = invoke(*flags)
    assert result.exit_code == 0, result.stderr
    assert "passed  champion_auroc" in result.stdout
    entry = read_registry(MODELS).transitions[-1]
    assert {check["name"] for check in entry.checks} >= {"champion_auroc", "shipped_auroc"}
    assert not entry.is_override
    again = [*flags, "--set", "thresholds.parameter=0.3", "--set", "gate.min_auroc=1.1", "--json"]
    refused = invoke(*again)
    assert refused.exit_code == 3
    document = json.loads(refused.stdout)
    names = {check["name"] for check in document["gate_checks"] if not check["is_passed"]}
    assert names == {"test_auroc", "shipped_auroc"}
