"""Vector fields with networks in them, at points where all draws can be compared."""

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
from .predictive import Draws, Paths, Watched

_DRAWS = 128
_OWN_PATHS, _TIMES = 4, 50
_BATCH = 16


def watched(model: Model, inputs: Inputs, draws: int, *, after: int = 0) -> Watched | None:
    """Of which draws `rates_along_paths` needs the states, at 50 times at most; `after` so many
    others are pushed.

    None where no network is part of the vector field of an ODE.
    """
    if model.layer.trajectories is None or not any(
        _has_network(ode) for ode in trajectories(model.layer)
    ):
        return None
    return Watched(after + thinned(draws, _DRAWS), thinned(inputs.times.size, _TIMES))


def rates_along_paths(
    model: Model, inputs: Inputs, draws: Draws, times: np.ndarray, states: Paths
) -> xr.Dataset:
    """The rates of every state for each draw, at states where the draws go: at their mean, and
    along the paths of four.

    What several draws say of a vector field can be compared only at the same states; weights of a
    network cannot be compared at all. Returns a dataset over `draw`, `path` (the first is that of
    mean states) and the index, by the name of the state.

    Args:
        model: the model.
        inputs: those that the draws were pushed with.
        draws: of every random leaf, `(draw, …)` by path.
        times: the indices of the times that are `watched`.
        states: those of the watched draws at these times.
    """
    flat = [y.reshape(len(y), -1) for y in jax.tree.leaves(states)]
    solved = np.flatnonzero(np.isfinite(np.concatenate(flat, axis=1)).all(axis=1))
    own = solved[thinned(len(solved), _OWN_PATHS)] if solved.size else solved
    mean = lambda y: y[solved].mean(axis=0) if solved.size else np.full(y.shape[1:], np.nan)  # noqa: E731
    along = jax.tree.map(lambda y: np.concatenate([mean(y)[None], y[own]]), states)
    at_times = np.asarray(inputs.times)[times]

    def rates(draw):
        pairs = zip(trajectories(realise(model, draw).layer), along, strict=True)
        at = lambda ode, path: ode.rates_along(inputs, at_times, path)  # noqa: E731
        return [jax.vmap(lambda path, ode=ode: at(ode, path))(several) for ode, several in pairs]

    one, held, _ = parted(rates, {path: values[0] for path, values in draws.items()})
    each = jax.jit(
        lambda held, draws: jax.lax.map(lambda draw: one(held, draw), draws, batch_size=_BATCH)
    )
    found = each(held, dict(draws))
    variables = {}
    for prefix, of_ode in zip(_prefixes(model), found, strict=True):
        for state, values in of_ode.items():
            inner = [f"{state}_dim_{i}" for i in range(values.ndim - 3)]
            variables[prefix + state] = (("draw", "path", model.index, *inner), np.asarray(values))
    return xr.Dataset(variables, coords={"path": np.arange(1 + len(own)), model.index: at_times})


def _has_network(ode: AbstractTrajectory) -> bool:
    return any(leaf.group == "network" for leaf in paths(ode.vector_field).values())


def _prefixes(model: Model) -> list[str]:
    """What tells the states of several ODEs apart."""
    found = [name for name, _ in named_trajectories(model.layer)]
    short = short_names(found)
    return [f"{short[name]}." if len(found) > 1 else "" for name in found]
