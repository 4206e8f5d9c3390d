"""How well the label of a sample can be told from where it lies in the shared space: a linear probe.

A sample is the mean of its rows in two modalities, one vector per sample as a downstream task would get it: directions
that the modalities share add up, what one of them has for itself is diluted. Ridge regression onto the classes (one-hot
coded), with the regularization relative to the spread of the rows so that it does not depend on their scale, is fitted
on four fifths of the groups and judged on the others: Alain & Bengio 2017, arXiv:1610.01644, with a closed form.
"""

from __future__ import annotations

import itertools

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from labkit.metrics import METRICS
from labkit.types import Embeddings, Score

FOLDS = 5
RIDGE = 0.01  # of the mean eigenvalue of the covariance


@METRICS.register("label_accuracy")
def label_accuracy(aligned: Embeddings, raw: Embeddings) -> list[Score]:
    """Share of samples whose class a linear probe finds, for every pair of modalities; range 0..1, higher is better.

    Cross-validated over groups; samples without a label take no part, nor do pairs with one class or fewer than five
    groups. `chance` is the share of the most frequent class.
    """
    if aligned.label is None:
        return []
    scores = []
    for a, b in itertools.combinations(aligned.modalities, 2):
        known = aligned.present[a] & aligned.present[b] & (aligned.label >= 0)
        classes, label = aligned.label[known].unique(return_inverse=True)
        groups = aligned.groups[known].cpu().numpy()
        if len(classes) < 2 or len(np.unique(groups)) < FOLDS:
            continue
        x = (aligned.z[a][known].double() + aligned.z[b][known].double()) / 2
        right = (_predicted(x, one_hot(label).double(), groups) == label).double()
        per_point = torch.full((len(aligned),), torch.nan, dtype=torch.float64)
        per_point[known.cpu()] = right.cpu()
        chance = float(label.bincount().max()) / len(label)
        value = float(right.mean())
        scores.append(Score("label_accuracy", value, True, len(label), per_point, chance, source=a, target=b))
    return scores


def _predicted(x: Tensor, target: Tensor, groups: np.ndarray) -> Tensor:
    """Class of each row by the probe that was fitted without its fold."""
    fold = torch.as_tensor(np.unique(groups, return_inverse=True)[1] % FOLDS, device=x.device)
    found = torch.zeros(len(x), dtype=torch.long, device=x.device)
    for i in range(FOLDS):
        train, test = fold != i, fold == i
        center, mean = x[train].mean(dim=0), target[train].mean(dim=0)
        rows = x[train] - center
        gram = rows.T @ rows
        gram += max(RIDGE * float(gram.diagonal().mean()), 1e-12) * torch.eye(len(gram)).to(gram)
        weight = torch.linalg.solve(gram, rows.T @ (target[train] - mean))
        found[test] = ((x[test] - center) @ weight + mean).argmax(dim=1)
    return found
