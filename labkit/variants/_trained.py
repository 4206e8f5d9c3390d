"""Variants with a linear head per modality, trained on a sum of loss terms."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Self, cast

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from labkit import train as training_loop
from labkit.encoders.heads import LinearHead
from labkit.geometry import knn
from labkit.types import Embeddings
from labkit.variants._base import AlignerBase, Options, gradients_as_asked
from labkit.variants._neighborhoods import Neighborhoods

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

    @model_validator(mode="after")
    def _something_to_learn(self) -> Self:
        weights = [name for name in type(self).model_fields if name.startswith("w_")]
        if weights and not any(getattr(self, name) for name in weights):
            raise ValueError(f"all weights ({', '.join(weights)}) are 0, so nothing is learned; make one positive")
        return self


class CollapsibleOptions(TrainedOptions):
    """Hyper-parameters of variants whose terms, but for some, are least where all samples fall on one point.

    Class attributes:
        keeps_apart: the weights that prevent it; one of them must be positive.

    Attributes:
        allow_collapse: take weights under which the map may collapse, to see it happen.
    """

    keeps_apart: ClassVar[tuple[str, ...]] = ()

    allow_collapse: bool = False

    @model_validator(mode="after")
    def _kept_apart(self) -> Self:
        if not self.allow_collapse and not any(getattr(self, name) for name in self.keeps_apart):
            raise ValueError(
                f"{' and '.join(self.keeps_apart)} is 0, so the map may collapse to a point; make it positive, or set "
                "allow_collapse to True to see it happen"
            )
        return self


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
        rows: the paired samples among those that `near` knows.
        near: lists of neighbors in the frozen features, while training; they are searched where there are none.
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
    rows: Tensor | None = None
    near: Neighborhoods | None = None

    def neighbors(self, k: int) -> tuple[Tensor, Tensor]:
        """Neighbor sets of the paired rows in the frozen features of either modality; all others if fewer than k."""
        k = min(k, len(self.raw_x) - 1)
        return self._nearest(0, self.raw_x, k), self._nearest(1, self.raw_y, k)

    def _nearest(self, which: int, raw: Tensor, k: int) -> Tensor:
        listed = None
        if self.near is not None and self.rows is not None:
            listed = self.near.among(self.modalities[which], self.rows, k)
        return knn(raw, k) if listed is None else listed


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
        # in float32 whatever autocast did to the heads: losses and retrieval are not for 16 bits
        z = {m: self.heads[m](data.z[m]).float() for m in data.modalities}
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
    _neighborhoods: Neighborhoods | None = None

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
        self.network.to(self.device).eval()
        if self.watch is not None:
            self.watch(0, 0)
        with self.neighbors_listed(train):
            self.fitted = training_loop.fit(
                self.network,
                self,
                (train, validation),
                self.training,
                seed=self.seed,
                log=self._epoch_ended,
                checkpoint=self._own_checkpoint(),
            )
        return self

    @contextlib.contextmanager
    def neighbors_listed(self, train: Embeddings) -> Iterator[None]:
        """While it lasts, neighbors of batches of `train` come from lists, see `labkit.variants._neighborhoods`."""
        self._neighborhoods = Neighborhoods(train)
        try:
            yield
        finally:
            self._neighborhoods = None

    def terms(self, batch: Embeddings) -> dict[str, Tensor]:
        """Loss terms of a batch of frozen features; see `labkit.train.Objective`."""
        z = self.network.project(batch, normalize=self.normalized)
        with training_loop.full_precision(self.device):
            return self._losses(z, batch)

    def _epoch_ended(self, record: Mapping[str, Any]) -> None:
        if self.log is not None:
            self.log(record)
        if self.watch is not None:
            self.watch(record["epoch"], record["step"])

    def _own_checkpoint(self) -> training_loop.Checkpoint | None:
        if self.checkpoint is None:
            return None
        made_by = {"variant": self.name(), "options": self.options.model_dump(mode="json")}
        return replace(self.checkpoint, owner={**self.checkpoint.owner, **made_by})

    def _losses(self, z: dict[str, Tensor], batch: Embeddings) -> dict[str, Tensor]:
        totals: dict[str, list[Tensor]] = {}
        for pair in self._pairs(batch, z):
            found = self.cloud_terms(pair) | (self.pair_terms(pair) if len(pair.x) > 1 else {})
            for name, value in found.items():
                totals.setdefault(name, []).append(value)
        return {name: torch.stack(v).mean() for name, v in totals.items()} | self.sample_terms(z, batch)

    def embed(self, data: Embeddings) -> Embeddings:
        """The samples in the shared space, rows on the unit sphere, absent ones zero.

        Has a gradient with respect to features that require one.

        Raises:
            RuntimeError: nothing is fitted yet.
            ValueError: a modality, or a number of features, that the aligner was not fitted on.
        """
        self._check_fitted()
        self._check_input(data, self.network.widths)
        with gradients_as_asked(data):
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
        near = self._neighborhoods
        rows = None if near is None else near.rows(batch.key)
        for a, b in itertools.combinations(batch.modalities, 2):
            if min(int(present[a].sum()), int(present[b].sum())) < 2:
                continue
            first, second, both = (_selection(m) for m in (present[a], present[b], present[a] & present[b]))
            yield Pair(
                modalities=(a, b),
                x=z[a][both],
                y=z[b][both],
                cloud_x=z[a][first],
                cloud_y=z[b][second],
                cloud_raw_x=batch.z[a][first],
                cloud_raw_y=batch.z[b][second],
                raw_x=batch.z[a][both],
                raw_y=batch.z[b][both],
                group=groups[both],
                temperature=self.network.temperature,
                rows=None if rows is None else rows[both],
                near=near,
            )


def _selection(mask: Tensor) -> Tensor | slice:
    """Index of the rows that the mask selects; where it selects all, one that copies nothing."""
    return slice(None) if bool(mask.all()) else mask.nonzero().flatten()
