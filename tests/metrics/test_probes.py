"""Probes against scikit-learn fitted anew, votes counted by hand, and its scores of the same predictions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn import metrics as sk
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression

from labkit.metrics import tasks
from labkit.metrics.tasks.classification import classification_scores
from labkit.metrics.tasks.probes import C, K
from labkit.types import Embeddings, Score

NAMES = ("image", "text", "speech_fr")
CLASSES = 5


def made(n: int, *, seed: int, noise: float = 0.5) -> Embeddings:
    """Classes of unequal size around corners; each modality with its own noise and some items missing."""
    random = np.random.default_rng(seed)
    label = random.choice(CLASSES, size=n, p=(0.4, 0.25, 0.15, 0.1, 0.1))
    z = {m: torch.from_numpy(np.eye(8)[label] + noise * random.normal(size=(n, 8))) for m in NAMES}
    present = {m: torch.from_numpy(random.random(n) > 0.15) for m in NAMES}
    label[random.random(n) < 0.1] = -1
    return Embeddings(key=np.arange(n), z=z, present=present, label=torch.from_numpy(label))


TRAIN, VALIDATION, TEST = made(200, seed=0), made(80, seed=1), made(120, seed=2)


@pytest.fixture(scope="module")
def linear():
    return tasks.fit("linear_probe", TRAIN, VALIDATION)


@pytest.fixture(scope="module")
def knn():
    return tasks.fit("knn_probe", TRAIN, VALIDATION)


def rows(data: Embeddings, m: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit vectors and labels of the labelled items of a modality, and where they are."""
    at = (data.present[m] & (data.label >= 0)).numpy()
    x = data.z[m].numpy()[at]
    return x / np.linalg.norm(x, axis=1, keepdims=True), data.label.numpy()[at], at


def find(scores: list[Score], name: str, source: str, target: str) -> Score:
    return next(s for s in scores if (s.name, s.source, s.target) == (name, source, target))


def regression(source: str) -> tuple[LogisticRegression, np.ndarray, float]:
    """The best of all C on validation, each fitted from nothing and to convergence."""
    (x, y, _), (vx, vy, _) = rows(TRAIN, source), rows(VALIDATION, source)
    center, scale = x.mean(axis=0), (x - x.mean(axis=0)).std()
    models = [LogisticRegression(C=c, max_iter=5000, tol=1e-6).fit((x - center) / scale, y) for c in C]
    losses = [sk.log_loss(vy, m.predict_proba((vx - center) / scale)) for m in models]
    return models[int(np.argmin(losses))], center, scale


@pytest.mark.parametrize("source", NAMES)
@pytest.mark.parametrize("target", NAMES)
def test_linear_probe_equals_logistic_regression_with_the_best_c_of_validation(linear, source, target):
    model, center, scale = regression(source)
    x, y, at = rows(TEST, target)
    right = model.predict((x - center) / scale) == y
    score = find(linear(TEST), "linear_probe_accuracy", source, target)
    np.testing.assert_array_equal(score.per_point.numpy()[at], right)
    assert score.per_point.numpy()[~at].size == np.isnan(score.per_point.numpy()[~at]).sum()
    assert score.n == len(y)


def test_posteriors_equal_those_of_the_regression(linear):
    model, center, scale = regression("image")
    x, _, _ = rows(TEST, "text")
    np.testing.assert_allclose(linear.posterior["image"](x), model.predict_proba((x - center) / scale), atol=0.01)


def votes(source: str, x: np.ndarray, k: int) -> np.ndarray:
    train, y, _ = rows(TRAIN, source)
    nearest = np.argsort(-x @ train.T, axis=1)[:, :k]
    return np.array([np.bincount(y[row], minlength=CLASSES) / k for row in nearest])


def test_knn_probe_equals_counted_votes_with_the_best_k_of_validation(knn):
    for source, target in (("image", "image"), ("image", "speech_fr"), ("text", "image")):
        vx, vy, _ = rows(VALIDATION, source)
        right = {k: np.mean(votes(source, vx, k).argmax(axis=1) == vy) for k in K}
        best = max(K, key=lambda k: (right[k], k))
        x, y, at = rows(TEST, target)
        np.testing.assert_allclose(knn.posterior[source](x), votes(source, x, best))
        score = find(knn(TEST), "knn_probe_accuracy", source, target)
        np.testing.assert_array_equal(score.per_point.numpy()[at], votes(source, x, best).argmax(axis=1) == y)


def test_of_equally_good_k_the_largest_is_taken():
    """Classes far apart: any k up to their size is right, and one outlier among the neighbors tells them apart."""
    label = torch.arange(100) % 2
    z = torch.eye(3, dtype=torch.float64)[label] + 1e-3 * torch.arange(100)[:, None] / 100
    told = Embeddings(key=np.arange(100), z={"a": z, "b": z}, label=label)
    wrong = label.clone()
    wrong[98] = 1
    probe = tasks.fit("knn_probe", Embeddings(key=told.key, z=told.z, label=wrong), told.take(range(0, 90)))
    posterior = probe.posterior["a"](z[98:99].numpy() / z[98].norm().item())
    np.testing.assert_allclose(posterior, [[1 - 1 / max(K), 1 / max(K)]])


def test_the_other_modalities_have_no_say_in_a_probe():
    shuffled = VALIDATION.with_z({**VALIDATION.z, "text": torch.randn(80, 8, dtype=torch.float64)})
    one, two = (tasks.fit("linear_probe", TRAIN, v) for v in (VALIDATION, shuffled))
    x, _, _ = rows(TEST, "text")
    np.testing.assert_array_equal(one.posterior["image"](x), two.posterior["image"](x))


def test_late_fusion_is_the_mean_posterior_of_the_items_that_are_there(linear):
    names = "+".join(NAMES)
    score = find(linear(TEST), "linear_probe_accuracy", names, names)
    label, right = TEST.label.numpy(), []
    for i in range(len(TEST)):
        there = [m for m in NAMES if TEST.present[m][i]]
        if label[i] < 0 or not there:
            right.append(np.nan)
            continue
        each = [linear.posterior[m](TEST.z[m][i : i + 1].numpy() / TEST.z[m][i].norm().item())[0] for m in there]
        right.append(float(np.mean(each, axis=0).argmax() == label[i]))
    np.testing.assert_array_equal(score.per_point.numpy(), right)


def test_fusion_without_any_item_guesses_the_most_frequent_class(linear):
    nobody = {m: torch.zeros(len(TEST), dtype=torch.bool) for m in NAMES}
    gone = linear(TEST.with_z(TEST.z, nobody), TEST.present)
    score = find(gone, "linear_probe_accuracy", "+".join(NAMES), "+".join(NAMES))
    assert score.value == pytest.approx(score.chance)
    auc = find(gone, "linear_probe_auc", "+".join(NAMES), "+".join(NAMES))
    assert auc.value == pytest.approx(0.5)


def test_an_absent_item_is_stood_in_for_by_the_others(linear):
    gone = TEST.with_z(TEST.z, {**TEST.present, "image": torch.zeros(len(TEST), dtype=torch.bool)})
    score = find(linear(gone, TEST.present), "linear_probe_accuracy", "text", "image")
    right = []
    for i in np.flatnonzero((TEST.present["image"] & (TEST.label >= 0)).numpy()):
        others = [TEST.z[m][i].numpy() for m in ("text", "speech_fr") if TEST.present[m][i]]
        x = np.sum(others, axis=0) if others else TRAIN.z["image"][TRAIN.present["image"]].mean(dim=0).numpy()
        right.append(linear.posterior["text"](x[None] / np.linalg.norm(x)).argmax() == TEST.label[i].item())
    assert score.value == pytest.approx(np.mean(right))


def test_zero_shot_works_as_far_as_the_modalities_share_a_space(linear):
    turned = TEST.with_z({**TEST.z, "text": TEST.z["text"].roll(1, dims=1)})
    before, after = (find(linear(t), "linear_probe_balanced_accuracy", "image", "text") for t in (TEST, turned))
    assert before.value > 0.5
    assert after.value < 0.2


def test_a_class_without_training_samples_is_not_asked():
    label = TEST.label.clone()
    label[:10] = 7
    other = Embeddings(key=TEST.key, z=TEST.z, present=TEST.present, label=label)
    for score in tasks.fit("knn_probe", TRAIN, VALIDATION)(other):
        if score.per_point is not None:
            assert score.per_point[:10].isnan().all()


def test_a_class_that_one_modality_never_shows_gets_no_posterior_from_it():
    present = {**TRAIN.present, "image": TRAIN.present["image"] & (TRAIN.label != 3)}
    probe = tasks.fit("linear_probe", TRAIN.with_z(TRAIN.z, present), VALIDATION)
    x, _, _ = rows(TEST, "image")
    assert (probe.posterior["image"](x)[:, 3] == 0).all()
    assert probe.posterior["text"](x)[:, 3].max() > 0


@pytest.mark.parametrize("name", ["linear_probe", "knn_probe"])
def test_without_labels_there_is_nothing_to_learn(name):
    plain = Embeddings(key=TRAIN.key, z=TRAIN.z)
    assert tasks.fit(name, plain, VALIDATION)(TEST) == []
    one = Embeddings(key=TRAIN.key, z=TRAIN.z, label=torch.zeros(200, dtype=torch.long))
    assert tasks.fit(name, one, VALIDATION)(TEST) == []
    assert tasks.fit(name, TRAIN, VALIDATION)(Embeddings(key=TEST.key, z=TEST.z)) == []


@pytest.mark.parametrize("name", ["linear_probe", "knn_probe"])
def test_without_validation_labels_a_probe_still_fits(name):
    probe = tasks.fit(name, TRAIN, Embeddings(key=VALIDATION.key, z=VALIDATION.z))
    assert find(probe(TEST), f"{name}_accuracy", "image", "image").value > 0.5


def scored(posterior: np.ndarray, label: np.ndarray, at: np.ndarray, prior: np.ndarray) -> dict[str, Score]:
    found = classification_scores(posterior, label, at, prior=prior, name="p", source="a", target="b")
    return {s.name.removeprefix("p_"): s for s in found}


@pytest.mark.parametrize("present", [range(CLASSES), (0, 2, 4), (1, 3)])
def test_scores_and_chance_equal_those_of_scikit_learn(present):
    random = np.random.default_rng(3)
    label = random.choice(list(present), size=150)
    posterior = random.dirichlet(np.ones(CLASSES), size=90) + 0.2 * np.eye(CLASSES)[label[:90]]
    posterior /= posterior.sum(axis=1, keepdims=True)
    prior = np.array((0.3, 0.4, 0.1, 0.1, 0.1))
    found = scored(posterior, label, np.arange(90), prior)
    dummy = DummyClassifier(strategy="prior").fit(
        np.zeros((100, 1)), np.repeat(range(CLASSES), (prior * 100).astype(int))
    )
    truth = label[:90]
    for guess, value in ((posterior.argmax(axis=1), "value"), (dummy.predict(np.zeros((90, 1))), "chance")):
        got = {name: getattr(score, value) for name, score in found.items()}
        assert got["accuracy"] == pytest.approx(sk.accuracy_score(truth, guess))
        assert got["balanced_accuracy"] == pytest.approx(
            sk.recall_score(truth, guess, labels=list(present), average="macro")
        )
        for average in ("macro", "weighted"):
            expected = sk.f1_score(truth, guess, labels=list(present), average=average)
            assert got[f"{average}_f1"] == pytest.approx(expected)
    each = [sk.roc_auc_score(truth == c, posterior[:, c]) for c in present]
    assert found["auc"].value == pytest.approx(np.mean(each))
    assert found["auc"].chance == 0.5
    if len(present) == CLASSES:
        assert found["auc"].value == pytest.approx(sk.roc_auc_score(truth, posterior, multi_class="ovr"))
        assert found["balanced_accuracy"].value == pytest.approx(
            sk.balanced_accuracy_score(truth, posterior.argmax(axis=1))
        )


def test_one_class_has_no_auc():
    found = scored(np.full((4, 2), 0.5), np.ones(4, dtype=int), np.arange(4), np.array((0.5, 0.5)))
    assert set(found) == {"accuracy", "balanced_accuracy", "macro_f1", "weighted_f1"}
