"""Models with priors from which their own data are drawn, for the study of verdicts: closed forms,
mostly.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import xarray as xr

import bayes_dasl as bd
from bayes_dasl.inference import AbstractEngine
from bayes_dasl.prediction.predictive import push
from bayes_dasl.priors import draw_prior

TIMES = np.linspace(0.0, 6.0, 46)
UNTIL = 4.0
STEP = float(TIMES[1])
MEMBERS = 8


class Law(bd.Module):
    """A formula of time, forcings and named numbers, for one value or a dict of them."""

    formula: Callable = eqx.field(static=True)
    numbers: dict[str, Any]

    def __call__(self, t, y, u):
        found = self.formula(t, u, **self.numbers)
        return found if isinstance(found, dict) else {"y": found}


def curve(
    formula: Callable, noise: Any, *, forcings: tuple[str, ...] = (), **numbers: Any
) -> bd.Model:
    return bd.Model(bd.Algebraic(Law(formula, numbers), forcings=forcings), noise)


def line(t, u, level, slope):
    return level + slope * t


def fading(t, u, amount, rate):
    return amount * jnp.exp(-rate * t)


def driven(t, u, level, gain):
    return level + gain * u["x"]


class Fading(bd.Module):
    rate: bd.Scalar

    def __call__(self, t, y, u):
        return {"y": -self.rate * y["y"]}


class Growing(bd.Module):
    rate: bd.Scalar
    capacity: bd.Scalar

    def __call__(self, t, y, u):
        return {"y": self.rate * y["y"] * (1 - y["y"] / self.capacity)}


@dataclasses.dataclass(frozen=True)
class Family:
    """A model of series, or of one for each of `members`; engines take turns over the seeds."""

    model: bd.Model
    engines: tuple[AbstractEngine, ...] = (bd.NUTS(),)
    members: str = ""

    def data(self, seed: int) -> xr.Dataset:
        """Data of a truth from the prior."""
        at = template(seed)
        if self.members:
            at = at.assign_coords({self.members: np.arange(MEMBERS)})
        key_truth, key_noise = jax.random.split(jax.random.key(seed))
        truth = {
            path: np.asarray(v) for path, v in draw_prior(self.model, 1, key=key_truth).items()
        }
        made = push(self.model, self.model.inputs(at), truth, key=key_noise)
        assert made.ok.all(), seed
        dims = ("time", self.members) if self.members else ("time",)
        return at.assign(
            {
                name: (dims, np.asarray(values[0], float))
                for name, values in made.predictions.items()
            }
        )


def template(seed: int) -> xr.Dataset:
    """Times, and a forcing that wanders."""
    steps = np.random.default_rng(1000 + seed).normal(size=TIMES.size)
    return xr.Dataset({"x": ("time", np.cumsum(steps) / 2)}, {"time": TIMES})


def families() -> dict[str, Family]:
    unknown = bd.NormalNoise(dist.HalfNormal(0.5))
    relative = bd.LogNormalNoise(dist.LogNormal(-1.5, 0.5))
    uniform = {"most": dist.Uniform(1.0, 5.0), "half": dist.Uniform(0.2, 4.0)}
    sizes = dist.LogNormal(1.0, 0.5)
    nuts, laplace, svi, smc = bd.NUTS(), bd.engines.Laplace(), bd.engines.SVI(), bd.engines.SMC()
    made: dict[str, Family] = {
        "level": Family(curve(lambda t, u, level: level + 0.0 * t, bd.NormalNoise(0.5), level=dist.Normal(0.0, 2.0))),
        "line": Family(
            curve(line, bd.NormalNoise(0.5), level=dist.Normal(0, 2), slope=dist.Normal(0, 1)), (nuts, laplace)
        ),
        "line of unknown noise": Family(curve(line, unknown, level=dist.Normal(0, 2), slope=dist.Normal(0, 1))),
        "line, heavy tails": Family(
            curve(line, bd.StudentTNoise(dist.HalfNormal(0.5)), level=dist.Normal(0, 2), slope=dist.Normal(0, 1))
        ),
        "decay": Family(curve(fading, unknown, amount=sizes, rate=dist.LogNormal(-1.0, 0.5)), (nuts, svi)),
        "decay, relative noise": Family(curve(fading, relative, amount=sizes, rate=dist.HalfNormal(1.0))),
        "saturation": Family(curve(lambda t, u, most, half: most * t / (half + t), unknown, **uniform)),
        "oscillation": Family(
            curve(
                lambda t, u, amplitude, phase, pace: amplitude * jnp.sin(pace * t + phase), unknown,
                amplitude=dist.HalfNormal(2.0), phase=dist.Normal(0.0, 0.5), pace=bd.between(1.5, 2.5),
            )
        ),
        "peak": Family(
            curve(
                lambda t, u, height, centre, width: height * jnp.exp(-0.5 * ((t - centre) / width) ** 2),
                bd.NormalNoise(0.3), height=sizes, centre=dist.Uniform(1.0, 3.0), width=dist.LogNormal(0.0, 0.3),
            )
        ),
        "counts": Family(
            curve(
                lambda t, u, level, slope: jnp.exp(level + slope * t), bd.PoissonNoise(),
                level=dist.Normal(2.0, 0.5), slope=dist.Normal(0.0, 0.2),
            ),
            (nuts, smc),
        ),
        "over-dispersed counts": Family(
            curve(
                lambda t, u, level, slope: jnp.exp(level + slope * t),
                bd.NegativeBinomialNoise(dist.LogNormal(1.5, 0.5)),
                level=dist.Normal(2.0, 0.5), slope=dist.Normal(0.0, 0.2),
            )
        ),
        "driven": Family(
            curve(driven, unknown, forcings=("x",), level=dist.Normal(0, 2), gain=dist.Normal(0, 1)),
        ),
        "seasons": Family(
            curve(
                lambda t, u, each: each[jnp.floor(t * 7.5).astype(int) % 10], bd.NormalNoise(0.5),
                each=dist.Normal(0.0, 1.0).expand([10]).to_event(1),
            )
        ),
        "ODE, decay": Family(
            bd.Model(bd.ODE(Fading(bd.between(0.1, 1.0)), {"y": bd.between(2.0, 10.0)}, start=0.0), relative)
        ),
        "ODE, growth": Family(
            bd.Model(
                bd.ODE(Growing(bd.between(0.5, 2), dist.Uniform(5, 20)), {"y": dist.Uniform(0.2, 2.0)}, start=0.0),
                bd.NormalNoise(0.3),
            )
        ),
        "members": Family(
            bd.Model(
                bd.Each(
                    bd.Algebraic(
                        Law(
                            fading,
                            {
                                "amount": bd.population(dist.LogNormal(1.5, 0.5), dist.HalfNormal(0.3)),
                                "rate": bd.population(dist.LogNormal(-1.0, 0.5), dist.HalfNormal(0.3)),
                            },
                        )
                    ),
                    range(MEMBERS),
                ),
                unknown,
            ),
            members="subject",
        ),
        "correlated residuals": Family(
            curve(
                line, bd.filtering.CorrelatedNoise(bd.filtering.AR1(dist.HalfNormal(1.0), dist.Uniform(0.0, 1.0), STEP)),
                level=dist.Normal(0, 2), slope=dist.Normal(0, 1),
            )
        ),
        "unknown function": Family(
            bd.Model(
                bd.Algebraic(bd.Basis(bd.bases.BSpline(0.0, 6.0, 6), "t", "y", scale=2.0)), bd.NormalNoise(0.3)
            )
        ),
        "river, half of it zeros": Family(
            curve(
                driven, bd.filtering.CorrelatedBoxCoxNoise(bd.filtering.White(dist.HalfNormal(0.5)), power=0.5, shift=0.01),
                forcings=("x",), level=dist.Normal(0, 1), gain=dist.LogNormal(0.0, 0.5),
            )
        ),
    }  # fmt: skip
    return made
