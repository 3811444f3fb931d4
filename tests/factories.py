"""Seeded builders shared by tests: settings, input rows, and a real tiny bundle."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from churn_udf.bundle_store import Bundle, write_bundle
from churn_udf.calibration import Calibrator
from churn_udf.contracts.bundle import (
    CALIBRATION_FILE,
    METRICS_FILE,
    MODEL_CARD_FILE,
    MODEL_CONFIG_FILE,
    THRESHOLDS_FILE,
    TOKENIZER_DIR,
    WEIGHTS_FILE,
    FeatureSpec,
)
from churn_udf.contracts.scores import input_schema
from churn_udf.contracts.settings import ModelSettings
from churn_udf.model.bg_nbd import EXPECTED, BgNbdColumns, BgNbdModel, BgNbdParameters
from churn_udf.thresholds import Thresholds, Tier

WORDS = (
    *("tenure", "last", "usual", "visit", "bought", "returned", "dairy", "bakery", "fruit"),
    *("gap", "days", "small", "large", "great", "bad", "slow", "rating", "five", "one"),
)
GROUPS = ("recency", "frequency", "spend")
THRESHOLDS = Thresholds(
    flag_threshold=0.5,
    tiers=(
        Tier(name="high", min_probability=0.6),
        Tier(name="medium", min_probability=0.4),
        Tier(name="low", min_probability=0.0),
    ),
    strategy={"kind": "test"},
)


def model_settings(**changes: object) -> ModelSettings:
    """Settings of the package's defaults, with changes."""
    defaults = ModelSettings(
        observation_days=365,
        eligibility_days=90,
        gap_days=0,
        horizon_days=30,
        qualifying_event_types=("purchase",),
        max_visits=16,
        max_words_per_visit=4,
        max_reviews=3,
        max_review_chars=400,
    )
    return dataclasses.replace(defaults, **changes)


def feature_specs(names: Sequence[str | FeatureSpec]) -> tuple[FeatureSpec, ...]:
    """Names with groups dealt in turn; ready specifications stay as they are."""
    return tuple(
        FeatureSpec(name=name, group=GROUPS[index % len(GROUPS)]) if isinstance(name, str) else name
        for index, name in enumerate(names)
    )


def input_batch(
    num_rows: int, feature_names: Sequence[str], *, seed: int = 0, unknown_share: float = 0.2
) -> pa.RecordBatch:
    """Random scoring input with distinct hashes, some features unknown."""
    generator = np.random.default_rng(seed)

    def texts(most_words: int) -> list[str]:
        counts = generator.integers(0, most_words, num_rows)
        return [" ".join(generator.choice(WORDS, count)) for count in counts]

    columns = [pa.array([f"hash-{seed}-{row}" for row in range(num_rows)])]
    columns += [pa.array(texts(30), pa.string()), pa.array(texts(6), pa.string())]
    for _ in feature_names:
        is_unknown = generator.random(num_rows) < unknown_share
        columns.append(pa.array(generator.normal(10, 5, num_rows), mask=is_unknown))
    return pa.RecordBatch.from_arrays(columns, schema=input_schema(feature_names))


def bg_nbd_member(source: BgNbdColumns, typical: tuple[float, ...]) -> BgNbdModel:
    """Return a BG/NBD model that reads these columns, with their medians."""
    return BgNbdModel(
        source=source,
        parameters=BgNbdParameters(r=0.8, alpha=20.0, a=0.7, b=3.0),
        score=EXPECTED,
        horizon_days=28.0,
        gap_days=0.0,
        mean_age_days=90.0,
        typical=typical,
    )


def tiny_bundle(
    models_dir: Path,
    features: Sequence[str | FeatureSpec],
    settings: ModelSettings | None = None,
    seed: int = 0,
) -> Bundle:
    """Write a real bundle with a small untrained model; another seed gives another bundle."""
    import torch

    from churn_udf.model.classifier import ChurnClassifier
    from churn_udf.model.config import ModelConfig
    from churn_udf.tokenization import SPECIAL_WORDS, CompactTokenizer

    specs = feature_specs(features)
    encoder = {
        "model_type": "bert",
        "vocab_size": len(SPECIAL_WORDS) + len(WORDS),
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
        "max_position_embeddings": 48,
        "type_vocab_size": 2,
        "layer_norm_eps": 1e-12,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = ModelConfig(encoder=encoder, features=specs, max_tokens=48, max_review_tokens=16)
        model = ChurnClassifier(config)
        torch.nn.init.normal_(model.wide.weight, std=0.5)
    rows = np.random.default_rng(seed).normal(10, 5, (200, len(specs)))
    model.coding.fit(rows)
    model.mean_codes_FC.copy_(model.coding(torch.from_numpy(rows)).mean(dim=0))
    tokenizer = CompactTokenizer(WORDS, max_tokens=48, max_review_tokens=16)
    with tempfile.TemporaryDirectory() as scratch_name:
        scratch = Path(scratch_name)
        (scratch / TOKENIZER_DIR).mkdir()
        model.save(scratch)
        tokenizer.save(scratch / TOKENIZER_DIR)
        names = [MODEL_CONFIG_FILE, WEIGHTS_FILE]
        names += [f"{TOKENIZER_DIR}/{path.name}" for path in (scratch / TOKENIZER_DIR).iterdir()]
        return write_bundle(
            models_dir,
            files={
                **{name: scratch / name for name in names},
                CALIBRATION_FILE: Calibrator(
                    kind="temperature", params={"temperature": [1.5]}
                ).to_json(),
                THRESHOLDS_FILE: THRESHOLDS.to_json(),
                METRICS_FILE: "{}\n",
                MODEL_CARD_FILE: "# Tiny test model\n",
            },
            settings=settings or model_settings(),
            features=specs,
            training={"snapshot_id": "test", "seed": seed},
            versions={"churn_udf": "test"},
        )
