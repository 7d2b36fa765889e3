"""The figures by which explanations are judged, and their intervals: pure functions of what is true and what was said.

A figure is computed from sums over rows: a row is a record, an example or a pair, whatever is drawn as a whole when an
interval is estimated. So one and the same code gives the figure itself (each row counts once) and that of every
bootstrap sample (rows count as often as they were drawn). What is undefined is None, never NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Values: TypeAlias = NDArray[np.float64]
Measure: TypeAlias = Callable[[Values], Values]
"""Gives a figure for each of some samples: weights [n_samples, n_rows] to values [n_samples], NaN where undefined."""

N_SAMPLES = 1_000
"""Bootstrap samples of an interval."""
_CONSTANT = 1e-12
"""A sample whose variance is less than this part of the whole's counts as constant: the rest is rounding."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its 95 % interval; None for what is undefined."""

    value: float | None
    low: float | None = None
    high: float | None = None


def estimate(measure: Measure, n_rows: int, strata: Sequence[int] | None = None, seed: int = 0) -> Estimate:
    """Compute a figure, and its 95 % interval by drawing rows with replacement (percentiles of the bootstrap).

    The interval says how much the figure depends on which rows were drawn, and with few rows it is rather too narrow.
    Where every row agrees, as at a perfect score, it has no width, which does not make the figure certain.

    Args:
        measure: the figure.
        n_rows: rows that it is of.
        strata: [n_rows] group of each row; every sample has as many rows of each group as there are. None for one.
        seed: of the draws.

    Returns:
        No interval where a stratum has less than two rows, or the figure is undefined in half of the samples.
    """
    if n_rows == 0:
        return Estimate(None)
    value = _defined(measure(np.ones((1, n_rows)))[0])
    groups = np.zeros(n_rows, np.int64) if strata is None else np.asarray(strata)
    weights = np.zeros((N_SAMPLES, n_rows))
    random = np.random.default_rng(seed)
    for group in np.unique(groups):
        rows = np.flatnonzero(groups == group)
        if len(rows) < 2:
            return Estimate(value)
        weights[:, rows] = random.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), N_SAMPLES)
    values = measure(weights)
    values = values[np.isfinite(values)]
    if value is None or len(values) < N_SAMPLES / 2:
        return Estimate(value)
    low, high = np.quantile(values, (0.025, 0.975)).tolist()
    return Estimate(value, low, high)


def compute(measure: Measure, n_rows: int) -> float | None:
    """Compute a figure alone."""
    return _defined(measure(np.ones((1, n_rows)))[0]) if n_rows else None


# predicted activations -----------------------------------------------------------------------------------------------


def measure_correlation(true: Sequence[ArrayLike], predicted: Sequence[ArrayLike]) -> Measure:
    """Pearson's correlation over all tokens of all records; undefined where either side is constant.

    Args:
        true: for each record its activations [n_tokens].
        predicted: likewise, in any linear scale.

    Source: ev_correlation_score of AI neuron_explainer/explanations/scoring.py, which has 0 where this is undefined
    """
    x, y = _center(true), _center(predicted)
    n, sum_x, sum_y = _count(x), _sum(x), _sum(y)
    sum_xx, sum_yy = _sum([a * a for a in x]), _sum([b * b for b in y])
    sum_xy = _sum([a * b for a, b in zip(x, y, strict=True)])
    least_x, least_y = sum_xx.sum() * _CONSTANT, sum_yy.sum() * _CONSTANT
    if _is_constant(true) or _is_constant(predicted):
        return _undefined

    def measure(weights: Values) -> Values:
        total = weights @ n
        covariance = weights @ sum_xy - (weights @ sum_x) * (weights @ sum_y) / total
        variance_x = weights @ sum_xx - (weights @ sum_x) ** 2 / total
        variance_y = weights @ sum_yy - (weights @ sum_y) ** 2 / total
        # One root for each: the product of two variances of float32 activations can leave the range of float64.
        spread = np.sqrt(np.maximum(variance_x, 0)) * np.sqrt(np.maximum(variance_y, 0))
        ratio = _divide(covariance, np.where((variance_x > least_x) & (variance_y > least_y), spread, 0))
        return np.clip(ratio, -1, 1)

    return measure


def measure_rsquared(true: Sequence[ArrayLike], predicted: Sequence[ArrayLike]) -> Measure:
    """One minus the squared error as a part of that of predicting 0 everywhere; undefined where all activations are 0.

    Source: rsquared_score of AI neuron_explainer/explanations/scoring.py. It is not scikit-learn's r2_score, which
        compares with predicting the mean: that is `measure_r2`.
    """
    error = _sum([(x - y) ** 2 for x, y in _pair(true, predicted)])
    whole = _sum([x**2 for x, _ in _pair(true, predicted)])
    return lambda weights: 1 - _divide(weights @ error, weights @ whole)


def measure_r2(true: Sequence[ArrayLike], predicted: Sequence[ArrayLike]) -> Measure:
    """One minus the squared error as a part of that of predicting the mean; undefined for constant activations.

    Source: scikit-learn's r2_score, which has 0 or 1 where this is undefined
    """
    if _is_constant(true):
        return _undefined
    x = _center(true)
    error = _sum([(a - b) ** 2 for a, b in _pair(true, predicted)])
    n, sum_x, sum_xx = _count(x), _sum(x), _sum([a * a for a in x])
    least = sum_xx.sum() * _CONSTANT

    def measure(weights: Values) -> Values:
        variance = weights @ sum_xx - (weights @ sum_x) ** 2 / (weights @ n)
        return 1 - _divide(weights @ error, np.where(variance > least, variance, 0))

    return measure


def measure_absolute_dev_explained(true: Sequence[ArrayLike], predicted: Sequence[ArrayLike]) -> Measure:
    """One minus the absolute error as a part of that of predicting 0 everywhere; undefined where all are 0.

    Source: absolute_dev_explained_score of AI neuron_explainer/explanations/scoring.py
    """
    error = _sum([np.abs(x - y) for x, y in _pair(true, predicted)])
    whole = _sum([np.abs(x) for x, _ in _pair(true, predicted)])
    return lambda weights: 1 - _divide(weights @ error, weights @ whole)


def fit_line(x: ArrayLike, y: ArrayLike) -> tuple[float, float]:
    """Fit y = slope · x + intercept by least squares; a constant x gives slope 0.

    Source: equal to scikit-learn's LinearRegression
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    deviation = x - x.mean()
    spread = float(deviation @ deviation)
    slope = float(deviation @ (y - y.mean())) / spread if np.ptp(x) > 0 and spread > 0 else 0.0
    return slope, float(y.mean() - slope * x.mean())


# yes or no -----------------------------------------------------------------------------------------------------------


def measure_balanced_accuracy(labels: ArrayLike, said: ArrayLike, rows: Sequence[int] | None = None) -> Measure:
    """Mean of the part of positives and the part of negatives that were told right; undefined without both.

    Args:
        labels: [n] 0 or 1, what is true.
        said: [n] 0 or 1.
        rows: [n] row of each example, from 0; None where each is its own.

    Source: equal to scikit-learn's balanced_accuracy_score where both labels occur
    """
    label, answer = np.asarray(labels, bool), np.asarray(said, bool)
    true_positive, positive, true_negative, negative = (
        _sum_rows(which, rows) for which in (label & answer, label, ~label & ~answer, ~label)
    )
    return lambda weights: (
        _divide(weights @ true_positive, weights @ positive) / 2
        + _divide(weights @ true_negative, weights @ negative) / 2
    )


def measure_f1(labels: ArrayLike, said: ArrayLike, rows: Sequence[int] | None = None) -> Measure:
    """Harmonic mean of precision and recall; undefined where neither is a positive nor was one seen.

    Source: equal to scikit-learn's f1_score, which has 0 where this is undefined
    """
    label, answer = np.asarray(labels, bool), np.asarray(said, bool)
    true_positive, wrong = _sum_rows(label & answer, rows), _sum_rows(label ^ answer, rows)
    return lambda weights: _divide(2 * (weights @ true_positive), 2 * (weights @ true_positive) + weights @ wrong)


def measure_roc_auc(labels: ArrayLike, scores: ArrayLike, rows: Sequence[int] | None = None) -> Measure:
    """Probability that a positive has a higher score than a negative, ties counting half; undefined without both.

    Source: equal to scikit-learn's roc_auc_score
    """
    values = np.asarray(scores, np.float64)
    order = np.argsort(values, kind="stable")
    label = np.asarray(labels, bool)[order]
    row = np.asarray(range(len(values)) if rows is None else rows, np.int64)[order]
    starts = np.flatnonzero(np.diff(values[order], prepend=np.nan) != 0)

    def measure(weights: Values) -> Values:
        weight = weights[:, row]
        positive = np.add.reduceat(weight * label, starts, axis=1)
        negative = np.add.reduceat(weight * ~label, starts, axis=1)
        below = np.cumsum(negative, axis=1) - negative / 2
        return _divide((positive * below).sum(1), positive.sum(1) * negative.sum(1))

    return measure


# sums ----------------------------------------------------------------------------------------------------------------


def _pair(true: Sequence[ArrayLike], predicted: Sequence[ArrayLike]) -> list[tuple[Values, Values]]:
    return [(np.asarray(x, np.float64), np.asarray(y, np.float64)) for x, y in zip(true, predicted, strict=True)]


def _center(records: Sequence[ArrayLike]) -> list[Values]:
    """Take the mean of all values away, without which sums of squares would lose what is to be measured."""
    arrays = [np.asarray(values, np.float64) for values in records]
    mean = np.concatenate(arrays).mean() if arrays else 0.0
    return [values - mean for values in arrays]


def _is_constant(records: Sequence[ArrayLike]) -> bool:
    return len(records) == 0 or bool(np.ptp(np.concatenate([np.asarray(r, np.float64) for r in records])) == 0)


def _count(records: Sequence[Values]) -> Values:
    return np.array([len(values) for values in records], np.float64)


def _sum(records: Sequence[Values]) -> Values:
    return np.array([values.sum() for values in records], np.float64)


def _sum_rows(which: NDArray[np.bool_], rows: Sequence[int] | None) -> Values:
    return which.astype(np.float64) if rows is None else np.bincount(rows, which).astype(np.float64)


def _divide(part: Values, whole: Values) -> Values:
    result = np.full(np.shape(whole), np.nan)
    np.divide(part, whole, out=result, where=whole > 0)
    return result


def _undefined(weights: Values) -> Values:
    return np.full(len(weights), np.nan)


def _defined(value: np.float64) -> float | None:
    return float(value) if np.isfinite(value) else None
