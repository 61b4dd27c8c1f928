"""How the cost of a gradient grows with chains, states, observations and unknown numbers, against
that of a solve.

Run: `uv run python -m tests.studies.benchmarks.growth`

Everything is measured on one CPU device, one position after another, as NUTS does: of several laps
the fastest. The solve is the layer's alone, without prior and likelihood. The growth in chains is
that of the draws of `bd.fit` on all devices, of three fits the fastest. Writes the table into the
section of docs/measurements/benchmarks.md, and the figure docs/assets/growth.png.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import xarray as xr

import bayes_dasl as bd
from bayes_dasl.inference import pose
from bayes_dasl.inference.gradient import choose, traced_once
from bayes_dasl.inference.problem import Problem
from bayes_dasl.random import realise
from case_studies.lynx_hare import LotkaVolterra
from tests.problems import posteriordb_lynx_hare

from .. import ROOT
from ..pages import table, write_section
from ..timing import lap_times

LAPS, POSITIONS = 7, 16
CHAINS = (1, 2, 4, 8, 16, 32, 64)
STATES = (2, 6, 20, 60, 200)
OBSERVATIONS = (20, 60, 200, 600, 2000)
WIDTHS = (0, 4, 12, 38, 98)  # of a network with two inputs and two outputs: 5 width + 2 weights


class Chain(bd.Module):
    r"""Transit compartments: $\dot y_1 = -k y_1, \quad \dot y_i = k (y_{i-1} - y_i)$, without
    units.
    """

    rate: bd.Scalar

    def __call__(self, t, y, u):
        before = jnp.concatenate([jnp.zeros(1), y["y"][:-1]])
        return {"y": self.rate * (before - y["y"])}


def total(t, y, u):
    return {"sum": jnp.sum(y["y"])}


def linear_chain(states: int) -> Problem:
    """A linear chain, all of it in the first compartment at first; the sum over compartments is
    seen.
    """
    first = jnp.zeros(states).at[0].set(10.0)
    layer = bd.ODE(Chain(dist.LogNormal(0.0, 0.3)), {"y": first}, observe=total, start=0.0)
    times = np.linspace(0.5, 10.0, 20)
    data = xr.Dataset({"sum": ("time", np.full(20, 5.0))}, {"time": times})
    return pose(bd.Model(layer, bd.NormalNoise(dist.LogNormal(0.0, 0.5))), data)


def observed(number: int) -> Problem:
    """Lynx and hare seen so many times in twenty years."""
    model, data = posteriordb_lynx_hare()
    times = np.linspace(1900.0, 1920.0, number)
    data = data[["hare", "lynx"]].interp(time=times).astype(float)
    return pose(model, data)


def hybrid(width: int) -> Problem:
    """Lynx and hare with a residual network of so many hidden units;
    none for the equations alone.
    """
    model, data = posteriordb_lynx_hare()
    if width == 0:
        return pose(model, data)
    perceptron = eqx.nn.MLP(2, 2, width, 1, jax.nn.tanh, key=jax.random.key(0))
    inputs = bd.standardise(data, "hare", "lynx")
    closure = bd.Network(perceptron, inputs=inputs, outputs=("hare", "lynx"), scale=0.05)
    rates = {"birth": 1.0, "predation": 0.05, "death": 1.0, "growth": 0.05}
    science = LotkaVolterra(**{name: dist.LogNormal(np.log(v), 0.3) for name, v in rates.items()})
    start = {"hare": dist.LogNormal(3.4, 0.5), "lynx": dist.LogNormal(1.6, 0.5)}
    noise = {name: bd.LogNormalNoise(dist.LogNormal(-1.0, 1.0)) for name in start}
    return pose(bd.Model(bd.ODE(bd.Residual(science, closure, relative=True), start), noise), data)


def seconds(function: Callable[[Any], Any], x: jax.Array) -> float:
    """Seconds for one of the positions."""
    return min(lap_times(jax.jit(lambda x: jax.lax.map(function, x)), x, LAPS)) / len(x)


def cost(problem: Problem) -> dict[str, Any]:
    """Seconds of one solve and of one gradient, near the middle of the prior."""
    middle = jnp.median(problem.prior(200, key=jax.random.key(0)), axis=0)
    x = middle + 0.01 * jax.random.normal(jax.random.key(1), (POSITIONS, problem.dimension))
    strategy = choose(problem, "auto")
    value_and_gradient, _ = traced_once(problem, strategy)

    def solve(position):
        return realise(problem.model, problem.constrain(position)).layer(problem.inputs)

    return {
        "unknown": problem.dimension,
        "solve": seconds(solve, x),
        "gradient": seconds(value_and_gradient, x),
        "mode": strategy,
    }


def chains(number: int) -> dict[str, Any]:
    """Gradients a second while `bd.fit` draws, and the seconds of one on one of the devices."""
    model, data = posteriordb_lynx_hare()
    fits = [
        bd.fit(model, data, bd.NUTS(chains=number, warmup=200, draws=250), progress=False)
        for _ in range(3)
    ]
    rate = max(
        float(post["sample_stats"]["n_steps"].sum()) / post.attrs["draws_time_s"] for post in fits
    )
    devices = int(fits[0].attrs["devices"].split()[0])
    return {"rate": rate, "gradient": devices / rate, "devices": devices}


def measured() -> Iterator[tuple[str, int, dict[str, Any]]]:
    for what, sizes, pose_one in (
        ("states", STATES, linear_chain),
        ("observations", OBSERVATIONS, observed),
        ("unknown numbers", WIDTHS, hybrid),
    ):
        for size in sizes:
            problem = pose_one(size)
            figures = cost(problem)
            yield what, problem.dimension if what == "unknown numbers" else size, figures
    for number in CHAINS:
        yield "chains", number, chains(number)


def tables(results: list[tuple[str, int, dict[str, Any]]]) -> str:
    lines = [
        ["growing", "", "unknown numbers", "solve, µs", "gradient, µs", "gradient / solve", "by"]
    ]
    for what, size, f in results:
        if what != "chains":
            micro = [f"{1e6 * f[name]:.3g}" for name in ("solve", "gradient")]
            lines.append(
                [
                    what,
                    str(size),
                    str(f["unknown"]),
                    *micro,
                    f"{f['gradient'] / f['solve']:.1f}",
                    f["mode"],
                ]
            )
    of_chains = [["chains", "devices", "gradients a second", "µs a gradient and device"]]
    for what, size, f in results:
        if what == "chains":
            of_chains.append(
                [str(size), str(f["devices"]), f"{f['rate']:.0f}", f"{1e6 * f['gradient']:.3g}"]
            )
    return f"{table(lines)}\n\n{table(of_chains)}"


def draw(results: list[tuple[str, int, dict[str, Any]]], path: Path) -> None:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    from bayes_dasl.plots import BLUE, STYLE, VERMILION

    with rc_context(STYLE):
        figure = Figure(figsize=(9.0, 7.0), layout="constrained")
        titles = ("states", "observations", "unknown numbers", "chains")
        for axes, what in zip(figure.subplots(2, 2).flat, titles, strict=True):
            mine = [(size, f) for name, size, f in results if name == what]
            sizes = [size for size, _ in mine]
            if what == "chains":
                axes.loglog(sizes, [f["rate"] for _, f in mine], "o-", color=BLUE)
                axes.set_ylim(1e4, 2e5)
                axes.set_ylabel("gradients a second (1/s)")
            else:
                axes.loglog(
                    sizes,
                    [1e6 * f["gradient"] for _, f in mine],
                    "o-",
                    color=BLUE,
                    label="gradient",
                )
                axes.loglog(
                    sizes,
                    [1e6 * f["solve"] for _, f in mine],
                    "s--",
                    color=VERMILION,
                    label="solve alone",
                )
                axes.set_ylabel("time for one (µs)")
                axes.legend(frameon=False)
            axes.set_xticks(sizes, [str(size) for size in sizes])
            axes.minorticks_off()
            axes.set_xlabel(f"number of {what}")
        figure.savefig(path, dpi=160)


def main() -> None:
    results = []
    for what, size, figures in measured():
        results.append((what, size, figures))
        print(what, size, figures, flush=True)
    draw(results, ROOT / "docs" / "assets" / "growth.png")
    write_section(ROOT / "docs" / "measurements" / "benchmarks.md", "growth", tables(results))


if __name__ == "__main__":
    main()
