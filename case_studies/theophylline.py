"""Theophylline in twelve people after one dose: a population with one compartment and absorption
from the gut.

Fitted on the first eight hours, forecast from nine hours on to the next day. Absorption,
elimination and clearance of each person lie around what is typical; amounts are per kilogram of
body weight, as in the analyses that were published.

Data: R. Upton, in A. J. Boeckmann, L. B. Sheiner & S. L. Beal, NONMEM Users Guide, Part V (1994),
as `theo_sd` of nlmixr2data. Estimates by nlme: J. C. Pinheiro & D. M. Bates, Mixed-Effects Models
in S and S-PLUS (2000), p. 364.
"""

from collections.abc import Sequence

import numpyro.distributions as dist
import pandas as pd
import xarray as xr

import bayes_dasl as bd

from ._data import path_of

FIELD = "pharmacology"
RUN_TIME = "1 min"
DATA = ("pk/theo_sd.csv",)

NLME = {"elimination": (-2.43, 0.064), "absorption": (0.45, 0.20), "clearance": (-3.21, 0.082)}
"""Logarithms of what is typical, and their standard errors, by nlme."""

ENGINE = bd.NUTS(draws=4000)
"""Four times the usual draws, which are cheap here: the spread of elimination, which may be zero,
mixes slowly.
"""


def records() -> pd.DataFrame:
    """The rows of the table: doses in mg/kg, concentrations in mg/L, times in h, weights in kg."""
    rows = pd.read_csv(path_of("pk/theo_sd.csv"))
    return rows.assign(AMT=rows["AMT"] / rows["WT"])


def load() -> xr.Dataset:
    """The concentrations, `(time, subject)`; each person was sampled eleven times, some before the
    dose acted.
    """
    data = bd.from_table(
        records(), "DV", subject="ID", names={"DV": "conc"}, units={"conc": "mg/L", "time": "h"}
    )
    data["conc"].attrs["long_name"] = "theophylline in serum"
    return data


def additive() -> bd.NormalNoise:
    """One error for all concentrations, as nlme's."""
    return bd.NormalNoise(dist.HalfNormal(2.0))


def combined() -> bd.CombinedNoise:
    """An error that grows with the concentration, above a floor."""
    return bd.CombinedNoise(dist.HalfNormal(1.0), dist.HalfNormal(0.3))


def model(
    noise: bd.noise.AbstractNoise | None = None, subjects: Sequence[float] | None = None
) -> bd.Model:
    """One compartment for each person: rates are of a population, the dose that each took is known.

    Args:
        noise: of the concentrations, `additive()` unless given.
        subjects: whom, all twelve unless given.
    """
    rows = records()
    chosen = rows if subjects is None else rows.loc[rows["ID"].isin(list(subjects)), :]
    doses = bd.dosing.doses(chosen, "depot", subject="ID")
    clearance = bd.shared(
        bd.population(dist.LogNormal(-3.0, 1.0), dist.HalfNormal(0.5)), "clearance"
    )
    elimination = bd.shared(
        bd.population(dist.LogNormal(-2.5, 1.0), dist.HalfNormal(0.5)), "elimination"
    )
    layer = bd.dosing.Compartments(  # pyright: ignore[reportCallIssue]
        clearance=clearance,
        volume=clearance / elimination,
        absorption=bd.shared(
            bd.population(dist.LogNormal(0.5, 1.0), dist.HalfNormal(1.0)), "absorption"
        ),
        doses=doses,
        units={"conc": "mg/L", "time": "h"},
    )
    return bd.Model(bd.Each(layer, doses.members), {"conc": additive() if noise is None else noise})


def study() -> bd.Study:
    """The study that `bayes-dasl run theophylline` runs."""
    return bd.Study(
        name="theophylline",
        title="Theophylline in twelve people",
        model=model(),
        label="additive",
        competitors={"combined": model(combined())},
        data=load(),
        split=8.0,
        engine=ENGINE,
        mix=False,  # both are one model of the people, with another noise
        options=bd.ReportOptions(source="nlmixr2data, theo_sd", licence="GPL-3.0-or-later"),
    )
