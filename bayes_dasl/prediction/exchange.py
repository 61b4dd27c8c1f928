"""Pick-freeze draws: one group of leaves is kept, and all others come from another draw."""

import jax.numpy as jnp
import numpy as np
from numpyro.distributions import biject_to

from .._statistics.convergence import thinned
from .._statistics.regression import DRAWS_PER_FEATURE, linear_features
from ..model import Model
from ..random import RandomLeaf, paths
from .predictive import Draws

KEPT = {"science": ("science",), "network": ("network",), "process": ("science", "network")}
"""The groups of leaves that are kept to estimate each part of the variance."""
# The most draws that are exchanged, and the fewest draws of a posterior for it.
MOST, FEWEST = 4000, 100
# A regression is used if its R² on other draws exceeds this number of standard errors.
_BY_CHANCE = 4.0


def parts_of(model: Model) -> tuple[str, ...]:
    """Return the parts into which the epistemic variance of a model splits.

    Returns:
        "science" and "network" for a model with both, and "process" for a model with latent paths.
    """
    groups = {leaf.group for leaf in paths(model).values()}
    found = ("science", "network") if {"science", "network"} <= groups else ()
    return (*found, "process") if "latent" in groups and len(groups) > 1 else found


def exchangeable(model: Model, draws: Draws) -> np.ndarray:
    """Return the indices of at most 4000 draws for which pick-freeze draws are made.

    Args:
        model: the model.
        draws: draws `(draw, …)` of every random leaf, by path.

    Returns:
        The indices; empty for fewer than 100 draws, or if the variance does not split.
    """
    total = len(next(iter(draws.values())))
    return thinned(total, MOST) if total >= FEWEST and parts_of(model) else np.zeros(0, int)


def exchanged(model: Model, draws: Draws, index: np.ndarray) -> Draws:
    r"""Return pick-freeze draws: for each of `parts_of`, its groups are kept, all else exchanged.

    A draw $(x, y)$ with kept leaves $x$ becomes $(x, y')$. If $x$ and $y$ are independent under the
    posterior, $y'$ comes from another draw. If they depend on each other linearly, $y'$ is shifted
    by the regression of $y$ on $x$, in unconstrained space. In both cases $y'$ is another draw
    given $x$. So the predicted mean $m$ has $\mathrm{Cov}[m(x, y), m(x, y')] = \mathrm{Var}[E(m
    \mid x)]$. `decompose` checks this on the predictions.

    Args:
        model: the model.
        draws: draws `(draw, …)` of every random leaf, by path.
        index: the indices of the draws to use.

    Returns:
        Draws by path, for all parts one after the other.

    Source: Saltelli et al. (2010), Variance based sensitivity analysis of model output; Kucherenko,
    Tarantola & Annoni (2012), for dependent inputs.
    """
    leaves = paths(model)
    some = {path: np.asarray(values)[index] for path, values in draws.items()}
    of_parts = [_exchanged_but(KEPT[part], leaves, some) for part in parts_of(model)]
    return {path: np.concatenate([of_part[path] for of_part in of_parts]) for path in draws}


def _exchanged_but(kept: tuple[str, ...], leaves: dict[str, RandomLeaf], draws: Draws) -> Draws:
    """Return draws in which the leaves of some groups are kept and all others are exchanged."""
    free = {path: _unconstrained(leaf, draws[path]) for path, leaf in leaves.items()}
    others = [path for path, leaf in leaves.items() if leaf.group not in kept]
    stay = [free[path] for path, leaf in leaves.items() if leaf.group in kept]
    exchange = [free[path] for path in others]
    partner, shift = renewal(np.concatenate(stay, axis=1), np.concatenate(exchange, axis=1))
    ends = np.cumsum([values.shape[1] for values in exchange])
    found = dict(draws)
    for path, own in zip(others, np.split(shift, ends[:-1], axis=1), strict=True):
        found[path] = draws[path][partner]
        if own.any():
            moved = free[path][partner] + own
            found[path] = _constrained(leaves[path], moved, draws[path].shape)
    return found


def renewal(kept: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return, for each draw, the draw that provides its exchanged numbers, and their shifts.

    The other draw is in the same half of the draws, and the regression is fitted to the other half.
    So the regression is independent of the draws that it shifts. A number is not shifted if the
    regression does not predict it.

    Args:
        kept: the kept numbers, unconstrained, `(draw, number)`.
        others: the exchanged numbers, unconstrained, `(draw, number)`.

    Returns:
        The index of the other draw, `(draw,)`, and the shifts, `(draw, number)`.
    """
    # 1. Two random halves, and the features of the kept numbers.
    draws = len(kept)
    order = np.random.default_rng(0).permutation(draws)
    halves = order[: draws // 2], order[draws // 2 :]
    finite = kept[:, np.isfinite(kept).all(axis=0)]
    scores = linear_features(finite, draws // (2 * DRAWS_PER_FEATURE))
    moving = np.flatnonzero(np.isfinite(others).all(axis=0))
    if not (moving.size and scores.shape[1]):
        moving = moving[:0]
        scores = np.zeros((draws, 1))
    partner = np.empty(draws, int)
    shift = np.zeros(others.shape)
    for own, other in (halves, halves[::-1]):
        partner[own] = np.roll(own, 1)
        # 2. The regression y = x β on the other half.
        x = _centred(scores[other])
        y = _centred(others[other][:, moving])
        slope = np.linalg.lstsq(x, y)[0]
        # 3. Its R² on the own half; β = 0 if that may be chance.
        x = _centred(scores[own])
        y = _centred(others[own][:, moving])
        left = ((y - x @ slope) ** 2).sum(axis=0)
        gained = 1 - left / np.maximum((y**2).sum(axis=0), 1e-300)
        slope[:, gained <= _BY_CHANCE * np.sqrt(x.shape[1]) / len(x)] = 0.0
        # 4. The shift (x - x_partner) β.
        shift[np.ix_(own, moving)] = (scores[own] - scores[partner[own]]) @ slope
    return partner, shift


def _centred(values: np.ndarray) -> np.ndarray:
    return values - values.mean(axis=0)


def _unconstrained(leaf: RandomLeaf, values: np.ndarray) -> np.ndarray:
    """Return draws of a leaf in unconstrained space, `(draw, number)`; NaN without a bijection."""
    try:
        values = np.asarray(biject_to(leaf.distribution.support).inv(jnp.asarray(values, float)))
    except NotImplementedError:
        # Such as a sphere.
        return np.full((len(values), 1), np.nan)
    return values.reshape(len(values), -1)


def _constrained(leaf: RandomLeaf, free: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return the inverse of `_unconstrained`, as draws of a given shape."""
    bijector = biject_to(leaf.distribution.support)
    sizes = bijector.inverse_shape(shape[1:])
    return np.asarray(bijector(jnp.asarray(free).reshape(len(free), *sizes)))
