"""The HTML report of a training run."""

from __future__ import annotations

from trainer.report.data import FeatureImportance, ReportData, SplitFacts
from trainer.report.render import render_report

__all__ = ["FeatureImportance", "ReportData", "SplitFacts", "render_report"]
