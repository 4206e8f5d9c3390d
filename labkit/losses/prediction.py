"""Losses of what is predicted: classes, sets of labels, numbers, and the input itself.

What is not known of a sample is marked in the target (a class below 0, NaN) and takes no part; without any known target
the loss is 0, with a gradient of 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from labkit.losses import LOSSES

if TYPE_CHECKING:
    from jaxtyping import Float, Int


def classification(logits: Float[Tensor, "n c"], label: Int[Tensor, " n"]) -> Float[Tensor, ""]:
    """Cross-entropy over the labeled samples; log c for equal logits, 0 at best.

    Formula: -1/n' sum_{i: label_i >= 0} log softmax(logits_i)[label_i], n' the number of labeled samples.

    Raises:
        ValueError: numbers of samples that differ, or a label beyond the classes.

    Source:
        GOTMA proposal, L_task.
    """
    if logits.ndim != 2 or label.shape != logits.shape[:1]:
        raise ValueError(f"needs logits [n, c] and one label each; got {list(logits.shape)} and {list(label.shape)}")
    if len(label) and int(label.max()) >= logits.shape[1]:
        raise ValueError(f"logits are of {logits.shape[1]} classes; got label {int(label.max())}")
    known = label >= 0
    return F.cross_entropy(logits[known], label[known], reduction="sum") / known.sum().clamp(min=1)


def multi_label(logits: Float[Tensor, "n c"], target: Float[Tensor, "n c"]) -> Float[Tensor, ""]:
    """Binary cross-entropy of each known label; log 2 for logits of 0, 0 at best.

    Formula: mean over known (i, c) of -t log sigmoid(l) - (1 - t) log sigmoid(-l); NaN in the target is unknown.

    Raises:
        ValueError: shapes that differ.

    Source:
        GOTMA proposal, L_task, for samples with several labels at once.
    """
    known = _known(logits, target)
    total = F.binary_cross_entropy_with_logits(logits[known], target[known].to(logits.dtype), reduction="sum")
    return total / known.sum().clamp(min=1)


def regression(predicted: Float[Tensor, "n c"], target: Float[Tensor, "n c"]) -> Float[Tensor, ""]:
    """Mean squared error of the known targets, NaN being unknown; 0 at best.

    Formula: mean over known (i, c) of (predicted - target)^2.

    Raises:
        ValueError: shapes that differ.

    Source:
        GOTMA proposal, L_task.
    """
    known = _known(predicted, target)
    return (predicted[known] - target[known].to(predicted.dtype)).square().sum() / known.sum().clamp(min=1)


@LOSSES.register("reconstruction")
def reconstruction(x: Float[Tensor, "n d"], y: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
    """Mean squared error between features and what a decoder makes of the embeddings; 0 at best.

    Formula: 1/(n d) sum_ij (x_ij - y_ij)^2. It has the units of the features: standardize them first.

    Raises:
        ValueError: shapes that differ.

    Source:
        Hazarika et al. 2020 (MISA), arXiv:2005.03545, L_recon.
    """
    if x.shape != y.shape or x.numel() == 0:
        raise ValueError(f"needs two matrices of one shape; got {list(x.shape)} and {list(y.shape)}")
    return F.mse_loss(x, y)


def _known(predicted: Tensor, target: Tensor) -> Tensor:
    if predicted.shape != target.shape:
        raise ValueError(f"needs one target per prediction; got {list(predicted.shape)} and {list(target.shape)}")
    return ~torch.isnan(target)
