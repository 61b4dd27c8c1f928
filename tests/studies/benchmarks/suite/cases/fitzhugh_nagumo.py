"""FitzHugh–Nagumo as in SciMLBenchmarks (BayesianInference/DiffEqBayesFitzHughNagumo): 6
parameters.

Its equations, truths, priors, times (1 to 10) and noise (0.2); the data are drawn here, with SciPy
and a fixed seed.
"""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import xarray as xr
from scipy.integrate import solve_ivp

import bayes_dasl as bd

from . import MAX_STEPS, Case, solve

TRUTH = (0.7, 0.8, 1 / 12.5, 0.5)
TIMES = np.arange(1.0, 11.0)
PARAMETERS = {
    **{name: f"layer.vector_field.{name}" for name in ("a", "b", "rate", "current")},
    "v_scale": "noise.v.scale",
    "w_scale": "noise.w.scale",
}


class FitzHughNagumo(bd.Module):
    r"""An excitable cell: $\dot v = v - 0.33 v^3 - w + l, \quad \dot w = r\,(v + a - b\,w)$,
    without units.
    """

    a: bd.Scalar
    b: bd.Scalar
    rate: bd.Scalar
    current: bd.Scalar

    def __call__(self, t, y, u):
        v, w = y["v"], y["w"]
        return {"v": v - 0.33 * v**3 - w + self.current, "w": self.rate * (v + self.a - self.b * w)}


def rates(t, y, parameters):
    """The same equations by hand."""
    v, w = y
    a, b, rate, current = parameters
    return jnp.stack([v - 0.33 * v**3 - w + current, rate * (v + a - b * w)])


def priors() -> dict[str, dist.Distribution]:
    return {
        "a": dist.TruncatedNormal(1.0, 0.5, low=0.0, high=1.5),
        "b": dist.TruncatedNormal(1.0, 0.5, low=0.0, high=1.5),
        "rate": dist.TruncatedNormal(0.0, 0.5, low=0.0, high=0.5),
        "current": dist.TruncatedNormal(0.5, 0.5, low=0.0, high=1.0),
    }


def observations() -> np.ndarray:
    """Data `(time, 2)`."""

    def field(t, y):
        a, b, rate, current = TRUTH
        return y[0] - 0.33 * y[0] ** 3 - y[1] + current, rate * (y[0] + a - b * y[1])

    y = solve_ivp(field, (0, 10), [1.0, 1.0], t_eval=TIMES, rtol=1e-10, atol=1e-10).y.T
    return np.round(y + 0.2 * np.random.default_rng(1).normal(size=y.shape), 4)


def case(rtol: float, atol: float) -> Case:
    y = observations()
    scale = dist.InverseGamma(2.0, 3.0)
    layer = bd.ODE(
        FitzHughNagumo(**priors()), {"v": 1.0, "w": 1.0}, start=0.0, rtol=rtol, atol=atol
    )
    noise = {name: bd.NormalNoise(dist.InverseGamma(2.0, 3.0)) for name in ("v", "w")}
    model = bd.Model(layer, noise)
    data = xr.Dataset({"v": ("time", y[:, 0]), "w": ("time", y[:, 1])}, {"time": TIMES})

    def by_hand():
        parameters = jnp.stack([numpyro.sample(name, prior) for name, prior in priors().items()])
        v_scale, w_scale = numpyro.sample("v_scale", scale), numpyro.sample("w_scale", scale)
        states = solve(rates, jnp.ones(2), TIMES, parameters, rtol=rtol, atol=atol)
        numpyro.sample("v", dist.Normal(states[:, 0], v_scale), obs=y[:, 0])
        numpyro.sample("w", dist.Normal(states[:, 1], w_scale), obs=y[:, 1])

    known = {"n": len(TIMES), "ts": TIMES.tolist(), "y": y.tolist()}
    known |= {"rtol": rtol, "atol": atol, "max_steps": MAX_STEPS}
    title = "FitzHugh–Nagumo (SciMLBenchmarks), 6 parameters"
    return Case("fitzhugh_nagumo", title, model, data, by_hand, known, PARAMETERS)
