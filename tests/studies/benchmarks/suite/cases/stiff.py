"""Robertson's chemical kinetics to t = 4000: stiff, 3 rates and a noise scale, 3 species at 20
log-spaced times.

The second species is counted in units of 1e-4, so that one absolute tolerance suits all three; with
it the true rates are 0.04, 0.3 and 1. Stan uses its BDF solver.
"""

import diffrax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import xarray as xr
from scipy.integrate import solve_ivp

import bayes_dasl as bd

from . import MAX_STEPS, Case, positive, solve

TRUTH = {"slow": 0.04, "pair": 0.3, "back": 1.0}
SPECIES = ("a", "b", "c")
UNIT = 1e4
TIMES = np.geomspace(0.04, 4000.0, 20)
PARAMETERS = {**{name: f"layer.vector_field.{name}" for name in TRUTH}, "scale": "noise.scale"}


class Robertson(bd.Module):
    r"""$\dot
    a = -k_1 a + k_3 b c, \quad \dot b = 10^4(k_1 a - k_3 b c - k_2 b^2), \quad \dot c = k_2 b^2$

    Units: time in s; a and c as fractions, b in 1e-4.
    Source: Robertson (1966).
    """

    slow: bd.Scalar
    pair: bd.Scalar
    back: bd.Scalar

    def __call__(self, t, y, u):
        one, two = self.slow * y["a"] - self.back * y["b"] * y["c"], self.pair * y["b"] ** 2
        return {"a": -one, "b": UNIT * (one - two), "c": two}


def rates(t, y, parameters):
    """The same equations by hand."""
    slow, pair, back = parameters
    one, two = slow * y[0] - back * y[1] * y[2], pair * y[1] ** 2
    return jnp.stack([-one, UNIT * (one - two), two])


def observations() -> np.ndarray:
    """Data `(time, 3)`, with a tenth of noise."""

    def field(t, y):
        one = TRUTH["slow"] * y[0] - TRUTH["back"] * y[1] * y[2]
        two = TRUTH["pair"] * y[1] ** 2
        return -one, UNIT * (one - two), two

    y = solve_ivp(
        field, (0, TIMES[-1]), [1.0, 0.0, 0.0], "Radau", t_eval=TIMES, rtol=1e-9, atol=1e-11
    ).y.T
    noisy = y * np.exp(0.1 * np.random.default_rng(2).normal(size=y.shape))
    return np.array([[float(f"{v:.4g}") for v in row] for row in noisy])


def case(rtol: float, atol: float) -> Case:
    y, atol = (
        observations(),
        atol / 100,
    )  # the third species starts at zero and is 1e-3 at the first time
    priors = {name: dist.LogNormal(np.log(value), 0.5) for name, value in TRUTH.items()}
    scale = dist.LogNormal(np.log(0.1), 0.5)
    initial = dict(zip(SPECIES, (1.0, 0.0, 0.0), strict=True))
    layer = bd.ODE(Robertson(**priors), initial, solver="rodas5p", start=0.0, rtol=rtol, atol=atol)
    data = xr.Dataset({name: ("time", y[:, i]) for i, name in enumerate(SPECIES)}, {"time": TIMES})

    def by_hand():
        parameters = jnp.stack([numpyro.sample(name, prior) for name, prior in priors.items()])
        noise = numpyro.sample("scale", scale)
        start = jnp.array([1.0, 0.0, 0.0])
        states = solve(
            rates, start, TIMES, parameters, rtol=rtol, atol=atol, solver=diffrax.Kvaerno3()
        )
        numpyro.sample("y", dist.LogNormal(jnp.log(positive(states)), noise), obs=y)

    known = {"n": len(TIMES), "ts": TIMES.tolist(), "y": y.tolist()}
    known |= {"rtol": rtol, "atol": atol, "max_steps": MAX_STEPS}
    title = "Robertson's stiff kinetics, 4 parameters"
    return Case(
        "stiff", title, bd.Model(layer, bd.LogNormalNoise(scale)), data, by_hand, known, PARAMETERS
    )
