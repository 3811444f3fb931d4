"""Whether a new model is due: by age, new labels, drift, or decay of quality; says which.

Everything is counted in the time of the data, from cutoff to cutoff, so that a replay of old data
finds what was found then. Nothing is written here; ``trainer.scheduled`` trains.
"""

from trainer.retraining.checks import Check, Measure
from trainer.retraining.config import RetrainingConfig
from trainer.retraining.plan import RetrainingPlan, plan

__all__ = ["Check", "Measure", "RetrainingConfig", "RetrainingPlan", "plan"]
