"""Training side of the churn product: everything that runs outside the warehouse."""
