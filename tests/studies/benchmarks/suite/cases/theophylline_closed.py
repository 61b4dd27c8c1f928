"""The problem `theophylline` in closed form: the same data, priors and posterior, without a solver
in any engine.
"""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import pandas as pd

import bayes_dasl as bd

from . import Case
from .theophylline import KINDS, PARAMETERS, dataset, given, level, levels_by_hand, table


def case(rtol: float, atol: float) -> Case:
    subjects, amounts, times, conc = table()
    absorption, elimination, clearance = (level(kind) for kind in KINDS)
    doses = bd.dosing.doses(
        pd.DataFrame({"id": subjects, "time": 0.0, "amt": amounts}), "depot", subject="id"
    )
    one = bd.dosing.Compartments(
        bd.dependent(jnp.exp, clearance),
        bd.dependent(lambda cl, ke: jnp.exp(cl - ke), clearance, elimination),
        absorption=bd.dependent(jnp.exp, absorption),
        doses=doses,
    )
    model = bd.Model(bd.Each(one, subjects), bd.NormalNoise(dist.HalfNormal(2.0)))

    def by_hand():
        ka, ke, cl = (jnp.exp(values)[:, None] for values in levels_by_hand(len(subjects)))
        predicted = (
            amounts[:, None]
            * ka
            * ke
            / (cl * (ka - ke))
            * (jnp.exp(-ke * times) - jnp.exp(-ka * times))
        )
        numpyro.sample(
            "y", dist.Normal(predicted, numpyro.sample("scale", dist.HalfNormal(2.0))), obs=conc
        )

    title = "Theophylline in closed form, 12 subjects, 43 parameters"
    data, known = dataset(subjects, times, conc), given(amounts, times, conc)
    return Case("theophylline_closed", title, model, data, by_hand, known, PARAMETERS)
