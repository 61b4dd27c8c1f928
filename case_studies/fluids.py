"""Turbulent flow between two plates: how fast it is at each height, from two Reynolds numbers to a
lower and a higher.

Turbulence mixes momentum over a length that van Driest wrote down in 1956. The hybrid multiplies it
by two unknown functions, one of the distance from the wall in units of its friction, one of the
height between wall and middle, so that what is learned at some Reynolds numbers can be said of
others; and by a third that drifts with the Reynolds number, so that it is less sure of others the
farther they are.

Data: direct numerical simulations at friction Reynolds numbers 180, 550, 950 and 2000: S. Hoyas &
J. Jiménez, Phys. Fluids 20, 101511 (2008).
"""

from collections.abc import Callable, Iterable
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

import bayes_dasl as bd
from bayes_dasl.study import Run

from ._data import path_of
from ._pictures import UNSEEN, band, finished, panels

FIELD = "fluid mechanics"
RUN_TIME = "2 min"
DATA = ("fluid/HJ_Re180.prof", "fluid/HJ_Re550.prof", "fluid/HJ_Re950.prof", "fluid/HJ_Re2000.prof")

TRAINED, TESTED = (550, 950), (180, 2000)
"""Simulations by their friction Reynolds numbers, about."""

HIGHEST = 0.97  # of the half-width: in the middle nothing is left to mix
SELDOM_A_TENTH = 0.1 / 2.7


class VanDriest(bd.Module):
    r"""Mean velocity across a channel in wall units, by a mixing length that the wall damps.

    $(1 + \ell^2 |U'|) U' = 1 - y/h, \quad \ell = \kappa y (1 - e^{-y/A})$

    Source: van Driest (1956).
    """

    karman: bd.Scalar
    damping: bd.Scalar

    def length(self, y, reynolds):
        return self.karman * y * (1 - jnp.exp(-y / self.damping))

    def slope(self, y, reynolds):
        length, stress = self.length(y, reynolds), 1 - y / reynolds
        return 2 * stress / (1 + jnp.sqrt(1 + 4 * length**2 * stress))

    def __call__(self, t, y, u):
        reynolds = jnp.exp(u["log_reynolds"])
        slope = lambda s: self.slope(jnp.expm1(s), reynolds) * jnp.exp(s)  # noqa: E731
        # By the logarithm of 1 + y, along which the profile is smooth.
        return {
            "velocity": bd.equations.integrate(
                slope, 0.0, jnp.log1p(jnp.exp(u["log_height"])), nodes=24
            )
        }


class Mixed(VanDriest):
    r"""The same with unknown factors of the mixing length, near the wall and towards the middle.

    $\ell = \kappa y (1 - e^{-y/A})\, e^{f(\log y)}\, e^{g(y/h)}\, e^{d(\log y, \log Re)}$

    The last, if there is one, is linear and curved in $\log Re$, of one size in both: two Reynolds
    numbers tell the slope, and of the curvature no more than how large it may be.
    """

    inner: bd.Basis
    outer: bd.Basis
    drift: bd.Basis | None = None

    def length(self, y, reynolds):
        log_y = jnp.log(y + 1e-3)
        near = self.inner(0.0, {}, {"log_y": log_y})["factor"]
        far = self.outer(0.0, {}, {"height": y / reynolds})["factor"]
        law = super().length(y, reynolds) * near * far
        if self.drift is None:
            return law
        return (
            law * self.drift(0.0, {}, {"log_y": log_y, "log_reynolds": jnp.log(reynolds)})["factor"]
        )


def priors() -> dict[str, Any]:
    """What is thought of van Driest's two numbers."""
    return {"karman": bd.between(0.35, 0.47), "damping": bd.between(18.0, 35.0)}


def classical() -> VanDriest:
    return VanDriest(**priors())


def hybrid(drifts: bool = True) -> Mixed:
    """Van Driest's law with unknown factors, which may drift with the Reynolds number."""
    size = lambda: dist.HalfNormal(3 * SELDOM_A_TENTH)  # noqa: E731
    process = lambda low, high, number: bd.bases.HilbertGP(low, high, number, amplitude=size())  # noqa: E731
    factor = lambda family, *inputs: bd.Basis(family, inputs, "factor", positive=True)  # noqa: E731
    highest = np.log(2000.0)
    numbers = bd.bases.Polynomial(np.log(150.0), np.log(2400.0), 2, lowest=1)  # pyright: ignore[reportCallIssue]
    return Mixed(
        **priors(),
        inner=factor(process(-1.0, highest, 14), "log_y"),
        outer=factor(process(0.0, 1.0, 14), "height"),
        drift=factor(bd.bases.Product(process(-1.0, highest, 10), numbers), "log_y", "log_reynolds")
        if drifts
        else None,
    )


class LogLaw(bd.Module):
    r"""Mean velocity far from the wall: $U = \log(y) / \kappa + B$. Source: von Kármán (1930)."""

    karman: bd.Scalar
    offset: bd.Scalar

    def __call__(self, t, y, u):
        return {"velocity": u["log_height"] / self.karman + self.offset}


PLACE = {"log_height": (3.5, 2.0), "log_reynolds": (6.5, 0.7)}
"""Where a point lies, by middle and width."""


def perceptron(
    outputs: tuple[str, ...], scale: float, **velocities: tuple[float, float]
) -> bd.networks.Network:
    """A network of where a point is, and of velocities that others say."""
    return bd.networks.Network.mlp(PLACE | velocities, outputs, scale, width=16)


def architectures() -> dict[str, Callable[[], Any]]:
    """The four ways in which a network may stand beside the law, not in it; velocities are up to
    25.
    """
    said, one = (12.0, 6.0), ("velocity",)
    log_law = lambda: LogLaw(priors()["karman"], dist.Normal(5.2, 0.3))  # noqa: E731
    sides = lambda: {"law": classical(), "network": perceptron(one, 12.0)}  # noqa: E731
    both = lambda: {"law": classical(), "far": log_law()}  # noqa: E731
    after = perceptron(one, 12.0, **{"science.velocity": said})
    above = perceptron(one, 12.0, **{"law.velocity": said, "far.velocity": said})
    return {
        "series": lambda: bd.Series(classical(), after),  # pyright: ignore[reportCallIssue]
        "parallel": lambda: bd.Parallel(sides(), weights=perceptron(("law", "network"), 2.0)),
        "residual": lambda: bd.Residual(classical(), perceptron(one, 0.1), relative=True),
        "hierarchical": lambda: bd.Hierarchical(both(), above),  # pyright: ignore[reportCallIssue]
    }


def model(law: Any) -> bd.Model:
    """Velocities to within what the simulations average, and what no mixing length can say."""
    layer = bd.Algebraic(law, index="row", forcings=("log_height", "log_reynolds"))
    return bd.Model(layer, bd.NormalNoise(dist.LogNormal(np.log(0.1), 0.7)))


def profile(name: int) -> pd.DataFrame:
    """Heights in wall units and velocities in units of the friction velocity, and the Reynolds
    number.
    """
    table = np.loadtxt(path_of(f"fluid/HJ_Re{name}.prof"), comments="%")
    inside = (table[:, 1] >= 0.5) & (table[:, 0] <= HIGHEST)
    height, y, velocity = table[inside, :3].T
    reynolds = float(np.median(y / height))
    return pd.DataFrame(
        {"height": y, "velocity": velocity, "reynolds": reynolds, "centre": table[:, 2].max()}
    )


def chosen(table: pd.DataFrame, points: str, number: int = 40) -> pd.DataFrame:
    """Every fourth point of a profile, which is dense at the wall, or as many evenly over the
    logarithm of the height.

    Args:
        table: a profile.
        points: "fourth" or "log".
        number: how many of the latter.
    """
    if points == "fourth":
        return table.iloc[::4]
    wanted = np.geomspace(table["height"].min(), table["height"].max(), number)
    at = [int(np.argmin(np.abs(np.log(table["height"].to_numpy() / y)))) for y in wanted]
    return table.iloc[np.unique(at)]


def rows_of(names: Iterable[int], points: str = "log", number: int = 40) -> xr.Dataset:
    """Points of several profiles, one after the other; arguments as of `chosen`."""
    table = pd.concat([chosen(profile(name), points, number) for name in names], ignore_index=True)
    columns = {
        "velocity": table["velocity"],
        "log_height": np.log(table["height"]),
        "log_reynolds": np.log(table["reynolds"]),
    }
    values = {name: ("row", np.asarray(column)) for name, column in columns.items()}
    return xr.Dataset(values, {"row": np.arange(float(len(table)))})


def load() -> xr.Dataset:
    """The profiles that are fitted, then those that are forecast, by points evenly over the
    logarithm of the height.
    """
    return rows_of((*TRAINED, *TESTED))


def models(train: xr.Dataset) -> dict[str, Callable[[], bd.Model]]:
    """Makers of all models by name. Which heights and Reynolds numbers are to be forecast is known
    to all of them.
    """
    unseen = rows_of(TESTED)
    every = xr.concat([train, unseen.assign(velocity=np.nan * unseen["velocity"])], "row")
    every = every.assign_coords(row=np.arange(float(every.sizes["row"])))
    known = model(classical())
    own = {"van Driest": lambda: known, "hybrid": lambda: model(hybrid())}
    own["hybrid, one law for all"] = lambda: model(hybrid(drifts=False))
    own["hybrid, science fixed"] = lambda: bd.baselines.fixed(model(hybrid()))
    own |= {name: lambda law=law: model(law()) for name, law in architectures().items()}
    names = ("fixed", "mlp", "gaussian_process")
    return own | {
        name: lambda name=name: bd.baselines.named(known, every, name)[name] for name in names
    }


ENGINE = bd.NUTS(chains=2, draws=500)
ENSEMBLE = bd.DeepEnsemble(members=10)
ENGINES = {"SVI": bd.engines.SVI(), "ensemble": ENSEMBLE, "Laplace": bd.engines.Laplace()}
"""Others than a model's own."""


def study() -> bd.Study:
    """The study that `bayes-dasl run fluids` runs."""
    return bd.Study(
        name="fluids",
        title="Turbulent channel flow: Reynolds numbers 180 and 2000 from 550 and 950",
        model=model(hybrid()),
        label="hybrid",
        competitors={"van Driest": model(classical())},
        data=load(),
        split=float(rows_of(TRAINED).sizes["row"] - 1),
        engine=ENGINE,
        mix=False,  # rows are no series
        options=bd.ReportOptions(
            source="direct numerical simulations, Hoyas & Jiménez (2008)", licence="MIT"
        ),
    )


def picture(run: Run) -> Figure:
    """What van Driest and the hybrid say of the two Reynolds numbers that nobody fitted, beside the
    simulations.
    """
    fig, axes = panels()
    data = run.study.data
    for ax, number in zip(axes, TESTED, strict=True):
        here = np.abs(data["log_reynolds"].values - np.log(number)) < 0.2
        height = np.exp(data["log_height"].values[here])
        for place, name in enumerate(("van Driest", "hybrid")):
            held = bd.load(run.path(name, "forecast.nc"))["predictions"].dataset["velocity"]
            band(ax, height, held.isel(row=here), name, place)
        ax.plot(height, data["velocity"].values[here], label="simulation, not fitted", **UNSEEN)
        ax.set(xscale="log", xlabel="distance from the wall (wall units)")
        ax.set_title(f"Reynolds number {number}", loc="left")
    axes[0].set_ylabel("mean velocity (friction velocities)")
    return finished(fig)


def tasks(quick: bool) -> list[dict]:
    """Each model by points evenly over the logarithm and by every fourth one, and by fewer of the
    former; the hybrid by other engines; and networks that stand beside the law, not in it."""
    hybrids = ["hybrid", "hybrid, one law for all", "hybrid, science fixed"]
    every = ["van Driest", *hybrids, "fixed", "mlp", "gaussian_process"]
    if quick:
        return bd.many.combinations(model=every, points=["log"], number=[40], seed=[0])
    found = bd.many.combinations(model=every, points=["log"], number=[40], seed=range(5))
    found += bd.many.combinations(
        model=[*architectures()], points=["log"], number=[40], seed=range(5)
    )
    found += bd.many.combinations(
        model=["hybrid"], points=["log"], number=[40], seed=range(5), engine=[*ENGINES]
    )
    found += bd.many.combinations(
        model=[*every[:2], "mlp"], points=["log"], number=[10, 14, 20, 28], seed=range(3)
    )
    return found + bd.many.combinations(model=every, points=["fourth"], number=[40], seed=range(3))


def row(model: str, points: str, number: int, seed: int, engine: str = "") -> dict:
    """What a model that was fitted to two profiles says of the two others,
    by both kinds of points.
    """
    train = rows_of(TRAINED, points, number)
    ahead = {
        f"{name} {kind}": rows_of([name], kind) for name in TESTED for kind in ("log", "fourth")
    }
    own = ENSEMBLE if model in ("mlp", *architectures()) else ENGINE
    derived = numbers if model in LEARNING else None
    return bd.many.measure(
        models(train)[model](), train, ahead, ENGINES.get(engine, own), derived=derived, key=seed
    )


LEARNING = ("van Driest", "hybrid", "hybrid, one law for all")
"""Models in whose equations van Driest's numbers stand alone, which the architectures learn beside
a network.
"""


def numbers(model: bd.Model) -> dict[str, Any]:
    """Van Driest's two."""
    layer: Any = model.layer
    return {"karman": layer.function.karman, "damping": layer.function.damping}


def summary(rows: pd.DataFrame) -> dict:
    """Errors as shares of the velocity in the middle, and coverage, by model and by what is
    forecast; and differences to van Driest's law. Seeds are keys of the engine, of the same data:
    they spread by chance of the sampling alone."""
    centres = {name: profile(name)["centre"].iloc[0] for name in TESTED}
    if "engine" in rows:
        rows = rows.assign(model=rows["model"] + (", " + rows["engine"]).fillna(""))
    table = bd.many.tidy(rows)
    middle = table["ahead"].str.split().str[0].astype(int).map(centres)
    table["percent"] = 100 * table["rmse"] / middle
    table["in 90 %"] = 100 * table["coverage_90"]
    by = ["points", "number", "model"]
    of = {
        "Error in % of the velocity in the middle": "percent",
        "CRPS": "crps",
        "Data in 90 % intervals, %": "in 90 %",
    }
    found = {
        title: bd.many.medians(table, score, by=by, across="ahead") for title, score in of.items()
    }
    whole: Any = table.query("number == 40")
    for (points, ahead), part in whole.groupby(["points", "ahead"]):
        if "van Driest" in part["model"].values:
            title = f"CRPS at Reynolds number {ahead}, fitted to {points} points, less van Driest's"
            found[title] = bd.many.paired(part, "crps", between="model", against="van Driest")
    log: Any = whole.query("ahead.str.endswith('log')")
    others = ["mae", "log_score", "coverage_50", "fit_s", "forecast_s", "memory_mb"]
    found["Other scores, and costs"] = bd.many.medians(log, others, by=["points", "model", "ahead"])
    if not (told := bd.many.tidy(rows, "derived").query("number == 40")).empty:
        by = ["points", "model", "quantity"]
        found["Van Driest's numbers"] = bd.many.medians(told, ["low", "median", "high"], by=by)
    return found
