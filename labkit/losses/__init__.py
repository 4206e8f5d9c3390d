"""Losses: functions of tensors that know nothing of training; one family per file.

Every registered loss has the signature `loss(x, y, ...) -> scalar`, row i of `x` and of `y` being the same sample,
and is tested by the contract in `tests/losses/test_losses_contract.py` from its first day. Those that ask for more (an
augmented view, a plan, a teacher, labels) are plain functions. Names that end in `_literal` are the proposals' own
formulas where these are unsound; their docstrings say why.
"""

from labkit.registry import Registry

LOSSES = Registry("loss", __name__)

from labkit.losses.consistency import augmented_consistency, geometric_consistency  # noqa: E402
from labkit.losses.contrastive import info_nce, siglip  # noqa: E402
from labkit.losses.correlation import dcca, gcca  # noqa: E402
from labkit.losses.curvature import curvature_alignment  # noqa: E402
from labkit.losses.gromov import (  # noqa: E402
    distance_distribution,
    eccentricity,
    fused_gromov_wasserstein,
    gromov_wasserstein,
    third_lower_bound,
)
from labkit.losses.identifiability import (  # noqa: E402
    cycle_defect,
    map_jacobian,
    permutation_defect,
    permutation_defect_literal,
)
from labkit.losses.kernel import cmd, coral, difference, mmd  # noqa: E402
from labkit.losses.prediction import classification, multi_label, reconstruction, regression  # noqa: E402
from labkit.losses.riemannian import rc, rc_global, rma_isometric  # noqa: E402
from labkit.losses.riemannian_literal import rc_literal, rma_literal, rma_lle  # noqa: E402
from labkit.losses.separation import deep_separation, orthogonality, uniformity  # noqa: E402
from labkit.losses.structure import (  # noqa: E402
    brownian_bridge,
    neighborhood_literal,
    soft_neighborhood,
    structure,
)
from labkit.losses.teaching import distilled_info_nce, klot  # noqa: E402
from labkit.losses.transport import (  # noqa: E402
    entropic_ot,
    entropic_ot_literal,
    exact_ot,
    low_rank_divergence,
    sinkhorn_divergence,
    sliced_wasserstein,
    unbalanced_divergence,
)
from labkit.losses.vicreg import vicreg  # noqa: E402
from labkit.losses.volume import (  # noqa: E402
    antipodal,
    gram,
    gram_volume,
    leading_directions,
    pmrl,
    symile,
    triangle,
    triangle_area,
)

__all__ = [
    "LOSSES",
    "antipodal",
    "augmented_consistency",
    "brownian_bridge",
    "classification",
    "cmd",
    "coral",
    "curvature_alignment",
    "cycle_defect",
    "dcca",
    "deep_separation",
    "difference",
    "distance_distribution",
    "distilled_info_nce",
    "eccentricity",
    "entropic_ot",
    "entropic_ot_literal",
    "exact_ot",
    "fused_gromov_wasserstein",
    "gcca",
    "geometric_consistency",
    "gram",
    "gram_volume",
    "gromov_wasserstein",
    "info_nce",
    "klot",
    "low_rank_divergence",
    "leading_directions",
    "map_jacobian",
    "mmd",
    "multi_label",
    "neighborhood_literal",
    "orthogonality",
    "permutation_defect",
    "permutation_defect_literal",
    "pmrl",
    "rc",
    "rc_global",
    "rc_literal",
    "reconstruction",
    "regression",
    "rma_isometric",
    "rma_literal",
    "rma_lle",
    "siglip",
    "sinkhorn_divergence",
    "sliced_wasserstein",
    "soft_neighborhood",
    "structure",
    "symile",
    "third_lower_bound",
    "triangle",
    "triangle_area",
    "uniformity",
    "unbalanced_divergence",
    "vicreg",
]
