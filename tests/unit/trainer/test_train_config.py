from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from trainer.config import TrainConfig, load_config, to_mapping, to_yaml
from trainer.config_values import from_mapping
from trainer.errors import ConfigError


def test_yaml_round_trip_keeps_every_setting() -> None:
    config = load_config(overrides={"fit.seed": 7, "evaluate.baselines": "recency,lightgbm"})
    assert from_mapping(TrainConfig, yaml.safe_load(to_yaml(config))) == config


def test_flags_win_over_environment_over_file(tmp_path: Path) -> None:
    file = tmp_path / "train.yaml"
    file.write_text("fit: {seed: 1, epochs: 1, hidden_size: 64}\n")
    environment = {"CHURN_TRAIN_FIT_SEED": "2", "CHURN_TRAIN_FIT_EPOCHS": "2", "HOME": "x"}
    fit = load_config(file, environment=environment, overrides={"fit.seed": 3}).fit
    assert (fit.seed, fit.epochs, fit.hidden_size) == (3, 2, 64)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        pytest.param({"fit.epoch": 1}, "did you mean 'epochs'", id="near-miss"),
        pytest.param({"fitt.epochs": 1}, "did you mean 'fit'", id="section"),
        pytest.param({"epochs": 1}, "section.name=value", id="no-section"),
        pytest.param({"fit.epochs": "many"}, "whole number", id="word-for-number"),
        pytest.param({"fit.epochs": 1.5}, "whole number", id="fraction"),
        pytest.param({"fit.epochs": True}, "whole number", id="boolean"),
        pytest.param({"fit.epochs": 0}, "allowed: 1 or more", id="out-of-range"),
        pytest.param({"fit.encoder": 3}, "text", id="number-for-text"),
        pytest.param({"evaluate.baselines": "recency,magic"}, "lightgbm", id="unknown-baseline"),
        pytest.param({"evaluate.confidence": 1.0}, "below 1", id="confidence"),
        pytest.param({"splits.valid_cutoffs": 0}, "1 or more", id="cutoffs"),
        pytest.param({"splits.max_train_cutoffs": 0}, "null for all", id="train-cutoffs"),
        pytest.param({"splits.valid_user_fraction": 0.5}, "below 0.5", id="fraction-bound"),
        pytest.param({"snapshot.rows_per_shard": 0}, "65536", id="shard"),
        pytest.param({"thresholds.costs": 5}, "a mapping", id="number-for-mapping"),
        pytest.param({"fit.refit": "some"}, "all, test, none", id="refit"),
        pytest.param({"evaluate.base_rate": "magic"}, "newest, shrunk, em", id="base-rate"),
        pytest.param({"ensemble.kinds": "forest"}, "bert, gbm, stack", id="ensemble-kind"),
        pytest.param({"ensemble.kinds": []}, "one or more", id="no-ensemble-kind"),
        pytest.param({"ensemble.members": "bert,forest"}, "rfm_logistic", id="ensemble-member"),
        pytest.param({"ensemble.members": "bert,logistic"}, "drop the kind", id="kind-no-member"),
        pytest.param(
            {"ensemble.kinds": "stack", "ensemble.members": "gbm"}, "two or more", id="stack-of-one"
        ),
        pytest.param({"ensemble.shrinkage": -0.1}, "1 or more", id="shrinkage-negative"),
        pytest.param({"ensemble.shrinkage": 0.02}, "1 or more", id="shrinkage-per-row"),
        pytest.param({"ensemble.shrinkage": float("nan")}, "finite", id="shrinkage-nan"),
    ],
)
def test_bad_setting_names_what_is_allowed(overrides: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(overrides=overrides)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1e-4", 1e-4), ("null", None), ("0.01", 0.01)],
)
def test_text_of_flags_and_variables_is_parsed(text: str, expected: float | None) -> None:
    config = load_config(environment={"CHURN_TRAIN_FIT_ENCODER_LEARNING_RATE": text})
    assert config.fit.encoder_learning_rate == expected


def test_unknown_variable_of_our_prefix_is_refused() -> None:
    with pytest.raises(ConfigError, match="did you mean 'CHURN_TRAIN_FIT_EPOCHS'"):
        load_config(environment={"CHURN_TRAIN_FIT_EPOCH": "1"})


def test_variables_of_options_are_no_settings() -> None:
    assert load_config(environment={"CHURN_TRAIN_RUNS_DIR": "x"}) == TrainConfig()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fit: 3", "a mapping of settings"),
        ("- 1", "a mapping of sections"),
        ("fit: {epochs: [", "not YAML"),
    ],
    ids=["section", "list", "broken"],
)
def test_bad_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "train.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_config(file)


def test_missing_file_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path / "no.yaml")


def test_empty_file_means_the_defaults(tmp_path: Path) -> None:
    file = tmp_path / "train.yaml"
    file.write_text("fit:\n")
    assert load_config(file) == TrainConfig()


def test_costs_are_read_as_numbers() -> None:
    costs = {"true_positive": 1, "false_positive": 2, "false_negative": 3, "true_negative": 0}
    config = load_config(overrides={"thresholds.strategy": "cost", "thresholds.costs": costs})
    assert config.thresholds.costs == {name: float(value) for name, value in costs.items()}
    assert to_mapping(config)["thresholds"]["costs"]["false_positive"] == 2.0
