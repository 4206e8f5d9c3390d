"""Scores of a classifier from its posteriors, as scikit-learn has them: accuracy, balanced accuracy, F1 and AUC."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.stats import rankdata
from sklearn.metrics import precision_recall_fscore_support

from labkit.metrics.pairs import spread
from labkit.types import Score

if TYPE_CHECKING:
    from jaxtyping import Float, Int


def classification_scores(
    posterior: Float[np.ndarray, "q c"],
    label: Int[np.ndarray, " n"],
    rows: Int[np.ndarray, " q"],
    *,
    prior: Float[np.ndarray, " c"],
    name: str,
    source: str,
    target: str,
) -> list[Score]:
    """`<name>_accuracy`, `_balanced_accuracy`, `_macro_f1`, `_weighted_f1` and `_auc`; range 0..1, higher is better.

    Balanced accuracy is the mean recall, macro F1 the mean F1 of the classes that occur; weighted F1 weighs them by
    their samples. AUC is one against the rest, the mean of the classes that occur. `per_point` of accuracy is whether
    each sample was classified correctly. Chance is what the most frequent training class scores when it is always
    guessed, 1 / 2 for AUC. No AUC where there is one class only.

    Args:
        posterior: of the samples that were asked.
        label: class of all samples.
        rows: which were asked.
        prior: share of each class in training.
        name: of the classifier.
        source: modality it was fitted on.
        target: modality it was tested on.
    """
    truth = label[rows]
    found = posterior.argmax(axis=1)
    values, chances = _values(truth, found), _constant(truth, int(prior.argmax()))
    auc = _auc(truth, posterior)
    if auc is not None:
        values["auc"], chances["auc"] = auc, 0.5
    points = spread(torch.from_numpy(found == truth).double(), torch.from_numpy(rows), len(label))
    return [
        Score(
            f"{name}_{metric}",
            value,
            higher_is_better=True,
            n=len(rows),
            per_point=points if metric == "accuracy" else None,
            chance=chances[metric],
            source=source,
            target=target,
        )
        for metric, value in values.items()
    ]


def _values(truth: np.ndarray, found: np.ndarray) -> dict[str, float]:
    # one call for all: its checks of the input take longer than the counting
    _, recall, f1, support = precision_recall_fscore_support(truth, found, labels=np.unique(truth), zero_division=0)
    return {
        "accuracy": float(np.mean(found == truth)),
        "balanced_accuracy": float(np.mean(recall)),
        "macro_f1": float(np.mean(f1)),
        "weighted_f1": float(np.average(f1, weights=support)),
    }


def _constant(truth: np.ndarray, guess: int) -> dict[str, float]:
    """What one class scores that is always guessed: its F1 is 2 s / (1 + s) with its share s, that of others 0."""
    share, n_classes = float(np.mean(truth == guess)), len(np.unique(truth))
    f1 = 2 * share / (1 + share)
    return {
        "accuracy": share,
        "balanced_accuracy": (share > 0) / n_classes,
        "macro_f1": f1 / n_classes,
        "weighted_f1": share * f1,
    }


def _auc(truth: np.ndarray, posterior: np.ndarray) -> float | None:
    """Mean over classes of the probability that a sample of it has a higher posterior than another, ties being half.

    From ranks (Mann & Whitney): as `sklearn.metrics.roc_auc_score`, whose curves took most of the time of a probe.
    """
    there = np.unique(truth)
    if len(there) < 2:
        return None
    of_class = truth[:, None] == there
    n = of_class.sum(axis=0)
    ranks = (rankdata(posterior[:, there], axis=0) * of_class).sum(axis=0)
    return float(np.mean((ranks - n * (n + 1) / 2) / (n * (len(truth) - n))))
