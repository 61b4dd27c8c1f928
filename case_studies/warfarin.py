"""Warfarin in blood and what it does to clotting: a population of 32 people, forecast beyond their
first three days.

Each took one dose of about 1.5 mg/kg. Measured were the concentration in plasma (`cp`) and the
activity of the prothrombin complex (`pca`, in per cent of normal), up to 144 hours. Fitted are the
first 72 hours; later times are held out. The competitor has no population: one set of numbers, scaled by
weight, for everyone.

Data: R. A. O'Reilly, P. M. Aggeler and L. S. Leong, J. Clin. Invest. 42, 1542 (1963); R. A.
O'Reilly and P. M. Aggeler, Circulation 38, 169 (1968); as in the R package nlmixr2data.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pandas as pd
import xarray as xr

import bayes_dasl as bd

from ._data import path_of

FIELD = "pharmacology"
RUN_TIME = "5 min"
DATA = ("pk/nlmixr2_warfarin.csv",)

FILE = "pk/nlmixr2_warfarin.csv"
UNITS = {"time": "h", "amt": "mg", "cp": "mg/L", "pca": "%", "wt": "kg"}
OUTPUTS = {name: UNITS[name] for name in ("time", "cp", "pca")}
SPLIT = 72.0


class Turnover(bd.Module):
    r"""A drug that is absorbed through a transit compartment and stops the synthesis of what it
    acts on.

    $\dot d = -k_a d, \quad \dot s = k_a (d - s), \quad \dot a = k_a s - CL\, a / V, \quad
    \dot E = k_\mathrm{out} \left( E_0 \left(1 - \frac{C}{IC_{50} + C}\right) - E \right), \quad C =
    a / V$

    Units: amounts in mg, C in mg/L, time in hours, E in per cent of normal.
    Source: Holford, Clin. Pharmacokinet. 11, 483 (1986); Jusko & Ko, Clin. Pharmacol. Ther. 56, 406
    (1994); transit compartments by Savic, Jonker, Kerbusch & Karlsson, J. Pharmacokinet.
    Pharmacodyn. 34, 711 (2007).
    """

    clearance: bd.Scalar = bd.field(units="L/h")
    volume: bd.Scalar = bd.field(units="L")
    absorption: bd.Scalar = bd.field(units="1/h")
    baseline: bd.Scalar = bd.field(units="%")
    half: bd.Scalar = bd.field(units="mg/L")
    loss: bd.Scalar = bd.field(units="1/h")

    def __call__(self: Any, t, y, u):
        concentration = y["central"] / self.volume
        made = (1 - concentration / (concentration + self.half)) * self.baseline
        return {
            "depot": -self.absorption * y["depot"],
            "transit": self.absorption * (y["depot"] - y["transit"]),
            "central": self.absorption * y["transit"] - self.clearance * concentration,
            "activity": (made - y["activity"]) * self.loss,
        }

    def observe(self, t, y, u):
        return {"cp": y["central"] / self.volume, "pca": y["activity"]}


def load() -> xr.Dataset:
    """Concentrations and activities `(time, subject)`, and weights; the two blood samples that one
    person has at four times are both kept."""
    return bd.from_table(
        path_of(FILE),
        "dv",
        observable="dvid",
        subject="id",
        covariates="wt",
        replicates=True,
        units=UNITS,
    )


def model_of(people: xr.Dataset, *, pooled: bool = False) -> bd.Model:
    """The model of some of the people, who need not be those of a fit.

    Args:
        people: a dataset with their weights `wt` along `subject`, in kg.
        pooled: whether there is no population: the same numbers for all, but for their weights.
    """
    people = people.sortby("subject")  # as the table of doses has them
    heavier = bd.varying(np.log(people["wt"].values / 70.0))

    def number(low: float, high: float, power: float = 0.0, spread: float = 0.5):
        typical, effect = bd.between(low, high), power * heavier if power else 0.0
        if not pooled:
            return bd.population(typical, dist.HalfNormal(spread), effect=effect)
        return (
            bd.dependent(lambda typical, effect: typical * jnp.exp(effect), typical, effect)
            if power
            else typical
        )

    table = pd.read_csv(path_of(FILE))
    doses = bd.dosing.doses(
        pd.DataFrame(table[table["id"].isin(people["subject"].values.tolist())]),
        into="depot",
        subject="id",
        units={name: UNITS[name] for name in ("time", "amt")},
    )
    baseline = bd.shared(number(70.0, 130.0, spread=0.2), "baseline")
    turnover = Turnover(
        clearance=number(0.05, 0.4, power=0.75),
        volume=number(4.0, 16.0, power=1.0),
        absorption=number(0.3, 6.0),
        baseline=baseline,
        half=number(0.3, 5.0),
        loss=number(0.015, 0.15),
    )
    initial = {"depot": 0.0, "transit": 0.0, "central": 0.0, "activity": baseline}
    one = bd.ODE(
        turnover,
        initial,
        Turnover.observe,
        doses=doses,
        start=0.0,
        rtol=1e-4,
        atol=1e-4,
        units=OUTPUTS,
    )
    noise = {
        "cp": bd.CombinedNoise(additive=bd.between(0.05, 1.5), proportional=bd.between(0.03, 0.4)),
        "pca": bd.NormalNoise(bd.between(1.0, 15.0)),
    }
    return bd.Model(bd.Each(one, doses.members), noise)


def study() -> bd.Study:
    """The study that `bayes-dasl run warfarin` runs."""
    data = load()
    return bd.Study(
        name="warfarin",
        title="Warfarin: concentration and prothrombin complex activity",
        model=model_of(data),
        label="population",
        competitors={"pooled": model_of(data, pooled=True)},
        data=data,
        split=SPLIT,
        engine=bd.NUTS(chains=2, warmup=300, draws=300, map_starts=4),
        mix=False,  # a fit takes ten minutes and more: weights would take four of them
        options=bd.ReportOptions(source="nlmixr2data, warfarin", licence="GPL-3.0-or-later"),
    )
