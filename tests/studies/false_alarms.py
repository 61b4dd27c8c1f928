"""How often findings on priors and residuals blame a sound population, without fits.

Run: `uv run python -m tests.studies.false_alarms`; seconds. Truths come from the priors and data
from the models. Posteriors are those of precise data, in closed form; every finding that is not
good is a false alarm.
"""

from collections import Counter

import numpy as np
import xarray as xr

from bayes_dasl.verdict.adequacy import adequacy_findings

REPLICATES, DRAWS, PRIOR_DRAWS, MEMBERS, ERROR = 400, 400, 500, 20, 0.02


def population(rng: np.random.Generator, number: int) -> dict[str, np.ndarray]:
    """Draws of a typical value, of the spread of its members, and of the members: log-normal around
    it.
    """
    typical, spread = np.exp(0.5 * rng.normal(size=number)), np.abs(0.5 * rng.normal(size=number))
    return {"typical": typical, "spread": spread, "amp": _members(rng, typical, spread)}


def _members(rng: np.random.Generator, typical: np.ndarray, spread: np.ndarray) -> np.ndarray:
    return typical[:, None] * np.exp(spread[:, None] * rng.normal(size=(len(typical), MEMBERS)))


def told_precisely(rng: np.random.Generator, truth: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The posterior where data tell each member to 2 %, and members their spread and what is
    typical.
    """
    seen = np.log(truth["amp"][0]) + ERROR * rng.normal(size=MEMBERS)
    spread = np.std(seen, ddof=1) * np.sqrt((MEMBERS - 1) / rng.chisquare(MEMBERS - 1, DRAWS))
    known = MEMBERS / spread**2
    middle = (known * seen.mean()) / (known + 0.5**-2)
    typical = np.exp(middle + rng.normal(size=DRAWS) / np.sqrt(known + 0.5**-2))
    return {
        "typical": typical,
        "spread": spread,
        "amp": np.exp(seen + ERROR * rng.normal(size=(DRAWS, MEMBERS))),
    }


ATTRIBUTES = {"group": "science", "lower": 0.0}


def posterior(
    rng: np.random.Generator, truth: dict[str, np.ndarray], *, pooled: bool
) -> xr.DataTree:
    prior = population(rng, PRIOR_DRAWS)
    if not pooled:  # the members' own prior is known
        one, spread = np.ones(PRIOR_DRAWS), np.full(PRIOR_DRAWS, 0.5)
        prior = {"amp": _members(rng, one, spread)}
        truth = {"amp": _members(rng, one[:1], spread[:1])}
        seen = np.log(truth["amp"][0]) + ERROR * rng.normal(size=(DRAWS, MEMBERS))
        held = {"amp": np.exp(seen)}
    else:
        held = told_precisely(rng, truth)
    groups = {
        name: _dataset(draws, pooled=pooled)
        for name, draws in (("prior", prior), ("posterior", held))
    }
    return xr.DataTree.from_dict(groups)


def _dataset(draws: dict[str, np.ndarray], *, pooled: bool) -> xr.Dataset:
    over = {name: ("chain", "draw", "subject")[: 1 + v.ndim] for name, v in draws.items()}
    attributes = {name: ATTRIBUTES | {"pooled": int(pooled and name == "amp")} for name in draws}
    return xr.Dataset({name: (over[name], v[None], attributes[name]) for name, v in draws.items()})


def prior_alarms(*, pooled: bool, replicates: int = REPLICATES) -> float:
    """The share of sound fits whose verdict blames a prior."""
    alarms = 0
    for seed in range(replicates):
        rng = np.random.default_rng(seed)
        post = posterior(rng, population(rng, 1), pooled=pooled)
        alarms += any(
            f.subject.startswith("prior of") for f in adequacy_findings(post, None, None, {})
        )
    return alarms / replicates


def levels_of_members(
    rng: np.random.Generator, numbers: list[int], scales: np.ndarray, *, phi: float = 0.0
):
    """Posterior and forecast of members with a level of their own and one scale of normal noise, in
    closed form.

    The data of member m have the standard deviation `scales[m]` and, in a row, the correlation
    `phi`.
    """
    times, members = max(numbers), len(numbers)
    errors = rng.normal(size=(times, members))
    for i in range(1, times):
        errors[i] = phi * errors[i - 1] + np.sqrt(1 - phi**2) * errors[i]
    y = 3.0 + scales * errors
    y[np.arange(times)[:, None] >= np.array(numbers)] = np.nan
    number = np.array(numbers)
    left = number.sum() - members
    squares = np.nansum((y - np.nanmean(y, axis=0)) ** 2)
    sigma = np.sqrt(squares / rng.chisquare(left, DRAWS))
    level = np.nanmean(y, axis=0) + sigma[:, None] / np.sqrt(number) * rng.normal(
        size=(DRAWS, members)
    )
    centre = np.repeat(level[:, None], times, axis=1)
    variance = np.broadcast_to(sigma[:, None, None] ** 2, centre.shape)
    groups = {"predictions": centre + np.sqrt(variance) * rng.normal(size=centre.shape)}
    groups |= {"conditional_mean": centre, "conditional_variance": variance}
    at = {"time": np.arange(float(times)), "subject": np.arange(members)}

    def over_time(values: np.ndarray) -> xr.Dataset:
        return xr.Dataset({"y": (("chain", "draw", "time", "subject"), values[None])}, at)

    fc = xr.DataTree.from_dict({name: over_time(values) for name, values in groups.items()})
    fc.attrs = {"train_start": 0.0, "train_end": times - 1.0, "members": "subject"}
    observed = xr.Dataset({"y": (("time", "subject"), y)}, at)
    return xr.DataTree.from_dict({"posterior": xr.Dataset(), "observed_data": observed}), fc


def residual_alarms(
    numbers: list[int], scales: np.ndarray, *, phi: float = 0.0, replicates: int = 200
):
    """How often each finding that is not good is raised, by its subject."""
    raised: Counter[str] = Counter()
    for seed in range(replicates):
        post, fc = levels_of_members(np.random.default_rng(seed), numbers, scales, phi=phi)
        raised.update(f.subject for f in adequacy_findings(post, fc, None, {}) if f.level != "good")
    return {subject: count / replicates for subject, count in raised.items()}


POPULATIONS = {
    "one scale, 40 data of each of 9": ([40] * 9, np.ones(9)),
    "one scale, 8 to 80 data of each of 20": ([8, 12, 20, 80] * 5, np.ones(20)),
    "one scale, 9 data of each of 60": ([9] * 60, np.ones(60)),
    "scales that differ twofold, 40 data of each of 9": ([40] * 9, np.array([1.0] * 5 + [2.0] * 4)),
    "scales that differ twofold, 100 data of each of 9": (
        [100] * 9,
        np.array([1.0] * 5 + [2.0] * 4),
    ),
    "scales that differ fourfold, 12 data of each of 9": (
        [12] * 9,
        np.array([1.0] * 5 + [4.0] * 4),
    ),
}


if __name__ == "__main__":
    print(f"prior, members around what is typical of them: {prior_alarms(pooled=True):.1%}")
    print(f"prior, members with a known prior: {prior_alarms(pooled=False):.1%}")
    for name, (numbers, scales) in POPULATIONS.items():
        print(name, residual_alarms(numbers, scales))
    print("one scale, correlation 0.6 in a row", residual_alarms([40] * 9, np.ones(9), phi=0.6))
