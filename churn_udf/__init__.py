"""Warehouse side of the churn scorer: contracts, model, scoring core and warehouse doors.

Importing this package is cheap: torch, transformers and dbt load only inside the modules
that own them.
"""

import os

# OpenMP threads that spin while they wait starve the warehouse's own threads and each other:
# on a busy 2-core machine training and scoring ran 5 to 20 times slower. Read when torch loads,
# so it stands here, before any module of ours can import torch.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"

__all__ = ["__version__"]
