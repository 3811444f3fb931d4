from __future__ import annotations

from pathlib import Path

import pytest
from training_example import Trained, trained_copy


@pytest.fixture
def trained(tmp_path: Path) -> Trained:
    """A finished workspace of this test's own."""
    return trained_copy(tmp_path / "trained")
