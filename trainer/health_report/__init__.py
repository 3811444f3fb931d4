"""The report on a model in service: one HTML page over the warehouse's tables."""

from __future__ import annotations

from trainer.health_report.facts import health_facts
from trainer.health_report.page import write_page
from trainer.health_report.reasons import Limits
from trainer.health_report.render import render_health
from trainer.health_report.tables import HealthTables, read_health
from trainer.health_report.verdict import judge

__all__ = [
    "HealthTables",
    "Limits",
    "health_facts",
    "judge",
    "read_health",
    "render_health",
    "write_page",
]
