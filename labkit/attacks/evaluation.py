"""Retrieval under attack: a variant's own worst case, as scores that stand beside those of its corruptions.

A budget is a severity 0..5 of the inputs attacked. The attacker changes the query; the gallery of another modality is
clean, and for each such modality the attack is made anew. What is found depends on the variant, so nothing is cached.
With `surrogate` the attack is made on another variant and transferred. Queries that fail when clean have lost already,
so an untargeted white-box attack leaves them alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor
from tqdm.auto import tqdm

from labkit import attacks
from labkit.attacks.ball import NORMS, Norm
from labkit.attacks.inputs import Inputs, differentiable
from labkit.attacks.objective import Retrieval
from labkit.attacks.queries import Queries
from labkit.metrics.pairs import cosine_similarity, spread
from labkit.metrics.retrieval import chance_recall_at_k, chance_reciprocal_rank, recall_at_k, reciprocal_rank
from labkit.types import Aligner, Embeddings, Score

if TYPE_CHECKING:
    from jaxtyping import Float, Int

Goal = Literal["untargeted", "targeted"]
SUCCESS = "attack_success"
TIE = 1e-5  # similarities of float32 that are closer than this may be tied, as in `cosine_similarity`


@dataclass(frozen=True)
class Threat:
    """What the attacker does, but for the budget.

    Attributes:
        attack: name in `ATTACKS`.
        norm: in which the budget is measured, "linf" or "l2".
        goal: "untargeted": push all partners out of the first `k`; "targeted": pull a wrong item to the first place.
        k: places of the ranking from which partners are pushed.
        steps: gradients of an attempt.
        restarts: attempts from random places in the ball; 0 for a single one from the clean item.
        seed: of the random places and of the wrong items.

    Raises:
        UnknownNameError: no such attack.
        ValueError: no such norm or goal, or a number that is too small.
    """

    attack: str = "pgd"
    norm: Norm = "linf"
    goal: Goal = "untargeted"
    k: int = 10
    steps: int = 20
    restarts: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "attack", attacks.ATTACKS.canonical(self.attack))
        if self.norm not in NORMS:
            raise ValueError(f"norm must be one of {', '.join(NORMS)}; got {self.norm!r}")
        if self.goal not in ("untargeted", "targeted"):
            raise ValueError(f"goal must be untargeted or targeted; got {self.goal!r}")
        for name, least in (("k", 1), ("steps", 1), ("restarts", 0), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}; got {getattr(self, name)}")

    def label(self, inputs: str) -> str:
        """What stands in the column "corruption" of scores, e.g. "pgd_linf_pixels", "apgd_l2_features_targeted"."""
        parts = [self.attack, self.norm, inputs, "targeted" if self.goal == "targeted" else ""]
        return "_".join(part for part in parts if part)


@dataclass(frozen=True, eq=False)
class Changed:
    """Attacked inputs.

    Attributes:
        delta: what was added to each.
        features: of the result.
        lengths: of each perturbation, in the attack's norm.
    """

    delta: Tensor
    features: Float[Tensor, "n d"]
    lengths: Float[Tensor, " n"]

    def replaced(self, rows: Int[Tensor, " q"], others: Changed) -> Changed:
        """The same with other values in some rows."""
        pairs = ((getattr(self, name), getattr(others, name)) for name in ("delta", "features", "lengths"))
        return Changed(*(mine.index_copy(0, rows, theirs) for mine, theirs in pairs))


@dataclass(frozen=True, eq=False)
class Outcome:
    """One attack on some test samples, with one budget and one gallery.

    Attributes:
        threat: the attack.
        queries: what was attacked, and the gallery.
        severity: 0..5, the place of the radius among the budgets of the inputs; None for another radius.
        radius: the budget, on the scale of `queries.inputs.x`.
        changed: what the attack found.
        scores: "recall_at_10" and "mrr" of the true partners, and "attack_success": whether the attacker got what he
            wanted; untargeted, of the samples whose partner is among the first k when clean.
    """

    threat: Threat
    queries: Queries
    severity: int | None
    radius: float
    changed: Changed
    scores: tuple[Score, ...]

    @property
    def label(self) -> str:
        """What stands in the column "corruption" of scores."""
        return self.threat.label(self.queries.inputs.name)

    @property
    def success(self) -> Score:
        """The score "attack_success"."""
        return next(score for score in self.scores if score.name == SUCCESS)


def evaluate_attack(
    aligner: Aligner,
    test: Embeddings,
    inputs: Inputs,
    threat: Threat,
    *,
    modality: str,
    radii: Sequence[float] | None = None,
    surrogate: Aligner | None = None,
) -> list[Outcome]:
    """Attack samples of `test`, and measure their retrieval in each of its other modalities.

    Args:
        aligner: fitted; what is attacked.
        test: clean test samples: the galleries.
        inputs: what is attacked of them, all samples or some, as from `Pixels.of` or `Features.of`.
        threat: the attack.
        modality: of the inputs.
        radii: budgets on the scale of `inputs.x`; 0 changes nothing; by default those of severities 0..5.
        surrogate: the variant on which the attack is made; `aligner` itself by default (white-box).

    Returns:
        One outcome per other modality and budget.

    Raises:
        ValueError: a sample or modality that is not there, or a variant without a gradient.
    """
    radii = inputs.budgets[threat.norm] if radii is None else [_checked(radius) for radius in radii]
    others = [m for m in test.select([modality, *test.modalities]).modalities if m != modality]
    asked = [Queries.of(test, inputs, modality, other, seed=threat.seed) for other in others]
    clean, known = (None if a is None else a.embed(test).to("cpu") for a in (aligner, surrogate))
    assert clean is not None
    model = differentiable(surrogate or aligner, modality)
    goals = [objective_of(queries, known or clean, threat) for queries in asked]
    untouched = [unchanged(queries.inputs) for queries in asked]
    everywhere = surrogate is not None or threat.goal == "targeted"
    worth = [_worth(model, u, goal, everywhere) for u, goal in zip(untouched, goals, strict=True)]
    total = sum(map(len, worth)) * sum(radius > 0 for radius in radii)
    outcomes = []
    with tqdm(total=total, desc=threat.label(inputs.name), unit="item", disable=inputs.name != "pixels") as bar:
        for queries, goal, before, rows in zip(asked, goals, untouched, worth, strict=True):
            for radius in radii:
                changed = before
                if radius > 0 and len(rows):
                    part = queries.inputs.take(rows)
                    found = perturb(part, model, goal.take(rows), threat, radius=radius, advance=bar.update)
                    changed = before.replaced(rows, found)
                scores = measured(aligner, clean, queries, changed.features, threat)
                outcomes.append(
                    Outcome(threat, queries, severity_of(inputs, threat.norm, radius), radius, changed, scores)
                )
    return outcomes


def severity_of(inputs: Inputs, norm: Norm, radius: float) -> int | None:
    """The place of a radius among the budgets of the inputs, None where it is not among them."""
    budgets = inputs.budgets[norm]
    return budgets.index(radius) if radius in budgets else None


def objective_of(queries: Queries, shared: Embeddings, threat: Threat) -> Retrieval:
    """What the attacker raises, with the galleries of a shared space.

    Raises:
        ValueError: the gallery has fewer than `k` items that are no partners.
    """
    gallery = shared.z[queries.target][queries.gallery]
    if threat.goal == "targeted":
        return Retrieval(gallery, queries.wanted, 1, targeted=True)
    return Retrieval(gallery, queries.partners, threat.k)


def perturb(
    inputs: Inputs,
    model: Callable[[Tensor], Tensor],
    objective: Retrieval,
    threat: Threat,
    *,
    radius: float,
    advance: Callable[[int], object] = lambda _: None,
) -> Changed:
    """The worst that an attack finds within a budget; each sample is attacked by itself.

    Args:
        inputs: what is changed.
        model: from features to the shared space, as from `differentiable`.
        objective: of the inputs, in their order.
        threat: the attack.
        radius: the budget, on the scale of `inputs.x`.
        advance: called with the number of inputs as they are done.
    """
    run = attacks.get(threat.attack)
    deltas, features = [], []
    for at in range(0, len(inputs.key), inputs.batch):
        part, goal = inputs.take(slice(at, at + inputs.batch)), objective.take(slice(at, at + inputs.batch))
        x, ball = part.x, part.ball(threat.norm, radius)
        starts = ball.starts(x, part.key.tolist(), seed=threat.seed, count=threat.restarts) or [torch.zeros_like(x)]
        loss = lambda changed, part=part, goal=goal: goal.loss(model(part.features(changed)).cpu())
        delta = run(loss, x, ball, starts, steps=threat.steps)
        deltas.append(delta)
        with torch.no_grad():
            features.append(part.features(x + delta).cpu())
        advance(len(x))
    found = torch.cat(deltas)
    lengths = torch.linalg.vector_norm(found.flatten(1).double(), dim=1, ord=torch.inf if threat.norm == "linf" else 2)
    return Changed(found, torch.cat(features), lengths)


@torch.no_grad()
def unchanged(inputs: Inputs) -> Changed:
    """The inputs as they are, encoded anew."""
    parts = [inputs.take(slice(at, at + inputs.batch)) for at in range(0, len(inputs.key), inputs.batch)]
    features = torch.cat([part.features(part.x).cpu() for part in parts])
    return Changed(torch.zeros_like(inputs.x), features, torch.zeros(len(features), dtype=torch.float64))


def measured(
    aligner: Aligner, clean: Embeddings, queries: Queries, features: Float[Tensor, "n d"], threat: Threat
) -> tuple[Score, ...]:
    """Scores of changed features in the space of `aligner`, in which `clean` are the test samples."""
    gallery = clean.z[queries.target][queries.gallery]
    with torch.no_grad():
        similarity = cosine_similarity(differentiable(aligner, queries.source)(features).cpu(), gallery)
    values = {
        "recall_at_10": recall_at_k(similarity, queries.partners, 10),
        "mrr": reciprocal_rank(similarity, queries.partners),
    }
    if threat.goal == "targeted":
        values[SUCCESS] = recall_at_k(similarity, queries.wanted, 1)
    else:
        before = cosine_similarity(clean.z[queries.source][queries.rows], gallery)
        found = recall_at_k(before, queries.partners, threat.k) > 0
        lost = 1 - recall_at_k(similarity, queries.partners, threat.k)
        values[SUCCESS] = lost.masked_fill(~found, torch.nan)
    relevant = queries.partners.sum(dim=1)
    chance = {
        "recall_at_10": chance_recall_at_k(relevant, len(gallery), 10),
        "mrr": chance_reciprocal_rank(relevant, len(gallery)),
    }
    return tuple(_score(name, v, queries, len(clean), chance.get(name)) for name, v in values.items())


@torch.no_grad()
def _worth(
    model: Callable[[Tensor], Tensor], clean: Changed, objective: Retrieval, everywhere: bool
) -> Int[Tensor, " q"]:
    """Rows that are attacked: all, or those that are found when clean (ties included)."""
    if everywhere:
        return torch.arange(len(clean.features))
    return (objective.margin(model(clean.features).cpu()) >= -TIE).nonzero().flatten()


def _checked(radius: float) -> float:
    if not 0 <= radius < math.inf:
        raise ValueError(f"a budget must be a finite number, 0 or more; got {radius!r}")
    return float(radius)


def _score(name: str, values: Float[Tensor, " n"], queries: Queries, n: int, chance: float | None) -> Score:
    counted = values[~values.isnan()]
    return Score(
        name=name,
        value=float(counted.mean()),
        higher_is_better=name != SUCCESS,
        n=len(counted),
        per_point=spread(values, queries.rows, n),
        chance=chance,
        source=queries.source,
        target=queries.target,
    )
