"""Erlotinib against tumours in mice: fitted on controls, a low and a medium dose, forecast at a
high one.

A human lung tumour (LXF A677) grows in 30 mice; those of three arms got 6.25, 25 or 100 mg/kg a
day, on days 3 to 16. Measured were the volume of each tumour and, now and then, the drug in plasma.
The six mice at the high dose are new members of the population, of whom only their doses are known:
four times what any mouse of the fit was given.

Data: A. B. Eigenmann et al., combining nonclinical experiments with translational PKPD modeling to
differentiate erlotinib and gemcitabine, Mol. Cancer Ther. 15, 3110 (2016), as in the library of
chi-drm. There the concentrations are said to be in ng/mL. With the doses, in mg, they make sense in
µg/mL (mg/L), which they are taken for here.
"""

from collections.abc import Iterable
from typing import Any

import jax.numpy as jnp
import numpyro.distributions as dist
import pandas as pd
import xarray as xr

import bayes_dasl as bd

from ._data import path_of

FIELD = "pharmacology"
RUN_TIME = "7 min"
DATA = (
    "pk/chi_lxf_control_growth.csv",
    "pk/chi_lxf_low_erlotinib_dose.csv",
    "pk/chi_lxf_medium_erlotinib_dose.csv",
    "pk/chi_lxf_high_erlotinib_dose.csv",
)

ARMS = {"control": "control_growth"} | {
    arm: f"{arm}_erlotinib_dose" for arm in ("low", "medium", "high")
}
NAMES = {"Tumour volume": "volume", "Plasma concentration": "concentration"}
UNITS = {"time": "day", "volume": "cm^3", "concentration": "mg/L"}


class Tumour(bd.Module):
    r"""A tumour that grows, first exponentially and then by the same volume a day, and a drug that
    kills its cells.

    $\dot V = \frac{2 \lambda_0 \lambda_1 V}{2 \lambda_0 V + \lambda_1} - \kappa\, C(t)\, V$

    It is solved for $W = V \exp(\kappa \int C)$, which grows slowly, while the drug comes and goes
    within hours. The integral is what was eliminated, over the clearance: what was given, less what
    is left.

    Units: V in cm³, C in mg/L, time in days.
    Source: Koch, Walz, Lahu & Schropp, J. Pharmacokinet. Pharmacodyn. 36, 179 (2009), without its
    transit compartments.
    """

    drug: bd.dosing.Compartments
    exponential: bd.Scalar = bd.field(units="1/day")
    linear: bd.Scalar = bd.field(units="cm^3/day")
    kill: bd.Scalar = bd.field(units="L/(mg * day)")

    def volume(self: Any, t, y):
        eliminated = y["given"] - self.drug.volume * self.drug.concentration(t)
        return y["grown"] * jnp.exp(-self.kill * eliminated / self.drug.clearance)

    def __call__(self: Any, t, y, u):
        fastest = 2 * self.exponential
        rate = fastest * self.linear / (fastest * self.volume(t, y) + self.linear)
        return {"grown": rate * y["grown"], "given": jnp.zeros(())}

    def observe(self, t, y, u):
        return {"volume": self.volume(t, y), "concentration": self.drug.concentration(t)}


def table() -> pd.DataFrame:
    """The rows of all arms, sorted by mouse and time, in the layout of NONMEM."""
    rows = pd.concat(
        [
            pd.read_csv(path_of(f"pk/chi_lxf_{name}.csv")).assign(arm=arm)
            for arm, name in ARMS.items()
        ]
    )
    rows = rows.rename(columns={"ID": "id", "Time": "time", "Dose": "amt"})
    return rows.sort_values(["id", "time"]).reset_index(drop=True)


def load() -> xr.Dataset:
    """Volumes and concentrations `(time, subject)` of all mice."""
    rows = table()
    rows = pd.DataFrame(rows[rows["Observable"].isin(list(NAMES))])
    return bd.from_table(
        rows, "Value", observable="Observable", subject="id", names=NAMES, units=UNITS
    )


def mice_of(*arms: str) -> list[int]:
    """The mice of some arms."""
    rows = table()
    return sorted(rows.loc[rows["arm"].isin(arms), "id"].unique().tolist())


def model_of(mice: Iterable[float], *, alike: bool = False) -> bd.Model:
    """The model of some of the mice, with the doses that they were given.

    Args:
        mice: their numbers.
        alike: whether there is no population: the same numbers for all, but for the volume at the
            start.
    """

    def number(low: float, high: float, spread: float = 0.5):
        typical = bd.between(low, high)
        return typical if alike else bd.population(typical, dist.HalfNormal(spread))

    rows = table()
    rows = pd.DataFrame(rows[rows["id"].isin(list(mice))])

    def doses(into: str):
        return bd.dosing.doses(rows, into=into, subject="id", units={"amt": "mg", "time": "day"})

    # One or two samples of a mouse do not tell its volume from its clearance: the volume is that of
    # all. The drug is in closed form: what is left of a dose a day later is less than a solver's
    # tolerance. The solver must still know when doses fall, so that no step passes over one: they
    # go into a state that counts them.
    drug = bd.dosing.Compartments(
        clearance=number(0.2, 6.0), volume=bd.between(0.05, 1.0), doses=doses("central")
    )  # pyright: ignore[reportCallIssue]
    tumour = Tumour(
        drug, exponential=number(0.03, 0.4), linear=number(0.01, 0.4), kill=number(0.01, 1.0)
    )
    initial = {"grown": bd.population(bd.between(0.03, 0.4), dist.HalfNormal(0.5)), "given": 0.0}
    given = doses("given")
    one = bd.ODE(
        tumour, initial, Tumour.observe, doses=given, start=0.0, rtol=1e-4, atol=1e-5, units=UNITS
    )
    noise = {
        "volume": bd.CombinedNoise(
            additive=bd.between(0.001, 0.05), proportional=bd.between(0.03, 0.4)
        ),
        "concentration": bd.LogNormalNoise(bd.between(0.1, 1.5)),
    }
    return bd.Model(bd.Each(one, given.members), noise)


def study() -> bd.Study:
    """The study that `bayes-dasl run erlotinib` runs."""
    data = load()
    mice = data["subject"].values
    return bd.Study(
        name="erlotinib",
        title="Erlotinib against tumours in mice: the high dose from lower ones",
        model=model_of(mice),
        label="population",
        competitors={"alike": model_of(mice, alike=True)},
        data=data,
        split={"subject": mice_of("high")},
        engine=bd.NUTS(chains=2, warmup=300, draws=300, map_starts=4),
        options=bd.ReportOptions(
            source="Eigenmann et al. (2016), as in chi-drm", licence="BSD-3-Clause"
        ),
    )
