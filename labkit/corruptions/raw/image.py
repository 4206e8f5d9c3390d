"""Pictures: noise, blur, lost detail, wrong exposure, occlusion and rotation of RGB pictures of any size.

Kinds and order of severities follow D. Hendrycks and T. Dietterich, Benchmarking Neural Network Robustness to Common
Corruptions, ICLR 2019 (arXiv:1903.12261); strengths are set anew for pictures of 128 x 128 that show one thing. Lengths
are shares of the picture's side, so that a severity means the same at every size. Values are in [0, 1] of full scale.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable

import numpy as np
from PIL import Image
from scipy import ndimage

from labkit.corruptions.raw import raw

CELLS = 8  # occlusion hides whole cells of a grid of so many rows and columns
GRAY = 128


@raw("gaussian_noise", kind="image", levels=(0.0, 0.04, 0.08, 0.13, 0.2, 0.3), unit="standard deviation, of full scale")
def gaussian_noise(picture: Image.Image, sigma: float, generator: np.random.Generator) -> Image.Image:
    """The same noise at every severity, larger: that of dim light and warm sensors."""
    return _mapped(picture, lambda x: x + sigma * generator.standard_normal(x.shape))


@raw("shot_noise", kind="image", levels=(math.inf, 120.0, 50.0, 25.0, 12.0, 6.0), unit="photons of a white pixel")
def shot_noise(picture: Image.Image, photons: float, generator: np.random.Generator) -> Image.Image:
    """Poisson counts: the noise of light itself, larger where the picture is bright."""
    return _mapped(picture, lambda x: generator.poisson(x * photons) / photons)


@raw("impulse_noise", kind="image", levels=(0.0, 0.03, 0.07, 0.13, 0.2, 0.3), unit="of the values are black or white")
def impulse_noise(picture: Image.Image, share: float, generator: np.random.Generator) -> Image.Image:
    """Salt and pepper, per channel; what is hit at a severity is hit at higher ones, too."""

    def hit(x: np.ndarray) -> np.ndarray:
        order, value = generator.random((2, *x.shape))
        return np.where(order < share, np.round(value), x)

    return _mapped(picture, hit)


@raw("defocus_blur", kind="image", levels=(0.0, 0.01, 0.02, 0.03, 0.045, 0.065), unit="radius, of the picture's side")
def defocus_blur(picture: Image.Image, radius: float, generator: np.random.Generator) -> Image.Image:
    """Mean over a disk: a lens out of focus."""
    del generator
    pixels = radius * max(picture.size)
    reach = math.ceil(pixels)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    # pixels at the rim count by how much of them is inside
    return _filtered(picture, np.clip(pixels + 0.5 - np.hypot(x, y), 0.0, 1.0))


@raw("motion_blur", kind="image", levels=(0.0, 0.03, 0.06, 0.1, 0.15, 0.22), unit="length, of the picture's side")
def motion_blur(picture: Image.Image, length: float, generator: np.random.Generator) -> Image.Image:
    """Mean along a line in a random direction, the same at every severity."""
    angle = generator.uniform(0.0, math.pi)
    half = length * max(picture.size) / 2
    reach = math.ceil(half)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    along = x * math.cos(angle) + y * math.sin(angle)
    across = -x * math.sin(angle) + y * math.cos(angle)
    inside = np.clip(half + 0.5 - np.abs(along), 0.0, 1.0) * np.clip(1.0 - np.abs(across), 0.0, 1.0)
    return _filtered(picture, inside)


@raw("pixelate", kind="image", levels=(1.0, 0.5, 0.33, 0.22, 0.15, 0.1), unit="of the picture's rows and columns")
def pixelate(picture: Image.Image, share: float, generator: np.random.Generator) -> Image.Image:
    """Fewer and larger pixels, each the mean of those that it stands for."""
    del generator
    width, height = (max(1, round(share * side)) for side in picture.size)
    small = picture.resize((width, height), Image.Resampling.BOX)
    return small.resize(picture.size, Image.Resampling.NEAREST)


@raw("jpeg", kind="image", levels=(100.0, 40.0, 25.0, 15.0, 9.0, 5.0), unit="quality of the file, of 100")
def jpeg(picture: Image.Image, quality: float, generator: np.random.Generator) -> Image.Image:
    """What is left after lossy storage."""
    del generator
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=int(quality))
    return Image.open(file).convert("RGB")


@raw("contrast", kind="image", levels=(1.0, 0.6, 0.4, 0.25, 0.15, 0.08), unit="of the contrast is left")
def contrast(picture: Image.Image, share: float, generator: np.random.Generator) -> Image.Image:
    """Every value nearer to the picture's mean: fog."""
    del generator
    return _mapped(picture, lambda x: x.mean() + share * (x - x.mean()))


@raw("brightness", kind="image", levels=(0.0, 0.12, 0.24, 0.36, 0.48, 0.6), unit="added, of full scale")
def brightness(picture: Image.Image, added: float, generator: np.random.Generator) -> Image.Image:
    """Too long an exposure: bright parts drown in white."""
    del generator
    return _mapped(picture, lambda x: x + added)


@raw("occlusion", kind="image", levels=(0.0, 0.125, 0.25, 0.375, 0.5, 0.625), unit="of the area is hidden")
def occlusion(picture: Image.Image, share: float, generator: np.random.Generator) -> Image.Image:
    """Gray cells of a grid; what is hidden at a severity is hidden at higher ones, too."""
    width, height = picture.size
    order = generator.permutation(CELLS * CELLS).reshape(CELLS, CELLS)
    row, column = np.arange(height) * CELLS // height, np.arange(width) * CELLS // width
    hidden = (order < round(share * CELLS * CELLS))[row[:, None], column[None, :]]
    return Image.fromarray(np.where(hidden[..., None], np.uint8(GRAY), np.asarray(picture)))


@raw("rotation", kind="image", levels=(0.0, 10.0, 20.0, 32.0, 46.0, 65.0), unit="degrees")
def rotation(picture: Image.Image, degrees: float, generator: np.random.Generator) -> Image.Image:
    """About the center, to either side; corners get the color that is most frequent along the border."""
    sign = generator.choice((-1.0, 1.0))
    x = np.asarray(picture)
    border = np.concatenate([x[0], x[-1], x[:, 0], x[:, -1]])
    colors, counts = np.unique(border, axis=0, return_counts=True)
    fill = tuple(int(c) for c in colors[counts.argmax()])
    return picture.rotate(sign * degrees, Image.Resampling.BICUBIC, fillcolor=fill)


def _mapped(picture: Image.Image, change: Callable[[np.ndarray], np.ndarray]) -> Image.Image:
    """A picture of changed values [h, w, 3], cut off at black and white."""
    changed = change(np.asarray(picture, dtype=np.float64) / 255.0)
    return Image.fromarray(np.round(255.0 * changed.clip(0.0, 1.0)).astype(np.uint8))


def _filtered(picture: Image.Image, kernel: np.ndarray) -> Image.Image:
    """Convolution of every channel with a kernel of sum 1; the border is continued."""
    weights = (kernel / kernel.sum())[..., None]
    return _mapped(picture, lambda x: ndimage.convolve(x, weights, mode="nearest"))
