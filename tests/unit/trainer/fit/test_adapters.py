"""Adapters train few weights, leave the rest alone, and end in a bundle that needs no peft."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_encoders import save_tiny_encoder

from churn_udf.model.runner import ModelRunner
from trainer.data.splits import SplitConfig, make_splits
from trainer.data.synthetic import synthetic_snapshot
from trainer.errors import ConfigError
from trainer.fit.adapters import adapt
from trainer.fit.build import build_classifier
from trainer.fit.config import ADAPTERS, FitConfig
from trainer.fit.data import text_arrays
from trainer.fit.loop import fit_model
from trainer.progress import Progress

pytest.importorskip("peft", reason="the extra adapters is not installed")

SMALL = FitConfig(
    max_tokens=48,
    max_review_tokens=12,
    numeric_epochs=1,
    epochs=2,
    max_epoch_examples=200,
    min_examples=0,
    max_valid_examples=64,
    evaluations_per_epoch=2,
    average_decay=0.5,
    batch_tokens=512,
    patience=50,
    text_dropout=0.0,
    precision="fp32",
    device="cpu",
    checkpoint_seconds=0.0,
)
FAMILIES = ("bert", "roberta", "distilbert", "electra", "modernbert", "gpt2")
MERGED = ("lora", "adalora", "ia3")
CASES = [
    (family, adapter)
    for family in FAMILIES
    for adapter in ADAPTERS
    if adapter != "prefix" or family not in ("distilbert", "modernbert")
]


class Killed(BaseException):
    """Stands for a process that dies."""


class DyingProgress(Progress):
    """Dies after so many advances."""

    def __init__(self, steps: int) -> None:
        super().__init__(quiet=True)
        self.steps_left = steps

    def refresh(self, step) -> None:
        self.steps_left -= 1
        if self.steps_left == 0:
            raise Killed


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    snapshot = synthetic_snapshot(
        tmp_path_factory.mktemp("snapshots"), num_users=60, num_cutoffs=8, seed=3
    )
    return snapshot, make_splits(snapshot, SplitConfig(), seed=0)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {
        family: save_tiny_encoder(family, tmp_path_factory.mktemp(family)) for family in FAMILIES
    }


def build(data, config: FitConfig):
    snapshot, splits = data
    rows = splits.train[:50]
    texts = text_arrays(snapshot, rows)
    return build_classifier(*texts, snapshot.feature_matrix[rows], snapshot.features, config)


def fit(data, config, run_dir, progress=None):
    return fit_model(*data, config, run_dir, progress=progress or Progress(quiet=True))


def test_logits(data, result) -> np.ndarray:
    snapshot, splits = data
    runner = ModelRunner.load(result.model_dir, device="cpu")
    texts = text_arrays(snapshot, splits.test)
    return runner.run(*texts, snapshot.feature_matrix[splits.test]).logits


test_logits.__test__ = False


def encode(model, tokenizer, data):
    texts = text_arrays(data[0], data[1].test[:12])
    tokens = tokenizer.encode(*texts).take(np.arange(12))
    return model.encode_text(
        torch.from_numpy(tokens.ids), torch.from_numpy(tokens.segments), tokens.lengths.tolist()
    )


@pytest.mark.parametrize(("family", "adapter"), CASES)
def test_adapter_trains_alone_and_ends_in_a_model_that_scores(
    family, adapter, data, folders, tmp_path
):
    config = dataclasses.replace(SMALL, encoder=str(folders[family]), adapter=adapter)
    pretrained, _ = build(data, config)
    result = fit(data, config, tmp_path)
    saved = load_file(result.model_dir / "model.safetensors")
    names = set(saved)
    plain = {f"encoder.{name}" for name in pretrained.encoder.state_dict()}
    if adapter in MERGED:
        assert {name for name in names if name.startswith("encoder.")} == plain
    whole = sum(p.numel() for p in pretrained.parameters())
    head = whole - sum(p.numel() for p in pretrained.encoder.parameters())
    assert head < result.facts["trained_parameters"] < whole
    assert np.isfinite(test_logits(data, result)).all()
    for name, weight in pretrained.encoder.state_dict().items():
        if "embeddings" in name or "wte" in name or "LayerNorm" in name:
            stored = next(saved[n] for n in names if n == f"encoder.{name}")
            assert torch.equal(stored, weight), f"{name} was to stay frozen"


@pytest.mark.parametrize(("family", "adapter"), CASES)
def test_only_the_adapter_gets_gradients_and_starts_as_no_change(family, adapter, data, folders):
    config = dataclasses.replace(SMALL, encoder=str(folders[family]), adapter=adapter)
    plain, tokenizer = build(data, config)
    model, _ = build(data, config)
    adapt(model, config)
    before = {name for name, _ in plain.encoder.named_parameters()}
    encoded = encode(model.eval(), tokenizer, data)
    if adapter != "prefix":
        torch.testing.assert_close(encoded, encode(plain.eval(), tokenizer, data))
    encoded.square().sum().backward()
    for name, value in model.encoder.named_parameters():
        is_old = name.replace(".base_layer", "").replace(".base.", ".") in before
        assert (value.grad is None) == (is_old or name.endswith("ranknum.default")), name


@pytest.mark.parametrize(
    ("family", "adapter"), [(family, adapter) for family in FAMILIES for adapter in MERGED]
)
def test_merging_changes_no_state(family, adapter, data, folders):
    config = dataclasses.replace(SMALL, encoder=str(folders[family]), adapter=adapter)
    model, tokenizer = build(data, config)
    plain = encode(model.eval(), tokenizer, data)
    handle = adapt(model, config)
    with torch.no_grad():
        for name, value in model.encoder.named_parameters():
            if value.requires_grad:
                spread = 0.1 if adapter != "ia3" else 0.2
                noise = torch.randn(value.shape, generator=torch.Generator().manual_seed(len(name)))
                value.add_(spread * noise)
    adapted = encode(model.eval(), tokenizer, data)
    assert (adapted - plain).abs().max() > 1e-3
    handle.finish()
    torch.testing.assert_close(encode(model, tokenizer, data), adapted, atol=2e-5, rtol=0)
    assert not [name for name in model.state_dict() if "lora" in name or "ia3" in name]


@pytest.mark.parametrize("adapter", [*ADAPTERS])
def test_killed_run_resumes_to_the_same_model(adapter, data, folders, tmp_path):
    config = dataclasses.replace(
        SMALL, encoder=str(folders["roberta"]), adapter=adapter, encoder_learning_rate=2e-2
    )
    counting = DyingProgress(0)
    undisturbed = fit(data, config, tmp_path / "whole", counting)
    with pytest.raises(Killed):
        fit(data, config, tmp_path / "killed", DyingProgress(round(-0.8 * counting.steps_left)))
    resumed = fit(data, config, tmp_path / "killed")
    np.testing.assert_allclose(
        test_logits(data, resumed), test_logits(data, undisturbed), atol=1e-6, rtol=0
    )
    assert len(resumed.history) == len(undisturbed.history)
    assert any(row["epoch"] > 0 for row in resumed.history if row["stage"] == "fine-tune")


@pytest.mark.parametrize(
    ("family", "adapter"), [("gpt2", "prefix"), ("roberta", "prefix"), ("modernbert", "adalora")]
)
def test_adapters_train_in_mixed_precision(family, adapter, data, folders, tmp_path):
    config = dataclasses.replace(
        SMALL, encoder=str(folders[family]), adapter=adapter, precision="bf16", epochs=1
    )
    result = fit(data, config, tmp_path)
    assert np.isfinite(test_logits(data, result)).all()
    assert {w.dtype for w in load_file(result.model_dir / "model.safetensors").values()} == {
        torch.float32,
        torch.float64,
    }


def test_checkpoint_holds_no_frozen_weight(data, folders, tmp_path):
    config = dataclasses.replace(SMALL, encoder=str(folders["bert"]), adapter="lora")
    counting = DyingProgress(0)
    fit(data, config, tmp_path / "whole", counting)
    with pytest.raises(Killed):
        fit(data, config, tmp_path / "killed", DyingProgress(round(-0.8 * counting.steps_left)))
    state = torch.load(tmp_path / "killed" / "checkpoint" / "state.pt", weights_only=True)
    for kept in (state["module"], state["average"]):
        assert [name for name in kept if "lora_A" in name]
        assert not [name for name in kept if "base_layer" in name or "embeddings" in name]


def test_adalora_ends_at_its_mean_rank(data, folders):
    config = dataclasses.replace(
        SMALL, encoder=str(folders["bert"]), adapter="adalora", adapter_rank=4
    )
    model, tokenizer = build(data, config)
    adapter = adapt(model, config)
    trained = [p for p in model.encoder.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-2)
    model.train()
    for step in range(1, 21):
        optimizer.zero_grad()
        target = torch.linspace(-1, 1, 32)
        loss = (encode(model, tokenizer, data) - target).square().mean() + adapter.penalty()
        loss.backward()
        optimizer.step()
        adapter.after_step(step, 20)
    values = [p for name, p in model.encoder.named_parameters() if "lora_E" in name]
    assert sum(len(value) for value in values) == 6 * len(values)
    assert sum(int((value != 0).sum()) for value in values) == 4 * len(values)


def test_scoring_imports_no_peft(data, folders, tmp_path):
    dirs = []
    for adapter in ("lora", "prefix", "bottleneck"):
        config = dataclasses.replace(SMALL, encoder=str(folders["gpt2"]), adapter=adapter, epochs=1)
        dirs.append(str(fit(data, config, tmp_path / adapter).model_dir))
    code = (
        "import sys; sys.modules['peft'] = None\n"
        "import numpy as np, pyarrow as pa; from pathlib import Path\n"
        "from churn_udf.model.runner import ModelRunner\n"
        f"features = np.zeros((1, {len(data[0].features)}))\n"
        f"for folder in {dirs!r}:\n"
        "    runner = ModelRunner.load(Path(folder), device='cpu')\n"
        "    print(runner.run(pa.array(['last visit']), pa.array(['']), features).logits[0])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert np.isfinite([float(line) for line in done.stdout.split()]).sum() == 3


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"adapter": "lora"}, "'lora' with fit.encoder 'compact'"),
        ({"adapter": "dora", "encoder": "x"}, "allowed: none, lora, adalora, ia3"),
        ({"adapter_rank": 4, "encoder": "x"}, "adapter_rank is 4 with fit.adapter 'none'"),
        ({"adapter": "ia3", "adapter_rank": 4, "encoder": "x"}, "allowed: null, or fit.adapter"),
        ({"adapter": "prefix", "adapter_dropout": 0.1, "encoder": "x"}, "adapter_dropout is 0.1"),
        ({"adapter": "lora", "adapter_rank": 0, "encoder": "x"}, "allowed: above 0"),
        ({"adapter": "lora", "adapter_dropout": 1.0, "encoder": "x"}, "below 1"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes, words):
    with pytest.raises(ConfigError, match=words):
        FitConfig(**changes)


@pytest.mark.parametrize("family", ["distilbert", "modernbert"])
def test_prefix_on_a_family_without_one_is_refused(family, data, folders):
    config = dataclasses.replace(SMALL, encoder=str(folders[family]), adapter="prefix")
    model, _ = build(data, config)
    with pytest.raises(ConfigError, match=r"'prefix' does not fit .*another adapter, such as lora"):
        adapt(model, config)


def test_missing_peft_is_named(data, folders, monkeypatch):
    config = dataclasses.replace(SMALL, encoder=str(folders["bert"]), adapter="lora")
    model, _ = build(data, config)
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ConfigError, match=r"warehouse-churn\[adapters\]"):
        adapt(model, config)
