"""Population pharmacokinetics of theophylline: 12 subjects, 132 concentrations, one compartment, 43
parameters.

The data are those of nlme (Boeckmann, Sheiner & Beal 1994), `theo_sd.csv` of nlmixr2data, in the
folder that `BAYES_DASL_DATA` names. The logarithms of absorption, elimination and clearance are
normal between subjects. Ours is written as a population; Stan's program centres absorption and
clearance and does not centre elimination, which is the best for these data.
"""

import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import xarray as xr

import bayes_dasl as bd

from . import MAX_STEPS, Case, solve

KINDS = ("absorption", "elimination", "clearance")
MEANS = {"absorption": 0.5, "elimination": -2.5, "clearance": -3.0}
PARAMETERS = {
    **{f"{kind}_mean": f"{kind}.loc" for kind in KINDS},
    **{f"{kind}_spread": f"{kind}.scale" for kind in KINDS},
    **{kind: kind for kind in KINDS},
    "scale": "noise.scale",
}


class Oral(bd.Module):
    r"""$\dot g = -k_a g, \quad \dot b = k_a g - k_e b$, concentration $b\,k_e / Cl$; the fields are
    logarithms.

    Units: amounts mg/kg, rates 1/h, clearance L/(h kg).
    """

    absorption: bd.Scalar
    elimination: bd.Scalar
    clearance: bd.Scalar

    def __call__(self, t, y, u):
        taken = jnp.exp(self.absorption) * y["gut"]
        return {"gut": -taken, "blood": taken - jnp.exp(self.elimination) * y["blood"]}

    def concentration(self, t, y, u):
        return {"conc": y["blood"] * jnp.exp(self.elimination - self.clearance)}


def rates(t, y, parameters):
    """The same equations by hand, states `(2,)`."""
    absorption, elimination = jnp.exp(parameters[0]), jnp.exp(parameters[1])
    return jnp.stack([-absorption * y[0], absorption * y[0] - elimination * y[1]])


def table() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Subjects, doses in mg/kg, and times and concentrations `(subject, row)`: each was seen eleven
    times.
    """
    folder = os.environ.get("BAYES_DASL_DATA")
    if folder is None:
        raise SystemExit("theophylline needs the folder of the data: set BAYES_DASL_DATA")
    rows = np.genfromtxt(Path(folder) / "pk" / "theo_sd.csv", delimiter=",", names=True)
    dosed, seen = rows[rows["AMT"] > 0], rows[rows["EVID"] == 0]
    times, conc = (seen[name].reshape(len(dosed), -1) for name in ("TIME", "DV"))
    return dosed["ID"], dosed["AMT"] / dosed["WT"], times, conc


def dataset(subjects: np.ndarray, times: np.ndarray, conc: np.ndarray) -> xr.Dataset:
    """The concentrations `(time, subject)` on all times, NaN where a subject was not seen."""
    every = np.unique(times)
    values = np.full((every.size, len(subjects)), np.nan)
    for i in range(len(subjects)):
        values[np.searchsorted(every, times[i]), i] = conc[i]
    return xr.Dataset({"conc": (("time", "subject"), values)}, {"time": every, "subject": subjects})


def level(kind: str):
    """The logarithm of a rate of each subject, by our words."""
    mean, spread = dist.Normal(MEANS[kind], 1.0), dist.HalfNormal(1.0)
    return bd.shared(bd.varying(bd.dependent(dist.Normal, mean, spread)), kind)


def levels_by_hand(subjects: int) -> list[jax.Array]:
    """The logarithms of the rates of all subjects, in plain NumPyro."""
    each = []
    for kind in KINDS:
        mean = numpyro.sample(f"{kind}_mean", dist.Normal(MEANS[kind], 1.0))
        spread = numpyro.sample(f"{kind}_spread", dist.HalfNormal(1.0))
        each.append(numpyro.sample(kind, dist.Normal(mean, spread).expand([subjects]).to_event(1)))
    return each


def given(doses: np.ndarray, times: np.ndarray, conc: np.ndarray) -> dict[str, Any]:
    """What Stan's programs are given of the data and priors."""
    known = {"n": times.shape[1], "subjects": len(doses), "ts": times.tolist(), "y": conc.tolist()}
    return known | {"dose": doses.tolist(), "means": list(MEANS.values()), "not_centred": [0, 1, 0]}


def case(rtol: float, atol: float) -> Case:
    subjects, doses, times, conc = table()
    field = Oral(*(level(kind) for kind in KINDS))
    one = bd.ODE(
        field,
        {"gut": bd.varying(doses), "blood": 0.0},
        Oral.concentration,
        start=0.0,
        rtol=rtol,
        atol=atol,
    )
    model = bd.Model(bd.Each(one, subjects), bd.NormalNoise(dist.HalfNormal(2.0)))

    def by_hand():
        each = levels_by_hand(len(subjects))
        noise = numpyro.sample("scale", dist.HalfNormal(2.0))
        predicted = []
        for i in range(len(subjects)):
            own = [values[i] for values in each]
            with numpyro.handlers.scope(prefix=f"subject {i}"):
                states = solve(
                    rates, jnp.array([doses[i], 0.0]), times[i], own, rtol=rtol, atol=atol
                )
            predicted.append(states[:, 1] * jnp.exp(own[1] - own[2]))
        numpyro.sample("y", dist.Normal(jnp.stack(predicted), noise), obs=conc)

    known = given(doses, times, conc)
    known |= {"rtol": rtol, "atol": atol, "max_steps": MAX_STEPS}
    title = "Theophylline, 12 subjects, 43 parameters"
    return Case(
        "theophylline", title, model, dataset(subjects, times, conc), by_hand, known, PARAMETERS
    )
