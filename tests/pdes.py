"""What the tests of partial differential equations share."""

import equinox as eqx
import jax
import numpy as np
import xarray as xr

import bayes_dasl as bd


def given(times, start=0.0, forcings=None, **places):
    """Inputs at `times` from `start`, with the coordinates of the data and series that drive the
    equation.
    """
    series = {name: ("time", np.asarray(values)) for name, values in (forcings or {}).items()}
    data = xr.Dataset(series, {"time": np.asarray(times, float), **places})
    return bd.inputs(data, start=start, forcings=list(series), places=list(places))


@eqx.filter_jit
def solve(layer, inputs):
    return layer(inputs)


def order(errors):
    """Of convergence, as cells are halved in width."""
    errors = np.asarray(errors)
    return np.log2(errors[:-1] / errors[1:])


def slopes_and_differences(function, at, step=1e-5):
    """The gradient of a function of a vector, and its central differences, by one program."""
    both = jax.jit(jax.value_and_grad(function))
    along = np.eye(len(at)) * step
    return both(at)[1], np.stack(
        [float(both(at + d)[0] - both(at - d)[0]) / (2 * step) for d in along]
    )
