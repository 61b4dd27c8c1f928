"""The small study, quick to run: decay with and without inflow in closed form, sifted from the
prior.
"""

import dataclasses

import equinox as eqx
import jax.numpy as jnp
import numpyro.distributions as dist
import small_study
from sifting import Sifting

import bayes_dasl as bd


class Decayed(bd.Module):
    r"""$y = q/k + (y_0 - q/k)\,e^{-k t}$, off by `rtol` as a solver of that tolerance would be."""

    rate: bd.Scalar = bd.field(units="1/h")
    first: bd.Scalar = bd.field(units="mg/L")
    inflow: bd.Scalar = 0.0
    rtol: float | None = eqx.field(default=None, static=True)

    def __call__(self, t, y, u):
        level = self.inflow / self.rate
        return {
            "y": (1.0 + (self.rtol or 0.0))
            * (level + (self.first - level) * jnp.exp(-self.rate * t))
        }


def model(inflow=0.0, rtol=None) -> bd.Model:
    left = Decayed(bd.between(0.05, 1.0), dist.Normal(10.0, 1.0), inflow, rtol)
    return bd.Model(
        bd.Algebraic(left, units={"y": "mg/L"}), bd.NormalNoise(scale=dist.LogNormal(-1.0, 0.5))
    )


def study() -> bd.Study:
    return dataclasses.replace(
        small_study.study(),
        model=model(rtol=1e-6),
        competitors={"inflow": model(inflow=dist.HalfNormal(0.1))},
        engine=Sifting(draws=50, proposals=20_000),
        origins=1,
        horizon=1,
        options=bd.ReportOptions(
            thresholds={"y": 5.0}, metrics={"bias": bd.scores.metrics.bias}, source="a hand"
        ),
    )
