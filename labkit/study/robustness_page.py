"""The part of a study's page that is about robustness: pictures and tables of its curves.

    part = robustness_part(scores, failures, pictures=DOCS / "robustness", test_share=0.294)

Only cells that were measured under the most corruptions are compared; the others, e.g. those that were trained on
samples that lack items, vary an axis of the study. Everything is a mean over the directions that involve the corrupted
modality, then over seeds, with intervals over seeds that allow for overlapping splits.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import holoviews as hv
import pandas as pd
from PIL import Image

from labkit import attacks, stats, views
from labkit.stats.curve_selection import LOST
from labkit.views.robustness_plots import FAMILIES, family_of

METRIC = "recall_at_10"
FUSED = "fused_recall_at_10"
BASELINE = "clip"
LATE_FUSION = "unimodal"  # its modalities never meet before their answers do
ADVERSARIAL = "adversarial"
DPI, COLORS = 90, 128  # a palette is a third of the size, and nobody sees it
WHY = (
    "Why they rise: where items are lost, another item of the sample stands in, and where that is the better question "
    "(a caption in place of a spoken word) results improve with the loss. Intervals are over seeds alone and about one "
    "step in forty goes beyond its own by chance."
)


def robustness_part(scores: pd.DataFrame, failures: pd.DataFrame, *, pictures: Path, test_share: float) -> list[str]:
    """Paragraphs in Markdown, and the pictures that they show.

    Args:
        scores: of a study, with the column cell.
        failures: as from `labkit.stats.failure_shares`.
        pictures: folder of the pictures, beside the page.
        test_share: see `labkit.stats.corrected_t_test`.

    Returns:
        The paragraphs; none where no cell has curves.
    """
    compared = stats.fully_measured(scores)
    if compared.empty:
        return []
    whole = stats.seed_curves(compared, metric=METRIC)
    levels = stats.curve_levels(whole, test_share=test_share)
    # what stands in for a lost item may be the better question, so that more than all is left: not in these means
    curves = whole[whole["corruption"].map(family_of) != "missing"]
    numbers = stats.curve_numbers(curves)
    seeds, n = curves.groupby("method")["seed"].nunique(), int(curves["n"].min())
    n_curves = len(curves[["corruption", "corrupted"]].drop_duplicates())
    parts = [
        "## Robustness",
        f"recall at 10, mean over the directions that involve the corrupted modality; {n_curves} curves (corruption "
        f"and modality) of {len(seeds)} methods; {seeds.min()} to {seeds.max()} seeds, at least {n} test samples each; "
        f"intervals: {'; '.join(levels['interval'].unique())}.",
        _drawn(views.robustness_overview(numbers, metric=METRIC, test_share=test_share), pictures, "overview"),
        "kept: share of the clean recall above chance that is left, mean over severities; drop: what is lost on "
        f"average. Difference: kept less that of {BASELINE}, paired by seed; p by Holm over the methods.",
        _numbers(numbers, test_share),
        *_effective(compared[compared["corruption"].map(family_of) != "missing"], test_share),
    ]
    for family in dict.fromkeys(map(family_of, [c for names in FAMILIES.values() for c in names])):
        if family in set(map(family_of, levels["corruption"])):
            parts.append(f"### {family.capitalize()}")
            shown = attacks.with_budgets(levels) if family == ADVERSARIAL else levels
            parts.append(_drawn(views.robustness_panels(shown, metric=METRIC, family=family), pictures, family))
    parts += _imputations(scores, pictures, test_share)
    of_curves = failures["method"].isin(seeds.index) & failures["corruption"].isin(curves["corruption"])
    shown = failures[of_curves]
    if len(shown):
        parts += ["### First failures", _drawn(views.failure_histogram(shown), pictures, "failures")]
    return [*parts, "### Exceptions to the rule that more is worse", _exceptions(whole, test_share)]


def _numbers(numbers: pd.DataFrame, test_share: float) -> str:
    """One row per method: means over all curves."""
    table = stats.summarize_numbers(stats.over_all(numbers), test_share=test_share)
    told = table.set_index(["method", "number"])
    order = table[table["number"] == "kept"].sort_values("value", ascending=False)["method"]
    against = pd.DataFrame()
    if BASELINE in set(order) and len(order) > 1:
        found = stats.compare_numbers(numbers, number="kept", baseline=BASELINE, by=(), test_share=test_share)
        against = found.set_index("method")
    rows = [
        {
            "method": method,
            "kept": _span(told.loc[(method, "kept")]),
            "drop": _span(told.loc[(method, "drop")]),
            "seeds": told.loc[(method, "kept"), "seeds"],
            f"kept less {BASELINE}'s": _span(against.loc[method], "difference") if method in against.index else "",
            "p": f"{against.loc[method, 'p_holm']:.3f}" if method in against.index else "",
        }
        for method in order
    ]
    return _markdown(pd.DataFrame(rows))


def _effective(scores: pd.DataFrame, test_share: float) -> Iterator[str]:
    """Excess over the line of late fusion, where the study has that method and the fused metric."""
    if LATE_FUSION not in set(scores["cell"]) or FUSED not in set(scores["metric"]):
        return
    curves = stats.seed_curves(scores, metric=FUSED)
    curves = curves[curves["seed"].isin(curves.loc[curves["method"] == LATE_FUSION, "seed"])]  # some have more seeds
    excess = stats.effective_robustness(curves, [LATE_FUSION])
    table = stats.summarize_numbers(stats.over_all(excess), test_share=test_share)
    rows = [
        {"method": row["method"], "effective robustness": _span(row), "seeds": row["seeds"]}
        for row in table.sort_values("value", ascending=False).to_dict("records")
    ]
    yield (
        "Effective robustness: retrieval from two modalities to the third, in excess of what the line of late fusion "
        f"({LATE_FUSION}: modalities that are trained apart and fused last) predicts from the clean value."
    )
    yield _markdown(pd.DataFrame(rows))


def _imputations(scores: pd.DataFrame, pictures: Path, test_share: float) -> Iterator[str]:
    """What stands in for lost items, one line each, where the study has several."""
    imputed = scores[scores["corruption"].str.contains("+", regex=False)]
    for method in [m for m in imputed["cell"].unique() if m.startswith(BASELINE)]:
        rows = scores[(scores["cell"] == method) & scores["corruption"].str.match(f"none|{LOST}")]
        levels = stats.curve_levels(stats.seed_curves(rows, metric=METRIC), test_share=test_share)
        drawn = views.robustness_panels(stats.by_imputation(levels, method=method), metric=METRIC)
        yield f"### What stands in for lost items ({BASELINE})"
        yield (
            "others: the sample's other modalities; mean: the mean training embedding; nearest: of the nearest "
            "training sample; barycentric: through the coupling of the training embeddings; token: learned; drop: "
            "samples that lost their item neither ask nor are found, so the gallery is smaller and chance higher."
        )
        yield _drawn(drawn, pictures, "imputations")


def _exceptions(curves: pd.DataFrame, test_share: float) -> str:
    """Under which corruptions curves rise beyond their interval, and by how much at most."""
    rises = stats.rises(curves, test_share=test_share)
    beyond = rises[rises["beyond"]].sort_values("difference", ascending=False)
    steps = int((curves.groupby(["corruption", "corrupted", "method"])["severity"].nunique() - 1).sum())
    said = (
        f"{len(rises)} of {steps} steps of the mean curves rise above an earlier severity, {len(beyond)} of them "
        "beyond their interval"
    )
    if beyond.empty:
        return f"{said}: every curve is monotone within its interval."
    rows = [
        {
            "corruption": f"{corruption} of {corrupted}",
            "methods": rows["method"].nunique(),
            "largest rise": _span(rows.iloc[0], "difference"),
            "of": rows["method"].iloc[0],
            "severities": f"{rows['lowest'].iloc[0]:g} to {rows['severity'].iloc[0]:g}",
        }
        for (corruption, corrupted), rows in beyond.groupby(["corruption", "corrupted"], sort=False)
    ]
    return f"{said}:\n\n{_markdown(pd.DataFrame(rows))}\n\n{WHY}"


def _drawn(drawing: Any, folder: Path, name: str) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.png"
    hv.save(drawing, path, backend="matplotlib", fmt="png", dpi=DPI)
    with Image.open(path) as drawn:
        drawn.convert("RGB").quantize(COLORS).save(path, optimize=True)
    return f"![{name}]({folder.name}/{name}.png)"


def _span(row: Any, value: str = "value") -> str:
    return f"{row[value]:.3f} [{row['low']:.3f}, {row['high']:.3f}]"


def _markdown(table: pd.DataFrame) -> str:
    lines = [list(table.columns), ["---"] * len(table.columns), *table.astype(str).to_numpy().tolist()]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
