"""The network of the small speech encoder: pieces of a clip's cepstrogram are compared with a dictionary of pieces.

    clip -> mel bands -> 24 root cepstra every 10 ms -> pieces of 50, 150 and 400 ms -> whitened, of unit length
         -> cosine c to each of 512 atoms -> over the pieces: mean and root mean square of max(c - .2, 0), maximum of c
         -> linear map to 384 features

A clip goes through by itself, so its vector does not depend on what it is batched with.
A. Coates, A. Ng, H. Lee, An analysis of single-layer networks in unsupervised feature learning, AISTATS 2011.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from jaxtyping import Float

RATE = 16_000
WINDOW, HOP, BANDS, CEPSTRA = 400, 160, 64, 24  # 25 ms every 10 ms
LOWEST_HZ = 20.0
ROOT = 0.25
SILENT = 1e-6  # power of the loudest band of a sound at about -100 dB of full scale; fainter clips are silence
ATOMS, THRESHOLD, STATISTICS = 512, 0.2, 3
FEATURES = 384


class Scale(NamedTuple):
    """Pieces of one length.

    Attributes:
        frames: of a piece.
        stride: frames from a piece to the next.
        components: principal components of a piece.
    """

    frames: int
    stride: int
    components: int


SCALES = (Scale(5, 2, 48), Scale(15, 3, 96), Scale(40, 4, 128))


class SpeechNet(nn.Module):
    """Cepstrograms to vectors; made of tensors that `tools/train_speech_encoder.py` learns."""

    center: Tensor
    readout: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.scales = nn.ModuleList(Dictionary(scale) for scale in SCALES)
        self.register_buffer("center", torch.zeros(STATISTICS * ATOMS * len(SCALES)))
        self.register_buffer("readout", torch.zeros(STATISTICS * ATOMS * len(SCALES), FEATURES))
        self.requires_grad_(False)

    def forward(self, cepstrogram: Float[Tensor, "t c"]) -> Float[Tensor, " d"]:
        """The vector of one clip."""
        return (self.responses(cepstrogram) - self.center) @ self.readout

    def responses(self, cepstrogram: Float[Tensor, "t c"]) -> Float[Tensor, " r"]:
        """How the atoms of all scales answer to one clip."""
        return torch.cat([scale(cepstrogram) for scale in self.scales])


class Dictionary(nn.Module):
    """Atoms of one scale.

    Args:
        scale: of the pieces.
    """

    mean: Tensor
    whiten: Tensor
    atoms: Tensor

    def __init__(self, scale: Scale) -> None:
        super().__init__()
        self.scale = scale
        self.register_buffer("mean", torch.zeros(scale.frames * CEPSTRA))
        self.register_buffer("whiten", torch.zeros(scale.frames * CEPSTRA, scale.components))
        self.register_buffer("atoms", torch.zeros(ATOMS, scale.components))

    def forward(self, cepstrogram: Float[Tensor, "t c"]) -> Float[Tensor, " r"]:
        """Statistics of the answers of the atoms to all pieces."""
        cosine = self.white(pieces(cepstrogram, self.scale)) @ self.atoms.T
        active = (cosine - THRESHOLD).clamp(min=0.0)
        return torch.cat([active.mean(dim=0), active.square().mean(dim=0).sqrt(), cosine.amax(dim=0)])

    def white(self, found: Float[Tensor, "p f"]) -> Float[Tensor, "p k"]:
        """Pieces in whitened coordinates, of unit length."""
        return nn.functional.normalize((found - self.mean) @ self.whiten, dim=1)


def pieces(cepstrogram: Float[Tensor, "t c"], scale: Scale) -> Float[Tensor, "p f"]:
    """All pieces of a cepstrogram; a shorter one is followed by silence."""
    missing = scale.frames - len(cepstrogram)
    filled = nn.functional.pad(cepstrogram, (0, 0, 0, max(missing, 0)))
    return filled.unfold(0, scale.frames, scale.stride).flatten(start_dim=1)


class Cepstra(nn.Module):
    """Waveforms to cepstrograms: the discrete cosine transform of the fourth root of power in 64 mel bands.

    Power is relative to the clip's loudest band and frame, so that loudness drops out, but for what recording too
    faintly has cost. Roots leave faint noise faint, where logarithms raise it to the level of speech. J. Lim, Spectral
    root homomorphic deconvolution system, IEEE TASSP 27(3), 1979.
    """

    cosines: Tensor
    bank: Tensor
    window: Tensor

    def __init__(self) -> None:
        super().__init__()
        band, order = torch.arange(BANDS), torch.arange(CEPSTRA)
        cosines = torch.cos(math.pi / BANDS * (band[:, None] + 0.5) * order) * math.sqrt(2.0 / BANDS)
        self.register_buffer("cosines", cosines, persistent=False)
        self.register_buffer("bank", _mel_bank(), persistent=False)
        self.register_buffer("window", torch.hann_window(WINDOW), persistent=False)

    def forward(self, wave: Float[Tensor, " n"]) -> Float[Tensor, "t c"]:
        """Cepstra every 10 ms."""
        spectrum = torch.stft(wave, WINDOW, HOP, window=self.window, center=False, return_complex=True)
        power = self.bank @ spectrum.abs().square()
        return ((power / power.amax().clamp(min=SILENT)) ** ROOT).T @ self.cosines


def _mel_bank() -> Float[Tensor, "b f"]:
    """Triangles of unit sum between points evenly spaced in mel. S. Stevens et al., JASA 8, 1937."""
    low, high = (2595.0 * math.log10(1.0 + hertz / 700.0) for hertz in (LOWEST_HZ, RATE / 2))
    points = 700.0 * (10.0 ** (torch.linspace(low, high, BANDS + 2) / 2595.0) - 1.0)
    bins = torch.linspace(0.0, RATE / 2, WINDOW // 2 + 1)
    rising = (bins - points[:-2, None]) / (points[1:-1] - points[:-2])[:, None]
    falling = (points[2:, None] - bins) / (points[2:] - points[1:-1])[:, None]
    bank = torch.minimum(rising, falling).clamp(min=0.0)
    return bank / bank.sum(dim=1, keepdim=True).clamp(min=1e-9)
