"""Puts tests/ on the import path, so that tests can `import factories`."""

import os

# Read when torch loads: threads that spin while they wait make parallel test runs crawl.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from hypothesis import settings

# How long an example takes says more about the machine than about the code.
settings.register_profile("project", deadline=None)
settings.load_profile("project")
