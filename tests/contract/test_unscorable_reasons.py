"""The dbt package knows the reason codes that Python gives."""

from __future__ import annotations

from pathlib import Path

import yaml

from churn_udf.contracts.unscorable import UNSCORABLE_REASONS
from churn_udf.warehouse.unscorable_inputs import SQL_TYPES

MARTS = Path(__file__).resolve().parents[2] / "dbt_project" / "models" / "marts"


def test_the_mart_accepts_and_explains_every_reason() -> None:
    document = yaml.safe_load((MARTS / "_unscorable__models.yml").read_text(encoding="utf-8"))
    columns = {column["name"]: column for column in document["models"][0]["columns"]}
    (accepted,) = [
        test["accepted_values"]["arguments"]["values"]
        for test in columns["reason"]["data_tests"]
        if "accepted_values" in test
    ]
    assert tuple(accepted) == UNSCORABLE_REASONS
    explained = (MARTS / "_unscorable__docs.md").read_text(encoding="utf-8")
    assert all(f"`{reason}`:" in explained for reason in UNSCORABLE_REASONS)
    shared = {name: columns[name]["data_type"] for name in SQL_TYPES}
    assert shared == SQL_TYPES
