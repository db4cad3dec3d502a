"""Outcomes in, a quality model out: ridge regression over words, forest over counts, calibration.

Everything that has to be chosen is chosen by cross-validation inside the prompts that are given,
and everything that the model says of itself was measured on prompts that the fit did not see.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.special import expit, logit
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.linear_model import LogisticRegression, Ridge

from profiling.errors import InputError
from profiling.quality.calibration import auc, calibration, calibration_error, log_odds, wilson
from profiling.quality.outcomes import Outcomes
from scheduler.prompts.features import BUCKETS, TextFeatures, extract
from scheduler.prompts.quality import EDGE, QualityModel, term_weights

MIN_PROMPTS = 30
MIN_SCORES = 20
"""Of one model; with fewer it gets no estimate."""
FOLDS = 5
RIDGE_STRENGTHS = (2.0, 5.0, 12.0)
TREES = 100
LEAF = 5
DEPTH = 10
COUNTS_A_SPLIT = 0.4
BANDS = 8

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class ModelReport:
    """What is known of one model's estimates; errors are those on prompts that no fit saw.

    Attributes:
        scores: How many it was learnt from.
        mean: Of the scores.
        brier: Mean squared error of the estimates.
        brier_of_mean: The same of the mean alone: what the prompt adds is the difference.
        auc: Chance that a right answer was rated above a wrong one; `None` with one class.
        calibration_error: Mean distance of estimate and observed share over bins of estimates.
        calibration: These bins: mean estimate, observed share, how many scores.
        forest_share: Weight of the forest.
        note: What is special about it, empty where nothing is.
    """

    model: str
    scores: int
    mean: float
    brier: float
    brier_of_mean: float
    auc: float | None
    calibration_error: float
    calibration: tuple[tuple[float, float, int], ...]
    forest_share: float
    note: str = ""


@dataclass(frozen=True)
class QualityFit:
    """A fitted model and what it says of itself.

    Attributes:
        held_out: (n, m) estimates for the prompts that were learnt from, each by a fit without it.
        prompts: These prompts.
    """

    model: QualityModel
    reports: tuple[ModelReport, ...]
    held_out: Floats
    prompts: tuple[str, ...]


@dataclass(frozen=True)
class _Design:
    """All prompts as features."""

    features: Sequence[TextFeatures]
    counts: Floats

    def terms(self, rows: Indices, idf: Floats) -> sparse.csr_matrix:
        weighted = [term_weights(self.features[row], idf) for row in rows]
        ends = np.cumsum([0, *map(len, weighted)])
        columns = np.concatenate([self.features[row].terms for row in rows])
        return sparse.csr_matrix(
            (np.concatenate(weighted), columns, ends), shape=(len(rows), BUCKETS)
        )

    def idf(self, rows: Indices) -> Floats:
        frequency = np.zeros(BUCKETS)
        for row in rows:
            frequency[self.features[row].terms] += 1
        # In the precision of the file, so that a model that was read gives the same numbers.
        smooth = np.log((1 + len(rows)) / (1 + frequency)) + 1
        return smooth.astype(np.float32).astype(np.float64)

    def known(self, rows: Indices) -> NDArray[np.bool_]:
        known = np.zeros(BUCKETS, dtype=bool)
        for row in rows:
            known[self.features[row].words] = True
        return known


def fit_quality(outcomes: Outcomes, seed: int = 0) -> QualityFit:
    """Fit, calibrate and measure.

    Args:
        outcomes: What to learn from.
        seed: Of the folds and the forest.

    Raises:
        InputError: There are too few prompts, or no model has enough scores.
    """
    outcomes = _enough(outcomes)
    features = [extract(prompt) for prompt in outcomes.prompts]
    design = _Design(features, np.array([f.counts for f in features]))
    scores, rows = outcomes.scores, np.arange(len(features))
    fold = np.random.default_rng(seed).permutation(len(rows)) % FOLDS
    ridge_out = np.zeros((len(RIDGE_STRENGTHS), *scores.shape))
    forest_out = np.zeros(scores.shape)
    shares: list[Floats] = []
    for part in range(FOLDS):
        seen, unseen = np.flatnonzero(fold != part), np.flatnonzero(fold == part)
        idf = design.idf(seen)
        train, test = design.terms(seen, idf), design.terms(unseen, idf)
        for place, strength in enumerate(RIDGE_STRENGTHS):
            coefficients, intercepts = _ridge(train, scores[seen], strength)
            ridge_out[place, unseen] = test @ coefficients + intercepts
        filled = np.where(np.isnan(scores), ridge_out[1], scores)
        forest = _forest(design.counts[seen], filled[seen], seed)
        forest_out[unseen] = forest.predict(design.counts[unseen]).reshape(len(unseen), -1)
        known = design.known(seen)
        shares.append(np.array([_known_share(known, features[row]) for row in unseen]))
    errors = np.nanmean((ridge_out - scores) ** 2, axis=(1, 2))
    best = int(errors.argmin())
    forest_share = _best_shares(ridge_out[best], forest_out, scores)
    raw = forest_share * forest_out + (1 - forest_share) * ridge_out[best]
    slope, offset = _calibrate(raw, scores)
    estimates = _apply(raw, slope, offset)
    bands, below, above = _bands(estimates, scores)
    idf = design.idf(rows)
    coefficients, intercepts = _ridge(design.terms(rows, idf), scores, RIDGE_STRENGTHS[best])
    reports = _reports(outcomes, estimates, forest_share)
    model = QualityModel(
        models=outcomes.models,
        means=np.nanmean(scores, axis=0),
        idf=idf,
        coefficients=coefficients.astype(np.float32),
        intercepts=intercepts,
        known=design.known(rows),
        usual=max(float(np.quantile(np.concatenate(shares), 0.1)), 0.05),
        **_flatten(
            _forest(design.counts, np.where(np.isnan(scores), ridge_out[best], scores), seed)
        ),
        forest_share=forest_share,
        slope=slope,
        offset=offset,
        bands=bands,
        below=below,
        above=above,
        report={
            "prompts": len(outcomes.prompts),
            "left_out": outcomes.left_out,
            "ridge_strength": RIDGE_STRENGTHS[best],
            "models": [vars(report) for report in reports],
        },
    )
    return QualityFit(model, reports, estimates, outcomes.prompts)


def _enough(outcomes: Outcomes) -> Outcomes:
    if len(outcomes.prompts) < MIN_PROMPTS:
        raise InputError(
            f"{len(outcomes.prompts)} prompts with a score, at least {MIN_PROMPTS} are needed"
        )
    counts = (~np.isnan(outcomes.scores)).sum(axis=0)
    enough = np.flatnonzero(counts >= MIN_SCORES)
    if len(enough) == 0:
        raise InputError(f"no model has {MIN_SCORES} scores")
    scores = outcomes.scores[:, enough]
    labelled = np.flatnonzero(~np.isnan(scores).all(axis=1))
    return Outcomes(
        tuple(outcomes.prompts[row] for row in labelled),
        tuple(outcomes.models[column] for column in enough),
        scores[labelled],
        outcomes.costs[np.ix_(labelled, enough)],
        outcomes.left_out,
    )


def _ridge(terms: sparse.csr_matrix, scores: Floats, strength: float) -> tuple[Floats, Floats]:
    coefficients = np.zeros((terms.shape[1], scores.shape[1]))
    intercepts = np.zeros(scores.shape[1])
    missing = np.isnan(scores)
    # One fit for all models that were asked the same prompts.
    patterns, group = np.unique(missing, axis=1, return_inverse=True)
    for number in range(patterns.shape[1]):
        columns = np.flatnonzero(group == number)
        asked = np.flatnonzero(~patterns[:, number])
        if len(asked) == 0:
            # Not in this fold: the mean of nothing is no estimate, half is.
            intercepts[columns] = 0.5
            continue
        fitted = Ridge(alpha=strength, solver="sparse_cg", tol=1e-3).fit(
            terms[asked], scores[np.ix_(asked, columns)]
        )
        coefficients[:, columns] = np.atleast_2d(fitted.coef_).T
        intercepts[columns] = fitted.intercept_
    return coefficients, intercepts


def _forest(counts: Floats, scores: Floats, seed: int) -> ExtraTreesRegressor:
    forest = ExtraTreesRegressor(
        TREES,
        min_samples_leaf=LEAF,
        max_depth=DEPTH,
        max_features=COUNTS_A_SPLIT,
        random_state=seed,
    )
    # A single column has to come without its second dimension.
    return forest.fit(
        counts.astype(np.float32), scores.squeeze(axis=1) if scores.shape[1] == 1 else scores
    )


def _flatten(forest: ExtraTreesRegressor) -> dict[str, Any]:
    """All trees in one set of arrays, siblings side by side."""
    parts: dict[str, list[NDArray[Any]]] = {
        name: [] for name in ("feature", "threshold", "child", "leaf_scores")
    }
    roots, start, depth = [], 0, 0
    for fitted in forest.estimators_:
        tree = fitted.tree_
        left, right = tree.children_left, tree.children_right
        inner = np.flatnonzero(left >= 0)
        # Breadth first, so that the right child stands behind the left one.
        order = [0]
        for node in order:
            if left[node] >= 0:
                order += [left[node], right[node]]
        old = np.array(order)
        new = np.empty(len(old), dtype=np.int64)
        new[old] = np.arange(len(old))
        child = new.copy()
        child[inner] = new[left[inner]]
        leaf = left[old] < 0
        parts["feature"].append(np.where(leaf, 0, tree.feature[old]))
        parts["threshold"].append(np.where(leaf, np.inf, tree.threshold[old]))
        parts["child"].append(child[old] + start)
        parts["leaf_scores"].append(tree.value[old, :, 0] * leaf[:, None])
        roots.append(start)
        start += len(old)
        depth = max(depth, tree.max_depth)
    return {
        "roots": np.array(roots),
        "depth": depth,
        "feature": np.concatenate(parts["feature"]),
        # A count that is equal goes left in both precisions only if the rounding does not pass it.
        "threshold": np.concatenate(parts["threshold"]).astype(np.float32),
        "child": np.concatenate(parts["child"]),
        "leaf_scores": np.concatenate(parts["leaf_scores"]).astype(np.float32),
    }


def _known_share(known: NDArray[np.bool_], features: TextFeatures) -> float:
    words = features.words
    return float(known[words].mean()) if len(words) else 0.0


def _best_shares(ridge: Floats, forest: Floats, scores: Floats) -> Floats:
    """The weight of the forest with the least squared error, one for all models.

    One for each would follow noise where outcomes are few.
    """
    difference, rest = forest - ridge, scores - ridge
    asked = ~np.isnan(scores)
    denominator = float((difference[asked] ** 2).sum())
    share = float((difference[asked] * rest[asked]).sum()) / denominator if denominator else 0.5
    return np.full(scores.shape[1], min(max(share, 0.0), 1.0))


def _calibrate(raw: Floats, scores: Floats) -> tuple[Floats, Floats]:
    """Platt's scaling (1999), one slope and one offset for all models together.

    Such of their own would bend the differences between models, which routing lives on, by what
    is noise in each. A score between 0 and 1 counts as both classes.
    """
    slope, offset = np.zeros(scores.shape[1]), np.zeros(scores.shape[1])
    varied = np.nanmin(scores, axis=0) < np.nanmax(scores, axis=0)
    for column in np.flatnonzero(~varied):
        # One class: nothing tells prompts apart; Laplace's rule of succession.
        asked = scores[~np.isnan(scores[:, column]), column]
        offset[column] = logit((asked.sum() + 1) / (len(asked) + 2))
    known = ~np.isnan(scores) & varied
    if not known.any():
        return slope, offset
    x, y = log_odds(raw, EDGE)[known][:, None], scores[known]
    fitted = LogisticRegression(C=100.0).fit(
        np.concatenate((x, x)), np.repeat([1, 0], len(y)), np.concatenate((y, 1 - y))
    )
    if fitted.coef_[0, 0] > 0:
        slope[varied], offset[varied] = fitted.coef_[0, 0], fitted.intercept_[0]
    else:
        # Estimates that rank the wrong way round rank by chance: the means say more.
        offset[varied] = logit(np.nanmean(scores[:, varied], axis=0))
    return slope, offset


def _apply(raw: Floats, slope: Floats, offset: Floats) -> Floats:
    chances: Floats = expit(slope * log_odds(raw, EDGE) + offset)
    return chances


def _bands(estimates: Floats, scores: Floats) -> tuple[Floats, Floats, Floats]:
    """Bands of estimates with the distance to both ends of Wilson's interval of what was seen."""
    models = scores.shape[1]
    edges = np.zeros((models, BANDS - 1))
    below, above = np.zeros((models, BANDS)), np.zeros((models, BANDS))
    for column in range(models):
        asked = ~np.isnan(scores[:, column])
        order = np.argsort(estimates[asked, column], kind="stable")
        sorted_estimates = estimates[asked, column][order]
        sorted_scores = scores[asked, column][order]
        parts = np.array_split(np.arange(len(order)), BANDS)
        edges[column] = [sorted_estimates[part[-1]] for part in parts[:-1]]
        for band, part in enumerate(parts):
            low, high = wilson(float(sorted_scores[part].mean()), len(part))
            middle = float(sorted_estimates[part].mean())
            below[column, band] = max(middle - low, 0.0)
            above[column, band] = max(high - middle, 0.0)
    return edges, below, above


def _reports(
    outcomes: Outcomes, estimates: Floats, forest_share: Floats
) -> tuple[ModelReport, ...]:
    reports = []
    for column, name in enumerate(outcomes.models):
        asked = ~np.isnan(outcomes.scores[:, column])
        y, p = outcomes.scores[asked, column], estimates[asked, column]
        one_class = y.min() == y.max()
        reports.append(
            ModelReport(
                model=name,
                scores=len(y),
                mean=float(y.mean()),
                brier=float(((p - y) ** 2).mean()),
                brier_of_mean=float(y.var()),
                auc=auc(p, y),
                calibration_error=calibration_error(p, y),
                calibration=calibration(p, y),
                forest_share=float(forest_share[column]),
                note="every score is the same: the estimate is too" if one_class else "",
            )
        )
    return tuple(reports)
