"""An eddy viscosity learned for two-dimensional turbulence on 64 × 64 cells, from filtered
turbulence on 256 × 256.

Run: `uv run python -m tests.studies.benchmarks.navier_stokes` (`--quick` is a short trial on
coarser grids)

Decaying turbulence is solved on the fine grid and cut to the waves that the coarse one transports.
The coarse model starts from the cut field, sees every second cell along each axis in a short window
with a little noise, and has no closure, Smagorinsky's with the textbook coefficient 0.17, the same
with an unknown one, or an unknown positive function of the strain rate. The scale of the noise is
always unknown, so that it takes up what the model gets wrong. Forecasts go on after the window and
are compared with the cut fine solution, in all cells. Prints tables in Markdown; writes
docs/assets/closure-*.png.
"""

import argparse
import time
from collections.abc import Callable
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
from bayes_dasl.plots import STYLE, plot_field
from bayes_dasl.plots._style import BLACK, BLUE, FAINT, GREEN, GREY, ORANGE, VERMILION
from bayes_dasl.prediction.posterior import draws_of
from bayes_dasl.random import realise

from .. import ROOT
from ..pages import table

BOX, VISCOSITY, NOISE, TEXTBOOK = 2 * np.pi, 4e-4, 0.05, 0.17
SPIN_UP, STEP = 1.5, 0.25
STRONGEST = 12.0  # strain rate up to which the unknown function has shape
COLOURS = dict(
    zip(("none", "textbook", "Smagorinsky", "basis"), (GREY, ORANGE, BLUE, VERMILION), strict=True)
)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="tests.studies.benchmarks.navier_stokes", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument(
        "--fine", type=int, default=256, help="cells of the fine grid along an axis"
    )
    parser.add_argument(
        "--coarse", type=int, default=64, help="cells of the coarse grid along an axis"
    )
    parser.add_argument(
        "--train", type=float, default=0.75, help="length of the window that is fitted"
    )
    parser.add_argument("--until", type=float, default=3.5, help="where the forecasts end")
    parser.add_argument("--warmup", type=int, default=100)
    parser.add_argument("--draws", type=int, default=200, help="of each of two chains")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--out", type=Path, default=ROOT / "docs" / "assets", help="folder of the figures"
    )
    parser.add_argument("--quick", action="store_true", help="grids of 64 and 32 cells, few draws")
    options = parser.parse_args()
    if options.quick:
        options.fine, options.coarse, options.warmup, options.draws, options.until = (
            64,
            32,
            50,
            50,
            2.0,
        )
    return options


def box(cells: int) -> bd.pde.Grid:
    return bd.pde.Grid(x=(0.0, BOX, cells), y=(0.0, BOX, cells))


def spectrum(k: Any) -> Any:
    return k**4 / (1 + (k / 4) ** 2) ** 6


def layer(
    grid: bd.pde.Grid, initial: Any, eddy: Any, tolerance: float, max_steps: int
) -> bd.pde.PDE:
    law = bd.pde.Vorticity(grid, VISCOSITY, eddy=eddy)
    return bd.pde.PDE(
        law, {"vorticity": initial}, start=0.0, rtol=tolerance, atol=tolerance, max_steps=max_steps
    )


def filtered(options: argparse.Namespace) -> tuple[xr.Dataset, Any]:
    """The fine solution on the coarse grid, from the end of the spin-up on, and that end on the
    fine grid itself.
    """
    fine, coarse = box(options.fine), box(options.coarse)
    drawn = bd.pde.random_vorticity(fine, spectrum, key=jax.random.key(options.seed))
    start = drawn * jnp.sqrt(0.5 / bd.pde.energy(fine, drawn))
    times = np.arange(SPIN_UP, SPIN_UP + options.until + STEP / 2, STEP)
    asked = bd.inputs(xr.Dataset(coords={"time": times}), start=0.0)
    found = eqx.filter_jit(lambda layer, given: layer(given))(
        layer(fine, start, None, 1e-5, 100_000), asked
    )
    assert found.ok
    cut = [
        bd.pde.truncated(coarse, bd.pde.coarsen(w, fine, coarse)) for w in found.values["vorticity"]
    ]
    x = coarse.centres("x")
    fields = xr.Dataset(
        {"vorticity": (("time", "x", "y"), np.stack(cut))},
        {"time": times - SPIN_UP, "x": x, "y": x},
    )
    return fields, found.values["vorticity"][0]


def seen(fields: xr.Dataset, options: argparse.Namespace) -> xr.Dataset:
    """Every second cell along each axis, with noise, in the window that is fitted."""
    train = fields.isel(x=slice(0, None, 2), y=slice(0, None, 2)).sel(
        time=slice(STEP / 2, options.train + STEP / 2)
    )
    noise = NOISE * np.random.default_rng(options.seed).normal(size=train["vorticity"].shape)
    return train.assign(vorticity=train["vorticity"] + noise)


def closures(width: float) -> dict[str, Any]:
    """Closures by name; the width is that of the filter, half of the shortest wave that is
    transported.
    """
    weights = dist.Normal(0.0, 1.0).expand((4,)).to_event(1)
    family = bd.bases.Polynomial(0.0, STRONGEST, 3)
    return {
        "none": None,
        "textbook": bd.pde.Smagorinsky(TEXTBOOK, width),
        "Smagorinsky": bd.pde.Smagorinsky(dist.HalfNormal(0.2), width),
        "basis": bd.Basis(family, "strain", "eddy", weights, scale=1e-3, positive=True),
    }


def energy_rate(grid: bd.pde.Grid, eddy: Any, vorticity: Any) -> Any:
    """What the closure adds to the energy per time, as a share of the energy."""
    nothing = jnp.zeros(())
    with_it, without = (
        bd.pde.Vorticity(grid, 0.0, eddy=e)(nothing, {"vorticity": vorticity}, {})["vorticity"]
        for e in (eddy, None)
    )
    flow, change = bd.pde.velocity(grid, vorticity), bd.pde.velocity(grid, with_it - without)
    return sum(jnp.mean(flow[name] * change[name]) for name in grid.names) / bd.pde.energy(
        grid, vorticity
    )


class Run:
    """One closure: the fit, its forecast in all cells, and what both say."""

    def __init__(self, name: str, eddy: Any, fields: xr.Dataset, options: argparse.Namespace):
        self.name, self.fields, self.grid = name, fields, box(options.coarse)
        start = fields["vorticity"].values[0]
        # A sampler may try a viscosity that makes the equation stiff: few steps, as that is no
        # place to stay at.
        law = layer(self.grid, start, eddy, 1e-3, 256)
        self.model = bd.Model(law, bd.NormalNoise(dist.LogNormal(-1.0, 1.0)))
        self.train = seen(fields, options)
        # Every gradient is dear, and the posterior has one mode.
        engine = bd.NUTS(
            chains=2,
            map_starts=2,
            warmup=options.warmup,
            draws=options.draws,
            target_acceptance=0.8,
            max_tree_depth=5,
            gradient="forward" if name == "Smagorinsky" else "reverse",
        )
        began = time.perf_counter()
        self.post = bd.fit(self.model, self.train, engine, key=options.seed, progress=False)
        self.seconds = time.perf_counter() - began
        self.forecast = bd.forecast(
            self.model, self.post, fields.isel(time=slice(1, None)), key=options.seed
        )
        self.means = self.forecast["conditional_mean"]["vorticity"].stack(sample=("chain", "draw"))
        self.means = self.means.transpose("sample", "time", "x", "y").values
        self.diagnosis = bd.diagnose(self.post, self.forecast)

    def scores(self, begin: float, end: float) -> list[str]:
        window = self.fields.sel(time=slice(begin + STEP / 2, end + STEP / 2))
        found = bd.score(self.forecast, window).loc["vorticity"]
        return [
            f"{found['rmse']:.3f}",
            f"{found['crps']:.3f}",
            f"{100 * found['coverage_90']:.0f} %",
        ]

    def line(self, options: argparse.Namespace) -> list[str]:
        truth = float(bd.pde.enstrophy(self.grid, self.fields["vorticity"].values[-1]))
        ratio = float(np.median(self.of_draws(bd.pde.enstrophy)[:, -1])) / truth
        # The middle of what is forecast, on the times that there are.
        middle = STEP * round((options.train + options.until) / 2 / STEP)
        windows = [(0, options.train), (options.train, middle), (middle, options.until)]
        return [
            self.name,
            *(number for window in windows for number in self.scores(*window)),
            f"{ratio:.2f}",
        ]

    def of_draws(self, function: Callable) -> np.ndarray:
        """A function of a field, of every draw and time."""
        return np.asarray(
            jax.lax.map(
                lambda fields: jax.vmap(lambda w: function(self.grid, w))(fields), self.means
            )
        )

    def spectra(self, at: int) -> np.ndarray:
        energies = jax.vmap(lambda w: bd.pde.energy_spectrum(self.grid, w)[1])
        return np.asarray(energies(jnp.asarray(self.means[:, at])))

    def law(self) -> list[str]:
        """How far the forecasts break what holds for the equation."""
        total = np.abs(self.means.sum((2, 3)) - self.fields["vorticity"].values[0].sum()).max()
        share = total / np.abs(self.fields["vorticity"].values[0]).sum()
        return [
            self.name,
            f"{share:.1e}",
            "–" if self.model.layer.vector_field.eddy is None else self._largest_rate(),
        ]

    def _largest_rate(self) -> str:
        draws = {path: v.reshape(-1, *v.shape[2:]) for path, v in self.draws().items()}

        def of_one(item):
            draw, fields = item
            eddy = realise(self.model, draw).layer.vector_field.eddy
            return jax.vmap(lambda w: energy_rate(self.grid, eddy, w))(fields)

        rates = np.asarray(jax.lax.map(of_one, (draws, jnp.asarray(self.means))))
        return f"{rates.min():.3g} to {rates.max():.3g}"

    def draws(self) -> dict[str, np.ndarray]:
        sizes = self.post["posterior"].sizes
        return {
            path: np.asarray(v).reshape(sizes["chain"], sizes["draw"], *np.shape(v)[1:])
            for path, v in draws_of(self.model, self.post).items()
        }

    def mixing(self) -> list[list[str]]:
        draws = self.post["posterior"].to_dataset()
        rhat, ess = azs.rhat(draws), azs.ess(draws, method="bulk")
        lines = []
        for name, values in draws.data_vars.items():
            for i, (r, e) in enumerate(zip(np.ravel(rhat[name]), np.ravel(ess[name]), strict=True)):
                v = values.values.reshape(*values.shape[:2], -1)[..., i]
                label = f"{name}[{i}]" if values.ndim > 2 else str(name)
                lines.append(
                    [self.name, label, f"{v.mean():.3g}", f"{v.std():.2g}", f"{r:.3f}", f"{e:.0f}"]
                )
        return lines

    def viscosity(self, strain: Any) -> np.ndarray:
        """The eddy viscosity of every draw at strain rates."""
        flat = {path: v.reshape(-1, *v.shape[2:]) for path, v in self.draws().items()}

        def of_one(draw):
            eddy = realise(self.model, draw).layer.vector_field.eddy
            return eddy(0.0, {"strain": strain, "vorticity": strain}, {})["eddy"]

        return np.asarray(jax.vmap(of_one)(flat))


def over_time(runs: list[Run], fields: xr.Dataset, options: argparse.Namespace) -> Any:
    """The error, the enstrophy and the last spectrum."""
    from matplotlib.figure import Figure

    truth, times, grid = fields["vorticity"].values, fields["time"].values, box(options.coarse)
    figure = Figure(figsize=(9.0, 3.2), layout="constrained")
    error, enstrophy, last = figure.subplots(1, 3)
    enstrophy.plot(
        times,
        [bd.pde.enstrophy(grid, w) for w in truth],
        color=BLACK,
        label="filtered fine solution",
    )
    k, energy = bd.pde.energy_spectrum(grid, truth[-1])
    inside = (k > 0) & (3 * k < options.coarse)
    last.loglog(k[inside], np.asarray(energy)[inside], color=BLACK)
    for run in runs:
        colour = COLOURS[run.name]
        median = np.median(run.means, axis=0)
        error.plot(
            times[1:], np.sqrt(np.mean((median - truth[1:]) ** 2, axis=(1, 2))), color=colour
        )
        for axes, x, values in (
            (enstrophy, times[1:], run.of_draws(bd.pde.enstrophy)),
            (last, k[inside], run.spectra(-1)[:, inside]),
        ):
            low, middle, high = np.quantile(values, (0.05, 0.5, 0.95), axis=0)
            axes.fill_between(x, low, high, color=colour, alpha=0.25, lw=0)
            axes.plot(x, middle, color=colour, label=run.name)
    for axes in (error, enstrophy):
        axes.axvline(options.train, color=GREEN, lw=1, ls="--")
        axes.set_xlabel("time")
        axes.set_ylim(bottom=0)
    error.set_title("RMSE of the median")
    enstrophy.set_title("enstrophy")
    last.set_title(f"energy spectrum at {times[-1]:g}")
    last.set_xlabel("wavenumber")
    figure.legend(*enstrophy.get_legend_handles_labels(), loc="outside lower center", ncols=5)
    return figure


def maps(runs: list[Run], fields: xr.Dataset, options: argparse.Namespace) -> Any:
    """The filtered fine solution, and what is forecast, at the end of the window and later."""
    from matplotlib.figure import Figure

    times = [options.train, (options.train + options.until) / 2, options.until]
    figure = Figure(
        figsize=(1.55 * (1 + len(runs)) + 0.6, 1.55 * len(times) + 0.3), layout="constrained"
    )
    grid = figure.subplots(len(times), 1 + len(runs), sharex=True, sharey=True)
    largest = float(np.abs(fields["vorticity"]).max())
    for line, at in zip(grid, times, strict=True):
        i = int(np.argmin(np.abs(fields["time"].values - at)))
        shown = {"filtered fine": fields["vorticity"].values[i]}
        shown |= {run.name: np.median(run.means[:, i - 1], axis=0) for run in runs}
        for axes, (name, values) in zip(line, shown.items(), strict=True):
            mesh = axes.pcolormesh(
                fields["x"],
                fields["y"],
                values.T,
                cmap="RdBu_r",
                vmin=-largest,
                vmax=largest,
                rasterized=True,
            )
            axes.set_aspect("equal")
            axes.set(xticks=[], yticks=[])
            if at == times[0]:
                axes.set_title(name)
        line[0].set_ylabel(f"time {fields['time'].values[i]:g}")
    figure.colorbar(mesh, ax=grid, label="vorticity", shrink=0.6)
    return figure


def viscosities(runs: list[Run], fields: xr.Dataset, options: argparse.Namespace) -> Any:
    """Eddy viscosities as functions of the strain rate, before how often each occurs."""
    from matplotlib.figure import Figure

    grid = box(options.coarse)
    there = np.ravel([bd.pde.strain_rate(grid, w) for w in fields["vorticity"].values])
    strain = jnp.linspace(0.0, STRONGEST, 100)
    figure = Figure(figsize=(5.2, 3.2), layout="constrained")
    axes = figure.subplots()
    occurring = axes.twinx()
    occurring.hist(there, 60, range=(0, STRONGEST), color=FAINT)
    occurring.set_axis_off()
    axes.set_zorder(occurring.get_zorder() + 1)
    axes.patch.set_visible(False)
    for run in runs:
        if run.name != "none":
            low, middle, high = np.quantile(run.viscosity(strain), (0.05, 0.5, 0.95), axis=0)
            axes.fill_between(strain, low, high, color=COLOURS[run.name], alpha=0.25, lw=0)
            axes.plot(strain, middle, color=COLOURS[run.name], label=run.name)
    axes.axhline(VISCOSITY, color=BLACK, lw=1, ls=":", label="molecular")
    axes.set(xlabel="strain rate", ylabel="eddy viscosity", ylim=(0, None), xlim=(0, STRONGEST))
    axes.legend()
    return figure


def draw(runs: list[Run], fields: xr.Dataset, options: argparse.Namespace) -> None:
    from matplotlib import rc_context

    with rc_context(STYLE):
        for name, picture in (
            ("over-time", over_time),
            ("fields", maps),
            ("viscosity", viscosities),
        ):
            picture(runs, fields, options).savefig(options.out / f"closure-{name}.png", dpi=160)
    best = runs[-1]
    later = fields.sel(time=slice(options.train + STEP / 2, None))
    plot_field(best.forecast, best.train, later, "vorticity").savefig(
        options.out / "closure-forecast.png", dpi=130
    )


def main() -> None:
    options = arguments()
    began = time.perf_counter()
    fields, _ = filtered(options)
    print(f"fine solution on {options.fine}²: {time.perf_counter() - began:.0f} s", flush=True)
    width = 1.5 * box(options.coarse).width("x")
    runs = []
    for name, eddy in closures(width).items():
        runs.append(Run(name, eddy, fields, options))
        facts = runs[-1].post.attrs
        counts = (
            f"{facts['start_steps']} + {facts['warmup_steps']} + "
            f"{int(runs[-1].post['sample_stats']['n_steps'].sum())}"
        )
        print(
            f"{name}: fit {runs[-1].seconds:.0f} s, gradients {counts}; "
            f"{runs[-1].diagnosis.verdict}",
            flush=True,
        )
        print(runs[-1].diagnosis, flush=True)
    scores = ["RMSE", "CRPS", "90 %"]
    header = [
        "closure",
        *(f"{s}, {w}" for w in ("fitted", "next", "last") for s in scores),
        "enstrophy, model / truth",
    ]
    print(table([header, *(run.line(options) for run in runs)]), end="\n\n")
    header = ["closure", "parameter", "mean", "sd", "R-hat", "bulk ESS"]
    print(table([header, *(line for run in runs for line in run.mixing())]), end="\n\n")
    header = [
        "closure",
        "change of total vorticity / total of its size",
        "energy from the closure, share per time",
    ]
    print(table([header, *(run.law() for run in runs)]), end="\n\n")
    draw(runs, fields, options)
    print(f"{time.perf_counter() - began:.0f} s in all")


if __name__ == "__main__":
    main()
