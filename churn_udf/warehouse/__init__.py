"""Doors from a warehouse to the scoring core: dbt-duckdb plugin, SQL function, Python model."""

CONTEXT_VARIABLE = "churn_scoring_context"
"""Session variable with JSON from the dbt macro ``set_scoring_context``."""
MODELS_DIR_VARIABLE = "churn_models_dir"
"""Session variable with the models directory, set by the plugin."""
DEVICE_VARIABLE = "churn_device"
"""Session variable with the device, set by the plugin."""
