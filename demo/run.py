"""`make demo`: real purchases in, scored households out.

Every step is a command that one could type; the demo only adds paths under `.demo/`. A step whose
input has not changed is skipped or has nothing to do, so that a second run is quick.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from demo.load_complete_journey import STAMP_NAME, load
from demo.steps import (
    Console,
    StepFailed,
    StepRecord,
    fingerprint_of,
    run_dbt,
    run_for_result,
    show_command,
)

ROOT = Path(__file__).resolve().parent.parent
WORK_DIR = Path(".demo")
DUCKDB_PATH = WORK_DIR / "churn.duckdb"
PUBLISH_DIR = WORK_DIR / "churn_published"  # where the plugin puts it
HEALTH_REPORT = WORK_DIR / "churn_report.html"
VARS_PATH = Path("demo/vars.yml")
TRAIN_CONFIG_PATH = Path("demo/train.yml")
FEATURE_INPUTS = [Path("dbt_project"), Path("profiles"), WORK_DIR / "data" / STAMP_NAME]
SCORE_INPUTS = [Path("churn_udf"), WORK_DIR / "models" / "registry"]
NUM_STEPS = 5
NUM_USERS_SHOWN = 10
MODEL_WIDTH = 16
METRICS_SHOWN = {
    "auroc": "AUROC",
    "average_precision": "AUPRC",
    "log_loss": "log loss",
    "brier_score": "Brier",
    "lift_at_10pct": "lift 10 %",
}


def main() -> int:
    """Runs all steps; returns the exit code."""
    os.chdir(ROOT)
    console = Console(NUM_STEPS)
    started_at = time.monotonic()
    env = demo_environment()
    try:
        with console.step("Load the Complete Journey (grocery purchases of 2,469 households)"):
            data = load(WORK_DIR / "data")
            console.write(
                f"      {data.num_events:,} events, {data.num_users:,} user profiles "
                + ("written" if data.was_loaded else "already there, unchanged")
            )
        with console.step("Clean events, build features and text"):
            dbt_build(console, env, "features", FEATURE_INPUTS)
        with console.step("Train, evaluate and promote a model"):
            run = train(console, env)
        with console.step("Score"):
            dbt_build(console, env, "scores", [*FEATURE_INPUTS, *SCORE_INPUTS])
        with console.step("Read the scores"):
            show_scores(console)
            show_metrics(console, run)
            health = report(env)
            console.write(f"\nHealth of the model in service: {health['verdict']['headline']}")
    except StepFailed as failure:
        console.write(f"\nerror: {failure}")
        return 1
    console.write(
        f"\nScores:  table churn_scores (and churn_scores_current) in {DUCKDB_PATH}\n"
        f"         {PUBLISH_DIR}/current/*.parquet, readable during a run too\n"
        f"Reports: {Path(run['report']).resolve()} (the training)\n"
        f"         {HEALTH_REPORT.resolve()} (the model in service)\n"
        f"All steps took {time.monotonic() - started_at:.0f} s"
    )
    return 0


def demo_environment() -> dict[str, str]:
    """Returns the environment of the demo's commands: where warehouse, models and runs are."""
    scripts = str(Path(sys.executable).parent)
    return {
        **os.environ,
        "PATH": scripts + os.pathsep + os.environ.get("PATH", ""),
        "CHURN_DUCKDB_PATH": str(DUCKDB_PATH),
        "CHURN_MODELS_DIR": str(WORK_DIR / "models"),
        # dbt takes relative paths as relative to the project, not to where it is started.
        "DBT_TARGET_PATH": str((WORK_DIR / "target").resolve()),
        "DBT_LOG_PATH": str((WORK_DIR / "logs").resolve()),
        "DBT_USE_COLORS": "false",
        "PYTHONUNBUFFERED": "1",
    }


def warehouse_options() -> list[str]:
    """Returns the options that dbt and churn-train share."""
    import yaml

    variables = yaml.safe_load(VARS_PATH.read_text(encoding="utf-8"))
    one_line = json.dumps(variables, default=str)  # YAML dates become text again
    return [
        "--project-dir",
        "dbt_project",
        "--profiles-dir",
        "profiles",
        "--vars",
        one_line,
    ]


def dbt_build(console: Console, env: dict[str, str], name: str, inputs: list[Path]) -> None:
    """Runs `dbt build` with the demo's settings, unless nothing that it reads has changed.

    dbt would find out by itself and rewrite nothing, but looks at every event to do so.
    """
    command = ["dbt", "build", *warehouse_options()]
    show_command(console, command)
    record = StepRecord(WORK_DIR / "steps.json")
    fingerprint = fingerprint_of(inputs, *command)
    if DUCKDB_PATH.exists() and record.is_done(name, fingerprint):
        console.write(
            f"      nothing it reads has changed, skipped (rm -r {WORK_DIR} to start anew)"
        )
        return
    record.start(name)
    run_dbt(console, command, env, WORK_DIR / "logs" / f"dbt_build_{name}.log")
    record.finish(name, fingerprint)


def train(console: Console, env: dict[str, str]) -> dict[str, Any]:
    """Runs `churn-train run` and returns what it reports as JSON."""
    command = [
        "churn-train",
        "run",
        *warehouse_options(),
        "--config",
        str(TRAIN_CONFIG_PATH),
        "--runs-dir",
        str(WORK_DIR / "runs"),
        "--snapshots-dir",
        str(WORK_DIR / "snapshots"),
        "--json",
    ]
    show_command(console, command)
    result: dict[str, Any] = json.loads(run_for_result(command, env))
    return result


def report(env: dict[str, str]) -> dict[str, Any]:
    """Runs `churn-train report` and returns the facts on its page."""
    command = ["churn-train", "report", *warehouse_options(), "--out", str(HEALTH_REPORT)]
    facts: dict[str, Any] = json.loads(run_for_result([*command, "--json", "--quiet"], env))
    return facts


def show_scores(console: Console) -> None:
    """Prints the users with the highest current probability."""
    import duckdb

    with duckdb.connect(str(DUCKDB_PATH), read_only=True) as connection:
        rows = connection.execute(
            "select user_id, churn_probability, risk_tier, why from churn_scores_current "
            "order by churn_probability desc, user_id limit ?",
            [NUM_USERS_SHOWN],
        ).fetchall()
        count = connection.execute(
            "select count(*), max(cutoff_date) from churn_scores_current"
        ).fetchone()
    if not rows or count is None:
        raise StepFailed("churn_scores_current is empty: no model has been promoted")
    console.write(
        f"\nThe {len(rows)} most at risk of {count[0]:,} households on {count[1]}\n"
        f"  {'user':<8}{'probability':>11}  {'tier':<8}why"
    )
    for user_id, probability, tier, why in rows:
        console.write(f"  {user_id:<8}{probability:>11.3f}  {tier:<8}{why or ''}")


def show_metrics(console: Console, run: dict[str, Any]) -> None:
    """Prints the test metrics of the model beside those of its baselines."""
    from trainer.cli.tables import format_interval, verdict

    metrics = run["metrics"]
    test = metrics["splits"]["test"]
    console.write(
        f"\nTest metrics, {test['rows']:,} households at {', '.join(test['cutoffs'])}, "
        f"{test['base_rate']:.0%} churned, with 95 % intervals\n"
        f"  {'':<{MODEL_WIDTH}}" + "".join(f"{name:>20}" for name in METRICS_SHOWN.values())
    )
    for model, values in metrics["test"].items():
        cells = "".join(f"{format_interval(values[key]):>20}" for key in METRICS_SHOWN)
        console.write(f"  {model:<{MODEL_WIDTH}}{cells}")
    console.write(f"  {verdict(metrics)}")


if __name__ == "__main__":
    sys.exit(main())
