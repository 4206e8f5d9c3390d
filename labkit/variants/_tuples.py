"""Variants whose loss is one of all items of a sample at once, with a matching loss beside it.

    L = w_contrastive mean_S L_S + w_antipodal mean_pairs mean_i max(0, -<x_i, y_i>) + w_matching mean_S DAM_S

S runs over the sets of modalities that samples of the batch have; all samples that have S are contrasted on S, and S
counts as often as samples have just it, so that a sample with a missing item is compared with complete ones too. DAM
exchanges one modality, drawn anew each step, against the others (`_matching`). Volumes and leading directions do not
change when a modality changes sign, but the cosine, by which retrieval ranks, does: from a random start with two
modalities, all partners end at opposite poles about as often as not, and nothing is found. The antipodal term settles
the signs and then vanishes; 0 gives the losses as published.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, cast

import torch
from pydantic import Field
from torch import Tensor

from labkit.losses import antipodal
from labkit.types import Embeddings
from labkit.variants._base import Options
from labkit.variants._closed import check_pairs
from labkit.variants._matching import Matching
from labkit.variants._trained import Pair, Trained, TrainedOptions, Weight

if TYPE_CHECKING:
    from jaxtyping import Float, Int


class TupleOptions(TrainedOptions):
    """Hyper-parameters of losses of whole tuples.

    Attributes:
        w_contrastive: weight of the contrast of tuples; positive, or nothing keeps samples apart.
    """

    w_contrastive: Annotated[float, Field(gt=0)] = 1.0


class MatchedOptions(TupleOptions):
    """Hyper-parameters of losses of whole tuples with a matching loss.

    Attributes:
        w_matching: weight of data-anchor matching.
    """

    w_matching: Weight = 0.1


class UnsignedOptions(MatchedOptions):
    """Hyper-parameters of losses of whole tuples that do not change with the sign of a modality.

    Attributes:
        w_antipodal: weight of what keeps partners in one half of the sphere; 0 for the loss as published.
    """

    w_antipodal: Weight = 5.0


@dataclass(frozen=True)
class Tuples:
    """The samples of a batch that have a set of two or more modalities; two samples or more.

    Attributes:
        z: modality -> their unit rows.
        group: samples of one group are positives of each other.
        count: how many of them have just these modalities.
    """

    z: dict[str, Float[Tensor, "n d"]]
    group: Int[Tensor, " n"]
    count: int


def tuples(z: dict[str, Tensor], batch: Embeddings) -> Iterator[Tuples]:
    """Every set of modalities that is all that some sample has, and the samples that have it."""
    present = torch.stack([batch.present[m] for m in z], dim=1)
    for pattern, count in zip(*present.unique(dim=0, return_counts=True), strict=True):
        rows = present[:, pattern].all(dim=1).nonzero().flatten()
        if len(rows) > 1 and int(pattern.sum()) > 1:
            members = {m: v[rows] for (m, v), there in zip(z.items(), pattern.tolist(), strict=True) if there}
            yield Tuples(members, batch.groups.to(rows.device)[rows], int(count))


class TupleTrained(Trained):
    """A subclass says what a tuple's loss is."""

    Options: ClassVar[type[Options]] = TupleOptions
    options: TupleOptions

    def contrast(self, z: list[Float[Tensor, "n d"]], group: Int[Tensor, " n"]) -> Float[Tensor, ""]:
        """Contrast of tuples of two or more modalities."""
        raise NotImplementedError

    def prepare(self, train: Embeddings) -> None:
        """Check that there are pairs.

        Raises:
            ValueError: a modality shares no sample with another one.
        """
        check_pairs(train.present)

    def tuple_terms(self, found: Tuples) -> dict[str, Tensor]:
        """Weighted terms of samples that have the same modalities."""
        return {"contrastive": self.options.w_contrastive * self.contrast(list(found.z.values()), found.group)}

    def sample_terms(self, z: dict[str, Tensor], batch: Embeddings) -> dict[str, Tensor]:
        """Terms of the tuples, mean over samples."""
        sets = list(tuples(z, batch))
        n = sum(s.count for s in sets)
        totals: dict[str, Tensor] = {}
        for found in sets:
            for name, value in self.tuple_terms(found).items():
                totals[name] = totals.get(name, 0) + value * (found.count / n)
        return totals


class Matched(TupleTrained):
    """Contrast and matching; a subclass says how alike tuples are."""

    Options: ClassVar[type[Options]] = MatchedOptions
    search: ClassVar[dict[str, tuple[Any, ...]]] = Trained.search | {"w_matching": (0.03, 0.1, 0.3)}

    def scores(self, z: list[Float[Tensor, "n d"]]) -> Float[Tensor, "n n"]:
        """How alike the first modality of sample i and the others of sample j are; divided by the temperature."""
        raise NotImplementedError

    def prepare(self, train: Embeddings) -> None:
        """Add the matching head.

        Raises:
            ValueError: a modality shares no sample with another one.
        """
        super().prepare(train)
        if cast("MatchedOptions", self.options).w_matching:
            self.network.extra["matching"] = Matching(dict.fromkeys(self.modalities, self.options.dim))

    def tuple_terms(self, found: Tuples) -> dict[str, Tensor]:
        """Contrast and matching."""
        terms = super().tuple_terms(found)
        if "matching" in self.network.extra:
            terms["matching"] = cast("MatchedOptions", self.options).w_matching * self._matching(found)
        return terms

    def _matching(self, found: Tuples) -> Tensor:
        names = list(found.z)
        anchor = names[int(torch.randint(len(names), ()))]
        others = {m: z for m, z in found.z.items() if m != anchor}
        with torch.no_grad():
            scores = self.scores([found.z[anchor], *others.values()])
        matching = self.network.extra["matching"]
        return matching({anchor: found.z[anchor]}, others, similarity=scores, group=found.group)


class Unsigned(Matched):
    """Contrast and matching that do not change with the sign of a modality, and the term that settles it."""

    Options: ClassVar[type[Options]] = UnsignedOptions

    def pair_terms(self, pair: Pair) -> dict[str, Tensor]:
        """The antipodal term."""
        weight = cast("UnsignedOptions", self.options).w_antipodal
        return {"antipodal": weight * antipodal(pair.x, pair.y)} if weight else {}
