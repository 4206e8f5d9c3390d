"""What is watched while a training runs: collapse of the shared space, and the memory it takes.

Collapse shows in two figures of the validation embedding, each the least over the modalities:

    effective_rank = exp(-sum p log p), p the singular values over their sum (RankMe, Garrido et al. 2023, eq. 1)
    embedding_std  = sqrt(d) mean_j std(z_j) of unit rows: about 1 when they fill the sphere, 0 for a constant map
                     (Chen & He 2021, arXiv:2011.10566, section 4.1)
"""

from __future__ import annotations

import contextlib
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from labkit.types import Embeddings

LEAST_STD = 0.05
LEAST_RANK = 1.5


class CollapseWarning(UserWarning):
    """The trained map sends all samples of a modality to one place, or onto one line."""


@dataclass(frozen=True)
class Spread:
    """How much of the shared space an embedding uses.

    Attributes:
        effective_rank: directions that the modality with the fewest uses. Range [1, min(n, d)]; 1 is collapse.
        embedding_std: standard deviation of the narrowest modality, relative to the unit sphere. Range [0, 1].
    """

    effective_rank: float
    embedding_std: float

    @property
    def collapsed(self) -> bool:
        """Whether a modality is a point or a line, for all practical purposes."""
        return self.embedding_std < LEAST_STD or self.effective_rank < LEAST_RANK


def spread(shared: Embeddings) -> Spread:
    """Effective rank and standard deviation of an embedding; modalities with fewer than 2 samples are left out.

    Raises:
        ValueError: no modality has 2 samples.
    """
    found = []
    for m, z in shared.z.items():
        rows = F.normalize(z[shared.present[m]].double(), dim=1)
        if len(rows) > 1:
            found.append((_rank(rows), float(rows.std(dim=0).mean()) * rows.shape[1] ** 0.5))
    if not found:
        raise ValueError(f"no modality of {list(shared.modalities)} has 2 validation samples; use more samples")
    return Spread(min(r for r, _ in found), min(s for _, s in found))


def _rank(rows: Tensor) -> float:
    n, d = rows.shape
    # the smaller Gram matrix has the same singular values, at a tenth of the time of the decomposition of the rows
    gram = rows.T @ rows if d < n else rows @ rows.T
    values = torch.linalg.eigvalsh(gram).clamp_min(0).sqrt()
    return float(torch.special.entr(values / values.sum()).sum().exp())


class Memory:
    """Peak memory from now on: what tensors took on a GPU, the resident set of the whole process on a CPU.

    Where a CPU's peak cannot be reset (outside Linux), it is that of the process so far.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            return
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # sets the high-water mark back; see proc(5)

    @property
    def peak(self) -> int:
        """In bytes."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device)
        with contextlib.suppress(OSError):
            if mark := re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text()):
                return int(mark[1]) * 1024
        import resource  # not on every system that labkit runs on

        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return used if sys.platform == "darwin" else used * 1024
