"""How well draws of a vector field tell what it truly is.

Rates are in standard deviations of the true ones near the data. Intervals are central ones of 95 %:
quantiles of the draws, or for fewer than 200 of them (members of an ensemble) those of Student's t.
"""

from typing import Any

import numpy as np
import scipy.stats
import scoringrules
import xarray as xr

import bayes_dasl as bd

from .problems import Problem

WIDER = {"wide": 0.1, "wider": 0.25}
"""Shares of the box of the data by which wider boxes go beyond it on every side."""

_FEW = 200
_SCORED = 500  # draws and probes in the energy score, whose cost is quadratic in draws


def interval(draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Central 95 % intervals from draws `(draw, probe)`."""
    number = len(draws)
    if number >= _FEW:
        low, high = np.quantile(draws, [0.025, 0.975], axis=0)
        return low, high
    half = (
        scipy.stats.t.ppf(0.975, number - 1) * np.sqrt(1 + 1 / number) * draws.std(axis=0, ddof=1)
    )
    return draws.mean(axis=0) - half, draws.mean(axis=0) + half


def _within(draws: np.ndarray, true: np.ndarray) -> float:
    low, high = interval(draws)
    return round(float(np.mean((low <= true) & (true <= high))), 4)


def judged(problem: Problem, post: xr.DataTree) -> dict[str, Any]:
    """Coverage near the data, of the box of the data, and of wider ones; scores and sharpness near
    the data.

    Of scalars of the science their mean and standard deviation.
    """
    points, near = problem.points()
    places = {"near": {n: v[near] for n, v in points.items()}, "box": points}
    places |= {name: problem.points(share)[0] for name, share in WIDER.items()}
    draws = {where: problem.drawn_rates(post, at) for where, at in places.items()}
    flat = {where: d.reshape(-1, d.shape[-1]) for where, d in draws.items()}
    true = {where: np.asarray(problem.rates(problem.truth, at)) for where, at in places.items()}
    each = len(problem.corrected)
    unit = np.repeat(true["near"].reshape(each, -1).std(axis=1), int(near.sum()))
    scaled, truth = flat["near"] / unit, true["near"] / unit
    low, high = interval(scaled)
    rng = np.random.default_rng(0)
    some = scaled[rng.permutation(len(scaled))[:_SCORED]]
    at = np.sort(rng.permutation(truth.size)[:_SCORED])
    science = {
        name: [float(f"{v.mean():.5g}"), float(f"{v.std():.4g}")]
        for name, v in bd.plots.science_parameters(post).items()
    }
    return {
        "science": science,
        **{where: _within(flat[where], true[where]) for where in places},
        "crps": round(
            float(np.mean(scoringrules.crps_ensemble(truth, scaled, m_axis=0, estimator="pwm"))), 5
        ),
        "energy": round(
            float(
                scoringrules.es_ensemble(truth[at], some[:, at], estimator="fair")
                / np.sqrt(at.size)
            ),
            5,
        ),
        "width": round(float(np.mean(high - low)), 4),
        "rmse": round(float(np.sqrt(np.mean((scaled.mean(axis=0) - truth) ** 2))), 4),
    }
