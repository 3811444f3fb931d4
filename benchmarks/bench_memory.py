"""Peak memory of the Python model `int_inputs_scored` beyond the loaded model.

    python benchmarks/bench_memory.py --rows 500000 --features 85

Builds a DuckDB file with that many inputs (texts and features in tables of their own under a
view, as in the package), loads a small untrained model, scores everything through the code that
dbt runs, and prints one line. The bound of the product is 1.5 GB for 500,000 rows.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import resource
import sys
import tempfile
import time
from pathlib import Path

import duckdb

from churn_udf.bundle_store import open_champion, set_champion
from churn_udf.warehouse import CONTEXT_VARIABLE, DEVICE_VARIABLE, MODELS_DIR_VARIABLE, dbt_model
from churn_udf.warehouse.champion_scorers import scorer_of

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from factories import WORDS, input_batch, model_settings, tiny_bundle

BOUND_BYTES = 1_500_000_000


def main() -> int:
    """Run the benchmark; exit code 1 when the bound is broken."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--features", type=int, default=85)
    parser.add_argument("--words", type=int, default=60, help="words in a behaviour text")
    options = parser.parse_args()
    names = [f"feature_{number}" for number in range(options.features)]
    with tempfile.TemporaryDirectory() as scratch_name:
        scratch = Path(scratch_name)
        database = scratch / "bench.duckdb"
        context = multiprocessing.get_context("spawn")
        builder = context.Process(target=build, args=(database, options.rows, names, options.words))
        builder.start()
        builder.join()
        if builder.exitcode:
            return 1
        return measure(scratch, database, names, options.rows)


def build(database: Path, rows: int, names: list[str], num_words: int) -> None:
    """Write the inputs in a process of its own, so that its peak does not count."""
    vocabulary = "[" + ", ".join(f"'{word}'" for word in WORDS) + "]"
    text = (
        f"list_reduce(list_transform(range({num_words}), lambda i: "
        f"{vocabulary}[1 + cast(hash(row_id * 1000 + i) % {len(WORDS)} as bigint)]), "
        "lambda x, y: x || ' ' || y)"
    )
    keys = "cast(row_id as varchar) as user_id, date '2024-01-01' as cutoff_date"
    features = ", ".join(
        f"cast(hash(row_id * 100 + {number}) as double) / 1e17 as {name}"
        for number, name in enumerate(names)
    )
    with duckdb.connect(str(database)) as connection:
        source = f"range({rows}) as ids (row_id)"
        for name, columns in {
            "features": features,
            "texts": f"{text} as behavior_text, 'great ' || row_id as review_text_recent",
            "hashes": "md5(cast(row_id as varchar)) as input_hash",
        }.items():
            connection.execute(f"create table {name} as select {keys}, {columns} from {source}")
        connection.execute(
            "create table cutoffs as select date '2024-01-01' as cutoff_date, "
            "true as is_score_cutoff, 'h' as settings_hash"
        )
        listed = ", ".join(f"features.{name}" for name in names)
        connection.execute(
            f"""
            create view examples as
            select features.user_id, features.cutoff_date, texts.behavior_text,
                texts.review_text_recent, {listed}, hashes.input_hash, cutoffs.is_score_cutoff
            from features
            inner join cutoffs on features.cutoff_date = cutoffs.cutoff_date
            inner join texts on features.user_id = texts.user_id
                and features.cutoff_date = texts.cutoff_date
            inner join hashes on features.user_id = hashes.user_id
                and features.cutoff_date = hashes.cutoff_date
            """
        )


def measure(scratch: Path, database: Path, names: list[str], rows: int) -> int:
    """Score everything and report the growth of the process."""
    models_dir = scratch / "models"
    set_champion(models_dir, tiny_bundle(models_dir, names).bundle_id, reason="benchmark")
    scorer = scorer_of(open_champion(models_dir), models_dir, device="cpu")
    scorer.score_batch(input_batch(8_192, names))
    variables = {
        CONTEXT_VARIABLE: json.dumps(
            {
                "settings": model_settings().to_dict(),
                "settings_hash": "h",
                "feature_names": names,
                "examples_relation": "examples",
                "cutoffs_relation": "cutoffs",
                "cache_relation": "churn_score_cache",
                "unscorable_relation": "churn_unscorable_inputs",
                "unscorable_rows": "fail",
                "is_full_refresh": False,
            }
        ),
        MODELS_DIR_VARIABLE: str(models_dir),
        DEVICE_VARIABLE: "cpu",
    }
    with duckdb.connect(str(database)) as session:
        for name, value in variables.items():
            session.execute(f"set variable {name} = ?", [value])
        before = current_bytes()
        started = time.monotonic()
        scored = dbt_model.model(None, session)
        with session.cursor() as writer:
            writer.register("scored", scored)
            writer.execute("create table int_inputs_scored as select * from scored")
        seconds = time.monotonic() - started
        written = session.execute("select count(*) from int_inputs_scored").fetchall()[0][0]
    growth = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    verdict = "within" if growth <= BOUND_BYTES and written == rows else "BREAKS"
    print(
        f"{written:,} rows, {len(names)} features, database {database.stat().st_size / 1e6:,.0f} "
        f"MB: peak {growth / 1e6:,.0f} MB beyond the loaded model ({before / 1e6:,.0f} MB), "
        f"{verdict} {BOUND_BYTES / 1e6:,.0f} MB; {seconds:,.0f} s, {rows / seconds:,.0f} rows/s; "
        f"{platform.machine()}, Python {platform.python_version()}, DuckDB {duckdb.__version__}"
    )
    return 0 if verdict == "within" else 1


def current_bytes() -> int:
    """Return the resident size of this process (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


if __name__ == "__main__":
    sys.exit(main())
