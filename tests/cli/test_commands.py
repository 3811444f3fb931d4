from __future__ import annotations

import contextlib
import datetime
import json
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from cli.conftest import parse
from click.testing import Result
from training_example import TINY_FLAGS, Trained

from churn_udf.bundle_store import read_champion
from trainer.data.snapshot import Snapshot
from trainer.errors import WarehouseError

Invoke = Callable[..., Result]


def test_fit_evaluate_package_promote_one_by_one(
    trained: Trained, invoke: Invoke, tmp_path: Path
) -> None:
    flags = [*TINY_FLAGS, "--seed", "5"]
    fitted = parse(invoke("fit", trained.outcome.snapshot_id, *flags, "--json"))
    assert fitted["run_id"] != trained.outcome.run_id
    assert fitted["splits"]["train"]["rows"] > 0
    assert fitted["facts"]["encoder"] == "compact"
    resolved = yaml.safe_load((tmp_path / fitted["path"] / "config.yaml").read_text())
    assert resolved["fit"]["seed"] == 5

    judged = parse(invoke("evaluate", "--json", "--quiet"))
    assert judged["run_id"] == fitted["run_id"]
    assert Path(judged["report"]).read_text().lstrip().lower().startswith("<!doctype html>")

    packaged = parse(invoke("package", fitted["run_id"], "--json"))
    assert "model.safetensors" in packaged["files"]
    assert read_champion(Path("models")).bundle_id == trained.outcome.bundle_id  # type: ignore[union-attr]

    flags = ["--set", "gate.unchecked=allow", "--json"]
    planned = parse(invoke("promote", packaged["bundle_id"], "--dry-run", *flags))
    assert planned["dry_run"]
    assert read_champion(Path("models")).bundle_id == trained.outcome.bundle_id  # type: ignore[union-attr]
    promoted = parse(invoke("promote", packaged["bundle_id"], "--reason", "better", *flags))
    assert promoted["previous_bundle_id"] == trained.outcome.bundle_id

    listed = parse(invoke("models", "--json"))["models"]
    assert {row["bundle_id"]: row["is_champion"] for row in listed} == {
        packaged["bundle_id"]: True,
        trained.outcome.bundle_id: False,
    }


def test_text_results_go_to_stdout_and_progress_to_stderr(trained: Trained, invoke: Invoke) -> None:
    judged = invoke("evaluate")
    assert judged.exit_code == 0
    assert "predict test" in judged.stderr
    assert "predict test" not in judged.stdout
    for word in ("auroc", "average_precision", "lift_at_10pct", "recency", "base_rate", "report:"):
        assert word in judged.stdout
    assert trained.outcome.bundle_id in invoke("models").stdout
    assert "next: churn-train promote" in invoke("package").stdout
    assert "next: dbt build" in invoke("promote").stdout
    fitted = invoke("fit", *TINY_FLAGS)
    assert "trained already" in fitted.stderr
    assert "base" not in fitted.stderr


def test_quiet_is_quiet(trained: Trained, invoke: Invoke) -> None:
    assert invoke("evaluate", "--quiet").stderr == ""


def test_evaluate_takes_new_thresholds_and_keeps_the_training_settings(
    trained: Trained, invoke: Invoke
) -> None:
    sets = ["--set", "thresholds.strategy=capacity", "--set", "evaluate.num_bootstrap=5"]
    judged = parse(invoke("evaluate", "--json", *sets, "--set", "evaluate.baselines=recency"))
    assert judged["threshold"]["strategy"] == "capacity"
    assert judged["num_bootstrap"] == 5
    assert list(judged["test"]) == ["bert", "recency"]
    stored = yaml.safe_load(Path("runs", trained.outcome.run_id, "config.yaml").read_text())
    assert stored["fit"]["hidden_size"] == 16
    assert stored["thresholds"]["strategy"] == "capacity"


def test_models_folder_comes_from_the_environment(trained: Trained, invoke: Invoke) -> None:
    listed = parse(invoke("models", "--json", env={"CHURN_MODELS_DIR": "elsewhere"}))
    assert listed == {"models_dir": "elsewhere", "models": []}
    assert "churn-train run" in invoke("models", "--models-dir", "elsewhere").stdout


@pytest.fixture
def exported(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> Snapshot:
    """Let `run` find the trained snapshot where it would export one from a warehouse."""
    snapshot = trained.snapshot
    monkeypatch.setattr("trainer.pipeline.export_snapshot", lambda *_, **__: snapshot)
    return snapshot


def run_flags() -> list[Any]:
    return ["run", "--models-dir", "models", *TINY_FLAGS]


def test_unchanged_run_is_skipped_and_says_so(
    trained: Trained, exported: Snapshot, invoke: Invoke
) -> None:
    result = invoke(*run_flags(), "--json")
    assert "unchanged: " in result.stderr
    document = parse(result)
    assert document["was_skipped"]
    assert document["is_champion"]
    assert document["gate"] is None
    assert document["metrics"]["test"]["bert"]["auroc"]["value"] > 0.6
    assert "next: dbt build" in invoke(*run_flags()).stdout


def test_no_promote_leaves_the_champion(
    trained: Trained, exported: Snapshot, invoke: Invoke
) -> None:
    flags = [*run_flags(), "--set", "thresholds.strategy=capacity", "--no-promote"]
    result = invoke(*flags)
    assert result.exit_code == 0
    assert "not promoted" in result.stdout
    champion = read_champion(Path("models"))
    assert champion is not None
    assert champion.bundle_id == trained.outcome.bundle_id


def test_refused_model_exits_3_with_its_result(
    trained: Trained, exported: Snapshot, invoke: Invoke
) -> None:
    flags = [*run_flags(), "--set", "thresholds.strategy=capacity", "--set", "gate.min_auroc=1.1"]
    result = invoke(*flags, "--json")
    assert result.exit_code == 3
    assert "error: not promoted" in result.stderr
    document = json.loads(result.stdout)
    assert not document["is_champion"]
    assert document["gate"].startswith("not promoted")
    assert Path("models/bundles", document["bundle_id"]).is_dir()


def test_warehouse_failure_exits_1(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise WarehouseError("no warehouse; run `dbt build`")

    monkeypatch.setattr("trainer.data.export.export_snapshot", fail)
    result = invoke("snapshot")
    assert result.exit_code == 1
    assert result.stderr == "error: no warehouse; run `dbt build`\n"
    assert result.stdout == ""


def test_dry_run_writes_nothing(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class StandIn:
        context = types.SimpleNamespace(settings={"horizon_days": 14})

        def models_dir(self) -> Path:
            return Path("from/profile")

        @contextlib.contextmanager
        def cursor(self) -> Any:
            yield None

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("trainer.cli.options.make_warehouse", lambda _: StandIn())
    monkeypatch.setattr(
        "trainer.data.export.read_score_cutoff", lambda *_: datetime.date(2024, 3, 15)
    )
    planned = parse(invoke("run", "--dry-run", "--json", "--seed", "9"))
    assert planned["score_cutoff_date"] == "2024-03-15"
    assert planned["folders"]["models_dir"] == "from/profile"
    assert planned["config"]["fit"]["seed"] == 9
    assert planned["vars"] == {"horizon_days": 14}
    text = invoke("run", "--dry-run", "--seed", "9").stdout
    assert yaml.safe_load(text)["fit"]["seed"] == 9
    assert list(tmp_path.iterdir()) == []
