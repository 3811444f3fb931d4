"""Where the time of `dbt run -s int_inputs_scored churn_scores` goes, in processor seconds.

    OMP_NUM_THREADS=1 python benchmarks/bench_path.py [--quick] [--kinds bert,gbm,stack] [--linear]

Builds the dbt package on a few events, puts made-up users under `churn_examples` (behaviour texts
of about 50 words, a review for every fifth), and lets dbt score them with untrained models of the
trainer's default sizes: `bert` (2 layers x 128), `gbm` (trees of its default shape) and `stack`
(both). Every run is a process of its own. `--linear` scores 10,000, 100,000 and 1,000,000 users
instead (a quarter of an hour), and shows rows per second and peak memory.

"Model alone" is the encoder or the trees over inputs that are tokens already, before and after the
run, in the same process. The whole path is everything from `dbt run` to its end, dbt's own start
and SQL included; "without dbt" is what the Python model did. Prints a table and last the same as
one line of JSON. Exit code 1: the whole path takes more than 1.3 of the model alone (bert, 200,000
users and more), or rows per second differ by more than 15 % (`--linear`).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# isort: off
from churn_udf.contracts.bundle import FeatureSpec  # first: sets OpenMP's wait policy for torch

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
import yaml
# isort: on

from churn_udf.bundle_store import open_champion, set_champion, write_bundle
from churn_udf.calibration import Calibrator
from churn_udf.contracts import bundle as bundle_files
from churn_udf.model.ensemble import BERT, GBM, Ensemble, TabularMember
from churn_udf.model.runner import ModelRunner
from churn_udf.scoring import Scorer
from churn_udf.tokenization import CompactTokenizer
from churn_udf.warehouse.score_cache import ScoreCache
from trainer.evaluate.tabular import _LIGHTGBM_PARAMETERS, _LIGHTGBM_SHAPES
from trainer.fit.build import build_classifier
from trainer.fit.config import FitConfig

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "dbt"))
from conftest import PROJECT_DIR, DbtProject
from factories import THRESHOLDS, model_settings

MOST_RATIO, MOST_SPREAD = 1.3, 1.15
LINEAR_SIZES = (10_000, 100_000, 1_000_000)
SETTINGS = {"observation_days": 60, "eligibility_days": 60, "horizon_days": 10}
ALONE_ROWS = 8_192
MEMORY_LIMIT = "512MB"
"""Of DuckDB, which else keeps all it has read: its cache is not what scoring needs."""
WORDS = [f"{stem}{number}" for number in range(150) for stem in ("milk", "bread", "", "toy", "gap")]
KEYS = ["user_id", "cutoff_date"]


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=200_000)
    parser.add_argument("--kinds", default=BERT, help="of bert, gbm, stack, with commas")
    parser.add_argument("--quick", action="store_true", help="20,000 users, or 10,000 and 40,000")
    parser.add_argument("--linear", action="store_true", help="three sizes")
    parser.add_argument("--memory-limit", default=MEMORY_LIMIT, help="of DuckDB while scoring")
    options = parser.parse_args()
    users = 20_000 if options.quick else options.users
    sizes = LINEAR_SIZES if options.linear else (users,)
    if options.linear and options.quick:
        sizes = (10_000, 40_000)
    rows = []
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as scratch, context.Pool(1, maxtasksperchild=1) as pool:
        pool.apply(build, (Path(scratch),))
        for size in sizes:
            pool.apply(fill, (Path(scratch), size))
            for kind in options.kinds.split(","):
                arguments = (Path(scratch), size, kind, options.memory_limit)
                rows.append(pool.apply(measure, arguments))
                print_table(rows[-1:], is_first=len(rows) == 1)
    print(json.dumps(rows))
    if options.linear:
        rates = [row["rows_per_second"] for row in rows]
        return int(max(rates) > MOST_SPREAD * min(rates))
    return int(any(r["ratio"] > MOST_RATIO for r in rows if r["kind"] == BERT and users >= 200_000))


def project_in(scratch: Path, memory_limit: str = MEMORY_LIMIT) -> DbtProject:
    """Return the package as a project in the scratch folder; DuckDB gets one thread."""
    project = DbtProject(scratch / "dbt", scratch / "target")
    project.vars = {f"churn__{name}": value for name, value in SETTINGS.items()}
    project.vars["churn__training_cutoffs"] = ["2024-02-15"]
    project.vars["churn__events_path"] = str(project.root / "events.parquet")
    profile = yaml.safe_load((project.root / "profiles.yml").read_text())
    settings = profile["churn_scoring"]["outputs"]["dev"]["settings"]
    settings.update({"threads": 1, "memory_limit": memory_limit})
    (project.root / "profiles.yml").write_text(yaml.safe_dump(profile))
    return project


def build(scratch: Path) -> None:
    """Build everything up to ``churn_examples`` for two users."""
    project = project_in(scratch)
    events = [
        {"user_id": user, "event_type": "purchase", "event_ts": f"2024-02-{day:02d} 10:00:00"}
        for user in ("a", "b")
        for day in range(1, 30)
    ]
    project.events_parquet([event | {"amount": 3.0, "category": "milk"} for event in events])
    project.succeed(["build"], args=["--exclude-resource-type", "test", "unit_test"])


def fill(scratch: Path, users: int) -> None:
    """Put that many users under ``churn_examples``, in place of those there."""
    project = project_in(scratch)
    (cutoff,) = project.query("select cutoff_date from int_cutoffs_spined where is_score_cutoff")
    generator = np.random.default_rng(users)
    project.execute("drop table if exists churn_score_cache", "delete from churn_scores")
    for table in TABLES:
        project.execute(f"delete from {table}")
    for start in range(0, users, 50_000):
        rows = made_up_rows(generator, np.arange(start, min(start + 50_000, users)))
        project.load(
            "made_up", rows.append_column("cutoff_date", pa.array([cutoff[0]] * len(rows)))
        )
        for table, columns in TABLES.items():
            types = dict(project.query(f"select column_name, data_type from duckdb_columns() "
                                       f"where table_name = '{table}'"))  # fmt: skip
            numbers = [] if columns else [n for n, t in types.items() if t == "DOUBLE"]
            chosen = ", ".join([*KEYS, *columns, *numbers])
            drawn = [f"10 * sqrt(-ln(hash(user_id, '{name}') / 2e19 + 1e-9))" for name in numbers]
            values = ", ".join([*KEYS, *columns, *drawn])
            where = "where review_text_recent <> ''" if "review_text_recent" in columns else ""
            project.execute(
                f"insert into {table} ({chosen}) select {values} from made_up {where} "
                f"order by hash(user_id, '{table}')"
            )
    project.execute("drop table made_up", "checkpoint")


TABLES: dict[str, list[str]] = {
    "int_features_windowed_to_cutoffs": [],
    "int_visits_serialized_to_text": ["behavior_text"],
    "int_reviews_windowed_to_cutoffs": ["review_text_recent"],
    "int_inputs_hashed": ["input_hash"],
    "int_labels_matured": ["is_label_mature"],
}


def made_up_rows(generator: np.random.Generator, numbers: np.ndarray) -> pa.Table:
    """Return keys, texts and hashes; lengths spread around 50 words."""
    weights = 1.0 / np.arange(10, len(WORDS) + 10)

    def texts(counts: np.ndarray) -> pa.Array:
        drawn = generator.choice(len(WORDS), int(counts.sum()), p=weights / weights.sum())
        offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int32())
        lists = pa.ListArray.from_arrays(offsets, pa.array(WORDS).take(pa.array(drawn)))
        return pc.binary_join(lists, " ")

    behavior = np.clip(generator.normal(48, 22, len(numbers)), 12, 124).astype(np.int64)
    review = np.where(generator.random(len(numbers)) < 0.2, 12, 0)
    ids = numbers.tolist()
    return pa.table(
        {
            "user_id": pa.array([f"user-{number:08d}" for number in ids]),
            "behavior_text": texts(behavior),
            "review_text_recent": texts(review),
            "input_hash": pa.array([f"{n * 0x9E3779B97F4A7C15 % 2**64:032x}" for n in ids]),
            "is_label_mature": pa.array([False] * len(numbers)),
        }
    )  # fmt: skip


def make_champion(models_dir: Path, kind: str) -> None:
    """Write an untrained bundle of the trainer's default sizes and make it the champion."""
    path = PROJECT_DIR / "models" / "marts" / "_examples__models.yml"
    (examples,) = (
        model
        for model in yaml.safe_load(path.read_text(encoding="utf-8"))["models"]
        if model["name"] == "churn_examples"
    )
    groups = {
        column["name"]: (column.get("config") or {}).get("meta", {}).get("feature_group")
        for column in examples["columns"]
    }
    features = tuple(FeatureSpec(name=name, group=group) for name, group in groups.items() if group)
    generator = np.random.default_rng(0)
    texts = made_up_rows(generator, np.arange(5_000))
    known = generator.rayleigh(7, (5_000, len(features)))
    columns = [texts[name].combine_chunks() for name in ("behavior_text", "review_text_recent")]
    model, tokenizer = build_classifier(*columns, known, features, FitConfig())
    torch.nn.init.normal_(model.wide.weight, std=0.02)
    with tempfile.TemporaryDirectory() as scratch_name:
        scratch = Path(scratch_name)
        (scratch / bundle_files.TOKENIZER_DIR).mkdir()
        model.save(scratch)
        tokenizer.save(scratch / bundle_files.TOKENIZER_DIR)
        files = {str(path.relative_to(scratch)): path for path in scratch.rglob("*.*")}
        parts: dict[str, Any] = {
            bundle_files.CALIBRATION_FILE: Calibrator(kind="identity").to_json(),
            bundle_files.THRESHOLDS_FILE: THRESHOLDS.to_json(),
            bundle_files.METRICS_FILE: "{}",
            bundle_files.MODEL_CARD_FILE: "# Untrained\n",
        }
        if kind != BERT:
            weights = {GBM: 1.0} if kind == GBM else {BERT: 0.5, GBM: 0.5}
            parts[bundle_files.ENSEMBLE_FILE] = Ensemble(kind=kind, weights=weights).to_json()
            names = [feature.name for feature in features]
            parts[bundle_files.MEMBER_FILES[GBM]] = trees(known, names, generator)
        bundle = write_bundle(
            models_dir,
            files=files | parts,
            settings=model_settings(**SETTINGS),
            features=features,
            training={"snapshot_id": "benchmark", "seed": 0},
            versions={"churn_udf": "benchmark"},
        )
    set_champion(models_dir, bundle.bundle_id, reason="benchmark")


def trees(rows: np.ndarray, names: list[str], generator: np.random.Generator) -> str:
    """Return 400 trees of the trainer's first shape, fitted to noise with a signal."""
    import lightgbm

    labels = (rows[:, 0] + generator.normal(0, 9, len(rows)) > 9).astype(float)
    data = lightgbm.Dataset(rows, labels, feature_name=names, params={"verbosity": -1})
    settings = _LIGHTGBM_PARAMETERS | _LIGHTGBM_SHAPES["medium"]
    return str(lightgbm.train(settings, data, num_boost_round=400).model_to_string())


class Split:
    """Processor seconds by stage: a stage inside another one counts for itself alone."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._inside = threading.local()
        self._lock = threading.Lock()

    def watch(self, owner: type, name: str, stage: str) -> None:
        """Count a method, generators while they are asked for the next item."""
        original = getattr(owner, name)

        def watched(*args: Any, **options: Any) -> Any:
            result = self._timed(stage, original, *args, **options)
            return self._each(stage, result) if isinstance(result, Iterator) else result

        setattr(owner, name, watched)

    def _timed(self, stage: str, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        outer = getattr(self._inside, "others", 0.0)
        self._inside.others, started = 0.0, time.thread_time()
        try:
            return function(*args, **options)
        finally:
            spent = time.thread_time() - started
            with self._lock:
                own = spent - self._inside.others
                self.seconds[stage] = self.seconds.get(stage, 0.0) + own
            self._inside.others = outer + spent

    def _each(self, stage: str, items: Iterator[Any]) -> Iterator[Any]:
        end = object()
        while (item := self._timed(stage, next, items, end)) is not end:
            yield item


STAGES = {
    "read": [(ScoreCache, "plan"), (ScoreCache, "read_missing")],
    "tokenise": [(CompactTokenizer, "encode")],
    "model": [(ModelRunner, "run_tokens"), (TabularMember, "run")],
    "reasons": [(Scorer, "score_or_list")],
    "write": [(ScoreCache, "insert")],
}


def measure(scratch: Path, users: int, kind: str, memory_limit: str) -> dict[str, Any]:
    """Let dbt score everything with a new champion; return seconds by stage."""
    project = project_in(scratch, memory_limit)
    make_champion(project.models_dir, kind)
    torch.set_num_threads(1)
    project.execute("drop table if exists churn_score_cache", "delete from churn_scores")
    alone = [alone_seconds(project, users)]
    split = Split()
    for stage, methods in STAGES.items():
        for owner, name in methods:
            split.watch(owner, name, stage)
    resting = reset_peak()
    started, clock = time.process_time(), time.monotonic()
    project.run(select="int_inputs_scored churn_scores")
    whole, wall = time.process_time() - started, time.monotonic() - clock
    peak = status_megabytes("VmHWM") - resting
    counted = dict(split.seconds)
    alone.append(alone_seconds(project, users))
    assert project.query("select count(*) from churn_scores") == [(users,)]
    scoring, model = sum(counted.values()), sum(alone) / 2
    stages = {stage: round(counted.get(stage, 0.0), 2) for stage in STAGES}
    return {
        "kind": kind,
        "users": users,
        **stages,
        "dbt": round(whole - scoring, 2),
        "whole": round(whole, 2),
        "model_alone": round(model, 2),
        "ratio": round(whole / model, 3),
        "ratio_without_dbt": round(scoring / model, 3),
        "host_share": round((scoring - counted["model"] - counted["reasons"]) / scoring, 4),
        "rows_per_second": round(users / scoring),
        "wall": round(wall, 1),
        "peak_mb": peak,
    }


def reset_peak() -> int:
    """Forget the process's peak memory and return what it holds now, in megabytes (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")
    return status_megabytes("VmRSS")


def status_megabytes(name: str) -> int:
    """Return an entry of the process's status in megabytes (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(name))
    return int(line.split()[1]) // 1024


def alone_seconds(project: DbtProject, users: int) -> float:
    """Return what the models take for that many users, measured on some whose tokens are ready."""
    scorer = Scorer.load(open_champion(project.models_dir), device="cpu")
    names = ", ".join(scorer.bundle.feature_names)
    table = project.table(
        f"select behavior_text, review_text_recent, {names} from churn_examples "
        f"where is_score_cutoff limit {ALONE_ROWS}"
    ).combine_chunks()
    texts = [table[name].combine_chunks() for name in table.column_names[:2]]
    features = np.column_stack([column.to_numpy() for column in table.columns[2:]])
    seconds = 0.0
    for member in scorer._runner.members.values():
        run, inputs = member.run, (*texts, features)
        if isinstance(member, ModelRunner):
            run, inputs = member.run_tokens, (member.tokenizer.encode(*texts), features)
        run(*inputs)
        started = time.process_time()
        run(*inputs)
        seconds += time.process_time() - started
    return seconds * users / len(features)


def print_table(rows: list[dict[str, Any]], *, is_first: bool) -> None:
    """Print rows of the table, the first time under its heading."""
    for row in [{name: name for name in rows[0]}, *rows] if is_first else rows:
        print("  ".join(f"{value:>{max(7, len(name))}}" for name, value in row.items()), flush=True)


if __name__ == "__main__":
    sys.exit(main())
