"""Bundle contract: the directory that a trainer hands to the warehouse.

``<models_dir>/bundles/<bundle_id>/manifest.json`` beside the files it lists. The id is the
hash of the manifest's content, which holds the hash of every file: any change shows.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from churn_udf.contracts.settings import ModelSettings
from churn_udf.errors import BundleIntegrityError

BUNDLE_VERSION = 1
MANIFEST_FILE = "manifest.json"
WEIGHTS_FILE = "model.safetensors"
MODEL_CONFIG_FILE = "model.json"
TOKENIZER_DIR = "tokenizer"
CALIBRATION_FILE = "calibration.json"
THRESHOLDS_FILE = "thresholds.json"
METRICS_FILE = "metrics.json"
MODEL_CARD_FILE = "MODEL_CARD.md"
ENSEMBLE_FILE = "ensemble.json"
REFERENCE_FILE = "reference.json"
"""What it learned from, for drift (``contracts.reference``); no drift where a bundle lacks it."""
PRECISION_FILE = "precision.json"
"""Numbers that the encoder computes in, chosen at packaging; fp32 where a bundle lacks it."""
MEMBER_FILES = {
    "bert": WEIGHTS_FILE,
    "gbm": "gbm.txt",
    "logistic": "logistic.json",
    "rfm_logistic": "rfm_logistic.json",
    "bg_nbd": "bg_nbd.json",
}
"""Members of an ensemble and where each is stored; LightGBM in its own text format."""
REQUIRED_FILES = (
    WEIGHTS_FILE,
    MODEL_CONFIG_FILE,
    CALIBRATION_FILE,
    THRESHOLDS_FILE,
    METRICS_FILE,
    MODEL_CARD_FILE,
)
BUNDLES_DIR = "bundles"
CHAMPION_FILE = "champion.json"
PROMOTIONS_FILE = "promotions.jsonl"
BUNDLE_ID_LENGTH = 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeatureSpec:
    """One numeric model input, in the order the model expects."""

    name: str
    group: str
    description: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BundleManifest:
    """Everything a loader needs to know before it opens a weight file."""

    settings: ModelSettings
    """Windows and text options that the bundle is bound to."""
    features: tuple[FeatureSpec, ...]
    """Numeric inputs in model order."""
    training: Mapping[str, Any]
    """snapshot_id, first and last cutoff, rows and base rate per split, seed, encoder."""
    versions: Mapping[str, str]
    """Package versions used in training."""
    files: Mapping[str, str]
    """Relative POSIX path -> sha256 of every file but the manifest."""
    bundle_version: int = BUNDLE_VERSION

    @property
    def bundle_id(self) -> str:
        """First 16 hex digits of the sha256 of the content, which is free of times."""
        text = json.dumps(self.content(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:BUNDLE_ID_LENGTH]

    def content(self) -> dict[str, Any]:
        """Return the JSON-ready content that the id is made of."""
        return {
            "bundle_version": self.bundle_version,
            "settings": self.settings.to_dict(),
            "features": [dataclasses.asdict(feature) for feature in self.features],
            "training": dict(self.training),
            "versions": dict(self.versions),
            "files": dict(self.files),
        }

    def to_json(self, *, created_at: str) -> str:
        """Return the text of ``manifest.json``; the time stands outside the hashed content."""
        document = {
            "bundle_id": self.bundle_id,
            "created_at": created_at,
            "content": self.content(),
        }
        return json.dumps(document, indent=2, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str, *, path: Path | str) -> BundleManifest:
        """Parse ``manifest.json`` and check that its id fits its content.

        Args:
            text: The file's text.
            path: Where it was read, for messages.

        Raises:
            BundleIntegrityError: Not JSON, a field missing, another format version, or an id
                that is not the content's hash.
        """
        try:
            document = json.loads(text)
            content = document["content"]
            version = content["bundle_version"]
            if version != BUNDLE_VERSION:
                raise BundleIntegrityError(
                    f"{path}: bundle format {version!r}; this release reads {BUNDLE_VERSION}; "
                    "train a new model with `churn-train run`"
                )
            manifest = cls(
                settings=ModelSettings.from_mapping(content["settings"]),
                features=tuple(FeatureSpec(**feature) for feature in content["features"]),
                training=content["training"],
                versions=content["versions"],
                files=content["files"],
                bundle_version=version,
            )
            stated_id = document["bundle_id"]
        except (ValueError, KeyError, TypeError) as error:
            raise BundleIntegrityError(
                f"{path} is not a bundle manifest ({type(error).__name__}: {error}); "
                "restore it from a copy, or train a new model with `churn-train run`"
            ) from error
        if stated_id != manifest.bundle_id:
            raise BundleIntegrityError(
                f"{path} says bundle_id {stated_id!r} but its content hashes to "
                f"{manifest.bundle_id!r}: it was changed after packaging; restore the bundle "
                "or train a new model with `churn-train run`"
            )
        return manifest


def sha256_of_file(path: Path) -> str:
    """Return the hex sha256 of a file, read in 1 MiB blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
