"""Training samples that have lost their partners: what a method can learn from few pairs, or from none.

A sample that is not chosen to stay paired is cut into one sample per item that it has. The pieces get fresh keys and
groups and all samples are shuffled, so that neither key, group nor order says what belonged together. Labels are kept:
in the data that this models they come with each item. Who stays paired depends on the seed alone, and fewer pairs are
a subset of more, so that runs with different numbers of pairs are compared on nested data.
"""

from __future__ import annotations

import numpy as np
import torch

from labkit.types import Embeddings


def unpair(samples: Embeddings, pairs: float, *, seed: int, keep_unpaired: bool = True) -> Embeddings:
    """Keep the pairing of some samples and cut the others apart.

    Args:
        samples: what has two or more items counts as paired; what has one stays as it is.
        pairs: paired samples that stay so: a share up to 1, a number above 1.
        seed: of the choice and of the new order.
        keep_unpaired: keep samples of one item; else only those that stay paired are left.

    Returns:
        `samples` itself if all pairs stay; else a new order with unique keys "cut0", "cut1", ... for the pieces.

    Raises:
        ValueError: more pairs are asked for than there are, or nothing is left.
    """
    present = torch.stack([samples.present[m] for m in samples.modalities], dim=1).cpu().numpy()
    paired = np.flatnonzero(present.sum(axis=1) > 1)
    kept_number = round(pairs * len(paired)) if pairs <= 1 else int(pairs)
    if kept_number > len(paired):
        raise ValueError(
            f"data.pairs asks for {kept_number} paired training samples but there are {len(paired)}; lower it, or give "
            "a share in 0..1"
        )
    if kept_number == len(paired) and keep_unpaired:
        return samples
    random = np.random.default_rng([seed, 1])
    order = random.permutation(paired)
    kept, cut = np.sort(order[:kept_number]), np.sort(order[kept_number:])
    if not keep_unpaired:
        if not kept_number:
            raise ValueError("data.pairs is 0 and data.unpaired is 'dropped': no training sample is left; change one")
        return samples.take(kept)
    single = np.flatnonzero(present.sum(axis=1) == 1)
    pieces = [(np.flatnonzero(column), i) for i, column in enumerate((present & _rows(cut, len(samples))).T)]
    row = np.concatenate([kept, single, *(rows for rows, _ in pieces)])
    only = np.concatenate([np.full(len(kept) + len(single), -1), *(np.full(len(rows), i) for rows, i in pieces)])
    shuffled = random.permutation(len(row))
    return _assemble(samples, row[shuffled], only[shuffled], present)


def _rows(index: np.ndarray, n: int) -> np.ndarray:
    mask = np.zeros((n, 1), dtype=bool)
    mask[index] = True
    return mask


def _assemble(samples: Embeddings, row: np.ndarray, only: np.ndarray, present: np.ndarray) -> Embeddings:
    """Sample i is row `row[i]`, reduced to the modality `only[i]` where that is not -1."""
    whole, at = only < 0, torch.as_tensor(row, device=samples.device)
    mask = np.where(whole[:, None], present[row], only[:, None] == np.arange(present.shape[1]))
    key, group = samples.key[row].astype(object), samples.groups.cpu().numpy()[row]
    # numbered in the new order, which says nothing; above every group there is, so that no piece joins one
    key[~whole] = _fresh_keys(int((~whole).sum()), set(samples.key))
    group[~whole] = group.max() + 1 + np.arange((~whole).sum())
    return Embeddings(
        key=key.astype(str),
        z={m: v[at] for m, v in samples.z.items()},
        present={m: torch.as_tensor(mask[:, i], device=samples.device) for i, m in enumerate(samples.modalities)},
        label=None if samples.label is None else samples.label[at],
        group=torch.as_tensor(group, device=samples.device),
        label_names=samples.label_names,
    )


def _fresh_keys(n: int, taken: set[str]) -> list[str]:
    prefix = "cut"
    while any(key.startswith(prefix) for key in taken):
        prefix += "_"
    return [f"{prefix}{i}" for i in range(n)]
