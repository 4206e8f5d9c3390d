"""Claims of the proposals as hypotheses: `studies/claims.yaml`, written before the studies ran, and their verdicts.

    found = claims.evaluate(claims.load(), claims.committed(claims.load()))

Every claim quotes its proposal, names a metric, what is compared with what, the direction that is claimed, the
smallest effect that would matter and the study that tests it. The evidence is one number per seed (a contrast of
scores, averaged over directions of retrieval), tested with the correction for overlapping splits of Nadeau & Bengio
(2003), or a correlation over methods, with methods and seeds resampled. The rule of the verdict is that of
`labkit.stats.verdicts`; Holm's correction is over all claims of the file that are tested. A claim that nothing has
tested yet is "not tested", with the reason, and never counts as undecided.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from labkit import results
from labkit.config import ConfigError, parse
from labkit.stats import association, cohen_dz, corrected_t_test, curves, repeats, trends
from labkit.stats.verdicts import Evidence, decide, p_values

FILE = Path(__file__).parents[1] / "studies" / "claims.yaml"
COLUMNS = (
    "id", "proposal", "section", "verdict", "effect", "low", "high", "p", "p_holm", "p_against", "margin", "expect",
    "effect_size", "seeds", "n", "methods", "study", "kind", "reason", "hypothesis",
)  # fmt: skip


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Measure(_Part):
    """One number per run.

    Attributes:
        metric: name in the scores.
        directions: (source, target) pairs that are averaged; all by default.
        corruption: of the test samples; "none" is clean.
        severity: of the corruption.
        of_clean: the share of the clean value that is kept under the corruption, in place of the value.
        kept_under: corruptions under which the share of the clean value above chance that is kept is measured, in place
            of the value at one severity: mean over the severities, then over these corruptions of every modality
            (`labkit.stats.curve_numbers`).
    """

    metric: str = "recall_at_10"
    directions: tuple[tuple[str, str], ...] | None = None
    corruption: str = "none"
    severity: float = 0
    of_clean: bool = False
    kept_under: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _one_way(self) -> Measure:
        if self.kept_under and (self.of_clean or self.corruption != "none" or self.severity):
            raise ValueError("kept_under is over whole curves: leave out corruption, severity and of_clean")
        return self


class Difference(_Part):
    """The value of `a` less `times` the value of `b`, under the same seeds.

    Attributes:
        a: columns of the scores and the values they have, e.g. {cell: gotma}.
        b: the same of what it is compared with.
        times: 1.1 asks whether a is ten per cent better.
        measure: what is compared.
    """

    a: dict[str, Any] = Field(min_length=1)
    b: dict[str, Any] = Field(min_length=1)
    times: Annotated[float, Field(gt=0)] = 1.0
    measure: Measure = Measure()


class Interaction(_Part):
    """How much greater a - b is here than there.

    Attributes:
        a: see `Difference`.
        b: see `Difference`.
        here: measure of the first difference.
        there: measure of the second.
    """

    a: dict[str, Any] = Field(min_length=1)
    b: dict[str, Any] = Field(min_length=1)
    here: Measure
    there: Measure


class Trend(_Part):
    """Least-squares slope of the value of `a` (less that of `b`) over the levels of an axis, per step.

    Attributes:
        a: columns of the scores and the values they have.
        b: what is subtracted at every level; nothing by default.
        along: column that holds the levels.
        levels: in the order in which the slope is counted.
        measure: what is compared.
    """

    a: dict[str, Any] = Field(min_length=1)
    b: dict[str, Any] = Field(default_factory=dict)
    along: str
    levels: tuple[float | str, ...] = Field(min_length=2)
    measure: Measure = Measure()


class Correlation(_Part):
    """Rank correlation of two measures over the methods of a study.

    Attributes:
        x: first measure.
        y: second measure.
        without: methods that are left out, with the reason in the claim's hypothesis.
    """

    x: Measure
    y: Measure = Measure()
    without: tuple[str, ...] = ()


class Claim(_Part):
    """A sentence of a proposal and how it is tested.

    Attributes:
        id: short name.
        proposal: A, B or C.
        section: where it stands.
        words: the proposal's own.
        hypothesis: what is tested, in one sentence.
        study: whose scores decide.
        expect: direction of the effect, see `labkit.stats.verdicts`.
        margin: the smallest effect that would matter, in units of the effect.
        difference, interaction, trend, correlation: the effect; exactly one, unless it is not tested.
        not_tested: why nothing in this lab tests it.
    """

    id: str = Field(pattern=r"^[ABC]-[a-z0-9-]+$")
    proposal: Literal["A", "B", "C"]
    section: str
    words: str
    hypothesis: str
    study: str = ""
    expect: Literal["greater", "less", "not worse", "equal"] = "greater"
    margin: Annotated[float, Field(gt=0)] | None = None
    difference: Difference | None = None
    interaction: Interaction | None = None
    trend: Trend | None = None
    correlation: Correlation | None = None
    not_tested: str = ""

    @property
    def effect(self) -> Difference | Interaction | Trend | Correlation | None:
        """What is measured; None for a claim that nothing tests."""
        return self.difference or self.interaction or self.trend or self.correlation

    @model_validator(mode="after")
    def _one_effect(self) -> Claim:
        given = [k for k in ("difference", "interaction", "trend", "correlation") if getattr(self, k) is not None]
        if self.not_tested and (given or self.margin is not None):
            raise ValueError(f"claim {self.id!r} is not tested and has {given or 'a margin'}: remove one of the two")
        if not self.not_tested and (len(given) != 1 or self.margin is None or not self.study):
            raise ValueError(
                f"claim {self.id!r} needs a study, a margin and one of difference, interaction, trend, correlation "
                f"(it has {', '.join(given) or 'none'}), or the reason in not_tested"
            )
        if not self.id.startswith(self.proposal):
            raise ValueError(f"claim {self.id!r} is of proposal {self.proposal}: its id begins with that letter")
        return self


class Claims(_Part):
    """The file.

    Attributes:
        alpha: chance of any wrong "holds", and of any wrong "does not hold".
        test_share: n_test / (n_test + n_train) of the splits, which overlap.
        claims: the hypotheses, one family.
    """

    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    test_share: Annotated[float, Field(ge=0, lt=1)]
    claims: tuple[Claim, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _unique(self) -> Claims:
        ids = [claim.id for claim in self.claims]
        if twice := sorted({name for name in ids if ids.count(name) > 1}):
            raise ValueError(f"two claims have the id {twice[0]!r}")
        return self


def metrics_of(claim: Claim) -> set[str]:
    """Names of the metrics that decide a claim."""
    effect = claim.effect
    if effect is None:
        return set()
    return {getattr(effect, part).metric for part in ("measure", "here", "there", "x", "y") if hasattr(effect, part)}


def load(path: Path | str | None = None) -> Claims:
    """The claims in `path`, `studies/claims.yaml` by default.

    Raises:
        FileNotFoundError: no such file.
        ConfigError: the file is no YAML, or a field is wrong; the message names the file and the field.
    """
    path = FILE if path is None else Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file of claims {path}")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path} must hold a mapping with the fields {', '.join(Claims.model_fields)}")
    return parse(Claims, content, what=str(path))


def committed(claims: Claims) -> dict[str, pd.DataFrame]:
    """Scores in `results/` of every study that the claims name and that has some, with what its runs cost."""
    return results.read_all(claim.study for claim in claims.claims if claim.study)


def evaluate(claims: Claims, tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Verdicts of all claims, in the order of the file.

    Args:
        claims: as from `load`.
        tables: study -> scores, as from `committed`.

    Returns:
        One row per claim with the columns `COLUMNS`: effect with its 95 % interval, p and its correction for and
        against, d_z over seeds, seeds, n (samples of the smallest score), methods (of a correlation), what the interval
        is, and the reason where a claim is not tested.
    """
    rows: list[dict[str, Any]] = []
    for claim in claims.claims:
        about = {c: getattr(claim, c) for c in ("id", "proposal", "section", "margin", "expect", "study", "hypothesis")}
        rows.append({**about, "verdict": "not tested", "reason": claim.not_tested, **_tested(claim, claims, tables)})
    table = pd.DataFrame(rows).reindex(columns=[*COLUMNS, "p_no"])
    tested = table["p"].notna()
    verdicts, shown, refuted = decide(
        table.loc[tested, "p"].tolist(), table.loc[tested, "p_no"].tolist(), alpha=claims.alpha
    )
    table.loc[tested, "verdict"] = verdicts
    table.loc[tested, "p_holm"] = shown
    table.loc[tested, "p_against"] = refuted
    return table.loc[:, list(COLUMNS)]


def _tested(claim: Claim, claims: Claims, tables: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
    """Effect and p values of a claim, or the reason why there are none."""
    if claim.effect is None or claim.margin is None:
        return {}
    if claim.study not in tables:
        return {"reason": f"study {claim.study} has no results yet"}
    try:
        evidence, about = _evidence(claim, tables[claim.study], claims.test_share)
    except ValueError as error:
        return {"reason": str(error)}
    p, p_no = p_values(evidence, claim.expect, claim.margin)
    return {"effect": evidence.value, "low": evidence.low, "high": evidence.high, "p": p, "p_no": p_no, **about}


def _evidence(claim: Claim, scores: pd.DataFrame, test_share: float) -> tuple[Evidence, dict[str, Any]]:
    effect = claim.effect
    if isinstance(effect, Correlation):
        method = repeats.method_column(scores)
        kept = scores[~scores[method].isin(effect.without)]
        x, y = (_values(kept, {}, measure, by=method) for measure in (effect.x, effect.y))
        found = association.correlation(x, y)
        if np.isnan(found.error):
            raise ValueError(f"a correlation needs four or more methods with both metrics; got {found.n_methods}")
        n = min(x.attrs["n"], y.attrs["n"])
        about = {"seeds": found.n_seeds, "n": n, "methods": found.n_methods, "kind": found.kind}
        return Evidence.of_correlation(found), about
    assert effect is not None
    contrast, n, higher = _contrast(effect, scores)
    contrast = contrast.dropna()
    if len(contrast) < 2:
        raise ValueError(f"{len(contrast)} seed(s) have everything that is compared; two or more are needed")
    values = contrast.to_numpy(dtype=float) * (1.0 if higher or claim.expect != "not worse" else -1.0)
    test = corrected_t_test(values, test_share=test_share)
    kind = f"95% t over {len(values)} seeds" + (", corrected for overlapping splits" if test_share else "")
    return Evidence.of_test(test), {"seeds": len(values), "n": n, "effect_size": cohen_dz(values), "kind": kind}


def _contrast(effect: Difference | Interaction | Trend, scores: pd.DataFrame) -> tuple[pd.Series, int, bool]:
    """The contrast of every seed, samples of the smallest score, and whether more of the metric is better."""
    if isinstance(effect, Difference):
        parts = [_values(scores, arm, effect.measure) for arm in (effect.a, effect.b)]
        contrast = parts[0].iloc[:, 0] - effect.times * parts[1].iloc[:, 0]
    elif isinstance(effect, Interaction):
        measures = (effect.here, effect.there)
        parts = [_values(scores, arm, measure) for measure in measures for arm in (effect.a, effect.b)]
        a, b, c, d = (part.iloc[:, 0] for part in parts)
        contrast = (a - b) - (c - d)
    else:
        arms = [effect.a, effect.b] if effect.b else [effect.a]
        levels = list(effect.levels)
        parts = [_values(scores, {**arm, effect.along: levels}, effect.measure, by=effect.along) for arm in arms]
        if lacking := [v for v in levels if any(v not in part for part in parts)]:
            raise ValueError(f"no scores at {effect.along} = {', '.join(map(str, lacking))}")
        values = parts[0][levels] if len(parts) == 1 else parts[0][levels] - parts[1][levels]
        contrast = trends.slopes_over(values.dropna())
    return contrast, min(part.attrs["n"] for part in parts), parts[0].attrs["higher_is_better"]


def _values(scores: pd.DataFrame, arm: Mapping[str, object], measure: Measure, *, by: str = "metric") -> pd.DataFrame:
    """One row per seed, one column per value of `by`."""
    if measure.kept_under:
        return _kept(scores, arm, measure)
    where = {**arm, "corruption": measure.corruption, "severity": measure.severity}
    options: dict[str, Any] = {"metric": measure.metric, "by": [by], "directions": measure.directions}
    values = repeats.per_seed(scores, where=where, **options)
    if not measure.of_clean:
        return values
    clean = repeats.per_seed(scores, where={**arm, "corruption": "none", "severity": 0}, **options)
    share = values / clean
    share.attrs = values.attrs
    return share


def _kept(scores: pd.DataFrame, arm: Mapping[str, object], measure: Measure) -> pd.DataFrame:
    """One row per seed: what is kept, mean over curves; without a number where a curve lacks one."""
    rows = curves.seed_curves(
        repeats.select(scores, arm),
        metric=measure.metric,
        where={"corruption": list(measure.kept_under)},
        directions=measure.directions,
    )
    if lacking := sorted(set(measure.kept_under) - set(rows["corruption"])):
        raise ValueError(f"no curves under {', '.join(lacking)}")
    values = curves.curve_numbers(rows).groupby("seed")["kept"].agg(lambda v: v.mean(skipna=False)).to_frame()
    values.attrs = {"n": int(rows["n"].min()), "higher_is_better": True}
    return values
