"""Warehouse side of the churn scorer: contracts, model, scoring core and warehouse doors.

Importing this package is cheap: torch, transformers and dbt load only inside the modules
that own them.
"""

__version__ = "0.1.0"

__all__ = ["__version__"]
