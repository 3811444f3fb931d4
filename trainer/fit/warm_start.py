"""Starting a fit from the champion's weights instead of random ones, where that is honest.

The champion has learned labels, and read texts, up to its ``trained_until``. A fit that is judged
on later rows may start from it only if that date is not beyond the first of them; the fit that
ships is judged on nothing and may start from any model of the past.
"""

from __future__ import annotations

import dataclasses
import datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file

from churn_udf.bundles import Bundle, bundle_directory, open_bundle
from churn_udf.contracts.bundle import MODEL_CONFIG_FILE, TOKENIZER_DIR, WEIGHTS_FILE
from churn_udf.errors import BundleError
from churn_udf.model.classifier import ChurnClassifier
from churn_udf.model.config import ModelConfig
from churn_udf.model_records import trained_until
from churn_udf.models_location import ModelsDir
from churn_udf.registry import read_registry
from churn_udf.tokenization import Tokenizer, load_tokenizer
from trainer.data.snapshot import Snapshot
from trainer.data.splits import BY_USER, Splits
from trainer.errors import ConfigError
from trainer.fit.build import compact_encoder_config
from trainer.fit.config import COMPACT, FROM_CHAMPION, NO_START, FitConfig

START_FACT = "warm_start"
"""Training fact of a manifest: the bundle that its fits were allowed to start from."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class WarmStart:
    """A model to start from."""

    bundle_id: str
    directory: Path
    trained_until: datetime.date

    def problem_of(self, limit: datetime.date, splits: Splits) -> str | None:
        """Return why a fit may not start here; None if it may.

        Args:
            limit: First cutoff of the rows that judge the fit.
            splits: Its splits; users that are held out at shared cutoffs were seen earlier.
        """
        if BY_USER in (splits.valid_mode, splits.test_mode):
            return "rows that judge it differ from training rows by users alone"
        if self.trained_until > limit:
            return (
                f"{self.bundle_id} has learned labels until {self.trained_until}, and it is judged "
                f"from {limit} on"
            )
        return None


def resolve_start(
    models_dir: ModelsDir, snapshot: Snapshot, config: FitConfig
) -> tuple[FitConfig, str | None]:
    """Put the bundle that ``fit.warm_start: champion`` means into the settings.

    A champion that was trained on this very snapshot stands for what it started from itself, so
    that the same command finds its earlier run.

    Args:
        models_dir: Where the champion is.
        snapshot: The rows.
        config: Settings.

    Returns:
        The settings with a bundle id, or ``none`` and why.
    """
    if config.warm_start != FROM_CHAMPION:
        return config, None
    anew = dataclasses.replace(config, warm_start=NO_START)
    bundle_id = read_registry(models_dir).champion_id
    if bundle_id is None:
        return anew, "there is no champion"
    try:
        bundle = open_bundle(bundle_directory(models_dir, bundle_id))
    except BundleError as error:
        return anew, str(error)
    if bundle.manifest.training.get("snapshot_id") == snapshot.snapshot_id:
        earlier = str(bundle.manifest.training.get(START_FACT) or NO_START)
        return dataclasses.replace(config, warm_start=earlier), None
    problem = _problem_of(bundle, snapshot, config)
    if problem:
        return anew, f"{bundle_id}: {problem}"
    return dataclasses.replace(config, warm_start=bundle_id), None


def open_start(models_dir: ModelsDir, snapshot: Snapshot, config: FitConfig) -> WarmStart | None:
    """Return the model that resolved settings name; None for none.

    Raises:
        BundleError: It is gone or damaged.
        ConfigError: It does not fit the settings.
    """
    if config.warm_start == NO_START:
        return None
    bundle = open_bundle(bundle_directory(models_dir, config.warm_start))
    problem = _problem_of(bundle, snapshot, config)
    until = trained_until(bundle.manifest.training, bundle.manifest.settings.to_dict())
    if problem or until is None:
        raise ConfigError(
            f"fit.warm_start is {config.warm_start!r}: {problem}; allowed: {NO_START}, "
            f"{FROM_CHAMPION}, or a bundle that fits"
        )
    return WarmStart(bundle_id=bundle.bundle_id, directory=bundle.directory, trained_until=until)


def load_start(
    start: WarmStart, config: FitConfig, train_features: npt.NDArray[np.float64]
) -> tuple[ChurnClassifier, Tokenizer]:
    """Return the model ready to train: its weights and words, its feature codes fitted anew.

    Args:
        start: What to start from.
        config: Settings; they fit, see ``resolve_start``.
        train_features: (B, F) float64 training rows. Codes are quantiles, so that weights keep
            their meaning when a feature has moved.
    """
    found = _model_config(start.directory)
    assert found is not None
    model = ChurnClassifier(dataclasses.replace(found, dropout=config.dropout))
    model.load_state_dict(load_file(start.directory / WEIGHTS_FILE))
    model.coding.fit(train_features)
    codes_BFC = model.coding(torch.from_numpy(train_features))
    model.mean_codes_FC.copy_(codes_BFC.double().mean(dim=0).float())
    return model, load_tokenizer(start.directory / TOKENIZER_DIR)


def _problem_of(bundle: Bundle, snapshot: Snapshot, config: FitConfig) -> str | None:
    """Return why nothing may start from a bundle; None if the last fit may."""
    if config.encoder != COMPACT:
        return f"fit.encoder is {config.encoder!r}, which has weights of its own to start from"
    if config.pseudo_labels:
        return "fit.pseudo_labels makes models of its own to start from"
    if bundle.manifest.settings != snapshot.model_settings:
        return "it was trained with other windows, text or feature version"
    found = _model_config(bundle.directory)
    if found is None:
        return "it scores without a text encoder"
    wanted = {
        "encoder": compact_encoder_config(int(found.encoder.get("vocab_size", 0)), config),
        "features": snapshot.features,
        "num_bins": config.num_bins,
        "max_tokens": config.max_tokens,
        "max_review_tokens": config.max_review_tokens,
        "modality": config.modality,
        "adapter": None,
    }
    other = [name for name, value in wanted.items() if getattr(found, name) != value]
    if other:
        return f"it was made with other settings of {', '.join(other)}"
    until = trained_until(bundle.manifest.training, bundle.manifest.settings.to_dict())
    score_cutoff = datetime.date.fromisoformat(str(snapshot.document["score_cutoff_date"]))
    if until is None or until > score_cutoff:
        return f"it has learned labels until {until}, later than the score cutoff {score_cutoff}"
    return None


def _model_config(directory: Path) -> ModelConfig | None:
    """Return the shape of a bundle's neural model, None if it has none."""
    file = directory / MODEL_CONFIG_FILE
    return ModelConfig.from_json(file.read_text(encoding="utf-8")) if file.is_file() else None
