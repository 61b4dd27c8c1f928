"""How often a sound fit is said to be level at a bound of a uniform prior, and how often a
parameter that is level.

Run: `uv run python -m tests.studies.level_bounds`; a minute. Truths come from uniform priors and
data from the models; posteriors are prior draws resampled by their likelihood. Level parameters
have a likelihood that rises as a normal distribution function somewhere in the range of a uniform
or log-uniform prior, and is level from there to a bound.
"""

import json
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import xarray as xr
from scipy.special import ndtr

from bayes_dasl.verdict.posterior_findings import posterior_findings

PROPOSALS, DRAWS, PRIOR_DRAWS = 200_000, 4000, 500
TIMES = np.linspace(0.0, 4.0, 31)
# Lower seeds were looked at while the rule was chosen.
SEEDS, LEVEL_SEEDS = range(300, 330), range(3000, 3400)
DECADES = (-3.0, 3.0)
type Numbers = dict[str, np.ndarray]


class Sound(NamedTuple):
    """A formula of time and numbers with uniform priors, and the standard deviations that noise has
    in turn.
    """

    ranges: dict[str, tuple[float, float]]
    formula: Callable
    noise: tuple[float, ...]


MODELS = {
    "saturation": Sound(
        {"most": (1, 5), "half": (0.2, 4)},
        lambda t, most, half: most * t / (half + t),
        (0.1, 0.3, 0.5),
    ),
    "peak": Sound(
        {"height": (1, 5), "centre": (1, 3), "width": (0.5, 1.5)},
        lambda t, height, centre, width: height * np.exp(-0.5 * ((t - centre) / width) ** 2),
        (0.1, 0.3, 0.5),
    ),
    "growth": Sound(
        {"rate": (0.5, 2), "capacity": (5, 20), "first": (0.2, 2)},
        lambda t, rate, capacity, first: (
            capacity / (1 + (capacity / first - 1) * np.exp(-rate * t))
        ),
        (0.3, 1.0),
    ),
    "decay": Sound(
        {"amount": (1, 8), "rate": (0.1, 2)},
        lambda t, amount, rate: amount * np.exp(-rate * t),
        (0.1, 0.5),
    ),
    "line": Sound(
        {"level": (-4, 4), "slope": (-2, 2)}, lambda t, level, slope: level + slope * t, (0.5,)
    ),
    "decay to a plateau": Sound(
        {"amount": (1, 8), "rate": (0.2, 2), "plateau": (0, 2)},
        lambda t, amount, rate, plateau: plateau + amount * np.exp(-rate * t),
        (0.1, 0.5),
    ),
}


def said(draws: Numbers, prior: Numbers, bounds: dict[str, tuple[float, float]]) -> bool:
    """Whether a parameter is said to be level at a bound."""

    def group(numbers: Numbers) -> xr.Dataset:
        return xr.Dataset(
            {
                name: (("chain", "draw"), v[None], {"group": "science"})
                for name, v in numbers.items()
            }
        )

    tree = xr.DataTree.from_dict({"posterior": group(draws), "prior": group(prior)})
    tree.attrs["bounds"] = json.dumps(
        {name: {"lower": low, "upper": high} for name, (low, high) in bounds.items()}
    )
    return any(" level " in finding.message for finding in posterior_findings(tree, agreed=True))


def _uniform(
    rng: np.random.Generator, ranges: dict[str, tuple[float, float]], size: tuple[int, ...]
) -> Numbers:
    return {name: rng.uniform(*ends, size=size) for name, ends in ranges.items()}


def sound(name: str, seed: int) -> bool:
    model, rng = MODELS[name], np.random.default_rng([54, seed, list(MODELS).index(name)])
    sd = model.noise[seed % len(model.noise)]
    truth = _uniform(rng, model.ranges, ())
    y = model.formula(TIMES, **truth) + sd * rng.normal(size=TIMES.size)
    box = model.ranges
    while True:  # closer to the posterior, until enough proposals count
        proposed = _uniform(rng, box, (PROPOSALS, 1))
        fit = -0.5 * ((y - model.formula(TIMES, **proposed)) ** 2).sum(axis=1) / sd**2
        weight = np.exp(fit - fit.max())
        if weight.sum() ** 2 / (weight**2).sum() > 150:
            break
        some = rng.choice(PROPOSALS, 2000, p=weight / weight.sum())
        box = {n: _around(proposed[n][some], ends) for n, ends in model.ranges.items()}
    kept = rng.choice(PROPOSALS, DRAWS, p=weight / weight.sum())
    draws = {n: v[kept, 0] for n, v in proposed.items()}
    return said(draws, _uniform(rng, model.ranges, (PRIOR_DRAWS,)), model.ranges)


def _around(values: np.ndarray, ends: tuple[float, float]) -> tuple[float, float]:
    further = 1.5 * values.std() + 1e-3 * (ends[1] - ends[0])
    return max(ends[0], float(values.min() - further)), min(ends[1], float(values.max() + further))


def level(seed: int) -> tuple[float, bool, bool]:
    """Over which share of the range a parameter is level, whether on a log scale, and whether that
    is said.
    """
    rng = np.random.default_rng([55, seed])
    where, upper, logs = rng.uniform(0.05, 0.95), rng.integers(2) == 1, rng.integers(2) == 1
    softness, u = rng.uniform(0.02, 0.15), rng.uniform(size=PROPOSALS)
    likelihood = ndtr(((u if upper else 1 - u) - where) / softness)
    draws, prior = (
        rng.choice(u, DRAWS, p=likelihood / likelihood.sum()),
        rng.uniform(size=PRIOR_DRAWS),
    )

    def scaled(v: np.ndarray) -> np.ndarray:
        return 10 ** (DECADES[0] + (DECADES[1] - DECADES[0]) * v) if logs else v

    ends = scaled(np.array([0.0, 1.0]))
    return (
        1 - where,
        logs,
        said({"k": scaled(draws)}, {"k": scaled(prior)}, {"k": (float(ends[0]), float(ends[1]))}),
    )


if __name__ == "__main__":
    found = [sound(name, seed) for name in MODELS for seed in SEEDS]
    print(f"sound fits that are called level at a bound: {sum(found)} of {len(found)}")
    every = [level(seed) for seed in LEVEL_SEEDS]
    for logs, least in ((False, 0.6), (False, 0.5), (True, 0.7), (True, 0.25)):
        of = [hit for share, on_logs, hit in every if on_logs == logs and share >= least]
        scale = "log-uniform" if logs else "uniform"
        print(f"level over {least:.0%} of a {scale} prior or more: {sum(of)} of {len(of)} found")
