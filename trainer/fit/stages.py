"""One engine for every stage of training: steps, schedule, checkpoints, early stopping."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from trainer.errors import TrainingDivergedError
from trainer.fit.checkpoint import Checkpointer
from trainer.fit.config import FitConfig
from trainer.progress import Progress

IntArray = npt.NDArray[np.int64]
LogRow = Callable[[Mapping[str, Any]], None]
"""Takes a row of the history as it comes; what it raises ends training."""


class StepHook(Protocol):
    """What looks on after every step; its state is checkpointed."""

    def after_step(self, step: int, total: int) -> None:
        """Look at parameters and gradients after step ``step`` of ``total``."""

    def state(self) -> dict[str, Any]:
        """Return what ``restore`` takes up."""

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a state."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """What one stage trains and on what."""

    name: str
    """Short name shown in progress and history."""
    module: nn.Module
    """Holds every parameter the stage changes; its state is checkpointed."""
    parameter_groups: Sequence[dict[str, Any]]
    """AdamW groups, each with ``params``, peak ``lr`` and, if not ``fit.weight_decay``, its own."""
    epochs: int
    """Passes; 0 leaves the stage out."""
    plan: Callable[[int], list[IntArray]]
    """Epoch -> batches of indices."""
    loss: Callable[[IntArray, int, int], torch.Tensor]
    """Batch, epoch, step -> scalar loss."""
    evaluate: Callable[[], dict[str, float]] | None = None
    """Returns metrics with ``valid_loss``, lower is better; None looks at nothing."""
    stop_epoch: float = math.inf
    """Where to stop although the schedule goes on: where an earlier fit was at its best."""
    hook: StepHook | None = None
    """Follows the steps and keeps a state of its own."""


class StageRunner:
    """Runs stages one after the other, resuming where an earlier process stopped.

    Args:
        config: Training settings.
        checkpointer: Keeps the state.
        progress: Shows steps.
        run_key: What the checkpoint must belong to; another key starts anew.
        history_path: JSON lines of what was logged.
        on_log: Called with every row of the history, those of an earlier process included.
    """

    def __init__(
        self,
        config: FitConfig,
        checkpointer: Checkpointer,
        progress: Progress,
        *,
        run_key: str,
        history_path: Path,
        on_log: LogRow | None = None,
    ) -> None:
        self.config = config
        self.checkpointer = checkpointer
        self.progress = progress
        self.run_key = run_key
        self.history_path = history_path
        self.on_log = on_log
        self.history: list[dict[str, Any]] = []
        state = checkpointer.load()
        self._resumed = state if state and state.get("run_key") == run_key else None
        if self._resumed:
            self.history = json.loads(self._resumed["history"])
            progress.note(f"resuming from the checkpoint in stage {self._resumed['stage']}")
            if on_log:
                for row in self.history:
                    on_log(row)

    def run(self, index: int, stage: Stage) -> bool:
        """Run one stage, or the rest of it, or nothing when it was done before.

        Args:
            index: Place of the stage in the run.
            stage: What to train.

        Returns:
            Whether the stage's module now holds what the stage made of it; False where a later
            stage's checkpoint is still to be taken up.

        Raises:
            TrainingDivergedError: The loss is not finite.
        """
        resumed, state = self._resumed, StageState()
        if resumed and resumed["index"] > index:
            return False
        torch.manual_seed(self.config.seed + 1_000 * (index + 1))
        optimizer = make_optimizer(stage.parameter_groups, self.config)
        if resumed and resumed["index"] == index:
            state.restore(resumed, stage, optimizer)
            self._resumed = None
        state.average = state.average or copy.deepcopy(trained_state(stage.module))
        if stage.epochs and not state.is_done:
            self._train(index, stage, optimizer, state)
            load_trained(stage.module, state.best or state.average)
        state.is_done = True
        self._save(index, stage, optimizer, state)
        return True

    def _train(
        self, index: int, stage: Stage, optimizer: torch.optim.Optimizer, state: StageState
    ) -> None:
        """Run epochs until done or out of patience."""
        if stage.evaluate and state.best is None:
            self._evaluate(stage, state, 0.0)
        parameters = [p for group in stage.parameter_groups for p in group["params"]]
        stage.module.train()  # here and after a look, as it takes long for every step
        while state.epoch < stage.epochs and not self._is_out_of_patience(state):
            batches = stage.plan(state.epoch)
            looks = _evaluation_steps(len(batches), self.config.evaluations_per_epoch)
            total = sum(len(batch) for batch in batches)
            name = f"{stage.name} {state.epoch + 1}/{stage.epochs}"
            with self.progress.step(name, total=total, unit="examples") as step:
                step.count = sum(len(batch) for batch in batches[: state.step])
                while state.step < len(batches) and state.passed(batches) < stage.stop_epoch:
                    batch = batches[state.step]
                    done = state.passed(batches) / stage.epochs
                    set_learning_rates(optimizer, done, self.config.warmup_share)
                    loss = self.step(stage, optimizer, parameters, batch, state)
                    state.step += 1
                    if stage.hook:
                        stage.hook.after_step(state.num_steps, stage.epochs * len(batches))
                    step.advance(len(batch), loss=f"{state.mean_loss(loss):.4f}")
                    if stage.evaluate and state.step in looks:
                        self._evaluate(stage, state, state.passed(batches))
                        if self._is_out_of_patience(state):
                            break
                    if self.checkpointer.is_due():
                        self._save(index, stage, optimizer, state)
            if state.passed(batches) >= stage.stop_epoch:
                break
            self._log(stage, state, epoch=state.epoch + 1.0)
            state.epoch, state.step = state.epoch + 1, 0

    def step(
        self,
        stage: Stage,
        optimizer: torch.optim.Optimizer,
        parameters: list[nn.Parameter],
        batch: IntArray,
        state: StageState,
    ) -> float:
        """Run one optimizer step of a module in training mode and return its loss."""
        optimizer.zero_grad(set_to_none=True)
        loss = stage.loss(batch, state.epoch, state.step)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise TrainingDivergedError(
                f"the loss of stage {stage.name} is {value} in epoch {state.epoch + 1}, step "
                f"{state.step + 1}; lower fit.learning_rate or set fit.precision to fp32"
            )
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, self.config.max_gradient_norm)
        optimizer.step()
        state.follow(stage.module, self.config.average_decay)
        return value

    def _evaluate(self, stage: Stage, state: StageState, epoch: float) -> None:
        """Look at the validation split with the averaged weights and keep the best."""
        assert stage.evaluate is not None
        assert state.average is not None
        current = copy.deepcopy(trained_state(stage.module))
        load_trained(stage.module, state.average)
        stage.module.eval()
        metrics = stage.evaluate()
        load_trained(stage.module, current)
        stage.module.train()
        if metrics["valid_loss"] < state.best_loss - 1e-5:
            state.best_loss, state.bad_looks = metrics["valid_loss"], 0
            state.best = copy.deepcopy(state.average)
        else:
            state.bad_looks += 1
        self._log(stage, state, epoch=epoch, **metrics)

    def _is_out_of_patience(self, state: StageState) -> bool:
        """Return whether validation has not improved for too long."""
        return state.bad_looks >= self.config.patience

    def _log(self, stage: Stage, state: StageState, *, epoch: float, **facts: float) -> None:
        """Append one line to the history."""
        row: dict[str, Any] = {"stage": stage.name, "epoch": round(epoch, 4), **facts}
        row["share"] = round(epoch / stage.epochs, 6)
        if state.losses:
            row["train_loss"] = float(np.mean(state.losses[-100:]))
        self.history.append(row)
        lines = "".join(json.dumps(row) + "\n" for row in self.history)
        self.history_path.write_text(lines, encoding="utf-8")
        if self.on_log:
            self.on_log(row)

    def _save(
        self, index: int, stage: Stage, optimizer: torch.optim.Optimizer, state: StageState
    ) -> None:
        """Write a checkpoint."""
        self.checkpointer.save(
            {
                "run_key": self.run_key,
                "stage": stage.name,
                "index": index,
                "module": trained_state(stage.module),
                "hook": stage.hook.state() if stage.hook else {},
                "optimizer": optimizer.state_dict(),
                "random": torch.get_rng_state(),
                "cuda_random": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
                "history": json.dumps(self.history),
                **state.to_dict(),
            }
        )


@dataclasses.dataclass
class StageState:
    """How far a stage is."""

    epoch: int = 0
    step: int = 0
    is_done: bool = False
    best_loss: float = math.inf
    bad_looks: int = 0
    best: dict[str, torch.Tensor] | None = None
    average: dict[str, torch.Tensor] | None = None
    num_steps: int = 0
    losses: list[float] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        """Know no tensors yet."""
        self._moving: dict[str, torch.Tensor] = {}

    def passed(self, batches: Sequence[IntArray]) -> float:
        """Return the passes done, the present one as a fraction."""
        return self.epoch + self.step / len(batches)

    @classmethod
    def starting_at(cls, module: nn.Module) -> StageState:
        """Return the state before the first step; the average starts at the weights."""
        return cls(average=copy.deepcopy(trained_state(module)))

    def mean_loss(self, loss: float) -> float:
        """Add a loss and return the mean of the last hundred."""
        self.losses = [*self.losses[-99:], loss]
        return float(np.mean(self.losses))

    def follow(self, module: nn.Module, decay: float) -> None:
        """Move the average of the weights of the stage's module towards the present ones.

        The decay grows with the steps, so that an early average is not tied to the start.
        """
        assert self.average is not None
        self.num_steps += 1
        weight = 1.0 - min(decay, (1.0 + self.num_steps) / (10.0 + self.num_steps))
        if not self._moving:  # found once: walking the modules takes as long as the optimizer
            of_module = (
                *module.named_parameters(remove_duplicate=False),
                *module.named_buffers(remove_duplicate=False),
            )
            self._moving = {
                name: value
                for name, value in of_module
                if name in self.average and value.dtype == torch.float32
            }
        averages = [self.average[name] for name in self._moving]
        with torch.no_grad():
            torch._foreach_lerp_(averages, list(self._moving.values()), weight)

    def to_dict(self) -> dict[str, Any]:
        """Return what a checkpoint stores."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def restore(
        self, saved: dict[str, Any], stage: Stage, optimizer: torch.optim.Optimizer
    ) -> None:
        """Take up a checkpoint: state, weights, optimizer and random numbers."""
        for field in dataclasses.fields(self):
            setattr(self, field.name, saved[field.name])
        load_trained(stage.module, saved["module"])
        if stage.hook:
            stage.hook.restore(saved["hook"])
        devices = {name: value.device for name, value in stage.module.state_dict().items()}
        for kept in (self.best or {}, self.average or {}):
            for name, value in kept.items():
                kept[name] = value.to(devices[name])
        optimizer.load_state_dict(saved["optimizer"])
        torch.set_rng_state(saved["random"])
        if saved["cuda_random"]:
            torch.cuda.set_rng_state_all(saved["cuda_random"])


def trained_state(module: nn.Module) -> dict[str, torch.Tensor]:
    """Return the state of a module without its frozen parameters, which every run loads anew."""
    parameters = module.named_parameters(remove_duplicate=False)
    frozen = {name for name, value in parameters if not value.requires_grad}
    return {name: value for name, value in module.state_dict().items() if name not in frozen}


def load_trained(module: nn.Module, state: dict[str, torch.Tensor]) -> None:
    """Load what ``trained_state`` returned; frozen parameters stay as they are."""
    module.load_state_dict({**module.state_dict(), **state})


def make_optimizer(groups: Sequence[dict[str, Any]], config: FitConfig) -> torch.optim.Optimizer:
    """Return AdamW that decays matrices but neither biases nor norms."""
    split = []
    for group in groups:
        for decays in (True, False):
            chosen = [p for p in group["params"] if (p.ndim > 1) == decays]
            decay = group.get("weight_decay", config.weight_decay) if decays else 0.0
            if chosen:
                rate = group["lr"]
                split.append({"params": chosen, "lr": rate, "peak": rate, "weight_decay": decay})
    return torch.optim.AdamW(split, fused=True)


def set_learning_rates(optimizer: torch.optim.Optimizer, done: float, warmup_share: float) -> None:
    """Rise linearly to the peak over the warm-up, then fall linearly to a hundredth."""
    if done < warmup_share:
        factor = (done + 1e-3) / (warmup_share + 1e-3)
    else:
        factor = max(0.01, (1.0 - done) / (1.0 - warmup_share))
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * min(1.0, factor)


def _evaluation_steps(num_batches: int, looks: int) -> set[int]:
    """Return the steps of an epoch after which to look at validation."""
    return {max(1, round(num_batches * (i + 1) / looks)) for i in range(looks)}
