"""What tests of `churn-score` share: a models folder, inputs, and the command as a process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from factories import input_batch, tiny_bundle

from churn_udf.bundle_store import Bundle, set_champion

FEATURES = ("recency_days", "order_count", "amount_sum")
COMMAND = [sys.executable, "-m", "churn_udf.cli"]


def promoted_bundle(models_dir: Path, seed: int = 0, **changes: Any) -> Bundle:
    bundle = tiny_bundle(models_dir, FEATURES, seed=seed, **changes)
    set_champion(models_dir, bundle.bundle_id, reason="test")
    return bundle


def examples(num_rows: int, *, seed: int = 0) -> pa.Table:
    """Rows as churn_examples has them: keys, texts, features of several types, labels."""
    table = pa.Table.from_batches([input_batch(num_rows, FEATURES, seed=seed)])
    counts = pa.array([row % 7 for row in range(num_rows)], pa.int32())
    amounts = pa.array([f"{row}.25" for row in range(num_rows)]).cast(pa.decimal128(18, 4))
    table = table.set_column(table.schema.get_field_index("order_count"), "order_count", counts)
    table = table.set_column(table.schema.get_field_index("amount_sum"), "amount_sum", amounts)
    dates = pa.array([19_000 + row % 3 for row in range(num_rows)], pa.int32()).cast(pa.date32())
    table = table.append_column("user_id", pa.array([f"u{row}" for row in range(num_rows)]))
    return table.append_column("cutoff_date", dates).append_column(
        "is_churned", pa.nulls(num_rows, pa.bool_())
    )


def arrow_stream(table: pa.Table, rows_per_batch: int = 100) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=rows_per_batch)
    return bytes(sink.getvalue())


def write(table: pa.Table, path: Path) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(table, path, row_group_size=64)
    elif path.suffix == ".arrow":
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=64)
    else:
        path.write_bytes(arrow_stream(table))
    return path


def json_rows(table: pa.Table) -> list[dict[str, Any]]:
    """Rows for the service, features flat; the id is the row's number."""
    names = ["behavior_text", "review_text_recent", *FEATURES]
    rows = table.select(names).to_pylist()
    return [
        {"id": number, **row, "amount_sum": float(row["amount_sum"])}
        for number, row in enumerate(rows)
    ]


def json_lines(rows: Sequence[Any]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def start(*arguments: object, **options: Any) -> subprocess.Popen[bytes]:
    """Start `churn-score` with pipes; the caller ends it."""
    return subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
        # A runner in the background of a shell hands down an ignored Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        **options,
    )
