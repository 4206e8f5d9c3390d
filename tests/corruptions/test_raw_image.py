"""Pictures: what a level says is what is measured, and it grows with severity."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from labkit.corruptions import raw
from labkit.data import stamps

SEVERITIES = range(1, 6)


@pytest.fixture(scope="module")
def pictures() -> dict[str, Image.Image]:
    keys = stamps.Stamps().points()["key"].tolist()[5:900:60]
    return dict(zip(keys, stamps.items("image", keys), strict=True))


def changed(name: str, picture: Image.Image, severity: int, key: str = "duck") -> np.ndarray:
    return np.asarray(raw.get(name)(picture, severity=severity, key=key), dtype=np.float64)


def flat(value: int = 128, side: int = 128) -> Image.Image:
    return Image.new("RGB", (side, side), (value, value, value))


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    return 10 * math.log10(255**2 / np.square(first - second).mean())


def test_all_kinds_are_there():
    assert set(raw.names("image")) == {
        "gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "motion_blur", "pixelate", "jpeg", "contrast",
        "brightness", "occlusion", "rotation",
    }  # fmt: skip


@pytest.mark.parametrize("name", [n for n in raw.names("image") if n != "rotation"])
def test_the_picture_gets_worse_with_severity(name, pictures):
    means = [
        np.mean([psnr(np.asarray(p, dtype=float), changed(name, p, s, key)) for key, p in pictures.items()])
        for s in SEVERITIES
    ]
    assert (np.diff(means) < -0.5).all(), f"PSNR of {name}: {np.round(means, 1)} dB"


@pytest.mark.parametrize("severity", SEVERITIES)
def test_noise_has_the_stated_strength(severity):
    sigma = raw.get("gaussian_noise").levels[severity]
    noisy = changed("gaussian_noise", flat(), severity) / 255
    inside = noisy[(noisy > 0) & (noisy < 1)] - 128 / 255
    # only what is not cut off at black and white can be compared
    assert np.quantile(np.abs(noisy - 128 / 255), 0.5) == pytest.approx(0.6745 * sigma, rel=0.03)
    assert abs(inside.mean()) < 0.01
    photons = raw.get("shot_noise").levels[severity]
    light = changed("shot_noise", flat(64), severity) / 255
    assert light.mean() == pytest.approx(64 / 255, rel=0.02)
    assert light.var() == pytest.approx(64 / 255 / photons, rel=0.05), "the variance of counts is their mean"


@pytest.mark.parametrize("severity", SEVERITIES)
def test_impulses_hit_the_stated_share_and_stay(severity):
    share = raw.get("impulse_noise").levels[severity]
    hit = changed("impulse_noise", flat(), severity) != 128
    assert hit.mean() == pytest.approx(share, abs=4 * math.sqrt(share / hit.size))
    if severity < 5:
        assert (changed("impulse_noise", flat(), severity + 1) != 128)[hit].all()


@pytest.mark.parametrize("name", ["defocus_blur", "motion_blur"])
@pytest.mark.parametrize("severity", SEVERITIES)
def test_a_point_is_spread_over_the_stated_length(name, severity):
    """The second moments of a blurred point are those of a disk, r^2 / 4 each way, or of a line, l^2 / 12 along it."""
    white = np.zeros((128, 128, 3), np.uint8)
    white[60:69, 60:69] = 255  # a square, as a point would be below one step of gray
    before = np.asarray(white[..., 0], dtype=float)
    after = changed(name, Image.fromarray(white), severity)[..., 0]
    length = raw.get(name).levels[severity] * 128
    growth = np.sort(np.linalg.eigvalsh(moments(after) - moments(before)))
    expected = [length**2 / 4] * 2 if name == "defocus_blur" else [0.0, length**2 / 12]
    assert growth == pytest.approx(np.array(expected), rel=0.2, abs=0.45)
    assert after.sum() == pytest.approx(before.sum(), rel=0.02), "light is neither lost nor made"


def moments(weight: np.ndarray) -> np.ndarray:
    y, x = np.mgrid[: weight.shape[0], : weight.shape[1]]
    return np.cov(np.stack([x.ravel(), y.ravel()]), aweights=weight.ravel(), bias=True)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_pixels_are_as_large_as_stated(severity, pictures):
    rows = round(raw.get("pixelate").levels[severity] * 128)
    for picture in list(pictures.values())[:3]:
        blocks = changed("pixelate", picture, severity)
        assert (np.abs(np.diff(blocks, axis=0)).sum(axis=(1, 2)) > 0).sum() <= rows - 1
        assert blocks.mean() == pytest.approx(np.asarray(picture).mean(), abs=4)


def test_jpeg_is_that_of_the_library(pictures):
    picture = next(iter(pictures.values()))
    for severity in SEVERITIES:
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=int(raw.get("jpeg").levels[severity]))
        np.testing.assert_array_equal(changed("jpeg", picture, severity), np.asarray(Image.open(file)))


@pytest.mark.parametrize("severity", SEVERITIES)
def test_exposure_is_as_stated(severity, pictures):
    for picture in list(pictures.values())[:4]:
        x = np.asarray(picture, dtype=float)
        share, added = (raw.get(name).levels[severity] for name in ("contrast", "brightness"))
        assert changed("contrast", picture, severity).std() == pytest.approx(
            share * x.std(), rel=0.02, abs=0.3
        )  # steps of gray
        np.testing.assert_allclose(changed("brightness", picture, severity), (x + 255 * added).clip(max=255), atol=0.51)


@pytest.mark.parametrize("side", [128, 61])
def test_the_stated_area_is_hidden_and_stays_hidden(side):
    hidden = [changed("occlusion", flat(0, side), severity)[..., 0] == 128 for severity in SEVERITIES]
    for severity, here in zip(SEVERITIES, hidden, strict=True):
        assert here.mean() == pytest.approx(raw.get("occlusion").levels[severity], abs=0.0 if side == 128 else 0.02)
    assert all(later[earlier].all() for earlier, later in zip(hidden[:-1], hidden[1:], strict=True))


@pytest.mark.parametrize("severity", SEVERITIES)
def test_a_bar_turns_by_the_stated_angle(severity):
    bar = np.full((128, 128, 3), 255, np.uint8)
    bar[60:68, 24:104] = 0
    angles = []
    for key in ("duck", "goose", "swan", "hen"):
        dark = 255 - changed("rotation", Image.fromarray(bar), severity, key)[..., 0]
        vector = np.linalg.eigh(moments(dark))[1][:, -1]
        angles.append(math.degrees(math.atan2(vector[1], vector[0])) % 180)
        assert dark[[0, 0, -1, -1], [0, -1, 0, -1]].max() == 0, "corners have the color of the border"
    degrees = raw.get("rotation").levels[severity]
    assert all(min(abs(a - degrees), abs(a - (180 - degrees))) < 1 for a in angles)
    assert len({a < 90 for a in angles}) == 2, "to either side"


def test_blur_of_a_picture_is_that_of_scipy(pictures):
    """An independent disk: the mean over all pixels whose centers are nearer than the radius, for a large radius."""
    picture = list(pictures.values())[2]
    radius = raw.get("defocus_blur").levels[5] * 128
    y, x = np.mgrid[-9:10, -9:10]
    disk = (np.hypot(x, y) <= radius).astype(float)
    for c in range(3):
        expected = ndimage.correlate(np.asarray(picture, dtype=float)[..., c], disk / disk.sum(), mode="nearest")
        assert np.abs(changed("defocus_blur", picture, 5)[..., c] - expected).mean() < 2
