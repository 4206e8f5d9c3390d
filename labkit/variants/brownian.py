"""Brownian bridge: a view of an item lies near the arc from the item to its partner in another modality.

    L = L_Con + w_bridge L_Br,   L_Br = 1/n sum_j |x'_j - m_j|^2,   m_j = (t x_j + (1 - t) y_j) / |t x_j + (1 - t) y_j|

The paper draws the view of the image alone; here L_Br is the mean of both ends, so that it does not depend on the
order of the modalities. L_Con: see `_augment`. Jiang et al. 2023, arXiv:2303.05952, with t = 0.25; the inner product
form printed there has a wrong sign, the norm is meant.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from labkit.losses import brownian_bridge
from labkit.types import Embeddings
from labkit.variants import VARIANTS
from labkit.variants._augment import Augmented, AugmentedOptions, View, partners
from labkit.variants._base import Options
from labkit.variants._trained import Weight


class BrownianOptions(AugmentedOptions):
    """Hyper-parameters of the Brownian bridge.

    Attributes:
        w_bridge: weight of L_Br.
        time: t, where on the bridge a view belongs; 0 at the partner, 1 at the item.
    """

    w_bridge: Weight = 0.3
    time: Annotated[float, Field(ge=0, le=1)] = 0.25


@VARIANTS.register("brownian")
class Brownian(Augmented):
    """Contrast and views between the modalities; two or more modalities. Source: Jiang et al. 2023, L_Br."""

    Options: ClassVar[type[Options]] = BrownianOptions
    options: BrownianOptions
    search = Augmented.search | {"w_bridge": (0.1, 0.3, 1.0, 3.0), "time": (0.25, 0.5)}

    @property
    def looks(self) -> bool:
        """Whether a term looks at the views."""
        return super().looks or self.options.w_bridge > 0

    def view_terms(self, z: dict[str, Tensor], batch: Embeddings, view: View) -> dict[str, Tensor]:
        """In-modal contrast, and the bridge from either end."""
        o, terms, pairs = self.options, super().view_terms(z, batch, view), partners(batch)
        if not o.w_bridge or not pairs:
            return terms
        both = [(m, n, r) for a, b, r in pairs for m, n in ((a, b), (b, a))]
        values = [brownian_bridge(z[m][r], z[n][r], view.z[m][r], t=o.time) for m, n, r in both]
        return terms | {"bridge": o.w_bridge * torch.stack(values).mean()}
