"""Variants with a linear head per modality, trained on a sum of loss terms."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from labkit import train as training_loop
from labkit.encoders.heads import LinearHead
from labkit.geometry import knn
from labkit.types import Embeddings
from labkit.variants._base import AlignerBase, Options

Weight = Annotated[float, Field(ge=0)]


class TrainedOptions(Options):
    """Hyper-parameters of all trained variants.

    Attributes:
        dim: dimension of the shared space.
        dropout: on the standardized features.
        temperature: initial temperature of the contrastive term; learned, kept in 0.01..1.
        neighbors: k of the neighborhood terms; the sets are looked up in the frozen features.
    """

    dim: Annotated[int, Field(ge=2)] = 128
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.7
    temperature: Annotated[float, Field(gt=0)] = 0.07
    neighbors: Annotated[int, Field(ge=1)] = 10


@dataclass(frozen=True)
class Pair:
    """Two modalities of a batch, as a loss sees them.

    Attributes:
        modalities: names of the two.
        x: rows of the first head for the samples that have both modalities.
        y: the same samples through the second head.
        cloud_x: all rows of the first head, paired or not.
        cloud_y: all rows of the second.
        cloud_raw_x: frozen features of the first cloud.
        cloud_raw_y: the same of the second.
        raw_x: frozen features of the paired rows in the first modality.
        raw_y: the same in the second.
        group: samples of one group are positives of each other.
        temperature: the learned temperature.
    """

    modalities: tuple[str, str]
    x: Tensor
    y: Tensor
    cloud_x: Tensor
    cloud_y: Tensor
    cloud_raw_x: Tensor
    cloud_raw_y: Tensor
    raw_x: Tensor
    raw_y: Tensor
    group: Tensor
    temperature: Tensor

    def neighbors(self, k: int) -> tuple[Tensor, Tensor]:
        """Neighbor sets of the paired rows in the frozen features of either modality; all others if fewer than k."""
        k = min(k, len(self.raw_x) - 1)
        return knn(self.raw_x, k), knn(self.raw_y, k)


class Network(nn.Module):
    """The parameters of a trained variant: a head per modality, the temperature, and what the variant adds."""

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.heads = nn.ModuleDict()
        self.extra = nn.ModuleDict()
        self.log_temperature = nn.Parameter(torch.tensor(math.log(temperature)))

    @property
    def temperature(self) -> Tensor:
        """Clamped as in open_clip, so that it can neither vanish nor flatten the softmax."""
        return self.log_temperature.clamp(math.log(0.01), 0.0).exp()

    @property
    def widths(self) -> dict[str, int]:
        """Number of features that each head takes."""
        return {m: cast("LinearHead", head).linear.in_features for m, head in self.heads.items()}

    def project(self, data: Embeddings, *, normalize: bool) -> dict[str, Tensor]:
        """Every modality of `data` through its head."""
        z = {m: self.heads[m](data.z[m]) for m in data.modalities}
        return {m: F.normalize(v, dim=1) for m, v in z.items()} if normalize else z


class Trained(AlignerBase):
    """A linear head per modality; a subclass says which terms a pair of modalities contributes.

    Terms are averaged over the modality pairs of the batch, so a weight means the same for 2, 3 or 4 modalities.
    Samples that lack a modality take part in the pairs that they have, and in the clouds of what they have.

    Class attributes:
        normalized: whether the losses see unit rows (embeddings always have them).
    """

    Options: ClassVar[type[Options]] = TrainedOptions
    options: TrainedOptions
    search: ClassVar[dict[str, tuple[Any, ...]]] = {
        "dim": (128, 256),
        "dropout": (0.5, 0.6, 0.7, 0.8),
        "temperature": (0.05, 0.07, 0.1),
    }
    normalized: ClassVar[bool] = True
    network: Network
    fitted: training_loop.Fitted

    def pair_terms(self, pair: Pair) -> dict[str, Tensor]:
        """Weighted terms of the samples that have both modalities, two or more; none by default."""
        return {}

    def cloud_terms(self, pair: Pair) -> dict[str, Tensor]:
        """Weighted terms of two clouds that need no paired samples (there may be none); none by default."""
        return {}

    def sample_terms(self, z: dict[str, Tensor], batch: Embeddings) -> dict[str, Tensor]:
        """Weighted terms of the batch as a whole (a task loss, say); none by default."""
        return {}

    def prepare(self, train: Embeddings) -> None:
        """Add modules beyond the heads to `network.extra`; none by default."""

    def after_step(self, batch: Embeddings) -> None:
        """What follows an optimizer step (a moving average, a queue); nothing by default.

        State that outlives the step belongs into buffers of `network.extra`, where a checkpoint finds it.
        """

    def fit(self, train: Embeddings, validation: Embeddings) -> Self:
        """Train the heads; the weights with the best validation score are kept.

        Raises:
            ValueError: too few samples, or none that two modalities share.
            DivergedError: a loss term or its gradient is not finite.
        """
        train, validation = train.to(self.device, torch.float32), validation.to(self.device, torch.float32)
        self._check_train(train)
        self.modalities = train.modalities
        self.network = Network(self.options.temperature)
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(self.seed)
            for m in self.modalities:
                self.network.heads[m] = LinearHead(
                    train.z[m], train.present[m], dim=self.options.dim, dropout=self.options.dropout
                )
            self.prepare(train)
        self.network.to(self.device)
        self.fitted = training_loop.fit(
            self.network, self, (train, validation), self.training, seed=self.seed, log=self.log
        )
        return self

    def terms(self, batch: Embeddings) -> dict[str, Tensor]:
        """Loss terms of a batch of frozen features; see `labkit.train.Objective`."""
        z = self.network.project(batch, normalize=self.normalized)
        totals: dict[str, list[Tensor]] = {}
        for pair in self._pairs(batch, z):
            found = self.cloud_terms(pair) | (self.pair_terms(pair) if len(pair.x) > 1 else {})
            for name, value in found.items():
                totals.setdefault(name, []).append(value)
        return {name: torch.stack(v).mean() for name, v in totals.items()} | self.sample_terms(z, batch)

    def tuples(self, z: dict[str, Tensor], batch: Embeddings) -> Iterator[tuple[list[Tensor], Tensor]]:
        """The samples by the modalities that they have: rows of each of these modalities, and the samples' groups.

        Losses of whole tuples see every sample in the modalities it has; sets of fewer than two samples or modalities
        say nothing and are left out.
        """
        present = torch.stack([batch.present[m] for m in z], dim=1)
        patterns, members = present.unique(dim=0, return_inverse=True)
        groups = batch.groups.to(self.device)
        for i, pattern in enumerate(patterns):
            rows = (members == i).nonzero().flatten()
            if len(rows) > 1 and int(pattern.sum()) > 1:
                yield [v[rows] for v, there in zip(z.values(), pattern.tolist(), strict=True) if there], groups[rows]

    @torch.no_grad()
    def embed(self, data: Embeddings) -> Embeddings:
        """The samples in the shared space, rows on the unit sphere, absent ones zero.

        Raises:
            RuntimeError: nothing is fitted yet.
            ValueError: a modality, or a number of features, that the aligner was not fitted on.
        """
        self._check_fitted()
        self._check_input(data, self.network.widths)
        data = data.to(self.device, torch.float32)
        return data.with_z(self.network.project(data, normalize=True))

    def state(self) -> dict[str, Tensor]:
        """Weights and feature statistics."""
        return self.network.state_dict()

    def restore(self, state: dict[str, Tensor]) -> None:
        """Rebuild the heads from their saved shapes and take the weights; what else training used is left behind."""
        self.network = Network(self.options.temperature)
        for m in self.modalities:
            d = state[f"heads.{m}.mean"].shape[0]
            self.network.heads[m] = LinearHead.empty(d, dim=self.options.dim)
        heads_only = {k: v for k, v in state.items() if not k.startswith("extra.")}
        self.network.load_state_dict(heads_only)
        self.network.to(self.device).eval()

    def _pairs(self, batch: Embeddings, z: dict[str, Tensor]) -> Iterator[Pair]:
        present, groups = batch.present, batch.groups.to(self.device)
        for a, b in itertools.combinations(batch.modalities, 2):
            both = present[a] & present[b]
            if min(int(present[a].sum()), int(present[b].sum())) < 2:
                continue
            yield Pair(
                modalities=(a, b),
                x=z[a][both],
                y=z[b][both],
                cloud_x=z[a][present[a]],
                cloud_y=z[b][present[b]],
                cloud_raw_x=batch.z[a][present[a]],
                cloud_raw_y=batch.z[b][present[b]],
                raw_x=batch.z[a][both],
                raw_y=batch.z[b][both],
                group=groups[both],
                temperature=self.network.temperature,
            )
