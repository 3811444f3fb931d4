"""A small database in which the Python models score without dbt."""

from __future__ import annotations

import datetime
import json

import pyarrow as pa
from factories import input_batch, model_settings

from churn_udf.registry import move
from churn_udf.warehouse import CONTEXT_VARIABLE, DEVICE_VARIABLE, MODELS_DIR_VARIABLE
from churn_udf.warehouse.shadow_model import model

FEATURES = ("recency_days", "order_count", "amount_sum")
CUTOFF = datetime.date(2024, 3, 1)
USERS = 30
UNSCORABLE = "churn_unscorable_by_others"


def scoring_context(**changes) -> dict:
    """Return what the pre-hook of the scoring models leaves, but for changes."""
    return {
        "settings": model_settings().to_dict(),
        "settings_hash": "h",
        "feature_names": FEATURES,
        "examples_relation": "examples",
        "cutoffs_relation": "cutoffs",
        "cache_relation": "churn_score_cache",
        "unscorable_relation": "churn_unscorable_inputs",
        "unscorable_rows": "warn",
        "is_full_refresh": False,
        **changes,
    }


class World:
    """A database with inputs, what plugin and hook leave, and a models folder of its own."""

    def __init__(self, session, models_dir, bundles) -> None:
        self.session, self.models_dir = session, models_dir
        self.champion, *self.shadows = bundles
        session.register("inputs", pa.Table.from_batches([input_batch(USERS, FEATURES)]))
        session.execute(
            "create table examples as select 'u' || row_number() over () as user_id, "
            f"date '{CUTOFF}' as cutoff_date, true as is_score_cutoff, * from inputs"
        )
        session.execute(
            f"create table cutoffs as select date '{CUTOFF}' as cutoff_date, "
            "true as is_score_cutoff, 'h' as settings_hash"
        )
        for name, value in ((MODELS_DIR_VARIABLE, str(models_dir)), (DEVICE_VARIABLE, "cpu")):
            session.execute(f"set variable {name} = ?", [value])
        self.tell()

    def tell(self, **changes) -> None:
        told = {"unscorable_rows": "fail", "relations": {UNSCORABLE: UNSCORABLE}, **changes}
        context = scoring_context(**told)
        self.session.execute(f"set variable {CONTEXT_VARIABLE} = ?", [json.dumps(context)])

    def stage(self, stage: str = "shadow", *names: str) -> None:
        for name in names or self.shadows:
            move(self.models_dir, name, stage, reason="test")

    def scored(self, **options) -> dict[str, int]:
        """Run the model; return how many rows each bundle gave."""
        rows = model(None, self.session, **options).read_all()
        names = rows.column("bundle_id").to_pylist()
        return {name: names.count(name) for name in set(names)}

    def query(self, sql: str):
        return self.session.cursor().execute(sql).fetchall()


def refuse_to_load(*_, **__):
    raise AssertionError("nothing is to be scored")
