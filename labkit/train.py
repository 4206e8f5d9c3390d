"""A training loop that knows no variant: batches in, loss terms out, early stopping on validation retrieval.

AdamW with linear warm-up and cosine decay. Everything random comes from one seed, on every device.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from tqdm import tqdm

from labkit.config import TrainingConfig
from labkit.metrics.retrieval import recall_at_10
from labkit.types import Embeddings

Log = Callable[[Mapping[str, Any]], None]


class Objective(Protocol):
    """What the loop needs from a variant."""

    def terms(self, batch: Embeddings) -> dict[str, Tensor]:
        """Weighted loss terms of a batch of raw features; their sum is minimized."""
        ...

    def after_step(self, batch: Embeddings) -> None:
        """What follows an optimizer step: a moving average, a queue."""
        ...

    def embed(self, data: Embeddings) -> Embeddings:
        """The batch in the shared space."""
        ...


@dataclass(frozen=True)
class Fitted:
    """How training went.

    Attributes:
        best_epoch: epoch whose weights were kept.
        best_score: its validation score.
        epochs: epochs run.
        steps: optimizer steps run.
        seconds: wall time.
    """

    best_epoch: int
    best_score: float
    epochs: int
    steps: int
    seconds: float


class DivergedError(FloatingPointError):
    """A loss term or its gradient became NaN or infinite."""


def fit(
    module: nn.Module,
    objective: Objective,
    data: tuple[Embeddings, Embeddings],
    config: TrainingConfig,
    *,
    seed: int,
    log: Log | None = None,
) -> Fitted:
    """Minimize the objective on `data[0]`, keep the weights that score best on `data[1]`.

    Args:
        module: holds the parameters; left with the best weights, in evaluation mode.
        objective: computes the loss terms and embeds.
        data: training and validation samples.
        config: optimizer and schedule.
        seed: of the batches and of dropout.
        log: called once per epoch with step, epoch, every loss term, learning rate, validation score, seconds.

    Raises:
        DivergedError: a loss term or the gradient is not finite; the message names it and the remedy.
        ValueError: no two modalities have samples in common.
    """
    train, validation = data
    optimizer = torch.optim.AdamW(module.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    batches = max(1, len(train) // config.batch_size)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, _schedule(config, config.epochs * batches))
    order = torch.Generator().manual_seed(seed)
    best = _Best(module)
    started, step, epoch = time.perf_counter(), 0, 0
    progress = tqdm(range(1, config.epochs + 1), desc="training", unit="epoch", leave=False, delay=2)
    with torch.random.fork_rng(devices=_cuda_devices()):
        torch.manual_seed(seed)
        for epoch in progress:
            module.train()
            values: dict[str, list[float]] = {}
            for rows in torch.randperm(len(train), generator=order).tensor_split(batches):
                batch = train.take(rows.numpy())
                terms = objective.terms(batch)
                _step(module, optimizer, terms, config.gradient_clip)
                objective.after_step(batch)
                scheduler.step()
                for name, value in terms.items():
                    values.setdefault(name, []).append(float(value.detach()))
            if not values:
                raise ValueError(f"no batch has two samples with two of {list(train.modalities)}; add paired samples")
            step += batches
            module.eval()
            with torch.no_grad():
                score = validation_score(objective.embed(validation))
            if log is not None:
                means = {name: sum(v) / len(v) for name, v in values.items()}
                pace = {"learning_rate": scheduler.get_last_lr()[0], "seconds": time.perf_counter() - started}
                log({"step": step, "epoch": epoch, **means, "validation": score, **pace})
            progress.set_postfix(validation=f"{score:.3f}", refresh=False)
            if best.update(score, epoch) >= config.patience:
                break
    best.restore(module)
    module.eval()
    return Fitted(best.epoch, best.score, epoch, step, time.perf_counter() - started)


def validation_score(shared: Embeddings) -> float:
    """Recall@10 averaged over all directions; what early stopping and `labkit tune` maximize. Range 0..1.

    Raises:
        ValueError: no two modalities have a sample in common.
    """
    values = [score.value for score in recall_at_10(shared, shared)]
    if not values:
        raise ValueError(f"no validation sample has two of {list(shared.modalities)}; use more samples or fewer splits")
    return sum(values) / len(values)


def _step(module: nn.Module, optimizer: torch.optim.Optimizer, terms: dict[str, Tensor], clip: float) -> None:
    for name, value in terms.items():
        if not torch.isfinite(value):
            raise DivergedError(f"loss term {name!r} is {value.item()}; lower learning_rate or that term's weight")
    optimizer.zero_grad()
    if terms:  # a batch without a pair of modalities has none, and moves nothing
        torch.stack(list(terms.values())).sum().backward()
    norm = nn.utils.clip_grad_norm_(module.parameters(), clip)
    if not torch.isfinite(norm):
        raise DivergedError(f"the gradient of {' + '.join(terms)} is {norm.item()}; lower learning_rate or a weight")
    optimizer.step()


def _schedule(config: TrainingConfig, steps: int) -> Callable[[int], float]:
    warmup = max(1, round(config.warmup * steps))

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))

    return factor


class _Best:
    """The best weights seen so far."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self.score, self.epoch, self._since = -math.inf, 0, 0
        self._weights: dict[str, Tensor] = {}

    def update(self, score: float, epoch: int) -> int:
        """Keep the weights if `score` is the best; epochs since the best one."""
        if score > self.score:
            self.score, self.epoch, self._since = score, epoch, 0
            self._weights = {k: v.detach().clone() for k, v in self._module.state_dict().items()}
        else:
            self._since += 1
        return self._since

    def restore(self, module: nn.Module) -> None:
        module.load_state_dict(self._weights)


def _cuda_devices() -> list[int]:
    return list(range(torch.cuda.device_count()))
