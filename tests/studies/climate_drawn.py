"""Do the climate's intervals hold what they say? Earths drawn from the prior, observed up to 2000
as ours is.

Run: `bayes-dasl study tests/studies/climate_drawn.py`; rows that stand are kept, `--table` prints
them.

Forcings and the years of which something is known are ours; numbers, weather and errors are drawn.
Over many such earths as much of 2001–2024 must lie in the intervals as they say, however much of it
does on one of them.
"""

import jax
import numpy as np
import pandas as pd

import bayes_dasl as bd
from bayes_dasl.prediction.predictive import push
from bayes_dasl.priors import draw_prior
from bayes_dasl.random import realise
from case_studies import climate


def tasks(quick: bool) -> list[dict]:
    """Fits of the science to as many earths."""
    return bd.many.combinations(earth=range(2 if quick else 24))


def row(earth: int) -> dict:
    """What the science says of an earth whose numbers it does not know."""
    model, data = climate.observed(climate.yearly(climate.earth())), climate.load()
    known, weather = jax.random.split(jax.random.key(earth))
    truth = {path: np.asarray(value) for path, value in draw_prior(model, 1, key=known).items()}
    for name, drawn in push(model, model.inputs(data), truth, key=weather).predictions.items():
        data[name] = data[name].copy(data=np.where(data[name].notnull(), drawn[0], np.nan))
    train, _ = bd.split(data, time=climate.SPLIT)
    engine = bd.NUTS(chains=2, draws=300)
    found = bd.many.measure(
        model,
        train,
        climate.spans(data, climate.SPLIT),
        engine,
        derived=climate.sensitivity,
        key=earth,
    )
    there = realise(model, {path: value[0] for path, value in truth.items()})
    return found | {"true_sensitivity": float(climate.sensitivity(there)["climate_sensitivity"])}


def summary(rows: pd.DataFrame) -> dict:
    """How much lies in the intervals: means over earths, whose years go together, with standard
    errors.
    """
    table = bd.many.tidy(rows)
    by = table.assign(whole=table["coverage_90"] == 1.0).groupby("observable")
    shares = {
        name: by[column]
        for name, column in (("in 50 %", "coverage_50"), ("in 90 %", "coverage_90"))
    }
    found = {name: share.mean() for name, share in shares.items()}
    found |= {f"{name}, standard error": share.sem() for name, share in shares.items()}
    found["earths with all in 90 %"] = by["whole"].mean()
    told = bd.many.tidy(rows, "derived")
    held = told["true_sensitivity"].between(told["low"], told["high"])
    return {
        "Intervals": pd.DataFrame(found),
        "Sensitivities held": pd.DataFrame({"share": [held.mean()], "earths": [len(held)]}),
    }
