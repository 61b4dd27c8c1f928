"""Population pharmacokinetics like theophylline's: 12 subjects, one compartment, oral dose, 43
parameters.

Log-normal absorption, elimination and volume across subjects, not centred. The data are simulated:
10 times in 24 hours, a tenth of noise, a tenth of the samples missing. In JAX the subjects are one
system of 24 states; Stan solves them one after another, as one does there.
"""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import xarray as xr
from jaxtyping import Array

import bayes_dasl as bd

from . import MAX_STEPS, Case, positive, solve

SUBJECTS = 12
TIMES = np.array([0.25, 0.5, 1.0, 2.0, 3.5, 5.0, 7.0, 9.0, 12.0, 24.0])
DOSE = np.array([320.0, 319, 319, 320, 320, 320, 320, 319, 267, 320, 320, 319])
KINDS = ("absorption", "elimination", "volume")
MEANS = {"absorption": np.log(1.5), "elimination": np.log(0.08), "volume": np.log(32.0)}
SPREADS = {"absorption": 0.5, "elimination": 0.2, "volume": 0.15}
PARAMETERS = {
    **{name: f"layer.vector_field.{name}" for name in KINDS},
    **{f"{name}_spread": f"layer.vector_field.{name}_spread" for name in KINDS},
    "scale": "noise.scale",
    **{f"{name}_effect": f"layer.vector_field.{name}_effect" for name in KINDS},
}


class OneCompartment(bd.Module):
    r"""$\dot g = -k_a g, \quad \dot c = k_a g / v - k_e c$ for every subject, $\log k_a = m + s\,z$
    and so on.

    Shapes: states and effects z are `(subject,)`. Units: g mg, c mg/L, v L, rates 1/h.
    """

    absorption: bd.Scalar
    elimination: bd.Scalar
    volume: bd.Scalar
    absorption_spread: bd.Scalar
    elimination_spread: bd.Scalar
    volume_spread: bd.Scalar
    absorption_effect: Array
    elimination_effect: Array
    volume_effect: Array

    def __call__(self, t, y, u):
        absorption = jnp.exp(self.absorption + self.absorption_spread * self.absorption_effect)
        elimination = jnp.exp(self.elimination + self.elimination_spread * self.elimination_effect)
        volume = jnp.exp(self.volume + self.volume_spread * self.volume_effect)
        absorbed = absorption * y["gut"]
        return {"gut": -absorbed, "plasma": absorbed / volume - elimination * y["plasma"]}


def rates(t, y, parameters):
    """The same equations by hand, states `(2, subject)`."""
    absorption, elimination, volume = parameters
    absorbed = absorption * y[0]
    return jnp.stack([-absorbed, absorbed / volume - elimination * y[1]])


def subject_names() -> list[str]:
    return [f"s{i + 1:02d}" for i in range(SUBJECTS)]


def observations() -> np.ndarray:
    """Concentrations `(time, subject)` in mg/L from the closed form,
    NaN where a sample is missing.
    """
    random = np.random.default_rng(3)
    ka, ke, v = (np.exp(MEANS[k] + SPREADS[k] * random.normal(size=SUBJECTS)) for k in KINDS)
    t = TIMES[:, None]
    y = DOSE * ka / (v * (ka - ke)) * (np.exp(-ke * t) - np.exp(-ka * t))
    y = np.round(y * np.exp(0.1 * random.normal(size=y.shape)), 3)
    return np.where(random.uniform(size=y.shape) < 0.1, np.nan, y)


def priors() -> dict[str, dist.Distribution]:
    means = {name: dist.Normal(value, 0.5) for name, value in MEANS.items()}
    spreads = {f"{name}_spread": dist.HalfNormal(0.5) for name in KINDS}
    effects = {
        f"{name}_effect": dist.Normal(0.0, 1.0).expand([SUBJECTS]).to_event(1) for name in KINDS
    }
    return means | spreads | effects


class Subject(bd.Module):
    """The same equations for one subject; the fields are logarithms."""

    absorption: bd.Scalar
    elimination: bd.Scalar
    volume: bd.Scalar

    def __call__(self, t, y, u):
        absorbed = jnp.exp(self.absorption) * y["gut"]
        return {
            "gut": -absorbed,
            "plasma": absorbed * jnp.exp(-self.volume) - jnp.exp(self.elimination) * y["plasma"],
        }


def as_population(rtol: float = 1e-6, atol: float = 1e-6) -> tuple[bd.Model, xr.Dataset]:
    """The same posterior in the words for populations, in which the numbers of subjects are centred
    as data say.
    """

    def level(kind):
        mean, spread = dist.Normal(MEANS[kind], 0.5), dist.HalfNormal(0.5)
        return bd.shared(bd.varying(bd.dependent(dist.Normal, mean, spread)), kind)

    start = {"gut": bd.varying(DOSE), "plasma": 0.0}
    observe = lambda t, y, u: {"conc": y["plasma"]}  # noqa: E731
    one = bd.ODE(
        Subject(*(level(kind) for kind in KINDS)), start, observe, start=0.0, rtol=rtol, atol=atol
    )
    model = bd.Model(
        bd.Each(one, subject_names()), bd.LogNormalNoise(dist.LogNormal(np.log(0.1), 0.5))
    )
    coordinates = {"time": TIMES, "subject": subject_names()}
    return model, xr.Dataset({"conc": (("time", "subject"), observations())}, coordinates)


def case(rtol: float, atol: float) -> Case:
    y = observations()
    scale = dist.LogNormal(np.log(0.1), 0.5)
    layer = bd.ODE(
        OneCompartment(**priors()),
        {"gut": DOSE, "plasma": np.zeros(SUBJECTS)},
        observe=lambda t, states, u: {
            name: states["plasma"][i] for i, name in enumerate(subject_names())
        },
        start=0.0,
        rtol=rtol,
        atol=atol,
    )
    data = xr.Dataset(
        {name: ("time", y[:, i]) for i, name in enumerate(subject_names())}, {"time": TIMES}
    )
    seen = ~np.isnan(y)

    def by_hand():
        x = {name: numpyro.sample(name, prior) for name, prior in priors().items()}
        noise = numpyro.sample("scale", scale)
        each = jnp.stack([jnp.exp(x[k] + x[f"{k}_spread"] * x[f"{k}_effect"]) for k in KINDS])
        start = jnp.stack([DOSE, jnp.zeros(SUBJECTS)])
        plasma = solve(rates, start, TIMES, each, rtol=rtol, atol=atol)[:, 1]
        likelihood = dist.LogNormal(jnp.log(positive(plasma)), noise).mask(seen)
        numpyro.sample("y", likelihood, obs=np.where(seen, y, 1.0))

    known = {"n": len(TIMES), "ts": TIMES.tolist(), "subjects": SUBJECTS, "dose": DOSE.tolist()}
    known |= {"y": np.where(seen, y, -1.0).tolist(), "means": list(MEANS.values())}
    known |= {"rtol": rtol, "atol": atol, "max_steps": MAX_STEPS}
    title = "Population pharmacokinetics, 12 subjects, 43 parameters"
    return Case(
        "pk", title, bd.Model(layer, bd.LogNormalNoise(scale)), data, by_hand, known, PARAMETERS
    )
