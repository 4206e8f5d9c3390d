"""A training on disk, from which it continues to the same numbers after it was killed.

One safetensors file, replaced atomically: the tensors (weights, moments of the optimizer, best weights, random states)
and, in its header, a JSON object with everything else. It is written between epochs, so seldom that writing takes at
most 2 % of the time. A file of another training, seed, data set or version is not continued.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from labkit import __version__
from labkit.types import Embeddings

SHARE = 0.02
# trainings of seconds are not worth the disk
FIRST_SECONDS = 1.0

State = tuple[dict[str, Tensor], dict[str, Any]]


@dataclass
class Checkpoint:
    """Where a training is kept while it runs. It stays when the training ends: whoever made it removes it.

    Attributes:
        path: the file.
        owner: what is trained, as JSON can hold it; a file of another owner is not continued.
    """

    path: Path
    owner: Mapping[str, Any] = field(default_factory=dict)
    _since: float = field(default_factory=time.perf_counter, init=False, repr=False)
    _pause: float = field(default_factory=lambda: FIRST_SECONDS, init=False, repr=False)

    @property
    def due(self) -> bool:
        """Whether enough time has passed since the last time."""
        return time.perf_counter() - self._since >= self._pause

    def write(self, state: State, identity: Mapping[str, Any]) -> None:
        """Replace the file.

        Raises:
            OSError: no space, no permission.
        """
        started = time.perf_counter()
        tensors, facts = state
        # copies, for safetensors refuses tensors that share memory, as tied weights do
        tensors = {k: v.detach().to("cpu", copy=True).contiguous() for k, v in tensors.items()}
        header = {"facts": json.dumps(facts), "identity": json.dumps(self._identity(identity), sort_keys=True)}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_name(f".tmp-{self.path.name}")
        save_file(tensors, temporary, metadata=header)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(self.path)
        self._since = time.perf_counter()
        self._pause = max(FIRST_SECONDS, (self._since - started) / SHARE)

    def read(self, identity: Mapping[str, Any]) -> State | None:
        """The stored state; None, with a warning where there is a file, if it cannot be continued."""
        if not self.path.is_file():
            return None
        try:
            with safe_open(self.path, framework="pt") as file:
                header = file.metadata() or {}
                stored, facts = json.loads(header["identity"]), json.loads(header["facts"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  no mapping
        except (SafetensorError, ValueError, KeyError) as error:
            warnings.warn(f"{self.path} is no checkpoint of a training ({error}); starting anew", stacklevel=3)
            return None
        wanted = json.loads(json.dumps(self._identity(identity)))
        differs = sorted(k for k in {*stored, *wanted} if stored.get(k) != wanted.get(k))
        if differs:
            warnings.warn(
                f"{self.path} is of another training (differs in {', '.join(differs)}); starting anew", stacklevel=3
            )
            return None
        return tensors, facts

    def _identity(self, identity: Mapping[str, Any]) -> dict[str, Any]:
        versions = {"torch": torch.__version__, "labkit": __version__}
        return {**identity, **versions, "owner": self.owner}


def digest(module: nn.Module, data: tuple[Embeddings, Embeddings]) -> str:
    """Hash of the shapes that are trained and of all samples."""
    found = hashlib.blake2b(digest_size=16)
    found.update(repr([(k, tuple(v.shape)) for k, v in module.state_dict().items()]).encode())
    for part in data:
        found.update("\0".join(part.key).encode())
        for m, z in part.z.items():
            found.update(m.encode())
            for tensor in (z, part.present[m]):
                found.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        for codes in (part.groups, part.label):
            found.update(b"" if codes is None else codes.cpu().numpy().tobytes())
    return found.hexdigest()


def flatten(optimizer: torch.optim.Optimizer) -> State:
    """State of an optimizer: its tensors by "parameter.name", its settings."""
    state = optimizer.state_dict()
    tensors = {f"{i}.{name}": value for i, of in state["state"].items() for name, value in of.items()}
    return tensors, {"param_groups": state["param_groups"]}


def unflatten(optimizer: torch.optim.Optimizer, state: State) -> None:
    """Give an optimizer the state that `flatten` took."""
    tensors, facts = state
    of: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        i, _, name = key.partition(".")
        of.setdefault(int(i), {})[name] = value
    optimizer.load_state_dict({"state": of, "param_groups": facts["param_groups"]})


def prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under longer names."""
    return {f"{prefix}.{k}": v for k, v in tensors.items()}


def below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors that `prefixed` named."""
    return {k.removeprefix(f"{prefix}."): v for k, v in tensors.items() if k.startswith(f"{prefix}.")}
