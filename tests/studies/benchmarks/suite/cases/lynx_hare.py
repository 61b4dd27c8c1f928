"""posteriordb's `hudson_lynx_hare-lotka_volterra`: 8 parameters, 21 years of two series, a regular
posterior.
"""

import dataclasses

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from case_studies.lynx_hare import HARE, LYNX
from tests.problems import posteriordb_lynx_hare

from . import MAX_STEPS, Case, positive, solve

FIELD, INITIAL = "layer.vector_field", "layer.initial"
PARAMETERS = {
    **{name: f"{FIELD}.{name}" for name in ("birth", "predation", "death", "growth")},
    "hare_start": f"{INITIAL}.hare",
    "lynx_start": f"{INITIAL}.lynx",
    "hare_scale": "noise.hare.scale",
    "lynx_scale": "noise.lynx.scale",
}


def stan_data(rtol: float, atol: float) -> dict:
    pelts = np.stack([np.asarray(HARE, float), np.asarray(LYNX, float)], 1)
    return {"n": 20, "pelts": pelts.tolist(), "rtol": rtol, "atol": atol, "max_steps": MAX_STEPS}


def case(rtol: float, atol: float) -> Case:
    model, data = posteriordb_lynx_hare()
    layer = dataclasses.replace(model.layer, rtol=rtol, atol=atol)
    model = eqx.tree_at(lambda m: m.layer, model, layer)
    times, hare, lynx = np.arange(21.0), np.asarray(HARE, float), np.asarray(LYNX, float)

    def rates(t, y, rate):
        hare, lynx = y
        return jnp.stack([hare * (rate[0] - rate[1] * lynx), lynx * (rate[3] * hare - rate[2])])

    def by_hand():
        wide, narrow = (
            dist.TruncatedNormal(1.0, 0.5, low=0.0),
            dist.TruncatedNormal(0.05, 0.05, low=0.0),
        )
        priors = {"birth": wide, "predation": narrow, "death": wide, "growth": narrow}
        rate = jnp.stack([numpyro.sample(name, prior) for name, prior in priors.items()])
        start = [
            numpyro.sample(f"{name}_start", dist.LogNormal(np.log(10.0), 1.0))
            for name in ("hare", "lynx")
        ]
        scale = [
            numpyro.sample(f"{name}_scale", dist.LogNormal(-1.0, 1.0)) for name in ("hare", "lynx")
        ]
        y = jnp.log(positive(solve(rates, jnp.stack(start), times, rate, rtol=rtol, atol=atol)))
        numpyro.sample("hare", dist.LogNormal(y[:, 0], scale[0]), obs=hare)
        numpyro.sample("lynx", dist.LogNormal(y[:, 1], scale[1]), obs=lynx)

    title = "Lynx and hare (posteriordb), 8 parameters"
    return Case("lynx_hare", title, model, data, by_hand, stan_data(rtol, atol), PARAMETERS)
