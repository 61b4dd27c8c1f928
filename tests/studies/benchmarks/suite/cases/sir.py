"""An SIR epidemic with over-dispersed counts: influenza in a boarding school, 14 days, 4
parameters.

Data: British Medical Journal, 4 March 1978.
"""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import xarray as xr

import bayes_dasl as bd

from . import MAX_STEPS, Case, positive, solve

IN_BED = [3, 8, 28, 75, 221, 291, 255, 235, 190, 126, 70, 28, 12, 5]
BOYS = 763.0
PARAMETERS = {
    "contact": "layer.vector_field.contact",
    "recovery": "layer.vector_field.recovery",
    "infected_start": "layer.initial.infected",
    "concentration": "noise.concentration",
}


class SIR(bd.Module):
    r"""$\dot s = -c\,s\,i / n, \quad \dot i = c\,s\,i / n - r\,i$; rates per day,
    states in boys.
    """

    contact: bd.Scalar
    recovery: bd.Scalar

    def __call__(self, t, y, u):
        infection = self.contact * y["susceptible"] * y["infected"] / BOYS
        return {"susceptible": -infection, "infected": infection - self.recovery * y["infected"]}


def rates(t, y, parameters):
    """The same equations by hand."""
    infection = parameters[0] * y[0] * y[1] / BOYS
    return jnp.stack([-infection, infection - parameters[1] * y[1]])


def case(rtol: float, atol: float) -> Case:
    times, counts = np.arange(14.0), np.asarray(IN_BED, float)
    priors = {
        "contact": bd.between(0.5, 5.0),
        "recovery": bd.between(0.1, 2.0),
        "infected_start": bd.between(0.3, 5.0),
        "concentration": bd.between(1.0, 100.0),
    }
    layer = bd.ODE(
        SIR(priors["contact"], priors["recovery"]),
        {"susceptible": BOYS - 1, "infected": priors["infected_start"]},
        observe=lambda t, y, u: {"in_bed": y["infected"]},
        rtol=rtol,
        atol=atol,
    )
    model = bd.Model(layer, bd.NegativeBinomialNoise(priors["concentration"]))
    data = xr.Dataset({"in_bed": ("time", counts)}, {"time": times})
    log_normal = {name: [float(prior.loc), float(prior.scale)] for name, prior in priors.items()}

    def by_hand():
        x = {
            name: numpyro.sample(name, dist.LogNormal(*prior)) for name, prior in log_normal.items()
        }
        start = jnp.stack([BOYS - 1, x["infected_start"]])
        pair = jnp.stack([x["contact"], x["recovery"]])
        infected = solve(rates, start, times, pair, rtol=rtol, atol=atol)[:, 1]
        numpyro.sample(
            "in_bed", dist.NegativeBinomial2(positive(infected), x["concentration"]), obs=counts
        )

    known = {"n": 13, "in_bed": IN_BED, "boys": BOYS, "prior": list(log_normal.values())}
    known |= {"rtol": rtol, "atol": atol, "max_steps": MAX_STEPS}
    title = "SIR with negative-binomial counts, 4 parameters"
    return Case("sir", title, model, data, by_hand, known, PARAMETERS)
