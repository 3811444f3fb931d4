"""In what numbers the encoder computes: what a bundle records, and what a machine can do.

``precision.json`` names the fastest mode whose scores stayed within the packaging check's bounds;
a bundle without it computes in fp32. A machine without the instructions for a mode computes in
fp32 too, which is never worse, only slower.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from churn_udf.contracts.bundle import PRECISION_FILE
from churn_udf.errors import BundleIntegrityError, ScoringError, damage_named

if TYPE_CHECKING:
    import torch

FP32, BF16, INT8 = "fp32", "bf16", "int8"
PRECISIONS = (FP32, BF16, INT8)
AUTO = "auto"
"""What the bundle recorded."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Precision:
    """Content of ``precision.json``."""

    mode: str = FP32
    """``fp32``, ``bf16`` or ``int8``."""
    activation_ranges: Mapping[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
    """Dense layer of the encoder, by its name in ``state_dict`` without ``.weight`` -> smallest and
    largest input seen in calibration; needed by int8 alone. See ``calibrate_activations``."""
    fallback: str = FP32
    """The mode for machines that cannot do ``mode``, a GPU for one: ``bf16`` or ``fp32``."""
    check: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """What the packaging check found, JSON-ready; scoring does not read it."""

    def __post_init__(self) -> None:
        """Check mode and ranges.

        Raises:
            BundleIntegrityError: Unknown mode or fallback, int8 without ranges, or a range that is
                not two finite numbers in order.
        """
        if self.mode not in PRECISIONS or self.fallback not in (BF16, FP32):
            raise BundleIntegrityError(
                f"precision mode {self.mode!r} with fallback {self.fallback!r}; allowed: "
                f"{', '.join(PRECISIONS)} with {BF16} or {FP32}"
            )
        if self.mode == INT8 and not self.activation_ranges:
            raise BundleIntegrityError(
                "precision int8 without activation_ranges; allowed: a range for every dense layer; "
                "package the model again with `churn-train package`"
            )
        for name, (low, high) in self.activation_ranges.items():
            if not (math.isfinite(low) and math.isfinite(high) and low <= high):
                raise BundleIntegrityError(
                    f"precision: activation range of {name} is [{low}, {high}]; allowed: two "
                    "finite numbers, the smaller first"
                )

    def to_json(self) -> str:
        """Return the text of ``precision.json``."""
        document = {
            "mode": self.mode,
            "fallback": self.fallback,
            "activation_ranges": {
                name: list(ends) for name, ends in self.activation_ranges.items()
            },
            "check": dict(self.check),
        }
        return json.dumps(document, indent=2, sort_keys=True, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Precision:
        """Parse ``precision.json``.

        Raises:
            BundleIntegrityError: Not such a file.
        """
        with damage_named(PRECISION_FILE):
            document = json.loads(text)
            ranges = {
                str(name): (float(low), float(high))
                for name, (low, high) in document["activation_ranges"].items()
            }
            choice = cls(
                mode=document["mode"],
                fallback=document["fallback"],
                activation_ranges=ranges,
                check=dict(document["check"]),
            )
        return choice


def read_precision(directory: Path) -> Precision:
    """Return what a bundle or model directory records; fp32 where it has no such file.

    Raises:
        BundleIntegrityError: The file is damaged.
    """
    file = directory / PRECISION_FILE
    if not file.is_file():
        return Precision()
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BundleIntegrityError(
            f"{file} cannot be read ({error}); restore the bundle or run `churn-train run`"
        ) from error
    return Precision.from_json(text)


def choose_precision(wanted: str, directory: Path) -> Precision:
    """Return what to compute a bundle's encoder in.

    Args:
        wanted: ``auto`` (what the bundle recorded) or ``fp32``.
        directory: A bundle or model directory.

    Raises:
        BundleIntegrityError: ``precision.json`` is damaged.
        ScoringError: Another value of ``wanted``.
    """
    if wanted == AUTO:
        return read_precision(directory)
    if wanted == FP32:
        return Precision()
    raise ScoringError(
        f"precision {wanted!r}; allowed: {AUTO} (what the bundle recorded as checked), {FP32}"
    )


def usable_mode(mode: str, device: torch.device, *, fallback: str = FP32) -> tuple[str, str | None]:
    """Return the mode to run and, where that is not ``mode``, why.

    Args:
        mode: One of ``PRECISIONS``.
        device: Where the encoder is to run.
        fallback: The mode to try next; fp32 runs everywhere.
    """
    missing = {FP32: lambda _: None, BF16: _missing_for_bf16, INT8: _missing_for_int8}[mode](device)
    if missing is None:
        return mode, None
    instead = FP32 if mode == fallback else usable_mode(fallback, device)[0]
    return instead, f"the bundle asks for {mode}, but {missing}; scores are computed in {instead}"


def _missing_for_bf16(device: torch.device) -> str | None:
    """Return what the machine lacks for fast bf16, if anything."""
    import torch

    if device.type == "cuda":
        return None if torch.cuda.is_bf16_supported() else f"{device} has no bf16 units"
    if device.type != "cpu":
        return f"bf16 is not known on {device}"
    found = torch.cpu.get_capabilities()
    has_units = bool(found.get("avx512_bf16") or found.get("amx_bf16"))
    return None if has_units else "this CPU has neither AVX512_BF16 nor AMX"


def _missing_for_int8(device: torch.device) -> str | None:
    """Return what the machine lacks for fast int8, if anything."""
    import torch

    if device.type != "cpu":
        return f"int8 runs on a CPU alone, not on {device}"
    found = torch.cpu.get_capabilities()
    has_units = bool(found.get("avx512_vnni") or found.get("avx_vnni"))
    return None if has_units else "this CPU has no VNNI"
