"""Which unknown numbers do the forecasts of the case studies hang on, before there are data and
after?

Run: `bayes-dasl study tests/studies/which_unknowns.py`; rows that stand are kept, `--table` prints
them.

Before: Sobol's indices over the prior. After: PAWN's distances over the posterior of the training
data, by which also numbers that go together with others show.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pandas as pd
import xarray as xr

import bayes_dasl as bd
from case_studies import climate, fluids, molecules

ARGON, KELVIN = molecules.GASES["argon"], 90.0
YEARS = (2024, 2100)
SAMPLES = 1024


def warming(_: bd.Model, values: dict[str, Any]) -> dict[str, Any]:
    """That of two years, in K."""
    return {f"warming in {year}": values["temperature"][year - 1850] for year in YEARS}


def cold(_: bd.Model, values: dict[str, Any]) -> dict[str, Any]:
    """The second virial coefficient of the cold gas, in hundreds of cm³/mol, by its inverse
    hyperbolic sine: under the prior it has a heavy tail, from which no shares of a variance can be
    told."""
    return {f"arsinh B at {KELVIN:.0f} K": jnp.arcsinh(values["b"][0] / 100.0)}


def middle(_: bd.Model, values: dict[str, Any]) -> dict[str, Any]:
    """The velocities nearest to the middle of two channels."""
    last = np.cumsum([fluids.rows_of([number]).sizes["row"] for number in fluids.TESTED]) - 1
    return {
        f"velocity at {name}": values["velocity"][row]
        for name, row in zip(fluids.TESTED, last, strict=True)
    }


def asked(study: str) -> tuple[bd.Model, xr.Dataset, Any, Any, xr.Dataset]:
    """The model, what it is fitted to, the engine, what is forecast, and for which inputs."""
    if study == "climate":
        data = climate.load()
        ahead = climate.scenarios(data)[next(iter(climate.SCENARIOS))]
        train, _ = bd.split(data, time=climate.SPLIT)
        return (
            climate.observed(climate.yearly(climate.earth())),
            train,
            bd.NUTS(chains=2, draws=500),
            warming,
            ahead,
        )
    if study == "argon":
        train, _ = bd.split(molecules.load(ARGON), coldness=1000.0 / ARGON.warm)
        made = molecules.model(ARGON, molecules.potentials(ARGON)["hybrid"]())
        ahead = molecules.load(ARGON).isel(coldness=[0]).assign_coords(coldness=[1000.0 / KELVIN])
        return made, train, molecules.ENGINE, cold, ahead
    made, train = fluids.model(fluids.hybrid()), fluids.rows_of(fluids.TRAINED)
    return made, train, fluids.ENGINE, middle, fluids.rows_of(fluids.TESTED)


def tasks(quick: bool) -> list[dict]:
    """Each study over the prior, and over the posterior."""
    return bd.many.combinations(
        study=["climate", "argon", "channel"], over=["prior"] if quick else ["prior", "posterior"]
    )


def row(study: str, over: str) -> dict:
    """The indices of each quantity by unknown number."""
    model, train, engine, function, ahead = asked(study)
    post = bd.fit(model, train, engine, progress=False) if over == "posterior" else None
    found = bd.sensitivity.sensitivity(model, post, function, ahead, samples=SAMPLES)
    told = {}
    for name, values in found.data_vars.items():
        table = values.transpose("index", "unknown").to_pandas()
        told[str(name)] = {
            str(index): {str(k): float(v) for k, v in line.items()}
            for index, line in table.iterrows()
        }
    verdict = {} if post is None else {"verdict": bd.diagnose(post).level}
    return {"indices": told, "lost": found.attrs["lost"]} | verdict


def summary(rows: pd.DataFrame) -> dict:
    """For each study the unknown numbers that matter, the greatest first."""
    found = {}
    for study, part in rows.groupby("study", sort=False):
        columns = {
            f"{quantity}: {over}, {index}": pd.Series(values)
            for over, told in zip(part["over"], part["indices"], strict=True)
            for quantity, by_index in told.items()
            for index, values in by_index.items()
            if not index.endswith("_error") and index != "most"
        }
        table = pd.DataFrame(columns)
        first = next(name for name in table if name.endswith((", total", ", mean")))
        found[f"Which unknowns, {study}"] = table.sort_values(first, ascending=False).round(3)
    return found
