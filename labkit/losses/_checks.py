"""What every loss of paired rows asks of its input."""

from __future__ import annotations

from torch import Tensor


def check_paired(x: Tensor, y: Tensor) -> None:
    """Refuse rows that are no pairs, which broadcasting would otherwise let pass.

    Raises:
        ValueError: not two matrices of one shape `[n, d]` with n >= 2.
    """
    if x.shape != y.shape or x.ndim != 2 or len(x) < 2:
        raise ValueError(
            "row i of x and of y must be one sample in one space: two matrices [n, d] with n >= 2; "
            f"got {list(x.shape)} and {list(y.shape)}"
        )
