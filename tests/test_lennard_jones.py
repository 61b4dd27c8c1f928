"""Lennard-Jones with three parameters, told by argon's second virial coefficients: one mode, and
called one.
"""

import math

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr

import bayes_dasl as bd

VOLUME = 2 * np.pi * 0.602214 / 3  # cm³/mol for each Å³


class LennardJones(bd.Module):
    depth: bd.Scalar = bd.field(units="K")
    size: bd.Scalar

    def __call__(self, t, y, u):
        def bound(r):
            return -3 * jnp.expm1(-4 * (r**-12 - r**-6) * self.depth / t) * r**2

        edges = (0.0, 0.6, 0.8, 1.0, 1.4, 2.0, math.inf)
        return {"b": VOLUME * self.size**3 * bd.equations.integrate_between(bound, edges, nodes=12)}


NARROW = (
    dist.LogNormal(math.log(120), 0.3),
    dist.LogNormal(math.log(3.4), 0.1),
    dist.HalfNormal(5.0),
)
WIDE = (
    dist.LogNormal(math.log(100), 1.0),
    dist.LogNormal(math.log(3.0), 0.5),
    dist.LogNormal(0.0, 1.0),
)


@pytest.mark.slow
@pytest.mark.parametrize("priors", [NARROW, WIDE], ids=["narrow", "wide"])
def test_one_mode_is_called_one(priors, shared_file):
    table = np.loadtxt(shared_file("data/molecular/virial_allAr.txt"))
    table = table[np.argsort(table[:, 0])]
    table = table[table[:, 0] >= 250]
    data = xr.Dataset({"b": ("temperature", table[:, 1])}, {"temperature": table[:, 0]})
    layer = bd.Algebraic(LennardJones(*priors[:2]), index="temperature")
    post = bd.fit(
        bd.Model(layer, bd.NormalNoise(priors[2])), data, bd.NUTS(), key=1, progress=False
    )
    assert post["modes"].sizes["mode"] == 1
    found = bd.diagnose(post)
    assert found.sampling == "good", found
    assert not [f for f in found.findings if f.subject == "modes" and f.level != "good"]
    assert float(post["posterior"]["depth"].mean()) == pytest.approx(119.8, abs=0.3)
    assert float(post["posterior"]["size"].mean()) == pytest.approx(3.392, abs=0.005)
