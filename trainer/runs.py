"""Run directories: one training run's inputs, settings and results, named by what went in.

    <runs_dir>/<run_id>/
        run.json            snapshot, code version, when it began
        config.yaml         resolved settings
        splits.json         cutoffs, rows and base rate of each split
        history.jsonl       training log of the first fit
        fits/  fit.json     the trained encoders, with checkpoints, and facts about their training
        model/              what is shipped: encoder, other members, ensemble.json
        calibration.json  thresholds.json  metrics.json  predictions.parquet  report.html
        bundle.json         which bundle was packaged from it

A run killed at any point is continued by the same command: the same snapshot, training settings
and code give the same ``run_id``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import functools
import hashlib
import importlib.metadata
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import churn_udf
import trainer
from churn_udf import __version__
from trainer.config import TrainConfig, to_mapping, to_yaml
from trainer.config_values import from_mapping
from trainer.errors import ConfigError, RunError

RUN_FILE = "run.json"
CONFIG_FILE = "config.yaml"
SPLITS_FILE = "splits.json"
FIT_FILE = "fit.json"
BUNDLE_FILE = "bundle.json"
PREDICTIONS_FILE = "predictions.parquet"
REPORT_FILE = "report.html"
SHIPPED_FILE = "shipped.json"
HISTORY_FILE = "history.jsonl"
ID_LENGTH = 12
VERSIONED_PACKAGES = (
    "warehouse-churn",
    "torch",
    "transformers",
    "tokenizers",
    "numpy",
    "pyarrow",
    "duckdb",
    "dbt-core",
    "lightgbm",
)
FIT_SECTIONS = ("splits", "fit")
"""Sections that decide the trained model; the others only decide how it is judged."""
JUDGE_SECTIONS = ("evaluate", "ensemble", "thresholds")
"""Sections that decide metrics, thresholds and which members score."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """One run directory."""

    path: Path
    config: TrainConfig
    snapshot_path: Path
    facts: Mapping[str, Any]
    """Content of ``run.json``."""

    @property
    def run_id(self) -> str:
        """Name of the run."""
        return str(self.facts["run_id"])

    @property
    def snapshot_id(self) -> str:
        """The snapshot that it trains on."""
        return str(self.facts["snapshot_id"])

    @property
    def model_dir(self) -> Path:
        """Directory of what is shipped; made by the evaluation."""
        return self.path / "model"

    @property
    def is_fitted(self) -> bool:
        """Whether training has ended."""
        return (self.path / FIT_FILE).is_file()

    def read_json(self, name: str) -> dict[str, Any]:
        """Return a JSON file of the run.

        Raises:
            RunError: It is missing or damaged.
        """
        document = read_json(self.path / name)
        if document is None:
            step = {FIT_FILE: "fit", SPLITS_FILE: "fit", BUNDLE_FILE: "package"}
            raise RunError(
                f"run {self.run_id} has no readable {name}; "
                f"run `churn-train {step.get(name, 'evaluate')}` first"
            )
        return document

    def write_json(self, name: str, document: Mapping[str, Any]) -> None:
        """Write a JSON file of the run, whole or not at all."""
        write_text(self.path / name, to_json(document))


def start_run(runs_dir: Path, *, snapshot_id: str, snapshot_path: Path, config: TrainConfig) -> Run:
    """Return the run of these inputs, making its directory or finding the earlier one."""
    code = code_version()
    run_id = run_id_of(snapshot_id, config, code)
    path = runs_dir / run_id
    path.mkdir(parents=True, exist_ok=True)
    facts = read_json(path / RUN_FILE)
    if facts is None:
        facts = {
            "run_id": run_id,
            "snapshot_id": snapshot_id,
            "code_version": code,
            "created_at": utc_now(),
        }
    facts = {**facts, "snapshot_path": os.path.relpath(snapshot_path, path)}
    write_text(path / RUN_FILE, to_json(facts))
    write_text(path / CONFIG_FILE, to_yaml(config))
    return Run(path=path, config=config, snapshot_path=snapshot_path, facts=facts)


def open_run(runs_dir: Path, reference: str | None) -> Run:
    """Open a run.

    Args:
        runs_dir: Folder of all runs.
        reference: An id, the unique beginning of one, a path, or None for the newest.

    Raises:
        RunError: Nothing, or more than one, fits, or the run is damaged.
    """
    path = _find_run(runs_dir, reference)
    facts = read_json(path / RUN_FILE)
    if facts is None or not (path / CONFIG_FILE).is_file():
        raise RunError(f"{path} is damaged: {RUN_FILE} or {CONFIG_FILE} cannot be read; fit again")
    import yaml

    try:
        tree = yaml.safe_load((path / CONFIG_FILE).read_text(encoding="utf-8"))
        config = from_mapping(TrainConfig, tree)
    except (ConfigError, yaml.YAMLError, AttributeError) as error:
        raise RunError(
            f"run {path.name} was made with settings that this release does not know ({error}); "
            "train it anew with `churn-train fit`"
        ) from error
    return Run(
        path=path,
        config=config,
        snapshot_path=path / str(facts["snapshot_path"]),
        facts=facts,
    )


def run_id_of(snapshot_id: str, config: TrainConfig, code: str) -> str:
    """Return the id of a run: a hash of everything that decides the trained model."""
    sections = {name: to_mapping(config)[name] for name in FIT_SECTIONS}
    return short_hash({"snapshot_id": snapshot_id, "code": code, **sections})


def evaluation_key(run_id: str, config: TrainConfig) -> str:
    """Return a hash of everything that decides metrics and thresholds of a run."""
    tree = to_mapping(config)
    return short_hash({"run_id": run_id, **{name: tree[name] for name in JUDGE_SECTIONS}})


@functools.lru_cache(maxsize=1)
def code_version() -> str:
    """Return package version and a hash of both packages' source files."""
    digest = hashlib.sha256()
    for package in (churn_udf, trainer):
        root = Path(str(package.__file__)).parent
        for file in sorted(root.rglob("*.py")):
            digest.update(file.relative_to(root).as_posix().encode() + b"\0")
            digest.update(file.read_bytes() + b"\0")
    return f"{__version__}+{digest.hexdigest()[:ID_LENGTH]}"


def package_versions() -> dict[str, str]:
    """Return the installed versions of the packages that a model depends on."""
    versions = {}
    for name in VERSIONED_PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


def short_hash(content: Mapping[str, Any]) -> str:
    """Return 12 hex digits of the hash of JSON-ready content."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:ID_LENGTH]


def read_json(path: Path) -> dict[str, Any] | None:
    """Return a JSON object, or None when the file is missing or no such object."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) else None


def to_json(document: Mapping[str, Any]) -> str:
    """Return indented JSON in which undefined numbers are null."""
    return json.dumps(finite_or_none(document), indent=2, allow_nan=False, default=str) + "\n"


def finite_or_none(value: Any) -> Any:
    """Replace NaN and infinities by None, all the way down."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): finite_or_none(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite_or_none(item) for item in value]
    return value


def write_text(path: Path, text: str) -> None:
    """Write a file under a temporary name and rename it."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            partial.unlink()


def utc_now() -> str:
    """Return the time in UTC, ISO 8601, seconds."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def _find_run(runs_dir: Path, reference: str | None) -> Path:
    """Return the directory that a reference means."""
    if reference and (Path(reference) / RUN_FILE).is_file():
        return Path(reference)
    known = sorted(runs_dir.glob(f"*/{RUN_FILE}"), key=lambda file: file.stat().st_mtime_ns)
    folders = [file.parent for file in known]
    if reference is None:
        if folders:
            return folders[-1]
        raise RunError(f"no run in {runs_dir}; run `churn-train fit` first")
    matches = [folder for folder in folders if folder.name.startswith(reference)]
    if len(matches) == 1:
        return matches[0]
    found = ", ".join(folder.name for folder in (matches or folders)) or "none"
    problem = "fits more than one run" if matches else "is not a run"
    raise RunError(f"{reference!r} {problem} in {runs_dir}; found: {found}")
