"""Attacked samples and what they query: the gallery of one other modality, and what counts as found there."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from labkit.attacks.inputs import Inputs
from labkit.metrics.pairs import rows_with
from labkit.types import Embeddings

if TYPE_CHECKING:
    from jaxtyping import Bool, Int


@dataclass(frozen=True, eq=False)
class Queries:
    """Samples of `source` that are attacked, against the clean gallery of `target`.

    Attributes:
        source: modality of the queries.
        target: modality of the gallery.
        inputs: n samples that have something to find there.
        rows: which of the test samples they are.
        gallery: which of the test samples the m gallery items are.
        partners: which gallery items are of the query's group.
        wanted: the same of a wrong item, to which a targeted attack pulls the query.
    """

    source: str
    target: str
    inputs: Inputs
    rows: Int[torch.Tensor, " n"]
    gallery: Int[torch.Tensor, " m"]
    partners: Bool[torch.Tensor, "n m"]
    wanted: Bool[torch.Tensor, "n m"]

    @classmethod
    def of(cls, test: Embeddings, inputs: Inputs, source: str, target: str, *, seed: int) -> Queries:
        """The samples of `inputs` that have a partner in the gallery.

        Args:
            test: all test samples.
            inputs: of some of them.
            source: modality of the inputs.
            target: modality of the gallery.
            seed: of the wrong items, each drawn by the seed and the sample's key alone.

        Raises:
            ValueError: a sample that is not in `test` or lacks the modality, or none with anything to find.
        """
        clean = test.select([source, target])
        row = {key: i for i, key in enumerate(clean.key.tolist()) if bool(clean.present[source][i])}
        if unknown := [key for key in inputs.key.tolist() if key not in row]:
            raise ValueError(
                f"no test sample {unknown[0]!r} with an item of {source!r} ({len(unknown)} such keys); attack test "
                "samples that have one"
            )
        rows = torch.tensor([row[key] for key in inputs.key.tolist()])
        gallery, groups = rows_with(clean, target).cpu(), clean.groups.cpu()
        partners = groups[rows, None] == groups[gallery]
        if not bool((~partners).any()):
            raise ValueError(f"all {len(gallery)} items of {target!r} are of one group: there is no wrong one to find")
        answerable = (partners.any(dim=1) & ~partners.all(dim=1)).nonzero().flatten()
        if len(answerable) == 0:
            raise ValueError(f"none of the {len(rows)} samples has a partner in {target!r}; attack others")
        rows, partners = rows[answerable], partners[answerable]
        wrong = torch.stack([_wrong(gallery[~p], key, seed) for p, key in zip(partners, clean.key[rows], strict=True)])
        wanted = groups[wrong, None] == groups[gallery]
        return cls(source, target, inputs.take(answerable), rows, gallery, partners, wanted)


def _wrong(candidates: Int[torch.Tensor, " c"], key: str, seed: int) -> Int[torch.Tensor, ""]:
    digest = hashlib.sha256(f"wrong item of {key}".encode()).digest()[:8]
    random = np.random.default_rng([seed, int.from_bytes(digest, "little")])
    return candidates[int(random.integers(len(candidates)))]
