"""Draws of which one group of leaves stays and all others are drawn anew, to split a variance
between groups.
"""

import jax.numpy as jnp
import numpy as np
from numpyro.distributions import biject_to

from .._statistics.convergence import thinned
from .._statistics.regression import DRAWS_PER_FEATURE, linear_features
from ..model import Model
from ..random import RandomLeaf, paths
from .predictive import Draws

KEPT = {"science": ("science",), "network": ("network",), "process": ("science", "network")}
"""The groups of leaves that stay, by the part of the variance that this tells: for the process all
but its path.
"""
MOST, FEWEST = 4000, 100
_BY_CHANCE = 4.0
"""Standard errors, or about so many, of what a regression gains on draws that it has not seen."""


def parts_of(model: Model) -> tuple[str, ...]:
    """The parts into which a variance is split: science and network where there are both, process
    where a path is.
    """
    groups = {leaf.group for leaf in paths(model).values()}
    found = ("science", "network") if {"science", "network"} <= groups else ()
    return (*found, "process") if "latent" in groups and len(groups) > 1 else found


def exchangeable(model: Model, draws: Draws) -> np.ndarray:
    """The indices of the draws whose leaves are kept, among all of the posterior: of more than 4000
    so many.

    There are none where the model has one group of leaves, or for fewer than 100 draws.
    """
    total = len(next(iter(draws.values())))
    return thinned(total, MOST) if total >= FEWEST and parts_of(model) else np.zeros(0, int)


def exchanged(model: Model, draws: Draws, index: np.ndarray) -> Draws:
    r"""Draws with a group of leaves kept, and all else of another draw: for each of `parts_of`, one
    after the other.

    For $(x, y)$ of a draw, $x$ the group, it is $(x, y')$. Where the groups are independent under
    the posterior, $y'$ is that of another draw. Where they depend on each other linearly, it is
    moved along by the regression of $y$ on $x$, in unconstrained numbers. In both cases $y'$ is
    another draw given $x$, so that $\mathrm{Cov}[m(x, y), m(x, y')] = \mathrm{Var}[E(m \mid x)]$.
    Whether it is so the predictions tell.

    Source: Saltelli et al. (2010), Variance based sensitivity analysis of model output; Kucherenko,
    Tarantola & Annoni (2012), for dependent inputs.
    """
    leaves = paths(model)
    some = {path: np.asarray(values)[index] for path, values in draws.items()}
    renewed = [_renewed(leaves, some, KEPT[part]) for part in parts_of(model)]
    return {path: np.concatenate([of_group[path] for of_group in renewed]) for path in draws}


def _renewed(leaves: dict[str, RandomLeaf], draws: Draws, kept: tuple[str, ...]) -> Draws:
    free = {path: _free(leaf, draws[path]) for path, leaf in leaves.items()}
    others = [path for path, leaf in leaves.items() if leaf.group not in kept]
    held = np.concatenate(
        [free[path] for path, leaf in leaves.items() if leaf.group in kept], axis=1
    )
    partner, shift = renewal(held, np.concatenate([free[path] for path in others], axis=1))
    found, start = dict(draws), 0
    for path in others:
        own = shift[:, start : start + free[path].shape[1]]
        start += own.shape[1]
        found[path] = draws[path][partner]
        if own.any():
            found[path] = _value(leaves[path], free[path][partner] + own, draws[path].shape)
    return found


def renewal(kept: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The draw that the other numbers of each draw come from, and by how much they move with what
    is kept.

    Partners are of the same half of the draws, and the regression is fitted to the other half, so
    that it holds nothing of the draws that it moves. A number that it does not predict there stays.

    Shapes: `kept` and `others` are `(draw, number)`, unconstrained; returns `(draw,)` and `(draw,
    number)`.
    """
    draws = len(kept)
    order = np.random.default_rng(0).permutation(draws)
    halves = order[: draws // 2], order[draws // 2 :]
    partner, shift = np.empty(draws, int), np.zeros(others.shape)
    scores = linear_features(
        kept[:, np.isfinite(kept).all(axis=0)], draws // (2 * DRAWS_PER_FEATURE)
    )
    moving = np.flatnonzero(np.isfinite(others).all(axis=0))
    if not (moving.size and scores.shape[1]):
        moving, scores = moving[:0], np.zeros((draws, 1))
    for own, other in (halves, halves[::-1]):
        partner[own] = np.roll(own, 1)
        x, y = (
            values - values.mean(axis=0) for values in (scores[other], others[other][:, moving])
        )
        slope = np.linalg.lstsq(x, y)[0]
        x, y = (values - values.mean(axis=0) for values in (scores[own], others[own][:, moving]))
        gained = 1 - ((y - x @ slope) ** 2).sum(axis=0) / np.maximum((y**2).sum(axis=0), 1e-300)
        slope[:, gained <= _BY_CHANCE * np.sqrt(x.shape[1]) / len(x)] = 0.0
        shift[np.ix_(own, moving)] = (scores[own] - scores[partner[own]]) @ slope
    return partner, shift


def _free(leaf: RandomLeaf, values: np.ndarray) -> np.ndarray:
    """Draws of a leaf in unconstrained numbers `(draw, number)`, or as they are where its support
    has none.
    """
    try:
        values = np.asarray(biject_to(leaf.distribution.support).inv(jnp.asarray(values, float)))
    except NotImplementedError:  # such as a sphere
        return np.full((len(values), 1), np.nan)
    return values.reshape(len(values), -1)


def _value(leaf: RandomLeaf, free: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    way = biject_to(leaf.distribution.support)
    return np.asarray(way(jnp.asarray(free).reshape(len(free), *way.inverse_shape(shape[1:]))))
