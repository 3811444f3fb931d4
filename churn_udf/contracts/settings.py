"""The resolved dbt vars that a model depends on, as both sides see them.

Source: the JSON that the dbt macro ``churn_scoring.churn_context()`` renders.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from churn_udf.errors import BundleMismatchError, SettingsError

TEXT_VERSION = 1
"""Version of ``behavior_text`` that this code was written for (docs/text_spec_v1.md)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """Settings that a bundle is bound to: a change of any of them needs a new model.

    Lengths are whole days; intervals are half-open as in docs/architecture.md.
    """

    observation_days: int
    eligibility_days: int
    gap_days: int
    horizon_days: int
    qualifying_event_types: tuple[str, ...]
    max_visits: int
    max_words_per_visit: int
    max_reviews: int
    max_review_chars: int
    text_version: int = TEXT_VERSION
    feature_version: int = 1
    """Version of the feature SQL, as macro ``feature_version`` says."""

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any]) -> ModelSettings:
        """Pick the fields of this class from the resolved settings (extra keys are ignored).

        Raises:
            SettingsError: A setting is missing or not of its type.
        """
        values: dict[str, Any] = {}
        for field in dataclasses.fields(cls):
            if field.name not in settings:
                raise SettingsError(
                    f"setting {field.name!r} is missing; found {sorted(settings)}; "
                    "run with the dbt package and Python package of the same release"
                )
            value = settings[field.name]
            if field.name == "qualifying_event_types":
                values[field.name] = tuple(sorted(str(item) for item in value))
                continue
            try:
                values[field.name] = int(value)
            except (TypeError, ValueError) as error:
                raise SettingsError(
                    f"setting {field.name!r} is {value!r}; allowed: a whole number"
                ) from error
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready mapping, the inverse of ``from_mapping``."""
        values = dataclasses.asdict(self)
        values["qualifying_event_types"] = list(self.qualifying_event_types)
        return values

    def require_same(self, other: ModelSettings, *, bundle_id: str) -> None:
        """Check that the warehouse's settings (``other``) are those of the bundle (``self``).

        Raises:
            BundleMismatchError: Names every setting that differs, with both values.
        """
        differences = [
            f"{name}: bundle {mine!r}, warehouse {theirs!r}"
            for name, mine in self.to_dict().items()
            if mine != (theirs := other.to_dict()[name])
        ]
        if differences:
            raise BundleMismatchError(
                f"bundle {bundle_id} was trained with other settings than the dbt vars in use "
                f"({'; '.join(differences)}). Use the bundle's vars, or run `churn-train run` with "
                "these vars to train a model for them (`churn-train promote` chooses one that "
                "exists); a second data set is best kept apart, with its own CHURN_DUCKDB_PATH "
                "and CHURN_MODELS_DIR"
            )
