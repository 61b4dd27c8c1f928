"""Vector fields with networks in them, at points where all draws can be compared."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from .._jax.trace import parted
from .._jax.tree import short_names
from .._statistics.thinning import thinned
from ..data.layer_inputs import Inputs
from ..layers import AbstractTrajectory
from ..layers.at_states import named_trajectories, trajectories
from ..model import Model
from ..random import paths, realise
from .predictive import Draws

_DRAWS = 128
_BATCH = 16


def rates_on_mean_path(model: Model, inputs: Inputs, draws: Draws) -> xr.Dataset | None:
    """The rates of every state for each draw, at the mean states of the draws at the times of the data.

    What several draws say of a vector field can be compared only at the same states; weights of a network cannot be
    compared at all. Returns a dataset over `draw` and the index, by the name of the state; none where no network is
    part of the vector field of an ODE.
    """
    if model.layer.trajectories is None or not any(_has_network(ode) for ode in trajectories(model.layer)):
        return None
    every = {path: jnp.asarray(values) for path, values in draws.items()}
    total = len(next(iter(every.values())))
    chosen = thinned(total, _DRAWS)
    first = {path: values[0] for path, values in every.items()}

    def states(draw):
        solved = [ode.solve(inputs, ode.begin(inputs)) for ode in trajectories(realise(model, draw).layer)]
        return [jax.tree.map(lambda y, ok=ok: jnp.where(ok, y, jnp.nan), y) for y, ok, _ in solved]

    of_some = _mapped(states, first, {path: values[chosen] for path, values in every.items()})
    mean = jax.tree.map(lambda y: jnp.nanmean(y, axis=0), of_some)

    def rates(draw):
        pairs = zip(trajectories(realise(model, draw).layer), mean, strict=True)
        return [ode.rates_along(inputs, inputs.times, path) for ode, path in pairs]

    found = _mapped(rates, first, every)
    variables = {}
    for prefix, of_ode in zip(_prefixes(model), found, strict=True):
        for state, values in of_ode.items():
            inner = [f"{state}_dim_{i}" for i in range(values.ndim - 2)]
            variables[prefix + state] = (("draw", model.index, *inner), np.asarray(values))
    return xr.Dataset(variables, coords={model.index: np.asarray(inputs.times)})


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
