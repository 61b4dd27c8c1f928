"""How often findings on priors and residuals blame a sound population, without fits.

Run: `uv run python -m tests.studies.false_alarms`; seconds. Truths come from the priors and data from the models.
Posteriors are those of precise data, in closed form; every finding that is not good is a false alarm.
"""

import numpy as np
import xarray as xr

from bayes_dasl.judgement.adequacy import adequacy_findings

REPLICATES, DRAWS, PRIOR_DRAWS, MEMBERS, ERROR = 400, 400, 500, 20, 0.02


def population(rng: np.random.Generator, number: int) -> dict[str, np.ndarray]:
    """Draws of a typical value, of the spread of its members, and of the members: log-normal around it."""
    typical, spread = np.exp(0.5 * rng.normal(size=number)), np.abs(0.5 * rng.normal(size=number))
    return {"typical": typical, "spread": spread, "amp": _members(rng, typical, spread)}


def _members(rng: np.random.Generator, typical: np.ndarray, spread: np.ndarray) -> np.ndarray:
    return typical[:, None] * np.exp(spread[:, None] * rng.normal(size=(len(typical), MEMBERS)))


def told_precisely(rng: np.random.Generator, truth: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The posterior where data tell each member to 2 %, and members their spread and what is typical."""
    seen = np.log(truth["amp"][0]) + ERROR * rng.normal(size=MEMBERS)
    spread = np.std(seen, ddof=1) * np.sqrt((MEMBERS - 1) / rng.chisquare(MEMBERS - 1, DRAWS))
    known = MEMBERS / spread**2
    middle = (known * seen.mean()) / (known + 0.5**-2)
    typical = np.exp(middle + rng.normal(size=DRAWS) / np.sqrt(known + 0.5**-2))
    return {"typical": typical, "spread": spread, "amp": np.exp(seen + ERROR * rng.normal(size=(DRAWS, MEMBERS)))}


ATTRIBUTES = {"group": "science", "lower": 0.0}


def posterior(rng: np.random.Generator, truth: dict[str, np.ndarray], *, pooled: bool) -> xr.DataTree:
    prior = population(rng, PRIOR_DRAWS)
    if not pooled:  # the members' own prior is known
        one, spread = np.ones(PRIOR_DRAWS), np.full(PRIOR_DRAWS, 0.5)
        prior = {"amp": _members(rng, one, spread)}
        truth = {"amp": _members(rng, one[:1], spread[:1])}
        seen = np.log(truth["amp"][0]) + ERROR * rng.normal(size=(DRAWS, MEMBERS))
        held = {"amp": np.exp(seen)}
    else:
        held = told_precisely(rng, truth)
    groups = {name: _dataset(draws, pooled=pooled) for name, draws in (("prior", prior), ("posterior", held))}
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
        alarms += any(f.subject.startswith("prior of") for f in adequacy_findings(post, None, None, {}))
    return alarms / replicates


if __name__ == "__main__":
    print(f"prior, members around what is typical of them: {prior_alarms(pooled=True):.1%}")
    print(f"prior, members with a known prior: {prior_alarms(pooled=False):.1%}")
