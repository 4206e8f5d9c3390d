"""What every variant shares: checked options, and saving without pickle (safetensors + json)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from labkit.config import Part, TrainingConfig, parse
from labkit.train import Checkpoint, Fitted, Log
from labkit.types import Embeddings
from labkit.variants import VARIANTS

Watch = Callable[[int, int], None]  # of epochs and optimizer steps that are done


class Options(Part):
    """Hyper-parameters of a variant; unknown ones are refused."""


class AlignerBase:
    """Base of all variants; see `labkit.types.Aligner` for the protocol.

    Class attributes:
        Options: the hyper-parameters, a pydantic model.
        search: hyper-parameter -> values that `labkit tune` draws from.
        min_modalities: how many its definition takes at least.
    """

    Options: ClassVar[type[Options]] = Options
    search: ClassVar[dict[str, tuple[Any, ...]]] = {}
    min_modalities: ClassVar[int] = 2

    def __init__(
        self,
        options: dict[str, Any] | None = None,
        *,
        training: TrainingConfig | None = None,
        seed: int = 0,
        device: str | torch.device = "cpu",
        log: Log | None = None,
        checkpoint: Checkpoint | None = None,
        watch: Watch | None = None,
    ) -> None:
        """Check the options; nothing is computed before `fit`.

        Args:
            options: hyper-parameters; defaults where they are not given.
            training: of trained variants.
            seed: of everything random.
            device: where it is computed.
            log: called once per epoch of a training.
            checkpoint: where a training is kept while it runs, and continued after an interruption.
            watch: called before the first epoch of a training and after each, when the aligner can embed.

        Raises:
            ConfigError: an option that the variant does not have, or a value that it does not accept.
        """
        self.options = parse(self.Options, options or {}, what=f"options of variant {self.name()!r}")
        self.training = training or TrainingConfig()
        self.seed = seed
        self.device = torch.device(device)
        self.log = log
        self.checkpoint = checkpoint
        self.watch = watch
        self.fitted: Fitted | None = None
        self.modalities: tuple[str, ...] = ()

    @classmethod
    def name(cls) -> str:
        """Name under which the class is registered, the name of the class where it is not."""
        return next((n for n in VARIANTS.names() if VARIANTS.get(n) is cls), cls.__name__)

    def fit(self, train: Embeddings, validation: Embeddings) -> Self:
        """Learn from the training samples; see `labkit.types.Aligner`."""
        raise NotImplementedError

    def embed(self, data: Embeddings) -> Embeddings:
        """Map the samples into the shared space; see `labkit.types.Aligner`."""
        raise NotImplementedError

    def state(self) -> dict[str, Tensor]:
        """Tensors that `save` writes."""
        raise NotImplementedError

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take the tensors that `state` gave."""
        raise NotImplementedError

    def save(self, folder: Path) -> None:
        """Write `aligner.safetensors` and `aligner.json` into `folder`.

        Raises:
            RuntimeError: nothing is fitted yet.
        """
        self._check_fitted()
        folder.mkdir(parents=True, exist_ok=True)
        save_file({k: v.contiguous().cpu() for k, v in self.state().items()}, folder / "aligner.safetensors")
        described = {
            "schema": 1,
            "variant": self.name(),
            "modalities": list(self.modalities),
            "options": self.options.model_dump(mode="json"),
        }
        (folder / "aligner.json").write_text(json.dumps(described, indent=1))

    @staticmethod
    def saved_name(folder: Path) -> str:
        """Variant name of the aligner in `folder`.

        Raises:
            FileNotFoundError: no aligner there.
        """
        return _describe(folder)["variant"]

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: no aligner there.
        """
        described = _describe(folder)
        aligner = cls(described["options"])
        aligner.modalities = tuple(described["modalities"])
        aligner.restore(load_file(folder / "aligner.safetensors"))
        return aligner

    @classmethod
    def check_modalities(cls, modalities: Sequence[str]) -> None:
        """Refuse modalities that the definition of the variant does not take.

        Raises:
            ValueError: fewer than `min_modalities`.
        """
        if len(modalities) < cls.min_modalities:
            raise ValueError(
                f"variant {cls.name()!r} aligns {cls.min_modalities} or more modalities; got {list(modalities)}: add "
                f"{'another one' if len(modalities) + 1 == cls.min_modalities else 'others'}, or take another variant"
            )

    def _check_fitted(self) -> None:
        if not self.modalities:
            raise RuntimeError(f"variant {self.name()!r} is not fitted yet: call fit(train, validation) first")

    def _check_train(self, train: Embeddings) -> None:
        self.check_modalities(train.modalities)
        rows = {m: train.z[m][train.present[m]] for m in train.modalities}
        few = {m: len(r) for m, r in rows.items() if len(r) < 2}
        if few:
            raise ValueError(f"variant {self.name()!r} needs at least 2 training samples per modality; got {few}")
        constant = [m for m, r in rows.items() if bool((r == r[0]).all())]
        if constant:
            raise ValueError(f"all training samples have the same vector in {constant}; leave those modalities out")

    def _check_input(self, data: Embeddings, widths: Mapping[str, int]) -> None:
        unknown = set(data.modalities) - set(self.modalities)
        if unknown:
            raise ValueError(f"fitted on {list(self.modalities)}, cannot embed {sorted(unknown)}")
        for m, v in data.z.items():
            if v.shape[1] != widths[m]:
                raise ValueError(f"fitted on {widths[m]} features of {m!r}, cannot embed {v.shape[1]}")


def gradients_as_asked(data: Embeddings) -> torch.set_grad_enabled:
    """A context in which gradients are recorded if the features of `data` require them, not for parameters alone."""
    return torch.set_grad_enabled(torch.is_grad_enabled() and any(v.requires_grad for v in data.z.values()))


def _describe(folder: Path) -> dict[str, Any]:
    path = Path(folder) / "aligner.json"
    if not path.is_file():
        raise FileNotFoundError(f"no aligner in {folder}: {path.name} is missing; it is written when a run completes")
    return json.loads(path.read_text())
