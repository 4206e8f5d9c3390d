"""The loop itself: one optimizer step after the other, and the state that a checkpoint keeps."""

from __future__ import annotations

import contextlib
import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from tqdm import tqdm

from labkit.config import TrainingConfig
from labkit.metrics.retrieval import recall_at_10
from labkit.train import checkpoint as stored
from labkit.train.checkpoint import Checkpoint
from labkit.train.monitor import CollapseWarning, Memory, Spread, spread
from labkit.train.precision import gradient_scaler, mixed_precision
from labkit.types import Embeddings

Log = Callable[[Mapping[str, Any]], None]
# a float16 step may overflow and is repeated at half the scale; below this the loss itself has diverged
LEAST_SCALE = 1.0


class Objective(Protocol):
    """What the loop needs from a variant."""

    def terms(self, batch: Embeddings) -> dict[str, Tensor]:
        """Weighted loss terms of a batch of raw features; their sum is minimized. Called under autocast."""
        ...

    def after_step(self, batch: Embeddings) -> None:
        """What follows an optimizer step: a moving average, a queue."""
        ...

    def embed(self, data: Embeddings) -> Embeddings:
        """The batch in the shared space."""
        ...


@dataclass(frozen=True)
class Fitted:
    """How training went, and what it cost.

    Attributes:
        best_epoch: epoch whose weights were kept.
        best_score: its validation score.
        epochs: epochs run.
        steps: optimizer steps run.
        seconds: wall time, that of interrupted attempts included.
        earlier_seconds: the part of it that interrupted attempts took.
        parameters: numbers that were trained.
        peak_memory: bytes; see `labkit.train.monitor.Memory`.
        spread: how much of the shared space the kept weights use on the validation samples.
    """

    best_epoch: int
    best_score: float
    epochs: int
    steps: int
    seconds: float
    earlier_seconds: float
    parameters: int
    peak_memory: int
    spread: Spread


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
    checkpoint: Checkpoint | None = None,
) -> Fitted:
    """Minimize the objective on `data[0]`, keep the weights that score best on `data[1]`.

    Args:
        module: holds the parameters, and whatever else outlives a step in its buffers; left with the best weights,
            in evaluation mode.
        objective: computes the loss terms and embeds.
        data: training and validation samples, on the device of the module.
        config: optimizer and schedule.
        seed: of the batches and of dropout.
        log: called once per epoch with step, epoch, every loss term, learning_rate, validation (score), seconds (since
            the start), step_seconds (mean of the epoch), peak_memory (bytes), effective_rank and embedding_std (of the
            validation samples; see `labkit.train.monitor`).
        checkpoint: where the training is kept between epochs, and continued if it is there. A continued training has
            the weights, scores and loss terms of one that was never interrupted, bit for bit on a CPU; epochs that
            were logged after the last checkpoint are logged again.

    Raises:
        DivergedError: a loss term or the gradient is not finite; the message names it and the remedy.
        ValueError: no two modalities have samples in common; float16 without CUDA.
        OSError: the checkpoint cannot be written.

    Warns:
        CollapseWarning: the kept weights send a modality to one place or onto one line.
    """
    train, validation = data
    training = _Training(module, objective, train, config, seed)
    device = train.device
    identity = {"seed": seed, "device": device.type, "config": config.model_dump(mode="json")}
    if checkpoint is not None:
        identity["data"] = stored.digest(module, data)
    memory = Memory(device)
    with _seeded(seed):
        if checkpoint is not None and (state := checkpoint.read(identity)) is not None:
            training.restore(state)
        bar = {"desc": "training", "unit": "epoch", "leave": False, "delay": 2}
        progress = tqdm(total=config.epochs, initial=training.epoch, **bar)
        while not training.finished:
            record = training.run_epoch()
            with torch.no_grad():
                shared = objective.embed(validation)
            score, used = validation_score(shared), spread(shared)
            training.best.update(score, training.epoch, used)
            if log is not None:
                now = {"seconds": training.seconds, "peak_memory": memory.peak, **asdict(used)}
                log({"step": training.step, "epoch": training.epoch, **record, "validation": score, **now})
            progress.set_postfix(validation=f"{score:.3f}", refresh=False)
            progress.update()
            if checkpoint is not None and checkpoint.due:
                checkpoint.write(training.state(), identity)
        progress.close()
    return training.end(memory.peak)


def validation_score(shared: Embeddings) -> float:
    """Recall@10 averaged over all directions; what early stopping and `labkit tune` maximize. Range 0..1.

    Raises:
        ValueError: no two modalities have a sample in common.
    """
    values = [score.value for score in recall_at_10(shared, shared)]
    if not values:
        raise ValueError(f"no validation sample has two of {list(shared.modalities)}; use more samples or fewer splits")
    return sum(values) / len(values)


class _Training:
    """Everything that changes while a training runs."""

    def __init__(
        self, module: nn.Module, objective: Objective, train: Embeddings, config: TrainingConfig, seed: int
    ) -> None:
        self._module, self._objective, self._train, self._config = module, objective, train, config
        self._autocast = mixed_precision(config, train.device)
        self._scaler = gradient_scaler(config, train.device)
        self._batches = max(1, len(train) // config.batch_size)
        self._optimizer = torch.optim.AdamW(
            module.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        self._scheduler = torch.optim.lr_scheduler.LambdaLR(
            self._optimizer, _schedule(config, config.epochs * self._batches)
        )
        self._order = torch.Generator().manual_seed(seed)
        self._started, self._earlier = time.perf_counter(), 0.0
        self.best = _Best(module)
        self.epoch = 0

    @property
    def step(self) -> int:
        return self.epoch * self._batches

    @property
    def seconds(self) -> float:
        return self._earlier + time.perf_counter() - self._started

    @property
    def finished(self) -> bool:
        return self.epoch >= self._config.epochs or self.epoch - self.best.epoch >= self._config.patience

    def run_epoch(self) -> dict[str, float]:
        """All batches once: the mean of every loss term, the learning rate and the seconds of a step."""
        started = time.perf_counter()
        self._module.train()
        values: dict[str, list[float]] = {}
        for rows in torch.randperm(len(self._train), generator=self._order).tensor_split(self._batches):
            batch = self._train.take(rows.numpy())
            with self._autocast:
                terms = self._objective.terms(batch)
            for name, value in self._update(terms).items():
                values.setdefault(name, []).append(value)
            self._objective.after_step(batch)
            self._scheduler.step()
        if not values:
            modalities = list(self._train.modalities)
            raise ValueError(f"no batch has two samples with two of {modalities}; add paired samples")
        self._module.eval()
        self.epoch += 1
        means = {name: sum(v) / len(v) for name, v in values.items()}
        took = (time.perf_counter() - started) / self._batches
        return means | {"learning_rate": self._scheduler.get_last_lr()[0], "step_seconds": took}

    def end(self, peak_memory: int) -> Fitted:
        """Put the best weights back."""
        self._module.load_state_dict(self.best.weights)
        self._module.eval()
        best = self.best
        if best.spread.collapsed:
            warnings.warn(
                f"the shared space has collapsed: effective rank {best.spread.effective_rank:.2f}, standard deviation "
                f"{best.spread.embedding_std:.3f} of 1; raise the weight of a contrastive or variance term",
                CollapseWarning,
                stacklevel=3,
            )
        parameters = sum(p.numel() for p in self._module.parameters() if p.requires_grad)
        return Fitted(
            best.epoch, best.score, self.epoch, self.step, self.seconds, self._earlier, parameters, peak_memory,
            best.spread,
        )  # fmt: skip

    def state(self) -> stored.State:
        """What `restore` needs."""
        moments, settings = stored.flatten(self._optimizer)
        tensors = {
            **stored.prefixed("module", self._module.state_dict()),
            **stored.prefixed("optimizer", moments),
            **stored.prefixed("best", self.best.weights),
            **stored.prefixed("cuda", {str(i): s for i, s in enumerate(_cuda_states())}),
            "random": torch.get_rng_state(),
            "order": self._order.get_state(),
        }
        facts = {
            "epoch": self.epoch,
            "seconds": self.seconds,
            "optimizer": settings,
            "scheduler": {k: v for k, v in self._scheduler.state_dict().items() if k != "lr_lambdas"},
            "scaler": self._scaler.state_dict(),
            "best": {"score": self.best.score, "epoch": self.best.epoch, "spread": asdict(self.best.spread)},
        }
        return tensors, facts

    def restore(self, state: stored.State) -> None:
        """Go on where `state` was taken."""
        tensors, facts = state
        self._module.load_state_dict(stored.below("module", tensors))
        stored.unflatten(self._optimizer, (stored.below("optimizer", tensors), facts["optimizer"]))
        self._scheduler.load_state_dict({"lr_lambdas": [None], **facts["scheduler"]})
        if facts["scaler"]:
            self._scaler.load_state_dict(facts["scaler"])
        best = facts["best"]
        weights = {k: v.to(self._train.device) for k, v in stored.below("best", tensors).items()}
        self.best.restore(best["score"], best["epoch"], Spread(**best["spread"]), weights)
        self.epoch, self._earlier = facts["epoch"], facts["seconds"]
        torch.set_rng_state(tensors["random"])
        for i, state_of_device in stored.below("cuda", tensors).items():
            torch.cuda.set_rng_state(state_of_device, int(i))
        self._order.set_state(tensors["order"])

    def _update(self, terms: dict[str, Tensor]) -> dict[str, float]:
        """One step of the optimizer: the terms' values. A batch without a pair of modalities moves nothing."""
        self._optimizer.zero_grad()
        if not terms:
            self._optimizer.step()
            return {}
        total = torch.stack(list(terms.values()))
        values = dict(zip(terms, total.tolist(), strict=True))
        for name, value in values.items():
            if not math.isfinite(value):
                raise DivergedError(f"loss term {name!r} is {value}; lower learning_rate or that term's weight")
        self._scaler.scale(total.sum()).backward()
        self._scaler.unscale_(self._optimizer)
        norm = nn.utils.clip_grad_norm_(self._module.parameters(), self._config.gradient_clip)
        if not torch.isfinite(norm) and (not self._scaler.is_enabled() or self._scaler.get_scale() < LEAST_SCALE):
            raise DivergedError(
                f"the gradient of {' + '.join(terms)} is {norm.item()}; lower learning_rate or a weight"
            )
        self._scaler.step(self._optimizer)
        self._scaler.update()
        return values


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
        self.score, self.epoch, self.spread = -math.inf, 0, Spread(0.0, 0.0)
        self.weights: dict[str, Tensor] = {}

    def update(self, score: float, epoch: int, of: Spread) -> None:
        """Keep the weights if `score` is the best."""
        if score > self.score:
            weights = {k: v.detach().clone() for k, v in self._module.state_dict().items()}
            self.restore(score, epoch, of, weights)

    def restore(self, score: float, epoch: int, of: Spread, weights: dict[str, Tensor]) -> None:
        self.score, self.epoch, self.spread, self.weights = score, epoch, of, weights


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Every draw from torch's global generators comes from `seed`; they are as before afterwards."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        yield


def _cuda_states() -> list[Tensor]:
    return torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
