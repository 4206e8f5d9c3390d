"""Shape of one modality: neighborhoods and topology; each part adds its rows, or why it cannot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from labkit.diagnosis.intervals import half_sample_interval
from labkit.diagnosis.rows import Description
from labkit.geometry.connectivity import connectivity
from labkit.geometry.graphs import union_graph
from labkit.geometry.hubness import hubness
from labkit.geometry.neighbors import Neighbors, nearest
from labkit.geometry.topology import Persistence, persistence
from labkit.metrics.connectivity import label_connectivity
from labkit.metrics.space import Space
from labkit.metrics.topology import topology_record
from labkit.stats import bootstrap_interval

LABEL_SHUFFLES = 19


@dataclass(frozen=True, eq=False)
class Cloud:
    """Sampled points of one modality.

    Attributes:
        space: of the points.
        key: of each.
        groups: group of each.
        label: class of each, -1 for unknown; None where there are no classes.
        available: number of points that they were drawn from.
        seed: of half-samples.
    """

    space: Space
    key: np.ndarray
    groups: np.ndarray
    label: torch.Tensor | None
    available: int
    seed: int

    def __len__(self) -> int:
        return len(self.key)


Part = Callable[[Description, Cloud], None]


def neighborhoods(found: Description, cloud: Cloud) -> None:
    """Whether some points are neighbors of very many others, and whether the graph of neighbors hangs together."""
    z, k = cloud.space.z, cloud.space.k
    near = nearest(z, k)
    made = hubness(near)

    def skewness(rows: np.ndarray) -> float:
        return hubness(nearest(z[torch.as_tensor(rows, device=z.device)], k)).skewness

    interval = half_sample_interval(skewness, made.skewness, cloud.groups, seed=cloud.seed)
    note = f"random neighbors: {made.chance:.2g}"
    found.estimate("hubness", interval, sampled_from=cloud.available, note=note)
    found.exact(
        "antihubs",
        made.antihubs,
        len(cloud),
        sampled_from=cloud.available,
        note=f"share that is nobody's neighbor; random neighbors: {made.antihubs_chance:.2g}",
    )
    _graph(found, cloud, near)
    occurrence = made.occurrence.cpu().numpy().astype(float)
    found.fields["k_occurrence"] = pd.DataFrame(
        {"key": cloud.key, "source": found.modality, "target": "", "value": occurrence}
    )


def _graph(found: Description, cloud: Cloud, near: Neighbors) -> None:
    n, of_all = len(cloud), cloud.available
    made = connectivity(union_graph(near))
    share = f"of the graph of {cloud.space.k} neighbors; the largest has {made.largest_component:.0%} of the samples"
    found.exact("components", made.n_components, n, sampled_from=of_all, note=share)
    note = "of the normalized Laplacian of the largest component; small: a bottleneck"
    found.exact("algebraic_connectivity", made.algebraic_connectivity, n, sampled_from=of_all, note=note)
    interval = bootstrap_interval(made.per_point.numpy(), cloud.groups, seed=cloud.seed)
    found.estimate("clustering", interval, sampled_from=of_all, note="coefficient of the graph of neighbors, mean")
    if cloud.label is None or not bool((cloud.label >= 0).any()):
        return
    generator = torch.Generator().manual_seed(cloud.seed)
    orders = [torch.randperm(n, generator=generator) for _ in range(LABEL_SHUFFLES)]
    chance = np.mean([label_connectivity(near.index, cloud.label[order]) for order in orders])
    note = f"mean over classes of the share in its largest piece; shuffled labels: {chance:.2g}"
    value = label_connectivity(near.index, cloud.label)
    found.exact("label_connectivity", value, n, sampled_from=of_all, note=note)


def topology(found: Description, cloud: Cloud) -> None:
    """Bars of components and loops, and how long the longest loop is."""
    try:
        made = persistence(cloud.space.z, 1, representatives=True)
    except (ValueError, ImportError) as error:
        found.refuse("longest_loop", len(cloud), sampled_from=cloud.available, why=error)
        return
    found.persistence = bars_of(made, cloud.key)
    loops = made.diagrams[1]
    longest = float((loops[:, 1] - loops[:, 0]).max()) if len(loops) else 0.0
    note = "length in units of the 0.9-quantile of the distances"
    if made.sampled:
        note += f"; of {len(made.landmarks)} landmarks, covering radius {made.covering_radius:.2g}"
    found.exact("longest_loop", longest, made.n, sampled_from=cloud.available, note=note)


def bars_of(made: Persistence, key: np.ndarray) -> pd.DataFrame:
    """Bars with the samples that show them; `attrs` says what they were computed on (see `topology_record`)."""
    bars, about = topology_record(made, key)
    bars = bars.assign(keys=bars["keys"].map(tuple))
    bars.attrs.update(about)
    return bars
