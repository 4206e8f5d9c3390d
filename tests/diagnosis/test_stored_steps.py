"""`labkit diagnose RUN` stores the topology of the encoders' spaces and of every step of the training, too."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from labkit.diagnosis import stored
from labkit.geometry.topology import persistence
from labkit.store import Store


def test_every_stored_step_has_its_own_bars(small_runs: Store, tmp_path: Path) -> None:
    source = small_runs.runs()[0]
    shutil.copytree(source.folder, tmp_path / source.id)
    run = Store(tmp_path).open(source.id)
    rng = np.random.default_rng(0)
    n = len(run.points())
    modalities = run.info["modalities"]
    for modality in modalities:
        run.write_embedding(modality, 3, rng.normal(size=(n, 8)))
    run.write_embedding(modalities[0], 7, rng.normal(size=(n, 8)))  # not of all modalities: no step to diagnose

    stored.diagnose_run(run, measures=("procrustes",))

    for modality in modalities:
        assert set(run.steps("topology")[modality]) == {"final", "raw", "3"}
        space = stored.aligned_space(run, "3")
        there = space.present[modality].numpy()
        made = persistence(space.z[modality][there], 1, representatives=True)
        bars, record = run.topology(modality, 3)
        assert record["n"] == there.sum()
        for dimension in (0, 1):
            own = bars[(bars["dimension"] == dimension) & np.isfinite(bars["death"])]
            np.testing.assert_allclose(np.sort(own["death"]), np.sort(made.diagrams[dimension][:, 1]), atol=1e-6)
        assert {key for keys in bars["keys"] for key in keys} <= set(space.key[there])
