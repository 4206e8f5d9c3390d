"""Category classification in the shared space: probes fitted on one modality and tested on every one.

A probe that is fitted on pictures and tested on speech is zero-shot across modalities: it works only as far as the two
lie in one space. Beside every ordered pair of modalities there is late fusion, the mean of the posteriors that each
modality's own probe gives its own items. Linear: multinomial logistic regression (Alain & Bengio 2017,
arXiv:1610.01644); kNN: shares of votes of the k nearest by cosine (Wu et al. 2018, arXiv:1805.01978). C and k are
chosen on the validation samples of the modality that the probe is fitted on; the modality it is tested on has no say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import normalize

from labkit.imputation import Imputation, others
from labkit.metrics.tasks import TASKS
from labkit.metrics.tasks.classification import classification_scores
from labkit.types import Embeddings, Score

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int
    from torch import Tensor

    Posterior = Callable[[Float[np.ndarray, "n d"]], Float[np.ndarray, "n c"]]

C = (0.01, 0.1, 1.0, 10.0, 100.0)
K = (1, 3, 5, 10, 20)
LABELS_NEEDED = 2  # classes


@TASKS.register("linear_probe")
def linear_probe(trained: Embeddings, validated: Embeddings) -> Probes:
    """Logistic regression on unit vectors, centered and divided by their mean spread, so that C has one meaning."""
    return _fitted("linear_probe", _fit_linear, trained, validated)


@TASKS.register("knn_probe")
def knn_probe(trained: Embeddings, validated: Embeddings) -> Probes:
    """Votes of the k nearest training items of one modality by cosine."""
    return _fitted("knn_probe", _fit_neighbors, trained, validated)


@dataclass(frozen=True, eq=False)
class Probes:
    """Probes of all modalities, and what they say of test samples.

    Scores are those of `classification_scores`. Samples without a label, or with one that no training sample has, are
    not asked. An absent item is stood in for by the sample's other modalities (`labkit.imputation`); late fusion
    asks the items that are there, and falls back on the shares of the training labels where none is.

    Attributes:
        name: prefix of the metrics.
        posterior: modality -> fitted probe, unit vectors to posteriors over all classes.
        prior: share of each class among the training samples.
        stand_in: for absent items, where the call names no other.
    """

    name: str
    posterior: Mapping[str, Posterior]
    prior: Float[np.ndarray, " c"]
    stand_in: Imputation

    def __call__(
        self,
        shared: Embeddings,
        asked: Mapping[str, Bool[Tensor, " n"]] | None = None,
        *,
        involving: str = "",
        impute: Imputation | None = None,
    ) -> list[Score]:
        """Scores by source (fitted on) and target (tested on), late fusion as "a+b"; see `labkit.metrics.tasks.Judge`.

        Of late fusion every sample counts that is asked in some modality.
        """
        if shared.label is None or not self.posterior:
            return []
        counted = {m: v.cpu().numpy() for m, v in (shared.present if asked is None else asked).items()}
        label = shared.label.cpu().numpy()
        known = np.isin(label, self.prior.nonzero()[0])
        scores = []
        for target in shared.modalities:
            rows = (counted[target] & known).nonzero()[0]
            if involving in ("", target) and len(rows):
                complete = (impute or self.stand_in)(shared, (target,)).z[target].cpu().numpy()
                x = normalize(complete[rows])
                for source, posterior in self.posterior.items():
                    scores += self._scores(posterior(x), label, rows, (source, target))
        rows = (np.any([counted[m] for m in shared.modalities], axis=0) & known).nonzero()[0]
        if len(self.posterior) > 1 and len(rows):
            names = "+".join(self.posterior)
            scores += self._scores(self._fused(shared, rows), label, rows, (names, names))
        return scores

    def _scores(
        self, posterior: np.ndarray, label: np.ndarray, rows: Int[np.ndarray, " q"], direction: tuple[str, str]
    ) -> list[Score]:
        source, target = direction
        return classification_scores(
            posterior, label, rows, prior=self.prior, name=self.name, source=source, target=target
        )

    def _fused(self, shared: Embeddings, rows: Int[np.ndarray, " q"]) -> Float[np.ndarray, "q c"]:
        """Mean posterior of the items that are there."""
        total, count = np.zeros((len(rows), len(self.prior))), np.zeros((len(rows), 1))
        for m, posterior in self.posterior.items():
            there = shared.present[m].cpu().numpy()[rows]
            if there.any():
                total[there] += posterior(normalize(shared.z[m].cpu().numpy()[rows[there]]))
                count[there] += 1
        return np.where(count > 0, total / np.maximum(count, 1), self.prior)


def _fitted(
    name: str, fit: Callable[..., Callable[..., np.ndarray]], trained: Embeddings, validated: Embeddings
) -> Probes:
    """A probe for every modality that has items of two or more classes."""
    if trained.label is None:
        return Probes(name, {}, np.zeros(0), others(trained))
    counts = np.bincount(trained.label.cpu().numpy()[trained.label.cpu().numpy() >= 0])
    posterior = {}
    for m in trained.modalities:
        x, y = _labelled(trained, m)
        if len(np.unique(y)) >= LABELS_NEEDED:
            vx, vy = _labelled(validated, m)
            seen = np.isin(vy, y)
            posterior[m] = _spread(fit(x, y, vx[seen], vy[seen]), np.unique(y), len(counts))
    return Probes(name, posterior, counts / max(counts.sum(), 1), others(trained))


def _labelled(data: Embeddings, modality: str) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors of the items that are there and have a label, and the labels."""
    if data.label is None:
        return np.zeros((0, data.z[modality].shape[1])), np.zeros(0, dtype=int)
    label = data.label.cpu().numpy()
    rows = data.present[modality].cpu().numpy() & (label >= 0)
    x = data.z[modality].cpu().numpy()[rows]
    return (normalize(x) if len(x) else x), label[rows]


def _spread(posterior: Callable[..., np.ndarray], classes: np.ndarray, number: int) -> Posterior:
    """`posterior` with a column for every class, zero for those that the modality has no items of."""

    def of_all(x: np.ndarray) -> np.ndarray:
        whole = np.zeros((len(x), number))
        whole[:, classes] = posterior(x)
        return whole

    return of_all


def _fit_linear(x: np.ndarray, y: np.ndarray, vx: np.ndarray, vy: np.ndarray) -> Callable[..., np.ndarray]:
    """The C of the smallest validation log loss; the strongest penalty where nothing can be validated."""
    center = x.mean(axis=0)
    scale = max(float((x - center).std()), 1e-12)
    classes = np.unique(y)
    fitted, losses = [], []
    model = LogisticRegression(max_iter=2000, tol=1e-6, warm_start=True)
    for c in C if len(vy) else C[:1]:
        model.set_params(C=c).fit((x - center) / scale, y)
        fitted.append((model.coef_.copy(), model.intercept_.copy()))
        losses.append(log_loss(vy, model.predict_proba((vx - center) / scale), labels=classes) if len(vy) else 0.0)
    model.coef_, model.intercept_ = fitted[int(np.argmin(losses))]
    return lambda rows: model.predict_proba((rows - center) / scale)


def _fit_neighbors(x: np.ndarray, y: np.ndarray, vx: np.ndarray, vy: np.ndarray) -> Callable[..., np.ndarray]:
    """The k of the highest validation accuracy, the larger one where two are equal."""
    model = KNeighborsClassifier(metric="cosine", algorithm="brute").fit(x, y)
    choices = [k for k in reversed(K) if k <= len(x)]
    right = [np.mean(model.set_params(n_neighbors=k).predict(vx) == vy) if len(vy) else 0.0 for k in choices]
    model.set_params(n_neighbors=choices[int(np.argmax(right))])
    return model.predict_proba
