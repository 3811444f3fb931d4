"""Runs the commands of README.md, in order, on small made-up data in a scratch folder.

`make` and `pip` commands are looked at in test_readme.py: running them would install everything.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from tests.contract.readme import REPOSITORY, bash_blocks, example_files, sql_blocks

NOT_RUN = ("make", "pip")
EVENTS_SQL = """
create temporary macro pick(key, choices) as cast(hash(key) % choices as bigint);

copy (
    with

    customers as (
        select
            number as customer_no,
            2 + pick(number, 18) as gap_days,
            -- a third stops coming at some point
            if(pick(number + 1000, 3) = 0, 60 + pick(number + 2000, 240), 400) as last_day
        from range(240) as numbers(number)
    ),

    visits as (
        select
            customer_no,
            visit,
            visit * gap_days + pick(customer_no * 1000 + visit, 5) as day
        from customers, range(150) as numbers(visit)
        where visit * gap_days + 5 < least(last_day, 300)
    ),

    lines as (
        select
            *,
            pick(customer_no * 7 + visit * 3 + line, 25) = 0 as is_review,
            pick(customer_no + visit * 31 + line, 40) as item_id
        from visits, range(3) as numbers(line)
    )

    select
        customer_no,
        if(is_review, 'review', 'purchase') as action,
        timestamp '2024-01-01 09:00:00' + to_days(cast(day as integer)) + to_minutes(line)
            as happened_at,
        customer_no * 1000 + visit as order_id,
        item_id,
        'item ' || item_id as item_name,
        ['dairy', 'bakery', 'meat', 'coffee'][1 + item_id % 4] as category,
        1.5 + pick(customer_no + line, 20) as line_total,
        1 + pick(line, 3) as quantity,
        if(is_review, 1 + pick(visit, 5), null) as rating,
        if(is_review, 'fine, would buy again', null) as review_text
    from lines
) to '{path}' (format parquet)
"""
# What is tested is that the commands work, not that the model is good.
SMALL_TRAINING = {
    "CHURN_TRAIN_FIT_EPOCHS": "1",
    "CHURN_TRAIN_FIT_PRETRAIN_EPOCHS": "1",
    "CHURN_TRAIN_FIT_MAX_PRETRAIN_EXAMPLES": "200",
    "CHURN_TRAIN_FIT_MAX_EPOCH_EXAMPLES": "400",
    "CHURN_TRAIN_FIT_MAX_NUMERIC_EXAMPLES": "1000",
    "CHURN_TRAIN_FIT_NUMERIC_EPOCHS": "1",
    "CHURN_TRAIN_FIT_MAX_VALID_EXAMPLES": "100",
    "CHURN_TRAIN_FIT_MAX_TOKENS": "64",
    "CHURN_TRAIN_FIT_HIDDEN_SIZE": "32",
    "CHURN_TRAIN_EVALUATE_NUM_BOOTSTRAP": "50",
    "CHURN_TRAIN_GATE_MIN_AUROC": "0",
    "CHURN_TRAIN_GATE_MAX_RECENCY_DEFICIT": "1",
    "CHURN_TRAIN_GATE_MAX_BRIER_EXCESS": "1",
    "OMP_NUM_THREADS": "1",
}


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that looks like a clone in which a reader has written the example files."""
    root = tmp_path_factory.mktemp("clone")
    ignore = shutil.ignore_patterns("target", "logs", "dbt_packages")
    for name in ("dbt_project", "profiles"):
        shutil.copytree(REPOSITORY / name, root / name, ignore=ignore)
    for name, content in example_files().items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    (root / "data").mkdir()
    with duckdb.connect() as connection:
        connection.execute(EVENTS_SQL.format(path=root / "data" / "orders.parquet"))
    return root


@pytest.fixture(scope="module")
def outputs(clone: Path) -> dict[str, str]:
    """Runs every block once; returns the output of each, by its text."""
    environment = {
        name: os.environ[name] for name in ("HOME", "LANG", "TMPDIR") if name in os.environ
    }
    environment |= SMALL_TRAINING
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment["HF_HUB_OFFLINE"] = "1"
    results = {}
    for block in bash_blocks():
        if block.split()[0] in NOT_RUN:
            continue
        completed = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block],
            cwd=clone,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert completed.returncode == 0, f"{block}\n{completed.stdout[-6000:]}"
        results[block] = completed.stdout
    return results


def current_scores(database: Path) -> list[tuple[object, ...]]:
    with duckdb.connect(str(database), read_only=True) as connection:
        return connection.execute(
            "select user_id, churn_probability from churn_scores_current order by user_id"
        ).fetchall()


@pytest.mark.integration
@pytest.mark.slow
def test_every_command_runs(outputs: dict[str, str]) -> None:
    assert len(outputs) == len(
        [block for block in bash_blocks() if block.split()[0] not in NOT_RUN]
    )


@pytest.mark.integration
@pytest.mark.slow
def test_own_data_is_scored(outputs: dict[str, str], clone: Path) -> None:
    scores = current_scores(clone / "churn.duckdb")
    assert len(scores) > 100
    assert all(0.0 <= probability <= 1.0 for _, probability in scores)
    assert list((clone / "models" / "registry").glob("*.json"))


@pytest.mark.integration
@pytest.mark.slow
def test_project_that_installs_the_package_is_scored(outputs: dict[str, str], clone: Path) -> None:
    own = [user_id for user_id, _ in current_scores(clone / "churn.duckdb")]
    assert [user_id for user_id, _ in current_scores(clone / "shop.duckdb")] == own


@pytest.mark.integration
@pytest.mark.slow
def test_sql_examples_run(
    outputs: dict[str, str], clone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(clone)
    with duckdb.connect(str(clone / "churn.duckdb"), read_only=True) as connection:
        for statement in sql_blocks():
            connection.execute(statement).fetchall()
