"""What every registered task keeps, run over the registry: a new task is tested from its first day."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from labkit.metrics import tasks
from labkit.metrics.tasks import TASKS
from labkit.registry import UnknownNameError
from labkit.types import Embeddings, Score

NAMES = ["image", "text", "speech_fr", "speech_es"]


def made(n: int, *, seed: int, modalities: int = 3, missing: float = 0.2) -> Embeddings:
    """Modalities that share four classes, some items missing, some samples unlabelled, two samples a group."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(4, (n,), generator=generator)
    corners = torch.eye(8)[label]
    names = NAMES[:modalities]
    return Embeddings(
        key=np.array([f"{seed}-{i}" for i in range(n)]),
        z={m: corners + 0.4 * torch.randn(n, 8, generator=generator) for m in names},
        present={m: torch.rand(n, generator=generator) >= missing for m in names},
        label=torch.where(torch.rand(n, generator=generator) < 0.1, -1, label),
        group=torch.arange(n) // 2,
    )


@pytest.fixture(scope="module", params=list(TASKS))
def judge(request: pytest.FixtureRequest) -> tasks.Judge:
    return tasks.fit(request.param, made(160, seed=0), made(60, seed=1))


def by_name(scores: list[Score]) -> dict[tuple[str, str, str], Score]:
    found = {(s.name, s.source, s.target): s for s in scores}
    assert len(found) == len(scores), "something is scored twice"
    return found


def test_scores_are_in_range_and_the_mean_of_their_points(judge):
    test = made(80, seed=2)
    scores = judge(test)
    assert scores
    for score in scores:
        assert score.higher_is_better
        assert 0 <= score.value <= 1
        assert score.chance is not None
        assert 0 <= score.chance <= 1
        assert score.value > score.chance
        if score.per_point is not None:
            points = score.per_point.numpy()
            assert points.shape == (80,)
            assert np.isfinite(points).sum() == score.n
            assert score.value == pytest.approx(np.nanmean(points))


def test_only_what_changes_with_a_modality_is_scored_for_it(judge):
    test = made(80, seed=2)
    noise = test.with_z({**test.z, "text": torch.randn(80, 8)})
    before, after = by_name(judge(test)), by_name(judge(noise))
    involved = by_name(judge(noise, involving="text"))
    assert any(score.value != before[name].value for name, score in involved.items())
    for name, score in after.items():
        if name in involved:
            assert involved[name].value == score.value
        else:
            assert before[name].value == score.value, "the noise changed it"


def test_samples_that_are_not_asked_do_not_count(judge):
    test = made(80, seed=2)
    asked = {m: present & (torch.arange(80) < 50) for m, present in test.present.items()}
    for score in judge(test, asked):
        assert score.n <= 50
        if score.per_point is not None:
            assert score.per_point[50:].isnan().all()


def test_absent_items_that_are_asked_count(judge):
    test = made(80, seed=2, missing=0.0)
    gone = test.with_z(test.z, {**test.present, "image": torch.arange(80) < 20})
    whole, lacking = by_name(judge(test)), by_name(judge(gone, test.present))
    assert {name: s.n for name, s in whole.items()} == {name: s.n for name, s in lacking.items()}
    assert any(lacking[name].value < score.value for name, score in whole.items())


def test_asking_twice_gives_the_same(judge):
    test = made(80, seed=2)
    first, second = judge(test), judge(test)
    assert [s.value for s in first] == [s.value for s in second]


def test_an_unknown_task_is_answered_with_the_nearest():
    with pytest.raises(UnknownNameError, match="linear_probe"):
        tasks.fit("linear_prob", made(20, seed=0), made(20, seed=1))
