"""What is selected, shared by all panes of one session.

One boolean mask over the samples of the run and one sample in focus. Panes read them and never select on their own, so
a gesture costs one comparison per point, whatever the number of panes.
"""

from __future__ import annotations

import numpy as np
import param


class Selection(param.Parameterized):
    """Mask, focus and history.

    Attributes:
        mask: bool, one per sample, in the order of the run's points.
        focus: row of the sample whose details are shown, None for none.
    """

    mask = param.Array(default=np.zeros(0, dtype=bool))
    focus = param.Integer(default=None, allow_None=True)

    def __init__(self, n: int = 0) -> None:
        super().__init__(mask=np.zeros(n, dtype=bool))
        self._history: list[np.ndarray] = []

    def __len__(self) -> int:
        return int(self.mask.sum())

    def reset(self, n: int) -> None:
        """Start anew on a run with n samples."""
        self._history = []
        self.param.update(mask=np.zeros(n, dtype=bool), focus=None)

    def select(self, rows: np.ndarray) -> None:
        """Select exactly these rows; what was selected can be brought back by `undo`.

        Raises:
            IndexError: a row that the run does not have.
        """
        mask = np.zeros(len(self.mask), dtype=bool)
        mask[rows] = True
        self._history = [*self._history[-49:], np.packbits(self.mask)]
        self.mask = mask

    def clear(self) -> None:
        """Select nothing."""
        self.select(np.array([], dtype=int))

    def undo(self) -> None:
        """The selection before the last change; nothing happens at the beginning."""
        if self._history:
            self.mask = np.unpackbits(self._history.pop(), count=len(self.mask)).astype(bool)
