"""Vector fields with networks at common states, where all draws can be compared."""

import jax
import numpy as np
import xarray as xr

from .._jax.trace import parted
from .._jax.tree import short_names
from .._statistics.convergence import thinned
from ..data.layer_inputs import Inputs
from ..layers import AbstractTrajectory
from ..layers.layer import named_trajectories, trajectories
from ..model import Model
from ..random import paths, realise
from .predictive import Draws, Paths, Watched, map_over_draws

_DRAWS = 128
# The number of paths of single draws beside the path of the mean, and of times on each path.
_OWN_PATHS, _TIMES = 4, 50


def watched(model: Model, inputs: Inputs, draws: int, *, after: int = 0) -> Watched | None:
    """Return the draws and times for which `rates_along_paths` needs the states.

    Args:
        model: the model.
        inputs: the inputs that draws are predicted with.
        draws: the number of draws to choose from.
        after: the number of other draws that come before them in the same prediction.

    Returns:
        At most 128 draws and 50 times; None without an ODE that has a network in its vector field.
    """
    if model.layer.trajectories is None:
        return None
    if not any(_has_network(ode) for ode in trajectories(model.layer)):
        return None
    return Watched(after + thinned(draws, _DRAWS), thinned(inputs.times.size, _TIMES))


def rates_along_paths(
    model: Model, inputs: Inputs, draws: Draws, times: np.ndarray, states: Paths
) -> xr.Dataset:
    """Return the vector field of each draw along the same paths: the mean states, and four draws.

    Vector fields of several draws can be compared only at the same states, and network weights
    cannot be compared at all.

    Args:
        model: the model.
        inputs: the inputs that draws are predicted with.
        draws: draws `(draw, …)` of every random leaf, by path.
        times: the indices of the times from `watched`.
        states: the states of the draws from `watched` at these times.

    Returns:
        The rate of each state over `draw`, `path` (first the mean states) and the index.
    """
    # 1. Paths: the mean over solved draws, and four solved draws.
    flat = [y.reshape(len(y), -1) for y in jax.tree.leaves(states)]
    solved = np.flatnonzero(np.isfinite(np.concatenate(flat, axis=1)).all(axis=1))
    own = solved[thinned(len(solved), _OWN_PATHS)] if solved.size else solved

    def mean_and_own(y):
        mean = np.full(y.shape[1:], np.nan)
        if solved.size:
            mean = y[solved].mean(axis=0)
        return np.concatenate([mean[None], y[own]])

    along = jax.tree.map(mean_and_own, states)
    at_times = np.asarray(inputs.times)[times]

    # 2. The rates of every draw along all paths.
    def rates(draw):
        pairs = zip(trajectories(realise(model, draw).layer), along, strict=True)
        return [
            jax.vmap(lambda path, ode=ode: ode.rates_along(inputs, at_times, path))(several)
            for ode, several in pairs
        ]

    one, held, _ = parted(rates, {path: values[0] for path, values in draws.items()})
    found = map_over_draws(one, held, draws, batch=16)
    # 3. One variable for each state.
    variables = {}
    for prefix, of_ode in zip(_ode_prefixes(model), found, strict=True):
        for state, values in of_ode.items():
            inner = [f"{state}_dim_{i}" for i in range(values.ndim - 3)]
            variables[prefix + state] = (("draw", "path", model.index, *inner), np.asarray(values))
    return xr.Dataset(variables, coords={"path": np.arange(1 + len(own)), model.index: at_times})


def _has_network(ode: AbstractTrajectory) -> bool:
    """Return whether the vector field holds unknown network weights."""
    return any(leaf.group == "network" for leaf in paths(ode.vector_field).values())


def _ode_prefixes(model: Model) -> list[str]:
    """Return prefixes that distinguish the states of several ODEs; empty for a single one."""
    found = [name for name, _ in named_trajectories(model.layer)]
    short = short_names(found)
    return [f"{short[name]}." if len(found) > 1 else "" for name in found]
