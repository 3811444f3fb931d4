"""The gate: what a candidate must show to become the champion."""

from __future__ import annotations

from trainer.release.gate.checks import GateCheck, GateVerdict, gate_table
from trainer.release.gate.judge import Places, judge_candidate

__all__ = ["GateCheck", "GateVerdict", "Places", "gate_table", "judge_candidate"]
