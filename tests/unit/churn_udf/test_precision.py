"""precision.json, what a machine can do, and calibration of activations."""

import dataclasses
import logging

import numpy as np
import pytest
import torch
from factories import feature_specs, input_batch, tiny_bundle

from churn_udf.contracts.bundle import PRECISION_FILE
from churn_udf.errors import BundleIntegrityError, ScoringError
from churn_udf.model import runner as runner_module
from churn_udf.model.ensemble import EnsembleRunner
from churn_udf.model.precision import Precision, read_precision, usable_mode
from churn_udf.model.quantization import calibrate_activations
from churn_udf.model.runner import ModelRunner
from churn_udf.tokenization import TokenBatch

NAMES = ("recency_days", "order_count", "amount_sum")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tiny_bundle(tmp_path_factory.mktemp("models"), NAMES).directory


@pytest.fixture(scope="module")
def rows():
    batch = input_batch(60, NAMES, seed=5)
    columns = [batch.column(name).to_numpy(zero_copy_only=False) for name in NAMES]
    texts = batch.column("behavior_text"), batch.column("review_text_recent")
    return *texts, np.column_stack(columns)


@pytest.fixture(scope="module")
def runner(directory) -> ModelRunner:
    return ModelRunner.load(directory, device="cpu")


def test_json_round_trip():
    precision = Precision(
        mode="int8", activation_ranges={"a.b": (-1.5, 2.0)}, check={"bf16": {"auroc": 0.1}}
    )
    assert Precision.from_json(precision.to_json()) == precision


def test_without_the_file_it_is_fp32(tmp_path):
    assert read_precision(tmp_path) == Precision(mode="fp32")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b'{"mode": "fp32"}',
        b'{"mode": "fp16", "activation_ranges": {}, "check": {}}',
        b'{"mode": "int8", "activation_ranges": {}, "check": {}}',
        b'{"mode": "int8", "activation_ranges": {"a": [1]}, "check": {}}',
        b'{"mode": "int8", "activation_ranges": {"a": [2, 1]}, "check": {}}',
        b'{"mode": "int8", "activation_ranges": {"a": [0, NaN]}, "check": {}}',
        b'{"mode": "int8", "activation_ranges": {"a": [0, Infinity]}, "check": {}}',
        b'{"mode": "bf16", "activation_ranges": [], "check": {}}',
        b'{"mode": "bf16", "activation_ranges": {}, "check": 1}',
    ],
)
def test_damaged_files_are_refused(tmp_path, content):
    (tmp_path / PRECISION_FILE).write_bytes(content)
    with pytest.raises(BundleIntegrityError, match="precision"):
        read_precision(tmp_path)


def test_machine_without_the_instructions_falls_back_and_says_so_once(
    runner, monkeypatch, caplog, rows
):
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    runner_module._log_once.cache_clear()
    assert usable_mode("fp32", CPU) == ("fp32", None)
    mode, reason = usable_mode("int8", CPU)
    assert mode == "fp32"
    assert "VNNI" in reason
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            again = ModelRunner(
                runner.model, runner.tokenizer, device="cpu", precision=Precision(mode="bf16")
            )
    assert again.mode == "fp32"
    assert [record.message.count("AVX512_BF16") for record in caplog.records] == [1]
    np.testing.assert_array_equal(again.run(*rows).logits, runner.run(*rows).logits)


@pytest.mark.parametrize("mode", ["bf16", "int8"])
def test_a_bundle_scores_in_the_mode_that_it_records_or_exactly_if_told(
    directory, runner, rows, tmp_path, mode
):
    if (reason := usable_mode(mode, CPU)[1]) is not None:
        pytest.skip(reason)
    (tmp_path / "tokenizer").mkdir()
    runner.model.save(tmp_path)
    runner.tokenizer.save(tmp_path / "tokenizer")
    tokens = runner.tokenizer.encode(*rows[:2])
    recorded = Precision(mode=mode, activation_ranges=calibrate_activations(runner, tokens))
    (tmp_path / PRECISION_FILE).write_text(recorded.to_json())
    exact = runner.run(*rows).logits
    specs = feature_specs(NAMES)
    found = EnsembleRunner.load(tmp_path, specs, device="cpu").run(*rows).logits
    told = EnsembleRunner.load(tmp_path, specs, device="cpu", precision="fp32").run(*rows).logits
    np.testing.assert_array_equal(told, exact)
    assert 0.0 < np.abs(found - exact).max() < 0.02


def test_another_precision_is_refused(directory):
    with pytest.raises(ScoringError, match="'int8'; allowed: auto"):
        ModelRunner.load(directory, device="cpu", precision="int8")


def test_calibration_names_every_dense_layer_that_is_called_and_grows_with_its_texts(runner, rows):
    tokens = runner.tokenizer.encode(*rows[:2])
    whole = calibrate_activations(runner, tokens)
    encoder = runner.model.encoder
    dense = [n for n, m in encoder.named_modules() if isinstance(m, torch.nn.Linear)]
    last = f"encoder.layer.{len(encoder.encoder['layer']) - 1}.attention.self"
    absorbed = {f"{last}.key", f"{last}.value"}  # no token meets these two matrices
    assert sorted(whole) == sorted(set(dense) - absorbed)
    for name, (low, high) in calibrate_activations(runner.model, tokens.take([3, 4])).items():
        assert whole[name][0] - 1e-5 <= low < high <= whole[name][1] + 1e-5
    assert not any(module._forward_pre_hooks for module in encoder.modules())


def test_calibration_needs_texts(runner):
    with pytest.raises(ValueError, match="got 0 texts"):
        calibrate_activations(runner, TokenBatch.without_text(0, 2))


def test_effects_are_left_out_when_not_wanted(directory, rows):
    whole = EnsembleRunner.load(directory, feature_specs(NAMES), device="cpu")
    full, lean = whole.run(*rows), whole.run(*rows, with_effects=False)
    np.testing.assert_array_equal(lean.logits, full.logits)
    assert lean.group_effects.shape == (60, 0)
    assert full.group_effects.shape == (60, len(whole.feature_groups))


def test_ranges_cannot_be_changed_after_loading():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Precision().mode = "int8"
