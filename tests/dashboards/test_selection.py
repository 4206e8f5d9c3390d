"""The selection: mask, focus, history."""

from __future__ import annotations

import numpy as np
import pytest

from dashboards.selection import Selection


def test_select_replaces_and_undo_brings_back():
    chosen = Selection(5)
    chosen.select(np.array([1, 3]))
    chosen.select(np.array([0]))
    assert chosen.mask.tolist() == [True, False, False, False, False]
    chosen.undo()
    assert np.flatnonzero(chosen.mask).tolist() == [1, 3]
    chosen.undo()
    chosen.undo()  # nothing more to undo
    assert len(chosen) == 0


def test_clear_can_be_undone_and_reset_cannot():
    chosen = Selection(4)
    chosen.select(np.array([2]))
    chosen.clear()
    assert len(chosen) == 0
    chosen.undo()
    assert len(chosen) == 1
    chosen.focus = 2
    chosen.reset(3)
    chosen.undo()
    assert len(chosen.mask) == 3
    assert len(chosen) == 0
    assert chosen.focus is None


def test_watchers_see_every_change_once():
    chosen, seen = Selection(3), []
    chosen.param.watch(lambda event: seen.append(event.new.tolist()), "mask")
    chosen.select(np.array([0]))
    chosen.select(np.array([0, 1]))
    chosen.undo()
    assert seen == [[True, False, False], [True, True, False], [True, False, False]]


def test_unknown_row_is_refused_and_changes_nothing():
    chosen = Selection(3)
    chosen.select(np.array([1]))
    with pytest.raises(IndexError):
        chosen.select(np.array([7]))
    assert np.flatnonzero(chosen.mask).tolist() == [1]


def test_history_is_bounded():
    chosen = Selection(200)
    for row in range(100):
        chosen.select(np.array([row]))
    for _ in range(100):
        chosen.undo()
    assert np.flatnonzero(chosen.mask).tolist() == [49]
