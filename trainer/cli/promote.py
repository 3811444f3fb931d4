"""``churn-train promote``: ``churn-train models promote`` under its earlier name."""

from trainer.cli.models.promote import command

__all__ = ["command"]
