"""`churn-train models`: list, show, diff, promote, rollback, retire, prune."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from cli.conftest import parse
from click.testing import Result
from fake_bundles import fake_bundle
from training_example import Trained

from churn_udf.registry import CHAMPION, SHADOW, move, read_registry

Invoke = Callable[..., Result]


def metrics_of(auroc: float) -> str:
    interval = {"value": auroc, "low": auroc - 0.1, "high": None}
    return json.dumps({"model": "gbm", "test": {"gbm": {"auroc": interval, "lift": {}}}})


def part(*cutoffs: str) -> dict[str, Any]:
    return {"cutoffs": list(cutoffs), "rows": 1234, "base_rate": 0.25}


@pytest.fixture(params=["folder", "url"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: Any) -> Iterator[str]:
    """A models location, as an option takes it."""
    monkeypatch.chdir(tmp_path)
    if request.param == "folder":
        yield str(tmp_path / "models")
        return
    monkeypatch.setenv("CHURN_CACHE_DIR", str(tmp_path / "cache"))
    yield "memory://cli-test/models"
    memory = fsspec.filesystem("memory")
    if memory.exists("/cli-test"):
        memory.rm("/cli-test", recursive=True)


@pytest.fixture
def ids(place: str) -> list[str]:
    """Three models: a champion replaced by another, and a candidate."""
    splits = {"train": part("2024-01-01"), "valid": part("2024-02-01"), "test": part("2024-03-01")}
    facts = {"splits": splits, "refit": "none", "ensemble": "gbm"}
    models_dir: Any = place if "://" in place else Path(place)
    found = [
        fake_bundle(
            models_dir, seed, metrics=metrics_of(0.7 + seed / 10), run_id=f"run{seed}", **facts
        )
        for seed in range(3)
    ]
    for bundle_id, reason in zip(found[:2], ("first", "better"), strict=True):
        checks = [{"name": "auroc", "is_passed": True, "value": 0.7, "message": "AUROC 0.7"}]
        move(models_dir, bundle_id, CHAMPION, reason=reason, checks=checks, moved_by="Ada")
    return found


def champion_of(place: str) -> str | None:
    return read_registry(place if "://" in place else Path(place)).champion_id


def test_without_a_command_models_are_listed(place: str, ids: list[str], invoke: Invoke) -> None:
    listed = parse(invoke("models", "--json", "--models-dir", place))
    assert listed == parse(invoke("models", "list", "--json", "--models-dir", place))
    assert listed["models_dir"] == place
    assert {row["bundle_id"]: row["stage"] for row in listed["models"]} == {
        ids[0]: "retired",
        ids[1]: "champion",
        ids[2]: "candidate",
    }
    created = [row["created_at"] for row in listed["models"]]
    assert created == sorted(created, reverse=True)
    lines = invoke("models", env={"CHURN_MODELS_DIR": place}).stdout.splitlines()
    assert len(lines) == 4
    assert f"* {ids[1]}  champion" in "\n".join(lines)
    assert "0.800" in next(line for line in lines if ids[1] in line)


def test_an_empty_place_says_what_to_run(place: str, invoke: Invoke) -> None:
    assert "churn-train run" in invoke("models", "--models-dir", place).stdout
    for arguments in (["show"], ["diff", "a"], ["promote"], ["retire", "a", "--reason", "x"]):
        result = invoke("models", *arguments, "--models-dir", place)
        assert result.exit_code == 1, result.output
        assert "churn-train run" in result.stderr
    assert invoke("models", "rollback", "--models-dir", place).exit_code == 1
    assert parse(invoke("models", "prune", "--json", "--models-dir", place))["pruned"] == []


def test_show_tells_all_of_a_model(place: str, ids: list[str], invoke: Invoke) -> None:
    shown = parse(invoke("models", "show", ids[0][:6], "--json", "--models-dir", place))
    assert (shown["bundle_id"], shown["stage"]) == (ids[0], "retired")
    moves = [(one["from_stage"], one["to_stage"], one["replaced_by"]) for one in shown["history"]]
    assert moves == [("candidate", "champion", None), ("champion", "retired", ids[1])]
    assert shown["checks"][0]["name"] == "auroc"
    assert shown["test"]["auroc"]["value"] == 0.7
    assert shown["settings"]["horizon_days"] == 30
    assert shown["features"] == ["recency_days"]
    assert shown["trained_until_date"] == "2024-03-02"
    assert shown["precision"]["mode"] == "fp32"
    assert shown["thresholds"]["flag_threshold"] == 0.5
    sizes = {one["name"]: one["byte_count"] for one in shown["files"]}
    assert sizes["model.safetensors"] == 1_000
    assert sum(sizes.values()) == shown["byte_count"]
    text = invoke("models", "show", "run0", "--models-dir", place).stdout
    for words in (
        f"model {ids[0]}: retired since",
        "candidate -> champion, Ada: first",
        f"champion -> retired, Ada: replaced by {ids[1]}",
        "passed  AUROC 0.7",
        "0.700",
        "2024-01-01",
        "high from 0.600",
        "horizon_days",
        "model.safetensors",
    ):
        assert words in text
    champion = parse(invoke("models", "show", "--json", "--models-dir", place))
    assert champion["bundle_id"] == ids[1]


def test_diff_tells_what_differs(place: str, ids: list[str], invoke: Invoke) -> None:
    found = parse(invoke("models", "diff", ids[0], ids[2], "--json", "--models-dir", place))
    assert (found["a"]["bundle_id"], found["b"]["bundle_id"]) == (ids[0], ids[2])
    named = {(one["section"], one["name"]): (one["a"], one["b"]) for one in found["differences"]}
    assert named == {("training", "run_id"): ("run0", "run2"), ("training", "seed"): (0, 2)}
    assert found["metrics"][0]["difference"] == pytest.approx(0.2)
    assert found["is_same_test"]
    text = invoke("models", "diff", "run2", "--models-dir", place).stdout
    assert "+0.100" not in text
    assert "-0.100" in text
    assert "run2 -> run1" in text
    same = invoke("models", "diff", ids[0], ids[0], "--models-dir", place).stdout
    assert "nothing else differs" in same


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "zzz"], "'zzz' is not a model"),
        (["show", "run"], "'run' fits more than one model"),
        (["diff", "run0", "zzz"], "'zzz' is not a model"),
        (["promote", "zzz"], "'zzz' is not a model"),
        (["retire", "run1", "--reason", "x"], "is the champion and cannot become retired"),
    ],
)
def test_a_wrong_reference_is_one_clear_line(
    place: str, ids: list[str], invoke: Invoke, arguments: list[str], message: str
) -> None:
    result = invoke("models", *arguments, "--models-dir", place)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.count("\n") == 1
    assert message in result.stderr
    assert champion_of(place) == ids[1]


@pytest.mark.parametrize(
    "arguments",
    [
        ["promote", "x", "--override"],
        ["promote", "x", "--override", "--reason", " "],
        ["promote", "x", "--stage", "retired"],
        ["retire", "x"],
        ["retire", "x", "--reason", " "],
        ["retire"],
        ["diff"],
        ["prune", "--keep", "-1"],
        ["prune", "--older-than", "x"],
        ["nothing"],
    ],
)
def test_wrong_usage_exits_2(invoke: Invoke, arguments: list[str]) -> None:
    result = invoke("models", *arguments)
    assert result.exit_code == 2
    assert "Usage: churn-train models" in result.stderr


def test_a_shadow_is_made_and_retired(place: str, ids: list[str], invoke: Invoke) -> None:
    models = ["--models-dir", place, "--json"]
    made = parse(invoke("models", "promote", ids[2], "--stage", "shadow", *models))
    assert (made["from_stage"], made["to_stage"], made["was_moved"]) == (
        *("candidate", "shadow"),
        True,
    )
    assert made["champion_id"] == champion_of(place) == ids[1]
    planned = parse(
        invoke("models", "retire", ids[2], "--reason", "no better", "--dry-run", *models)
    )
    assert (planned["was_moved"], planned["moved_at"]) == (False, None)
    assert read_registry(place if "://" in place else Path(place)).shadow_ids == (ids[2],)
    text = invoke("models", "retire", ids[2], "--reason", "no better", *models[:2]).stdout
    assert text == f"{ids[2]} is retired (was shadow)\n"
    again = invoke("models", "retire", ids[2], "--reason", "no better", *models[:2]).stdout
    assert "is retired already" in again


def test_rollback_brings_back_the_champion_before(
    place: str, ids: list[str], invoke: Invoke
) -> None:
    models = ["--models-dir", place]
    planned = invoke("models", "rollback", "--dry-run", *models).stdout
    assert planned == f"champion would be {ids[0]} (before: {ids[1]})\n"
    assert champion_of(place) == ids[1]
    done = parse(invoke("models", "rollback", "--reason", "worse", "--json", *models))
    assert (done["champion_id"], done["previous_bundle_id"]) == (ids[0], ids[1])
    assert (done["reason"], champion_of(place)) == ("worse", ids[0])
    failed = invoke("models", "rollback", *models)
    assert failed.exit_code == 1
    assert "nothing to roll back to" in failed.stderr


def test_prune_says_what_it_freed(place: str, ids: list[str], invoke: Invoke) -> None:
    models = ["--models-dir", place]
    assert "freed 0.0 MB: 0 models; 3 kept" in invoke("models", "prune", *models).stdout
    planned = parse(invoke("models", "prune", "--keep", "0", "--dry-run", "--json", *models))
    assert [one["bundle_id"] for one in planned["pruned"]] == [ids[2]]
    assert planned["byte_count"] > 1_000
    text = invoke("models", "prune", "--keep", "0", *models).stdout
    assert text.splitlines()[-1] == "freed 0.0 MB: 1 model; 2 kept"
    assert "pruned: pruned by hand" in invoke("models", *models).stdout
    shown = invoke("models", "show", ids[2], *models).stdout
    assert "pruned: its files are gone" in shown
    assert "0.900" in shown
    refused = invoke("models", "promote", ids[2], "--stage", "shadow", *models)
    assert refused.exit_code == 1
    assert invoke("models", "diff", ids[2], ids[1], *models).exit_code == 0


def test_a_real_model_is_shown_and_compared(trained: Trained, invoke: Invoke) -> None:
    text = invoke("models", "show").stdout
    assert f"model {trained.outcome.bundle_id}: champion" in text
    for words in ("auroc", "bert 1.00", "days_since_active", "f_beta: ", "dbt-core", "refit"):
        assert words in text
    move(trained.workspace.models_dir, fake_bundle(trained.workspace.models_dir), SHADOW, reason="")
    found = parse(invoke("models", "diff", trained.outcome.bundle_id[:5], "--json"))
    assert found["differences"] == []
    other = next(
        row["bundle_id"]
        for row in parse(invoke("models", "--json"))["models"]
        if not row["is_champion"]
    )
    text = invoke("models", "diff", other).stdout
    assert "tested on different rows" in text
    assert "features" in text
    assert "flag_threshold" in text
