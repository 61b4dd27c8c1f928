"""Heat in a rod with an unknown source over its length, an unknown flux through one end over time,
and an unknown diffusion.

Run: `uv run python -m tests.studies.benchmarks.heat` (`--quick` is a short trial of one data set)

Heat enters from a source with two humps and through the low end, as fast as a wave and a rising
trend say; the high end is held at zero. Ten places are seen at twenty times, with noise. The source
and the flux are B-splines with unknown weights. It reports, for each of several data sets, how much
of both functions lies within their pointwise 90 % bands, and for posterior draws the heat that is
there against what the source and the ends have given. Prints a table in Markdown; writes
docs/assets/heat-*.png for the first data set.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import arviz_stats as azs
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import xarray as xr

import bayes_dasl as bd
from bayes_dasl.plots import BLUE, STYLE, VERMILION, plot_field
from bayes_dasl.prediction.posterior import draws_of
from bayes_dasl.random import realise

from .. import ROOT
from ..pages import table

GRID = bd.pde.Grid(x=(0.0, 1.0, 32))
END, DIFFUSION, NOISE = 1.0, 0.15, 0.02
PLACES, TIMES = np.linspace(0.05, 0.95, 10), np.linspace(0.05, END, 20)
OVER = {"x": np.linspace(0.0, 1.0, 101), "t": np.linspace(0.0, END, 101)}


class Source(bd.Module):
    """Two humps."""

    def __call__(self, t: Any, y: Any, u: Any) -> dict[str, Any]:
        humps = 3.0 * jnp.exp(-(((u["x"] - 0.3) / 0.12) ** 2)) + 1.5 * jnp.exp(
            -(((u["x"] - 0.75) / 0.1) ** 2)
        )
        return {"heat": humps}


class Inflow(bd.Module):
    """What leaves through the low end: less than nothing, as heat enters there."""

    def __call__(self, t: Any, y: Any, u: Any) -> dict[str, Any]:
        return {"flux": -(0.5 + t / END + 0.4 * jnp.sin(2 * jnp.pi * t / END))}


class Account(bd.Module):
    """A law with a second field, the same in every cell: the heat that the source and the ends have
    given so far.
    """

    law: bd.pde.FiniteVolume

    def __call__(self, t: Any, y: Any, u: Any) -> dict[str, Any]:
        heat = {"heat": y["heat"]}
        source = jax.vmap(lambda x: self.law.reaction(t, {}, {"x": x})["heat"])(
            jnp.asarray(GRID.centres("x"))
        )
        given = GRID.integral(source) - sum(self.law.outflow(t, heat, u).values())
        return {**self.law(t, heat, u), "given": jnp.broadcast_to(given, GRID.shape)}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="tests.studies.benchmarks.heat", description="Unknown source and boundary flux."
    )
    parser.add_argument("--sets", type=int, default=4, help="data sets, each with other noise")
    parser.add_argument("--draws", type=int, default=400, help="of each of two chains")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "docs" / "assets", help="folder of the figures"
    )
    parser.add_argument("--quick", action="store_true", help="one data set, fewer draws")
    options = parser.parse_args()
    if options.quick:
        options.sets, options.draws = 1, 100
    return options


def rod(diffusion: Any, source: Any, flux: Any) -> bd.pde.PDE:
    boundary = {"x_low": bd.pde.Flux(flux), "x_high": bd.pde.Dirichlet(0.0)}
    law = bd.pde.FiniteVolume(GRID, diffusion, reaction=source, boundary=boundary)
    return bd.pde.PDE(
        law, {"heat": 0.0}, solver=bd.pde.Chebyshev(8), start=0.0, rtol=1e-5, atol=1e-5
    )


def unknown() -> bd.Model:
    weights = {size: bd.bases.NormalShrinkage(size, scale=1.0) for size in (12, 8)}
    source = bd.Basis(
        bd.bases.BSpline(0.0, 1.0, 12), "x", "heat", weights[12], level=1.0, scale=2.0
    )
    flux = bd.Basis(bd.bases.BSpline(0.0, END, 8), "t", "flux", weights[8], level=-1.0, scale=1.0)
    return bd.Model(
        rod(bd.between(0.05, 0.5), source, flux), bd.NormalNoise(dist.LogNormal(-3.0, 1.0))
    )


@eqx.filter_jit
def solve(layer: bd.pde.PDE, given: Any) -> Any:
    return layer(given)


def observed(seed: int) -> xr.Dataset:
    asked = bd.inputs(xr.Dataset(coords={"time": TIMES, "x": PLACES}), start=0.0, places=("x",))
    clean = np.asarray(solve(rod(DIFFUSION, Source(), Inflow()), asked).values["heat"])
    seen = clean + NOISE * np.random.default_rng(seed).normal(size=clean.shape)
    return xr.Dataset({"heat": (("time", "x"), seen)}, {"time": TIMES, "x": PLACES})


def functions(layer: bd.pde.PDE) -> dict[str, Any]:
    """The source over x and what enters through the low end over time."""
    law: Any = layer.vector_field
    source = jax.vmap(lambda x: law.reaction(0.0, {}, {"x": x})["heat"])(jnp.asarray(OVER["x"]))
    flux = jax.vmap(lambda t: law.boundary["x_low"].value(t, {}, {})["flux"])(
        jnp.asarray(OVER["t"])
    )
    return {"inflow": -flux, "source": source}


def imbalance(layer: bd.pde.PDE) -> Any:
    """The largest difference between the heat that is there and what was given,
    as a share of it.
    """
    asked = bd.inputs(xr.Dataset(coords={"time": np.linspace(0.0, END, 21)}), start=0.0)
    account = bd.pde.PDE(
        Account(layer.vector_field),
        {"heat": 0.0, "given": 0.0},
        solver=bd.pde.Chebyshev(8),
        start=0.0,
    )
    values = account(asked).values
    there = jax.vmap(GRID.integral)(values["heat"])
    return jnp.max(jnp.abs(there - values["given"][:, 0])) / jnp.max(jnp.abs(there))


def of_draws(model: bd.Model, post: xr.DataTree, function: Any, thin: int = 1) -> Any:
    draws = {path: jnp.asarray(v)[::thin] for path, v in draws_of(model, post).items()}
    return jax.lax.map(lambda draw: function(realise(model, draw).layer), draws)


def inside(bands: dict[str, np.ndarray], truth: dict[str, Any]) -> dict[str, float]:
    """The share of each function that lies within its band."""
    return {
        name: float(np.mean((low <= truth[name]) & (truth[name] <= high)))
        for name, (low, _, high) in bands.items()
    }


def picture(bands: dict[str, np.ndarray], truth: dict[str, Any]) -> Any:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure = Figure(figsize=(8.0, 3.0), layout="constrained")
        for axes, name, along in zip(
            figure.subplots(1, 2), ("source", "inflow"), ("x", "t"), strict=True
        ):
            low, middle, high = bands[name]
            axes.fill_between(
                OVER[along], low, high, color=BLUE, alpha=0.25, lw=0, label="90 % band"
            )
            axes.plot(OVER[along], middle, color=BLUE, label="median")
            axes.plot(OVER[along], truth[name], color=VERMILION, ls="--", label="truth")
            axes.set(xlabel={"x": "place x", "t": "time"}[along], ylabel=name)
        axes.legend()
        return figure


def main() -> None:
    options = arguments()
    began, model, lines = time.perf_counter(), unknown(), []
    truth = functions(rod(DIFFUSION, Source(), Inflow()))
    for seed in range(options.sets):
        data = observed(seed)
        post = bd.fit(
            model,
            data,
            bd.NUTS(chains=2, warmup=200, draws=options.draws),
            key=seed,
            progress=False,
        )
        diagnosis = bd.diagnose(post)
        cost = int(post["sample_stats"]["n_steps"].mean())
        print(
            f"{time.perf_counter() - began:.0f} s, {cost} gradients a draw: {diagnosis}", flush=True
        )
        drawn = of_draws(model, post, functions)
        bands = {
            name: np.quantile(drawn[name], (0.05, 0.5, 0.95), axis=0)
            for name in ("source", "inflow")
        }
        rhat = azs.rhat(post["posterior"].to_dataset())
        shares = inside(bands, truth)
        diffusion = post["posterior"]["diffusion"].values
        lines.append(
            [
                str(seed),
                *(f"{100 * shares[name]:.0f} %" for name in bands),
                f"{diffusion.mean():.3f} ± {diffusion.std():.3f}",
                f"{diffusion.size}",
                f"{max(float(v.max()) for v in rhat.data_vars.values()):.3f}",
                f"{float(np.max(of_draws(model, post, imbalance, thin=20))):.1e}",
            ]
        )
        if seed == 0:
            picture(bands, truth).savefig(options.out / "heat-functions.png", dpi=160)
            dense = xr.Dataset(coords={"time": np.linspace(0.0, END, 41), "x": GRID.centres("x")})
            shown = plot_field(bd.forecast(model, post, dense), data, None, "heat")
            shown.savefig(options.out / "heat-field.png", dpi=130)
    header = [
        "data set",
        "source in band",
        "inflow in band",
        f"diffusion ({DIFFUSION})",
        "draws",
        "highest R-hat",
    ]
    print(table([[*header, "heat out of balance, share"], *lines]))
    print(f"\n{time.perf_counter() - began:.0f} s in all")


if __name__ == "__main__":
    main()
