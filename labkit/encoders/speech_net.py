"""The network of the small speech encoder: a log-mel spectrogram in, one vector out, whatever the clip's length.

Two strided convolutions leave 25 frames a second; residual bottlenecks of dilated convolutions see 2.3 s of sound; mean
and standard deviation over the frames of the clip itself go through one linear layer. Normalization is per frame and
padding is zeroed before every convolution, so that a clip's vector does not depend on what it is batched with.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Bool, Float

RATE = 16_000
WINDOW, HOP, BANDS = 400, 160, 64  # 25 ms every 10 ms
LOWEST_HZ = 20.0
RANGE = 6.0  # decades of power below the loudest; what is fainter counts as silence
SILENT = -6.0  # log10 of a band's power at about -100 dB of full scale; fainter clips are silence
DILATIONS = (1, 2, 4, 1, 2, 4)


def log_mel(wave: Float[np.ndarray, " n"]) -> Float[Tensor, "t b"]:
    """Log power in 64 mel bands, from 0 (60 dB below the clip's loudest) to 2 (the loudest).

    Loudness drops out, but for what recording it too faintly has cost. S. Stevens et al., JASA 8, 1937 (mel).
    """
    x = torch.from_numpy(wave)
    spectrum = torch.stft(x, WINDOW, HOP, window=torch.hann_window(WINDOW), center=False, return_complex=True)
    power = (_mel_bank() @ spectrum.abs().square()).clamp(min=1e-12).log10()
    return ((power - power.max().clamp(min=SILENT) + RANGE).clamp(min=0.0) / (RANGE / 2)).T


def padded(mels: Sequence[Float[Tensor, "_ b"]]) -> tuple[Float[Tensor, "n t b"], Bool[Tensor, "n t"]]:
    """Spectrograms of different lengths as one tensor, and which frames are theirs."""
    lengths = torch.tensor([len(mel) for mel in mels])
    there = torch.arange(int(lengths.max()))[None] < lengths[:, None]
    return nn.utils.rnn.pad_sequence(list(mels), batch_first=True), there


class SpeechNet(nn.Module):
    """Log-mel spectrograms to vectors.

    Args:
        dim: length of a vector.
        width: channels.
        dropout: share of the activations dropped in training.
    """

    def __init__(self, dim: int = 512, width: int = 192, dropout: float = 0.1) -> None:
        super().__init__()
        self.first = nn.Conv1d(BANDS, width, 5, stride=2, padding=2)
        self.second = nn.Conv1d(width, width, 3, stride=2, padding=1)
        self.blocks = nn.ModuleList(_Block(width, dilation, dropout) for dilation in DILATIONS)
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(2 * width, dim)

    def forward(self, mel: Float[Tensor, "n t b"], there: Bool[Tensor, "n t"]) -> Float[Tensor, "n d"]:
        """Vectors of the spectrograms, whose frames are those `there`."""
        mask = there[..., None].to(mel.dtype)
        x = nn.functional.gelu(_along_time(self.first, mel * mask))
        mask = mask[:, ::2]
        x = _along_time(self.second, x * mask)
        mask = mask[:, ::2]
        for block in self.blocks:
            x = x + block(x, mask)
        x = self.norm(x)
        count = mask.sum(dim=1)
        mean = (x * mask).sum(dim=1) / count
        variance = ((x - mean[:, None]).square() * mask).sum(dim=1) / count
        return self.out(self.dropout(torch.cat([mean, (variance + 1e-5).sqrt()], dim=1)))


class _Block(nn.Module):
    def __init__(self, width: int, dilation: int, dropout: float) -> None:
        super().__init__()
        half = width // 2
        self.norm = nn.LayerNorm(width)
        self.down = nn.Linear(width, half)
        self.mix = nn.Conv1d(half, half, 5, padding=2 * dilation, dilation=dilation)
        self.up = nn.Linear(half, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        hidden = nn.functional.gelu(self.down(self.norm(x))) * mask
        return self.dropout(self.up(nn.functional.gelu(_along_time(self.mix, hidden))))


def _along_time(convolution: nn.Conv1d, x: Tensor) -> Tensor:
    return convolution(x.transpose(1, 2)).transpose(1, 2)


@functools.cache
def _mel_bank() -> Tensor:
    """Triangles of unit sum between points evenly spaced in mel [bands, bins]."""
    highest = 2595.0 * torch.log10(torch.tensor(1.0 + RATE / 2 / 700.0))
    lowest = 2595.0 * torch.log10(torch.tensor(1.0 + LOWEST_HZ / 700.0))
    points = 700.0 * (10.0 ** (torch.linspace(float(lowest), float(highest), BANDS + 2) / 2595.0) - 1.0)
    bins = torch.linspace(0.0, RATE / 2, WINDOW // 2 + 1)
    rising = (bins - points[:-2, None]) / (points[1:-1] - points[:-2])[:, None]
    falling = (points[2:, None] - bins) / (points[2:] - points[1:-1])[:, None]
    bank = torch.minimum(rising, falling).clamp(min=0.0)
    return bank / bank.sum(dim=1, keepdim=True).clamp(min=1e-9)
