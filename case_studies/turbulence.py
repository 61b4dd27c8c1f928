"""Two-dimensional turbulence on few cells, with a closure learned for what falls between them.

A stirred flow is solved on a fine grid and cut to the waves that a coarse one transports. The
coarse model starts from the cut field and sees every second cell along each axis, with a little
noise, for four times. It has no closure, Smagorinsky's of the textbook, the same with an unknown
coefficient, or an unknown viscosity that goes with the strain rate. What it learned is forecast
further, and said of flows it has not seen: from another start, stirred on another scale, and less
viscous. Its errors grow with the horizon, in turns of the eddies.

All data are made here: `solved` solves a flow.
"""

import dataclasses
from collections.abc import Callable
from functools import cache
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

import bayes_dasl as bd
from bayes_dasl.study import Run

from ._pictures import STYLES, band, finished, panels

FIELD = "fluid mechanics"
RUN_TIME = "4 min"
DATA = ()

BOX, FINE, COARSE = 2 * np.pi, 128, 32
STEP, KNOWN, UNTIL = 0.25, 1.0, 3.0
"""Between data; until when they are fitted; and until when a flow is forecast."""
SPIN_UP, DRAG, NOISE = 10.0, 0.1, 0.1
WIDTH = 1.5 * BOX / COARSE
"""Of the filter: half of the shortest wave that the coarse grid transports."""
STRONGEST = 16.0
"""Strain rate up to which the unknown viscosity has shape."""


@dataclasses.dataclass(frozen=True)
class Flow:
    """A flow that is stirred in so many waves to the box, of a viscosity,
    from a state of its own.
    """

    waves: int = 4
    viscosity: float = 1e-3
    seed: int = 0

    def force(self, t, y, u):
        return {"forcing": self.waves * jnp.cos(self.waves * u["y"])}


FITTED = "fitted"


def flows(seed: int) -> dict[str, Flow]:
    """The one that is fitted, and others."""
    return {
        FITTED: Flow(seed=seed),
        "another start": Flow(seed=100 + seed),
        "another forcing": Flow(waves=6, seed=200 + seed),
        "half the viscosity": Flow(viscosity=5e-4, seed=300 + seed),
    }


def grid(cells: int) -> bd.pde.Grid:
    """The box, in so many cells along each axis."""
    return bd.pde.Grid(x=(0.0, BOX, cells), y=(0.0, BOX, cells))


def layer(
    flow: Flow, cells: int, initial: Any, eddy: Any = None, tolerance: float = 1e-3
) -> bd.pde.PDE:
    """A flow on so many cells, from a state on, with the viscosity of what falls between them."""
    law = bd.pde.Vorticity(grid(cells), flow.viscosity, forcing=flow.force, drag=DRAG, eddy=eddy)
    return bd.pde.PDE(
        law,
        {"vorticity": initial},
        start=0.0,
        rtol=tolerance,
        atol=tolerance,
        max_steps=100 * cells,
    )


def still(flow: Flow) -> jax.Array:
    """What a flow starts from on the fine grid, before it is stirred."""
    fine = grid(FINE)
    found = bd.pde.random_vorticity(
        fine, lambda k: k**4 / (1 + (k / 4) ** 2) ** 6, key=jax.random.key(flow.seed)
    )
    return found * jnp.sqrt(0.5 / bd.pde.energy(fine, found))


@cache
def solved(flow: Flow) -> xr.Dataset:
    """A flow on the fine grid after its spin-up, cut to what the coarse one transports; its first
    field is the start.

    Vorticity is in units of the inverse of time.
    """
    fine, coarse = grid(FINE), grid(COARSE)
    times = np.arange(0.0, UNTIL + STEP / 2, STEP)
    asked = bd.inputs(xr.Dataset(coords={"time": SPIN_UP + times}), start=0.0)
    found = eqx.filter_jit(lambda layer, given: layer(given))(
        layer(flow, FINE, still(flow), tolerance=1e-5), asked
    )
    cut = [
        bd.pde.truncated(coarse, bd.pde.coarsen(w, fine, coarse)) for w in found.values["vorticity"]
    ]
    x = coarse.centres("x")
    return xr.Dataset(
        {"vorticity": (("time", "x", "y"), np.stack(cut))}, {"time": times, "x": x, "y": x}
    )


def observed(flow: Flow, until: float = KNOWN) -> xr.Dataset:
    """Every second cell along each axis, with noise, up to a time."""
    some = (
        solved(flow)
        .isel(x=slice(0, None, 2), y=slice(0, None, 2))
        .sel(time=slice(STEP / 2, until + STEP / 2))
    )
    noise = NOISE * np.random.default_rng(flow.seed).normal(size=some["vorticity"].shape)
    return some.assign(vorticity=some["vorticity"] + noise)


class Growth(bd.Module):
    r"""How an error grows with the horizon, in shares of the largest: exponentially at first, until
    it no longer does.

    $h(t) = \log\frac{q\,e^{g \Omega t}}{1 + q\,(e^{g \Omega t} - 1)}$, with the size Ω of the
    vorticity, the inverse of a turn of the eddies; q is the share at the start.

    Source: Lorenz (1982).
    """

    rate: Any = bd.field(units="")
    start: Any = bd.field(units="")
    size: float = bd.field(units="1/time")

    def __call__(self, t, y, u):
        larger = self.start * jnp.exp(self.rate * self.size * t)
        return {"error": jnp.log(larger / (1 - self.start + larger))}


def viscosity() -> bd.Basis:
    """An unknown positive function of the strain rate, about as large as the textbook's."""
    weights = dist.Normal(0.0, 1.0).expand((4,)).to_event(1)
    family = bd.bases.Polynomial(0.0, STRONGEST, 3)  # pyright: ignore[reportCallIssue]
    return bd.Basis(family, "strain", "eddy", weights, scale=5e-3, positive=True)


CLOSURES: dict[str, Callable[[], Any]] = {
    "no closure": lambda: None,
    "textbook": lambda: bd.pde.Smagorinsky(0.17, WIDTH),
    "Smagorinsky": lambda: bd.pde.Smagorinsky(dist.HalfNormal(0.2), WIDTH),
    "hybrid": viscosity,
}
"""None, Smagorinsky's with the coefficient of Lilly (1967) and with an unknown one, and an unknown
function.
"""


def model(flow: Flow, closure: str, rates: Any = None) -> bd.Model:
    """A flow on the coarse grid from its start, and errors that grow until it is as far off as any
    other flow.

    Args:
        flow: the flow.
        closure: one of the `CLOSURES`, or `CNN` with rates.
        rates: those of a network in place of the equations.
    """
    start = solved(flow)["vorticity"].values[0]
    size = float(start.std())
    growth = Growth(dist.LogNormal(np.log(0.3), 0.5), dist.LogNormal(np.log(0.05), 0.7), size)
    noise = bd.NormalNoise(bd.noise.VaryingScale(np.sqrt(2) * size, growth))
    if rates is None:
        return bd.Model(layer(flow, COARSE, start, CLOSURES[closure]()), noise)
    return bd.Model(
        eqx.tree_at(lambda pde: pde.vector_field, layer(flow, COARSE, start), rates), noise
    )


ENGINE = bd.engines.Laplace(draws=200, starts=2, descent=bd.Descent(steps=400, patience=20))
CNN, ENSEMBLE = (
    "cnn",
    bd.DeepEnsemble(bootstrap=False, members=2, descent=bd.Descent(steps=400, patience=None)),
)
"""The competitor in place of the whole equation, and what fits it."""


def network(fitted: Flow) -> Any:
    """Rates by convolutions, which are not told how a flow is stirred nor how viscous it is."""
    layer: Any = bd.baselines.cnn(model(fitted, "no closure"), observed(fitted)).layer
    return layer.vector_field


def tasks(quick: bool) -> list[dict]:
    """Each closure, of flows from several starts; the network, which takes longest, in the full
    form alone.
    """
    return bd.many.combinations(
        closure=[*CLOSURES, *([] if quick else [CNN])], seed=range(1 if quick else 5)
    )


def ahead(flow: Flow, closure: str, rates: Any = None) -> dict[str, tuple[bd.Model, xr.Dataset]]:
    """A flow on the coarse grid, and what it is to say: of the time of the fit, and of as long
    after twice that.
    """
    whole, made = solved(flow), model(flow, closure, rates)
    spans = {"near": (0.0, KNOWN), "far": (UNTIL - KNOWN, UNTIL)}
    return {
        name: (made, whole.sel(time=slice(low + STEP / 2, high + STEP / 2)))
        for name, (low, high) in spans.items()
    }


def row(closure: str, seed: int) -> dict:
    """What a closure that was fitted to one flow says of its future, and of others."""
    every = flows(seed)
    fitted = every[FITTED]
    rates = network(fitted) if closure == CNN else None
    asked = {name: ahead(flow, closure, rates) for name, flow in every.items()}
    unseen = {
        f"{name}, {span}": data for name, spans in asked.items() for span, data in spans.items()
    }
    del unseen[f"{FITTED}, near"]
    engine, derived = (ENGINE, learned) if rates is None else (ENSEMBLE, None)
    return bd.many.measure(
        model(fitted, closure, rates), observed(fitted), unseen, engine, derived=derived, key=seed
    )


STRAINS = np.linspace(0.0, STRONGEST, 17)


def learned(model: bd.Model) -> dict[str, Any]:
    """The viscosity of what falls between the cells, at strain rates from zero on."""
    layer: Any = model.layer
    eddy, strain = layer.vector_field.eddy, jnp.asarray(STRAINS)
    if eddy is None:
        return {"eddy": jnp.zeros(strain.size)}
    return {"eddy": jax.vmap(lambda at: eddy(0.0, {"strain": at}, {})["eddy"])(strain)}


def summary(rows: pd.DataFrame) -> dict:
    """Errors and coverage by flow and span, and how the hybrid differs from Smagorinsky's closure
    on the same flows.
    """
    table = bd.many.tidy(rows)
    titles = {"rmse": "RMSE", "crps": "CRPS", "coverage_90": "Share of data in 90 % intervals"}
    found = {
        title: bd.many.medians(table, score, by=["closure"], across="ahead")
        for score, title in titles.items()
    }
    for name, part in table.query("ahead.str.endswith('far')").groupby("ahead"):
        differences = bd.many.paired(part, "crps", between="closure", against="Smagorinsky")
        found[f"CRPS of {name}, less Smagorinsky's"] = differences
    told, strains = (
        bd.many.tidy(rows, "derived"),
        {f"eddy[{i}]": strain for i, strain in enumerate(STRAINS)},
    )
    told = told.assign(strain=[strains[name] for name in told["quantity"]]).query(
        "strain in [4, 8, 12]"
    )
    if not told.empty:
        found["Eddy viscosity at some strain rates"] = bd.many.medians(
            told, ["low", "median", "high"], by=["closure", "strain"]
        )
    others = ["mae", "log_score", "coverage_50", "fit_s", "forecast_s", "memory_mb"]
    return found | {
        "Other scores, and costs": bd.many.medians(table, others, by=["ahead", "closure"])
    }


def study() -> bd.Study:
    """The study that `bayes-dasl run turbulence` runs."""
    flow = flows(0)[FITTED]
    return bd.Study(
        name="turbulence",
        title="Stirred two-dimensional turbulence on a sixteenth of the cells",
        model=model(flow, "hybrid"),
        label="hybrid",
        competitors={name: model(flow, name) for name in ("Smagorinsky", "no closure")},
        data=observed(flow, UNTIL),
        split=KNOWN,
        engine=ENGINE,
        derived=learned,
        mix=False,  # one start, from which the flow is forecast
        options=bd.ReportOptions(
            source="a simulation on 128 by 128 cells, made here", licence="Apache-2.0"
        ),
    )


def picture(run: Run) -> Figure:
    """How errors grow with the horizon, and the viscosity that was learned,
    beside Smagorinsky's.
    """
    fig, (left, right) = panels()
    data = run.study.test["vorticity"]
    for place, name in enumerate(("Smagorinsky", "hybrid", "no closure")):
        draws = bd.load(run.path(name, "forecast.nc"))["predictions"].dataset["vorticity"]
        error = np.sqrt(((draws.mean(("chain", "draw")) - data) ** 2).mean(("x", "y")))
        color, line = STYLES[place]
        above = 3 - place  # the two that are alike differ by their lines
        left.plot(error["time"], error, "o", ls=line, ms=4, color=color, label=name, zorder=above)
        post = bd.load(run.path(name, "posterior.nc"))
        band(
            right, STRAINS, bd.evaluate(run.study.models[name], post, learned)["eddy"], name, place
        )
    left.set(
        xlabel="time (units of the simulation)",
        ylabel="root mean square error of the vorticity",
        ylim=(0, None),
    )
    right.set(xlabel="strain rate (1 / time)", ylabel="eddy viscosity (length² / time)")
    return finished(fig)
