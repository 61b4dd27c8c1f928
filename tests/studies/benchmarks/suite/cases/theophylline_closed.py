"""The problem `theophylline` in closed form: the same data, priors and posterior, without a solver in any engine."""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import pandas as pd

import bayes_dasl as bd

from . import Case
from .theophylline import KINDS, MEANS, PARAMETERS, dataset, level, table


def case(rtol: float, atol: float) -> Case:
    subjects, amounts, times, conc = table()
    absorption, elimination, clearance = (level(kind) for kind in KINDS)
    doses = bd.doses(pd.DataFrame({"id": subjects, "time": 0.0, "amt": amounts}), "depot", subject="id")
    one = bd.Compartments(
        bd.dependent(jnp.exp, clearance),
        bd.dependent(lambda cl, ke: jnp.exp(cl - ke), clearance, elimination),
        absorption=bd.dependent(jnp.exp, absorption),
        doses=doses,
    )
    model = bd.Model(bd.Each(one, subjects), bd.NormalNoise(dist.HalfNormal(2.0)))

    def by_hand():
        each = []
        for kind in KINDS:
            mean = numpyro.sample(f"{kind}_mean", dist.Normal(MEANS[kind], 1.0))
            spread = numpyro.sample(f"{kind}_spread", dist.HalfNormal(1.0))
            each.append(numpyro.sample(kind, dist.Normal(mean, spread).expand([len(subjects)]).to_event(1)))
        ka, ke, cl = (jnp.exp(values)[:, None] for values in each)
        predicted = amounts[:, None] * ka * ke / (cl * (ka - ke)) * (jnp.exp(-ke * times) - jnp.exp(-ka * times))
        numpyro.sample("y", dist.Normal(predicted, numpyro.sample("scale", dist.HalfNormal(2.0))), obs=conc)

    known = {"n": times.shape[1], "subjects": len(subjects), "ts": times.tolist(), "y": conc.tolist()}
    known |= {"dose": amounts.tolist(), "means": list(MEANS.values()), "not_centred": [0, 1, 0]}
    title = "Theophylline in closed form, 12 subjects, 43 parameters"
    return Case("theophylline_closed", title, model, dataset(subjects, times, conc), by_hand, known, PARAMETERS)
