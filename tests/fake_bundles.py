"""Bundles without a model: whole, verifiable, made in milliseconds; for the registry."""

from __future__ import annotations

from typing import Any

from factories import THRESHOLDS, model_settings

from churn_udf.bundles import write_bundle
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
from churn_udf.models_location import ModelsDir


def fake_bundle(
    models_dir: ModelsDir, seed: int = 0, *, metrics: str = "{}\n", **training: Any
) -> str:
    """Write a bundle that can be promoted but not score; return its id."""
    return write_bundle(
        models_dir,
        files={
            WEIGHTS_FILE: bytes([seed]) * 1_000,
            MODEL_CONFIG_FILE: "{}",
            f"{TOKENIZER_DIR}/vocab.txt": "word\n",
            CALIBRATION_FILE: Calibrator(kind="identity", params={}).to_json(),
            THRESHOLDS_FILE: THRESHOLDS.to_json(),
            METRICS_FILE: metrics,
            MODEL_CARD_FILE: "# No model\n",
        },
        settings=model_settings(),
        features=[FeatureSpec(name="recency_days", group="recency")],
        training={"seed": seed, **training},
        versions={"churn_udf": "test"},
    ).bundle_id
