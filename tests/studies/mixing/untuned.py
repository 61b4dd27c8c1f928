"""A system that no setting of the engine was tried on: written after them all,
and only measured.
"""

import numpy as np
import numpyro.distributions as dist
import xarray as xr

import bayes_dasl as bd

from .case import Case, Unknown, along, normal, predicted, sampled, simulated


class Batch(bd.Module):
    """A stirred batch whose reaction warms it, with an unknown law of how fast it goes by
    temperature.

    The amount left is a share of the first; temperatures are in tens of kelvins above that of the
    room.
    """

    pace: bd.Scalar = bd.field(units="1/min")
    heat: bd.Scalar
    loss: bd.Scalar = bd.field(units="1/min")
    law: bd.Basis

    def __call__(self, t, y, u):
        reacts = self.pace * self.law(t, y, u)["factor"] * y["left"]
        return {
            "left": -reacts,
            "warmth": self.heat * reacts - self.loss * (y["warmth"] - u["jacket"]),
        }


def batch(pace, heat, loss, law) -> bd.ODE:
    initial = {"left": 1.0, "warmth": 0.0}
    return bd.ODE(
        Batch(pace, heat, loss, law), initial, forcings="jacket", start=0.0, rtol=1e-5, atol=1e-6
    )


def reactor(seed: int) -> Case:
    """Amount and temperature at 30 times, with a jacket that is heated up and cooled down."""
    rng = np.random.default_rng([seed, 14])
    priors = {
        "pace": bd.between(0.03, 0.15),
        "heat": bd.between(2.0, 6.0),
        "loss": bd.between(0.05, 0.3),
    }
    law = bd.Basis(
        bd.bases.HilbertGP(-1.0, 7.0, 12, amplitude=dist.HalfNormal(0.6)),
        "warmth",
        "factor",
        positive=True,
    )
    times = np.linspace(1.0, 30.0, 30)
    jacket = ("time", 2.0 * np.sin(np.pi * times / 30.0))
    template = xr.Dataset({"jacket": jacket}, {"time": times})
    scale = dist.LogNormal(np.log(0.03), 0.3)
    data, truth = simulated(batch, priors, {"law": law}, template, normal(sampled(scale, rng)), rng)
    model = bd.Model(batch(**priors, law=law), bd.NormalNoise(scale))
    states = predicted(truth, template)["warmth"]
    unknown = {
        "law": Unknown(lambda layer: layer.vector_field.law, ("factor",), *along("warmth", states))
    }
    return Case("reactor", seed, model, data, unknown, _numbers, truth)


def _numbers(layer) -> dict:
    return {name: getattr(layer.vector_field, name) for name in ("pace", "heat", "loss")}
