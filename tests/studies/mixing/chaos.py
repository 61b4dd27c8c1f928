"""A chaotic system, by multiple shooting."""

from collections.abc import Callable

import numpy as np
import numpyro.distributions as dist

import bayes_dasl as bd

from ..uncertainty import problems
from .case import Case, Unknown, along

KNOTS = (0.5, 1.0, 1.5, 2.0, 2.5)


class Convection(bd.Module):
    """Lorenz's equations, of which it is unknown how z changes what x does to y:
    28 - z in truth.
    """

    sigma: bd.Scalar
    beta: bd.Scalar
    gain: Callable

    def __call__(self, t, s, u):
        x, y, z = s["x"], s["y"], s["z"]
        return {
            "x": self.sigma * (y - x),
            "y": self.gain(t, s, u)["gain"] * x - y,
            "z": x * y - self.beta * z,
        }


def lorenz(seed: int) -> Case:
    """61 times of three units, noise of 0.5, an unknown function of z; by multiple shooting over
    five knots.
    """
    problem = problems.lorenz(seed)
    gain = bd.Basis(bd.bases.HilbertGP.over(problem.data, "z", 20.0, 12), "z", "gain")
    numbers = [dist.LogNormal(np.log(value), 0.2) for value in (10.0, 8 / 3)]
    initial, states = problem.model.layer.initial, tuple(map(str, problem.data.data_vars))
    ode = bd.ODE(Convection(*numbers, gain), initial, rtol=1e-4, atol=1e-4, max_steps=256)
    segments = bd.equations.segment_states(problem.data, states, KNOTS, 3.0)
    model = bd.Model(
        bd.equations.MultipleShooting(ode, KNOTS, segments, gap=0.3), problem.model.noise
    )
    truth = bd.equations.MultipleShooting(
        bd.ODE(Convection(10.0, 8 / 3, lambda t, s, u: {"gain": 28.0 - s["z"]}), initial),
        KNOTS,
        segments,
        gap=0.3,
    )
    unknown = Unknown(
        lambda layer: layer.ode.vector_field.gain, ("gain",), *along("z", problem.data["z"].values)
    )
    return Case("lorenz", seed, model, problem.data, {"gain": unknown}, _numbers, truth)


def _numbers(layer) -> dict:
    return {name: getattr(layer.ode.vector_field, name) for name in ("sigma", "beta")}
