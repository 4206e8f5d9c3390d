"""The linear probe: against scikit-learn's ridge with the same folds, and where the answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from labkit.metrics import METRICS
from labkit.metrics.labels import FOLDS, RIDGE
from labkit.types import Embeddings


def made(n: int = 90, *, classes: int = 3, seed: int = 0) -> Embeddings:
    random = np.random.default_rng(seed)
    label = random.integers(classes, size=n)
    z = {m: torch.from_numpy(random.normal(size=(n, 6)) + np.eye(6)[label]) for m in ("image", "text")}
    present = {"image": torch.from_numpy(random.random(n) > 0.1)}
    label[:5] = -1
    return Embeddings(key=np.arange(n), z=z, present=present, label=label, group=np.arange(n) // 2)


def probe(data: Embeddings):
    return METRICS.get("label_accuracy")(data, data)


def test_equals_ridge_regression_of_scikit_learn():
    data = made()
    known = (data.present["image"] & (data.label >= 0)).numpy()
    x = (data.z["image"] + data.z["text"]).numpy()[known] / 2
    label, groups = data.label.numpy()[known], data.groups.numpy()[known]
    fold = np.searchsorted(np.unique(groups), groups) % FOLDS
    right = np.zeros(len(x))
    for i in range(FOLDS):
        train, test = fold != i, fold == i
        centered = x[train] - x[train].mean(axis=0)
        alpha = RIDGE * np.square(centered).sum() / x.shape[1]
        fitted = Ridge(alpha=alpha).fit(x[train], np.eye(3)[label[train]])
        right[test] = fitted.predict(x[test]).argmax(axis=1) == label[test]
    (score,) = probe(data)
    assert (score.source, score.target, score.n) == ("image", "text", int(known.sum()))
    np.testing.assert_array_equal(score.per_point.numpy()[known], right)
    assert score.per_point[~torch.from_numpy(known)].isnan().all()
    assert score.value == pytest.approx(right.mean())
    assert score.chance == pytest.approx(np.bincount(label).max() / len(label))


def test_separable_classes_are_found_and_noise_is_not():
    data = made(300)
    label = torch.arange(300) % 3
    corners = torch.eye(6, dtype=torch.float64)[label]
    told = Embeddings(key=data.key, z={m: corners for m in data.z}, label=label)
    noise = Embeddings(key=data.key, z={m: torch.randn(300, 6) for m in data.z}, label=label)
    assert probe(told)[0].value == 1
    assert probe(noise)[0].value < 0.45


def test_groups_do_not_straddle_folds():
    """Each group has a direction of its own: only a fold that saw the rest of the group could know its class."""
    groups = torch.arange(60) // 3
    own = torch.eye(20, dtype=torch.float64)[groups]
    label = torch.randint(2, (20,), generator=torch.Generator().manual_seed(0))[groups]
    data = Embeddings(key=np.arange(60), z={"a": own, "b": own}, label=label, group=groups)
    assert probe(data)[0].value <= probe(data)[0].chance
    alone = Embeddings(key=np.arange(60), z={"a": own, "b": own}, label=label)
    assert probe(alone)[0].value == 1


def test_scale_does_not_matter():
    data = made()
    (score,), (scaled,) = probe(data), probe(data.with_z({m: 1000 * v for m, v in data.z.items()}))
    assert torch.equal(score.per_point.nan_to_num(-1), scaled.per_point.nan_to_num(-1))


def test_without_labels_or_with_one_class_there_is_no_score():
    data = made()
    plain = Embeddings(key=data.key, z=data.z)
    assert probe(plain) == []
    assert probe(Embeddings(key=data.key, z=data.z, label=torch.zeros(90, dtype=torch.long))) == []
