"""Drawings of stored tables: pandas in, HoloViews out, the same for a page (bokeh) and a notebook (matplotlib).

    scores = Store().scores()
    views.robustness_curves(scores, metric="recall_at_10", corruption="feature_noise")
    views.leaderboard_plot(stats.leaderboard(scores, metric="recall_at_10", source="image", target="text"))
    views.manifold(run.points(), run.projection("pca"), color="label")

Every drawing carries its options for both backends; which one draws is up to `hv.extension`. Colors are
fixed per modality and variant and safe for color-blind readers, see `labkit.views.colors`.
"""

from ._style import kinds, words
from .attack_plots import AttackExample, attack_sheet
from .colors import category_colors, modality_colors, variant_colors
from .critical_difference import critical_difference
from .curves import curve_table, robustness_curves, training_curve
from .diagnosis import cloud_map, paired_measures, unpaired_measures
from .distances import partner_distances
from .effects import effect_plot, verdict_plot
from .examples import Strip, example_sheet, example_table, photograph, sound_sheet
from .failures import failure_heatmap
from .flows import flow_lines, flow_map, flow_sankey, flows_from, label_flows
from .geometry import cloud_in_space, error_curves, estimate_against_truth
from .leaderboard import leaderboard_plot
from .levels import association_plot, level_curves, level_panels, level_table
from .manifolds import manifold, manifold_frame, pair_links
from .pictures import contact_sheet, coupling_matrix, thumbnail_map
from .robustness_plots import (
    failure_histogram,
    first_colors,
    panel_order,
    robustness_overview,
    robustness_panels,
    severity_curves,
)
from .topology import bar_places, barcode, persistence_diagram
from .training import trainings
from .transport import against_size, clouds, plan_lines

__all__ = [
    "AttackExample",
    "Strip",
    "against_size",
    "association_plot",
    "attack_sheet",
    "bar_places",
    "barcode",
    "category_colors",
    "cloud_in_space",
    "cloud_map",
    "clouds",
    "contact_sheet",
    "coupling_matrix",
    "critical_difference",
    "curve_table",
    "effect_plot",
    "error_curves",
    "estimate_against_truth",
    "example_sheet",
    "example_table",
    "failure_heatmap",
    "failure_histogram",
    "first_colors",
    "flow_lines",
    "flow_map",
    "flow_sankey",
    "flows_from",
    "label_flows",
    "kinds",
    "leaderboard_plot",
    "level_curves",
    "level_panels",
    "level_table",
    "manifold",
    "manifold_frame",
    "modality_colors",
    "pair_links",
    "paired_measures",
    "panel_order",
    "partner_distances",
    "persistence_diagram",
    "plan_lines",
    "photograph",
    "robustness_curves",
    "robustness_overview",
    "robustness_panels",
    "severity_curves",
    "sound_sheet",
    "thumbnail_map",
    "training_curve",
    "trainings",
    "unpaired_measures",
    "variant_colors",
    "verdict_plot",
    "words",
]
