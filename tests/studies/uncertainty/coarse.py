"""Which unknown functions `bd.updating.check_functions` says are too coarse, and how much of the
truth their bands hold.

Run: `uv run python -m tests.studies.uncertainty.coarse`; what is done is kept, `--table` prints it.

A formula, the force on a spring and the flux into a rod have an unknown part, which is smooth, or
varies fast. What stands for it is fine enough or far too coarse. Posteriors are normals at the
optimum with the curvature of Gauss and Newton: no sampler is what is looked at here.
"""

import json
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import xarray as xr
from scipy.optimize import minimize

import bayes_dasl as bd
from bayes_dasl.inference import Problem, pose
from bayes_dasl.inference.linearisation import gauss_newton
from bayes_dasl.prediction.datatree import shortest_lengths

from ...by_hand import posterior
from ..pages import table
from ..provenance import fingerprint
from ..rows import age, go_on, held, latest

RESULTS = Path(__file__).with_suffix(".jsonl")
TASK, SEEDS = ("problem", "truth", "function", "seed"), range(10)
DRAWS, CLIMBS = 200, 8


class Sum(bd.Module):
    slope: bd.Scalar
    extra: Any

    def __call__(self, t, y, u):
        return {"y": self.slope * t + self.extra(t, y, u)["extra"]}


class Spring(bd.Module):
    friction: bd.Scalar
    extra: Any

    def __call__(self, t, y, u):
        pull = self.extra(t, y, u)["extra"] - self.friction * y["speed"] - y["place"]
        return {"place": y["speed"], "speed": pull}


class Of(bd.Module):
    """A known function."""

    of: Callable
    input: str

    def __call__(self, t, y, u):
        return {"extra": self.of({"t": t, **y}[self.input])}


def formula(slope, extra):
    return bd.Algebraic(Sum(slope, extra))


def spring(friction, extra):
    return bd.ODE(Spring(friction, extra), {"place": 2.5, "speed": 0.0}, rtol=1e-6, atol=1e-6)


def rod(diffusion, extra):
    boundary = {"x_low": bd.pde.Flux(extra), "x_high": bd.pde.Dirichlet(0.0)}
    law = bd.pde.FiniteVolume(bd.pde.Grid(x=(0.0, 1.0, 24)), diffusion, boundary=boundary)
    return bd.pde.PDE(
        law, {"heat": 0.0}, solver=bd.pde.Chebyshev(8), start=0.0, rtol=1e-5, atol=1e-5
    )


def pulses(t):
    at = lambda middle, width: jnp.exp(-(((t - middle) / width) ** 2))  # noqa: E731
    return -(0.5 + 2 * at(0.22, 0.03) + 1.5 * at(0.5, 0.04) - at(0.62, 0.03) + 1.5 * at(0.83, 0.05))


class Case(NamedTuple):
    """A problem, its known number and prior, what the unknown part hangs on and where it is looked
    at, and the data.
    """

    layer: Callable
    number: float
    prior: dist.Distribution
    input: str
    over: np.ndarray
    template: xr.Dataset
    noise: float
    truths: dict[str, Callable]


TIMES = {
    "formula": np.linspace(0.0, 1.0, 80),
    "spring": np.linspace(0.0, 12.0, 80),
    "rod": np.linspace(0.02, 1.0, 60),
}
CASES = {
    "formula": Case(
        formula, 0.5, dist.Normal(0.5, 0.05), "t", np.linspace(0.0, 1.0, 101),
        xr.Dataset(coords={"time": TIMES["formula"]}), 0.1,
        {"smooth": lambda t: jnp.sin(3 * t), "fast": lambda t: jnp.exp(-(((t - 0.4) / 0.04) ** 2))},
    ),
    "spring": Case(
        spring, 0.1, bd.between(0.02, 0.5), "place", np.linspace(-1.7, 2.4, 101),
        xr.Dataset(coords={"time": TIMES["spring"]}), 0.05,
        {"smooth": lambda x: 0.6 * jnp.sin(1.5 * x), "fast": lambda x: jnp.sin(4 * x)},
    ),
    "rod": Case(
        rod, 0.15, bd.between(0.05, 0.5), "t", np.linspace(0.0, 0.95, 101),
        xr.Dataset(coords={"time": TIMES["rod"], "x": np.array([0.03, 0.1, 0.2, 0.4])}), 0.02,
        {"smooth": lambda t: -(0.5 + t + 0.4 * jnp.sin(2 * jnp.pi * t)), "fast": pulses},
    ),
}  # fmt: skip


def splines(size: int, low: float, high: float, input: str) -> bd.Basis:
    return bd.Basis(bd.bases.BSpline(low, high, size), input, "extra")


def process(size: int) -> bd.Basis:
    return bd.Basis(bd.bases.HilbertGP(0.0, 1.0, size), "t", "extra")


def network(width: int, depth: int) -> bd.Network:
    return bd.Network.mlp({"place": (0.0, 1.3)}, ("extra",), width=width, depth=depth)


FUNCTIONS = {
    ("formula", "smooth", "6 splines"): lambda: splines(6, 0.0, 1.0, "t"),
    ("formula", "fast", "6 splines"): lambda: splines(6, 0.0, 1.0, "t"),
    ("formula", "fast", "40 splines"): lambda: splines(40, 0.0, 1.0, "t"),
    ("formula", "fast", "process of 8"): lambda: process(8),
    ("formula", "fast", "process of 40"): lambda: process(40),
    ("spring", "smooth", "6 splines"): lambda: splines(6, -3.0, 3.0, "place"),
    ("spring", "fast", "6 splines"): lambda: splines(6, -3.0, 3.0, "place"),
    ("spring", "fast", "20 splines"): lambda: splines(20, -3.0, 3.0, "place"),
    ("spring", "smooth", "network of 2 × 8"): lambda: network(8, 2),
    ("spring", "fast", "network of 2"): lambda: network(2, 1),
    ("rod", "smooth", "14 splines"): lambda: splines(14, 0.0, 1.0, "t"),
    ("rod", "fast", "14 splines"): lambda: splines(14, 0.0, 1.0, "t"),
    ("rod", "fast", "44 splines"): lambda: splines(44, 0.0, 1.0, "t"),
}
COARSE = {("formula", "fast", "6 splines"), ("formula", "fast", "process of 8"), ("spring", "fast", "6 splines"),
          ("spring", "fast", "network of 2"), ("rod", "fast", "14 splines")}  # fmt: skip


@cache
def model(problem: str, truth: str, function: str) -> bd.Model:
    case = CASES[problem]
    return bd.Model(
        case.layer(case.prior, FUNCTIONS[problem, truth, function]()),
        bd.NormalNoise(dist.LogNormal(np.log(2 * case.noise), 1.0)),
    )


@cache
def clean(problem: str, truth: str) -> xr.Dataset:
    case = CASES[problem]
    known = case.layer(case.number, Of(case.truths[truth], case.input))
    asked = bd.inputs(
        case.template, start=0.0, places=("x",) if "x" in case.template.coords else ()
    )
    values = jax.jit(lambda: known(asked).values)()
    return xr.Dataset(
        {n: (tuple(case.template.coords), np.asarray(v)) for n, v in values.items()},
        case.template.coords,
    )


def simulated(problem: str, truth: str, seed: int) -> xr.Dataset:
    rng = np.random.default_rng([seed, 7])
    return clean(problem, truth).map(lambda v: v + CASES[problem].noise * rng.normal(size=v.shape))


@cache
def climber(problem: str, truth: str, function: str) -> Callable:
    posed = pose(model(problem, truth, function), clean(problem, truth))

    @jax.jit
    def downhill(observed, x):
        with_data = Problem(
            posed.model, posed.inputs, observed, posed.sites, posed.dimension, posed.own_rows
        )
        return jax.value_and_grad(lambda x: -with_data.log_density(x))(x)

    return downhill


def optimum(problem: Problem, downhill: Callable, known: np.ndarray | None) -> np.ndarray:
    """The best of several climbs, of which one begins where that of another data set has ended."""
    starts = [] if known is None else [known]
    starts += [*np.asarray(problem.prior(CLIMBS, key=jax.random.key(0)))][
        : CLIMBS if known is None else 0
    ]
    observed = dict(problem.observed)

    def climb(start, steps):
        both = lambda x: tuple(map(np.asarray, downhill(observed, x)))  # noqa: E731
        return minimize(both, start, jac=True, method="L-BFGS-B", options={"maxiter": steps})

    found = [climb(start, 100) for start in starts]
    return climb(min((f for f in found if np.isfinite(f.fun)), key=lambda f: f.fun).x, 1000).x


ENDED: dict[tuple, np.ndarray] = {}


def run(problem: str, truth: str, function: str, seed: int) -> dict:
    case, fitted, data = (
        CASES[problem],
        model(problem, truth, function),
        simulated(problem, truth, seed),
    )
    posed = pose(fitted, data)
    at = optimum(posed, climber(problem, truth, function), ENDED.get((problem, truth, function)))
    ENDED[problem, truth, function] = at
    root = np.linalg.inv(np.linalg.cholesky(gauss_newton(posed, at)))
    draws = at + np.random.default_rng(seed).standard_normal((DRAWS, at.size)) @ root
    values = jax.jit(jax.vmap(posed.constrain))(draws)
    post = posterior(fitted, data, {path: np.asarray(v)[None] for path, v in values.items()})
    began = time.perf_counter()
    found = (
        bd.updating.check_functions(fitted, post)["function_check"].to_dataset().isel(function=0)
    )
    seconds = time.perf_counter() - began
    band = bd.evaluate(fitted, post, lambda m: unknown_part(m, case))["extra"].values[0]
    low, high = np.quantile(band, [0.05, 0.95], axis=0)
    shorter = [
        np.mean(post["posterior"][n] < at_least)
        for n, (at_least, _) in json.loads(shortest_lengths(fitted)).items()
    ]
    true = np.asarray(case.truths[truth](case.over))
    return {
        **dict(zip(TASK, (problem, truth, function, seed), strict=True)),
        "coarse": bool(found["coarse"]),
        "gain": round(float(found["gain"]), 2),
        "chance": float(f"{float(found['chance']):.3g}"),
        "finer": str(found["finer"].values),
        "shorter": round(float(shorter[0]), 3) if shorter else None,
        "covered": round(float(np.mean((low <= true) & (true <= high))), 3),
        "seconds": round(seconds, 1),
    }


def unknown_part(realised: bd.Model, case: Case) -> dict[str, Any]:
    """The unknown part, where it is looked at."""
    is_one = lambda node: isinstance(node, bd.Basis | bd.Network)  # noqa: E731
    found = [node for node in jax.tree.leaves(realised, is_leaf=is_one) if is_one(node)]
    return {
        "extra": jax.vmap(lambda x: found[0](x, {case.input: x}, {})["extra"])(
            jnp.asarray(case.over)
        )
    }


@cache
def code_of(problem: str, truth: str, function: str, seed: int) -> str:
    return fingerprint(bd.updating.check_functions, model(problem, truth, function))


def tables() -> str:
    rows = latest(held(RESULTS), TASK)
    lines: list[tuple] = [
        (
            "problem",
            "truth",
            "unknown function",
            "fine enough",
            "data sets",
            "called too coarse",
            "gain in nats, median (least to most)",
            "truth in 90 % band",
            "seconds of a check, median",
        )
    ]
    for task in FUNCTIONS:
        of = [row for row in rows if tuple(row[name] for name in TASK[:3]) == task]
        if of:
            gain, seconds = [row["gain"] for row in of], [row["seconds"] for row in of]
            lines.append(
                (
                    *task,
                    "no" if task in COARSE else "yes",
                    len(of),
                    sum(row["coarse"] for row in of),
                    f"{np.median(gain):.1f} ({min(gain):.1f} to {max(gain):.1f})",
                    f"{np.mean([row['covered'] for row in of]):.0%}",
                    f"{np.median(seconds):.0f}",
                )
            )
    return f"{table(lines)}\n\n{age(rows, TASK, code_of)}"


if __name__ == "__main__":
    every = lambda seed: [(*task, seed) for task in FUNCTIONS]  # noqa: E731
    go_on(__doc__, RESULTS, SEEDS, TASK, every, run, code_of, tables)
