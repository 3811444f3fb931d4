"""The churn model: one definition, used by trainer and scorer."""
