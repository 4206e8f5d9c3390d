"""What the benchmark of training steps measures: settings, and one optimizer step of every trained variant in each.

A step is what the training loop does with a batch: loss terms, backward, gradient clipping, AdamW, and the variant's
own hook. The samples are made, a latent seen through a random map per modality with noise: no step depends on what they
are. In the setting with encoders, trainable transformers make the features from tokens, and are part of the step.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from labkit import variants
from labkit.config import TrainingConfig
from labkit.types import Embeddings
from labkit.variants import VARIANTS, Trained

NAMES = ("image", "text", "speech_fr", "speech_es")
LATENT = 32
VALIDATION = 64
VOCABULARY = 1000

Step = Callable[[], None]


@dataclass(frozen=True)
class Setting:
    """A row of the benchmark's goals: what is trained on, and what a step of GOTMA may cost.

    Attributes:
        name: What `--settings` selects.
        batch: Samples of a step.
        modalities: How many.
        features: Width of the features that go into the heads.
        goal: Times the step of clip.
        tokens: Per sample and modality, seen by a trained encoder; 0 for frozen features and linear heads alone.
        dim: Of the shared space.
        batches: Different batches in turn.
    """

    name: str
    batch: int
    modalities: int
    features: int
    goal: float
    tokens: int = 0
    dim: int = 128
    batches: int = 4


SETTINGS = (
    Setting("linear heads, batch 512, 2 modalities", 512, 2, 512, 4.0),
    Setting("narrow features, batch 512, 2 modalities", 512, 2, 128, 4.0),
    Setting("linear heads, batch 256, 3 modalities", 256, 3, 512, 6.0),
    Setting("trained encoders, batch 256, 2 modalities", 256, 2, 256, 1.2, tokens=16),
)


def trained() -> list[str]:
    """Names of all trained variants, the one that the others are compared with first."""
    names = [name for name in VARIANTS.names() if issubclass(variants.get(name), Trained)]
    return sorted(names, key=lambda name: (name != "clip", name))


def samples(setting: Setting, seed: int) -> Embeddings:
    """As many as fill the batches, and some to validate."""
    generator = torch.Generator().manual_seed(seed)
    n = setting.batch * setting.batches + VALIDATION
    latent = torch.randn(n, LATENT, generator=generator)
    z = {
        m: latent @ torch.randn(LATENT, setting.features, generator=generator)
        + 0.5 * torch.randn(n, setting.features, generator=generator)
        for m in NAMES[: setting.modalities]
    }
    label = (latent[:, 0] > 0).long()
    return Embeddings(key=np.arange(n).astype(str), z=z, label=label, label_names=("left", "right"))


class Encoder(nn.Module):
    """Tokens to features: embedding, two transformer layers, mean. A small text or patch encoder."""

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, width)
        self.position = nn.Parameter(torch.randn(tokens, width) / width**0.5)
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, dropout=0.0, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Features [n, width] of tokens [n, tokens]."""
        return self.layers(self.embedding(tokens) + self.position).mean(dim=1)


@contextlib.contextmanager
def prepared(name: str, setting: Setting, seed: int, device: torch.device) -> Iterator[Step]:
    """The timed call of a variant.

    Raises:
        ValueError: the variant does not take this setting.
    """
    data = samples(setting, seed).to(device)
    n = len(data) - VALIDATION
    train, validation = data.take(np.arange(n)), data.take(np.arange(n, len(data)))
    options = {"dim": setting.dim} if "dim" in variants.get(name).Options.model_fields else {}
    training = TrainingConfig(epochs=1, batch_size=setting.batch)
    aligner = variants.get(name)(options, training=training, seed=seed, device=device)
    assert isinstance(aligner, Trained)
    aligner.fit(train, validation)  # builds the network, and compiles what is compiled on first use
    aligner.network.train()
    torch.manual_seed(seed)
    encoders = nn.ModuleDict()
    if setting.tokens:
        encoders.update({m: Encoder(setting.tokens, setting.features) for m in data.modalities})
    parameters = [*aligner.network.parameters(), *encoders.to(device).parameters()]
    batches = itertools.cycle([_Batch(train.take(rows), setting) for rows in np.split(np.arange(n), setting.batches)])
    with aligner.neighbors_listed(train):
        yield _step(aligner, encoders, parameters, batches)


class _Batch:
    """A batch of features, and the tokens of its samples where encoders are trained."""

    def __init__(self, features: Embeddings, setting: Setting) -> None:
        self.features = features
        generator = torch.Generator().manual_seed(0)
        shape = (len(features), max(1, setting.tokens))
        self.tokens = {
            m: torch.randint(VOCABULARY, shape, generator=generator).to(features.device) for m in features.modalities
        }

    def through(self, encoders: nn.ModuleDict) -> Embeddings:
        """The batch as the variant sees it."""
        if not encoders:
            return self.features
        return self.features.with_z({m: encoders[m](tokens) for m, tokens in self.tokens.items()})


def _step(aligner: Trained, encoders: nn.ModuleDict, parameters: Sequence[Tensor], batches: Iterator[_Batch]) -> Step:
    optimizer = torch.optim.AdamW(parameters, lr=1e-3)

    def step() -> None:
        batch = next(batches).through(encoders)
        total = torch.stack(list(aligner.terms(batch).values())).sum()
        optimizer.zero_grad()
        total.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        aligner.after_step(batch)

    return step
