"""Vector fields with networks in them, at points where all draws can be compared."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
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
from .predictive import Draws

_DRAWS = 128
_OWN_PATHS, _TIMES = 4, 50
_BATCH = 16


def rates_along_paths(model: Model, inputs: Inputs, draws: Draws) -> xr.Dataset | None:
    """The rates of every state for each draw, at states where the draws go: at their mean, and along the paths of four.

    What several draws say of a vector field can be compared only at the same states; weights of a network cannot be
    compared at all. Returns a dataset over `draw`, `path` (the first is that of mean states) and the index, of which at
    most 50 values are taken, by the name of the state; none where no network is part of the vector field of an ODE.
    """
    if model.layer.trajectories is None or not any(_has_network(ode) for ode in trajectories(model.layer)):
        return None
    every = {path: jnp.asarray(values) for path, values in draws.items()}
    total = len(next(iter(every.values())))
    chosen, when = thinned(total, _DRAWS), thinned(inputs.times.size, _TIMES)
    first = {path: values[0] for path, values in every.items()}

    def states(draw):
        solved = [ode.solve(inputs, ode.begin(inputs)) for ode in trajectories(realise(model, draw).layer)]
        return [jax.tree.map(lambda y, ok=ok: jnp.where(ok, y, jnp.nan)[when], y) for y, ok, _ in solved]

    of_some = _mapped(states, first, {path: values[chosen] for path, values in every.items()})
    flat = [np.asarray(y).reshape(len(chosen), -1) for y in jax.tree.leaves(of_some)]
    solved = np.flatnonzero(np.isfinite(np.concatenate(flat, axis=1)).all(axis=1))
    own = solved[thinned(len(solved), _OWN_PATHS)] if solved.size else solved
    along = jax.tree.map(lambda y: jnp.concatenate([jnp.nanmean(y, axis=0)[None], y[own]]), of_some)

    def rates(draw):
        pairs = zip(trajectories(realise(model, draw).layer), along, strict=True)
        at = lambda ode, path: ode.rates_along(inputs, inputs.times[when], path)  # noqa: E731
        return [jax.vmap(lambda path, ode=ode: at(ode, path))(several) for ode, several in pairs]

    found = _mapped(rates, first, every)
    variables = {}
    for prefix, of_ode in zip(_prefixes(model), found, strict=True):
        for state, values in of_ode.items():
            inner = [f"{state}_dim_{i}" for i in range(values.ndim - 3)]
            variables[prefix + state] = (("draw", "path", model.index, *inner), np.asarray(values))
    at = {"path": np.arange(1 + len(own)), model.index: np.asarray(inputs.times)[when]}
    return xr.Dataset(variables, coords=at)


def _mapped(function: Callable[..., Any], first: Any, draws: Any) -> Any:
    one, held = parted(function, first)
    return jax.jit(lambda held, d: jax.lax.map(lambda draw: one(held, draw), d, batch_size=_BATCH))(held, draws)


def _has_network(ode: AbstractTrajectory) -> bool:
    return any(leaf.group == "network" for leaf in paths(ode.vector_field).values())


def _prefixes(model: Model) -> list[str]:
    """What tells the states of several ODEs apart."""
    found = [name for name, _ in named_trajectories(model.layer)]
    short = short_names(found)
    return [f"{short[name]}." if len(found) > 1 else "" for name in found]
