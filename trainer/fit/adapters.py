"""Parameter-efficient fine-tuning: few new weights are trained, the pretrained ones stay frozen.

LoRA, AdaLoRA and IA³ come from ``peft`` and are merged into the encoder when training ends, so
that a bundle holds a plain encoder. Bottlenecks and prefixes are our own modules, which the
bundle keeps and the scorer applies; neither needs ``peft`` to score.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import torch
from torch import nn

from churn_udf.model.adapters import BOTTLENECK
from churn_udf.model.classifier import ChurnClassifier
from churn_udf.model.encoder import attach_adapter
from churn_udf.model.families import find_family
from trainer.errors import ConfigError
from trainer.fit.config import FitConfig

IN_A_LAYER = re.compile(r"\.\d+\.")
PEFT_NAME = "default"
ORTHOGONALITY_WEIGHT = 0.5
"""Weight of AdaLoRA's penalty on singular vectors that are not orthogonal, as in its paper."""


class Adapter:
    """What a fine-tuning stage asks of the adapter on its encoder; this one asks for nothing."""

    def penalty(self) -> torch.Tensor | None:
        """Return what the loss is raised by, or None."""
        return None

    def after_step(self, step: int, total: int) -> None:
        """Look at the gradients after an optimizer step.

        Args:
            step: Steps done, from 1.
            total: Steps planned.
        """

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint must keep besides weights."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Take up the state of a checkpoint."""

    def finish(self) -> None:
        """Turn the encoder into what a bundle holds."""


def adapt(model: ChurnClassifier, config: FitConfig) -> Adapter:
    """Freeze a pretrained encoder and give it the weights of ``fit.adapter``.

    Args:
        model: The classifier with its pretrained encoder; changed in place.
        config: Kind and size of the adapter.

    Raises:
        ConfigError: ``peft`` is missing, or the encoder takes no such adapter.
    """
    if config.adapter == "none":
        return Adapter()
    model.encoder.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed + 2)
        if config.adapter in ("bottleneck", "prefix"):
            _attach_stored(model, config)
            return Adapter()
        try:
            import peft  # noqa: F401
        except ImportError as error:
            raise ConfigError(
                f"fit.adapter is {config.adapter!r}, which needs the extra adapters; run "
                "`pip install 'warehouse-churn[adapters]'`, or choose bottleneck or none"
            ) from error
        tuner = _peft_tuner(model, config)
    return AdaLora(tuner) if config.adapter == "adalora" else Merged(tuner)


class Merged(Adapter):
    """An adapter of ``peft`` whose weights end up in those of the encoder.

    Args:
        tuner: The tuner of ``peft`` around the encoder.
    """

    def __init__(self, tuner: Any) -> None:
        self._tuner = tuner

    def finish(self) -> None:
        """Add the adapter to the encoder's weights and take it out."""
        self._tuner.merge_and_unload().requires_grad_(True)


class AdaLora(Merged):
    """AdaLoRA (Zhang et al. 2023): ranks move to where the gradients want them.

    The first tenth of the steps train at the full rank, the last three tenths at the final one.
    """

    _KEPT_SETTINGS = ("total_step", "tinit", "tfinal", "deltaT", "rank_pattern")
    _KEPT_SCORES = ("ipt", "exp_avg_ipt", "exp_avg_unc")

    def penalty(self) -> torch.Tensor | None:
        """Return how far the singular vectors are from orthogonal, the mean over matrices."""
        distances = []
        for name, value in self._tuner.model.named_parameters():
            if "lora_A" in name or "lora_B" in name:
                products = value @ value.T if "lora_A" in name else value.T @ value
                unit = torch.eye(len(products), device=products.device)
                distances.append(torch.linalg.matrix_norm(products - unit))
        return ORTHOGONALITY_WEIGHT * torch.stack(distances).mean()

    def after_step(self, step: int, total: int) -> None:
        """Update the importance of every rank and cut to the budget of this step."""
        settings = self._tuner.peft_config[PEFT_NAME]
        if settings.total_step == 1:  # the plan is known from the first step on
            settings.total_step = max(total, 2)
            settings.tinit, settings.tfinal = total // 10, 3 * total // 10
            settings.deltaT = max(1, total // 100)
        self._tuner.update_and_allocate(step)

    def state(self) -> dict[str, Any]:
        """Return schedule, importances and ranks."""
        settings, allocator = self._tuner.peft_config[PEFT_NAME], self._tuner.rankallocator
        return {
            "settings": {name: getattr(settings, name) for name in self._KEPT_SETTINGS},
            "scores": {name: getattr(allocator, name) for name in self._KEPT_SCORES},
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take up schedule, importances and ranks."""
        for name, value in state["settings"].items():
            setattr(self._tuner.peft_config[PEFT_NAME], name, value)
        device = next(self._tuner.model.parameters()).device
        for name, scores in state["scores"].items():
            moved = {key: value.to(device) for key, value in scores.items()}
            setattr(self._tuner.rankallocator, name, moved)


def _attach_stored(model: ChurnClassifier, config: FitConfig) -> None:
    """Attach an adapter that stays in the bundle, and say so in the model's configuration."""
    settings = config.adapter_settings
    adapter: dict[str, Any] = {"kind": config.adapter, "size": settings.rank}
    if config.adapter == BOTTLENECK:
        adapter["dropout"] = settings.dropout
    try:
        attach_adapter(model.encoder, model.config.encoder, adapter)
    except ValueError as error:
        raise ConfigError(
            f"fit.adapter {config.adapter!r} does not fit fit.encoder {config.encoder!r}: {error}"
        ) from error
    model.config = dataclasses.replace(model.config, adapter=adapter)


def _peft_tuner(model: ChurnClassifier, config: FitConfig) -> Any:
    """Inject an adapter of ``peft`` and return its tuner."""
    from peft import AdaLoraConfig, AdaLoraModel, IA3Config, IA3Model, LoraConfig, LoraModel

    settings, encoder = config.adapter_settings, model.encoder
    dense = {
        name: module
        for name, module in encoder.named_modules()
        if IN_A_LAYER.search(name) and (isinstance(module, nn.Linear) or hasattr(module, "nf"))
    }
    is_transposed = not all(isinstance(module, nn.Linear) for module in dense.values())
    if config.adapter == "ia3":
        family = find_family(model.config.encoder)
        ends = re.compile(rf"(.*\.)?({family.feed_forward_outputs})")
        scaled = re.compile(rf"(.*\.)?({family.keys_and_values}|{family.feed_forward_outputs})")
        return IA3Model(
            encoder,
            IA3Config(
                target_modules=[name for name in dense if scaled.fullmatch(name)],
                feedforward_modules=[name for name in dense if ends.fullmatch(name)],
                fan_in_fan_out=is_transposed,
            ),
            PEFT_NAME,
        )
    shared: dict[str, Any] = {
        "target_modules": list(dense),
        "lora_alpha": settings.alpha,
        "lora_dropout": settings.dropout,
        "fan_in_fan_out": is_transposed,
    }
    rank = int(settings.rank or 0)  # the settings see to it that there is one
    if config.adapter == "lora":
        return LoraModel(encoder, LoraConfig(r=rank, **shared), PEFT_NAME)
    ranks: dict[str, Any] = {"init_r": rank + max(1, rank // 2), "target_r": rank, "total_step": 1}
    return AdaLoraModel(encoder, AdaLoraConfig(**ranks, **shared), PEFT_NAME)  # type: ignore[no-untyped-call]
