"""Tasks: what the shared space is good for, fitted once on clean training samples and asked under every corruption.

    judge = tasks.fit("linear_probe", trained, validated)      # embedded training and validation samples
    scores = judge(shared, asked)                              # embedded test samples, clean or corrupted

A metric (`labkit.metrics.METRICS`) needs the test samples alone. A task may learn from the training samples and choose
its hyper-parameters on the validation samples; test samples, corrupted or not, are only judged. To add a task: one file
here with a function of (trained, validated) under `@TASKS.register("name")`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol, cast

from labkit.imputation import Imputation
from labkit.registry import Registry
from labkit.types import Embeddings, Score

if TYPE_CHECKING:
    from jaxtyping import Bool
    from torch import Tensor

TASKS = Registry("task", __name__)


class Judge(Protocol):
    """A fitted task."""

    def __call__(
        self,
        shared: Embeddings,
        asked: Mapping[str, Bool[Tensor, " n"]] | None = None,
        *,
        involving: str = "",
        impute: Imputation | None = None,
    ) -> list[Score]:
        """Scores of test samples.

        Args:
            shared: embedded test samples; items that a corruption took away are absent.
            asked: modality -> samples that count, absent or not; those that are present by default.
            involving: only the scores that change when this modality's test items do; all by default.
            impute: what stands in for absent items; `labkit.imputation.others` by default.
        """
        ...


Task = Callable[[Embeddings, Embeddings], Judge]


def fit(name: str, trained: Embeddings, validated: Embeddings) -> Judge:
    """The task called `name`, fitted.

    Args:
        name: in `TASKS`.
        trained: training samples in the shared space.
        validated: validation samples in the shared space, for hyper-parameters.

    Raises:
        UnknownNameError: no such task.
    """
    return cast("Task", TASKS.get(name))(trained, validated)
