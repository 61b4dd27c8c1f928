"""The problems of the suite: each is one posterior, written three times.

A module here has `case(rtol, atol)`, which returns the model and data for `bd.fit` and the same
model written by hand for NumPyro (BlackJAX uses its log density, as BlackJAX's documentation does);
the file of the same name ending in `.stan` is the same model for Stan.
`python -m tests.studies.benchmarks.suite --check` shows that the three agree.
"""

import dataclasses
import importlib
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import diffrax
import jax.numpy as jnp
import numpy as np
import numpyro
import xarray as xr

import bayes_dasl as bd

from ....provenance import fingerprint

NAMES = (
    "lynx_hare",
    "fitzhugh_nagumo",
    "sir",
    "stiff",
    "hybrid",
    "pk",
    "pk_population",
    "theophylline",
    "theophylline_closed",
)
MAX_STEPS = 4096

type Draws = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Case:
    """One posterior for every engine.

    `parameters` maps the name that NumPyro and Stan use to the path in our model. `weights` are the
    parameters that are not compared: a network's weights are not identified one by one.
    `trajectories`, if given, takes our result and returns predictions `(chain, draw, time)` that
    are compared instead; the other engines' results hold them under the same names, `outputs`.
    """

    name: str
    title: str
    model: bd.Model
    data: xr.Dataset
    by_hand: Callable[[], None]
    stan_data: Mapping[str, Any]
    parameters: Mapping[str, str]
    weights: tuple[str, ...] = ()
    trajectories: Callable[[xr.DataTree], Draws] | None = None
    outputs: tuple[str, ...] = ()

    @property
    def compared(self) -> tuple[str, ...]:
        """Names of the quantities whose draws are judged."""
        return (*(name for name in self.parameters if name not in self.weights), *self.outputs)

    @property
    def stan_code(self) -> str:
        return Path(__file__).with_name(f"{self.name}.stan").read_text()

    def ours(self, post: xr.DataTree) -> Draws:
        """Draws of the compared quantities in the result of `bd.fit`."""
        by_path = {
            v.attrs["path"]: v.values for v in post["posterior"].to_dataset().data_vars.values()
        }
        draws = {name: by_path[path] for name, path in self.parameters.items()}
        draws |= self.trajectories(post) if self.trajectories else {}
        return {name: draws[name] for name in self.compared}


def load(name: str, rtol: float = 1e-6, atol: float = 1e-6) -> Case:
    """A problem by its name."""
    if name not in NAMES:
        raise SystemExit(f"unknown problem {name!r}; there are {', '.join(NAMES)}")
    return importlib.import_module(f"{__name__}.{name}").case(rtol, atol)


@cache
def ours(name: str) -> str:
    """The fingerprint of the code with which ours fits a problem."""
    return fingerprint(bd.fit, bd.NUTS(), load(name).model)


def solve(rates, initial, times, arguments, *, rtol, atol, start=0.0, solver=None):
    """States `(time, …)` as one would solve them by hand in NumPyro: a failing solve rejects the
    draw.
    """
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(rates), diffrax.Tsit5() if solver is None else solver, start, times[-1], None, initial,
        args=arguments, saveat=diffrax.SaveAt(ts=times), max_steps=MAX_STEPS, throw=False,
        stepsize_controller=diffrax.PIDController(rtol=rtol, atol=atol),
    )  # fmt: skip
    ok = (solution.result == diffrax.RESULTS.successful) & jnp.all(jnp.isfinite(solution.ys))
    numpyro.factor("ok", jnp.where(ok, 0.0, -jnp.inf))
    return jnp.where(ok, solution.ys, 1.0)


def positive(x):
    """A solver may step a hair below zero where a logarithm follows."""
    return jnp.maximum(x, 1e-12)
