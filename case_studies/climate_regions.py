"""The warming of Australia's states: each in proportion to the globe's, and that of a state which
the fit never saw.

Pattern scaling says that a region warms by a factor of its own for each K of the globe. The hybrid
tells the factor by unknown functions of the latitude and the rain of a region, and adds what two
oscillations of the oceans do at a latitude, so that both can be said of a state of which no
temperature is known but its mean over 1961–1990. What the globe and the oceans did in the years of
a forecast is given to it, and what the other states had in the same year tells of the weather that
is common to all.

Data: annual means of the Australian Bureau of Meteorology 1910–2021 with the Southern Oscillation
index and the Indian Ocean dipole, as `bomregions2021` of the R package DAAG (J. Maindonald & W. J.
Braun), GPL-3; global temperatures of the Indicators of Global Climate Change 2024 (P. M. Forster et
al.), CC BY 4.0.
"""

from collections.abc import Callable, Iterable
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure
from scipy.signal import savgol_filter

import bayes_dasl as bd
from bayes_dasl.study import Run

from ._data import path_of
from ._pictures import UNSEEN, band, finished, panels

FIELD = "climate"
RUN_TIME = "2 min"
DATA = ("climate/bomregions2021.pkl.xz", "climate/igcc_annual_averages.csv")

CENTRES = {
    "qld": (-22.49, 144.43),
    "nsw": (-32.16, 147.02),
    "vic": (-36.85, 144.28),
    "tas": (-42.02, 146.59),
    "sa": (-30.06, 135.76),
    "nt": (-19.38, 133.36),
    "wa": (-25.33, 122.30),
}
"""Degrees north and east of the middle of each state (Geoscience Australia); other regions overlap
them.
"""

FIRST, SPLIT, LAST = 1910.5, 2000.5, 2021.5
BASE = slice(1961, 1991)
"""The years of which anomalies are told: 1961–1990."""
SMOOTHED = 21  # years: a straight line through as many is what a year's warming is read from
LAND = 1.27  # K of all land for each of the globe, 1850–2000, of the same assessment
UNITS = {"anomaly": "K", "warming": "K", "time": "year"}
FORCINGS = ("warming", "soi", "iod")
PLACE = {"latitude": (-30.0, 8.0), "longitude": (139.0, 9.0), "wetness": (6.2, 0.6)}
"""What is known of a region, by its middle and width; wetness is the logarithm of the rain in mm.
"""
OCEANS = {"soi": (0.0, 7.0), "iod": (-0.1, 0.25)}


class Weather(bd.Module):
    """What a year has in all regions alike, in K: of years that no region tells,
    as much as of any.
    """

    years: Any = bd.field(units="K")

    def __call__(self, t):
        return self.years[jnp.round(jnp.asarray(t) - FIRST).astype(int)]


class Pattern(bd.Module):
    r"""The anomaly of a region by the warming of the globe.

    $\Delta T = p\, e^{\sum f_i(x)} G + g(x, o) + w(t)$

    with p the factor of the region, f and g unknown functions of what is known of it, x, and g of
    the oceans, o; w is the weather of a year. All but the factor may be left out.
    Units: K.
    Source: Santer et al. (1990) for the factor.
    """

    place: dict[str, Any]
    factor: bd.Scalar = bd.field(units="")
    bends: tuple[Any, ...] = ()
    oceans: Any = None
    weather: Any = None

    def pattern(self: Any) -> Any:
        """K of the region for each of the globe."""
        return self.factor * jnp.exp(sum(bend(0.0, {}, self.place)["bend"] for bend in self.bends))

    def __call__(self, t, y, u):
        anomaly = self.pattern() * u["warming"]
        if self.oceans is not None:
            anomaly = anomaly + self.oceans(t, y, {**self.place, **u})["anomaly"]
        return {"anomaly": anomaly if self.weather is None else anomaly + self.weather(t)}


class Responses(bd.Module):
    """What each oscillation adds to the anomaly: in proportion to its index, by a function of the
    latitude.
    """

    of: dict[str, Any]

    def __call__(self, t, y, u):
        share = {name: (u[name] - middle) / width for name, (middle, width) in OCEANS.items()}
        return {
            "anomaly": sum(
                share[name] * response(t, y, u)["response"] for name, response in self.of.items()
            )
        }


class Line(bd.Module):
    """K for a standard deviation of an oscillation: a straight line in the latitude."""

    middle: bd.Scalar = bd.field(units="K")
    slope: bd.Scalar = bd.field(units="K")

    def __call__(self, t, y, u):
        middle, width = PLACE["latitude"]
        return {"response": self.middle + self.slope * (u["latitude"] - middle) / width}


class Unscientific(bd.Module):
    """The anomaly by a network of everything that the others know."""

    network: bd.networks.Network
    place: dict[str, Any]

    def __call__(self, t, y, u):
        return self.network(t, {}, {**self.place, **u})


def load(until: float = LAST) -> xr.Dataset:
    """Anomalies `(time, region)`, what is known of the regions, the warming of the globe and the
    oceans' indices.

    Args:
        until: the last year of the fit, as for `smoothed`.
    """
    table = pd.read_pickle(path_of("climate/bomregions2021.pkl.xz"), compression="xz")
    table = table.set_index(table["Year"] + 0.5).loc[FIRST:]
    north, east = np.transpose([*CENTRES.values()])
    rain = table.loc[BASE, [f"{name}Rain" for name in CENTRES]].mean()
    held: dict[str, Any] = {
        "anomaly": (("time", "region"), table[[f"{name}AVt" for name in CENTRES]]),
        "latitude": ("region", north),
        "longitude": ("region", east),
        "wetness": ("region", np.log(rain)),
        "soi": ("time", table["SOI"]),
        "iod": ("time", table["IOD"]),
    }
    data = xr.Dataset(held, {"time": table.index.to_numpy(), "region": [*CENTRES]})
    data["anomaly"] = data["anomaly"] - data["anomaly"].sel(time=BASE).mean("time")
    data["warming"] = smoothed(until)
    for name, units in UNITS.items():
        data[name].attrs["units"] = units
    return data


def smoothed(until: float) -> xr.DataArray:
    """The warming of the globe without its weather, by straight lines through 21 years; those at
    both ends go on.

    Up to a year it is made of what was known then, after it of what came.
    """
    table: Any = pd.read_csv(path_of("climate/igcc_annual_averages.csv"), index_col="time")["GMST"]

    def lines(known: pd.Series) -> pd.Series:
        return pd.Series(savgol_filter(known, SMOOTHED, 1, mode="interp"), known.index)

    found = lines(table.loc[:until]).combine_first(lines(table))
    return xr.DataArray(found - found.loc[BASE].mean(), dims="time", coords={"time": found.index})


def masked(data: xr.Dataset, until: float, left_out: Iterable[str] = ()) -> xr.Dataset:
    """The years up to one, without the anomalies of some regions."""
    train = data.sel(time=slice(None, until))
    return train.assign(anomaly=train["anomaly"].where(~train["region"].isin([*left_out])))


def model_of(data: xr.Dataset, kind: str) -> bd.Model:
    """A model of all regions, also of those without anomalies.

    Args:
        data: what is known of the regions.
        kind: one of `KINDS`.
    """
    place = {name: bd.varying(data[name].values) for name in PLACE}
    if kind == "mlp":
        network = bd.networks.Network.mlp(
            {"warming": (0.3, 0.4)} | OCEANS | PLACE, ("anomaly",), 1.0, width=16
        )
        equations = Unscientific(network, place)
    else:
        parts: dict[str, Any] = {"weather": weather()} | KINDS[kind]()
        equations = Pattern(place, **parts)
    layer = bd.Algebraic(equations, forcings=FORCINGS, units=UNITS)
    scatter = bd.population(dist.LogNormal(np.log(0.4), 0.3), dist.HalfNormal(0.2))
    return bd.Model(bd.Each(layer, [*CENTRES], dim="region"), bd.NormalNoise(scatter))


def weather() -> Weather:
    """Before any data about as large as a state's anomalies are in a year."""
    size, zeros = dist.LogNormal(np.log(0.3), 0.5), np.zeros(round(LAST - FIRST) + 1)
    return Weather(bd.dependent(dist.Normal, zeros, size))


def own_factor() -> Any:
    return bd.population(bd.between(0.8, 2.0), dist.HalfNormal(0.2))


def function_of(name: str, output: str) -> bd.Basis:
    """A smooth function of one thing that is known of a region, seldom beyond 0.3."""
    middle, width = PLACE[name]
    family = bd.bases.HilbertGP(
        middle - 2 * width, middle + 2 * width, 8, length=1.5 * width, amplitude=0.15
    )
    return bd.Basis(family, name, output)


def bends() -> tuple[bd.Basis, ...]:
    """By how much the logarithm of the factor is another where a region lies, and by how much it
    rains there.
    """
    return function_of("latitude", "bend"), function_of("wetness", "bend")


def oceans() -> Responses:
    """K for a standard deviation of each oscillation, about."""
    return Responses({name: function_of("latitude", "response") for name in OCEANS})


def lines() -> Responses:
    """The same by straight lines, which are no unknown functions."""
    return Responses(
        {name: Line(dist.Normal(0.0, 0.15), dist.Normal(0.0, 0.15)) for name in OCEANS}
    )


def networks() -> dict[str, Any]:
    """Networks of all that is known in place of both."""
    bend = bd.networks.Network.mlp(PLACE, ("bend",), dist.HalfNormal(0.2), width=4, depth=1)
    added = bd.networks.Network.mlp(
        OCEANS | PLACE, ("anomaly",), dist.HalfNormal(0.2), width=6, depth=1
    )
    return {"bends": (bend,), "oceans": added}


KINDS: dict[str, Callable[[], dict[str, Any]]] = {
    "fixed": lambda: {"factor": LAND},
    "one factor": lambda: {"factor": bd.between(0.8, 2.0)},
    "one factor, oceans by lines": lambda: {"factor": bd.between(0.8, 2.0), "oceans": lines()},
    "population": lambda: {"factor": own_factor()},
    "hybrid": lambda: {"factor": own_factor(), "bends": bends(), "oceans": oceans()},
    "hybrid, factor alone": lambda: {"factor": own_factor(), "bends": bends()},
    "hybrid, oceans alone": lambda: {"factor": own_factor(), "oceans": oceans()},
    "hybrid, no weather": lambda: {
        "factor": own_factor(),
        "bends": bends(),
        "oceans": oceans(),
        "weather": None,
    },
    "hybrid, networks": lambda: {"factor": own_factor(), **networks()},
    "mlp": lambda: {},
}
"""What each model has as fields of `Pattern`; the last is `Unscientific`."""
ENGINE = bd.NUTS(chains=2, warmup=300, draws=300, map_starts=4)
ENSEMBLE = bd.DeepEnsemble(members=5, descent=bd.Descent(steps=1000))


def pattern(model: bd.Model) -> dict[str, Any]:
    """K of each region for each of the globe."""
    layer: Any = model.layer
    return {"pattern": layer.layer.function.pattern() * np.ones(len(CENTRES))}


def study() -> bd.Study:
    """The study that `bayes-dasl run climate-regions` runs."""
    data = load()
    return bd.Study(
        name="climate-regions",
        title="Warming of New South Wales by that of the other states",
        model=model_of(data, "hybrid"),
        label="hybrid",
        competitors={"one factor": model_of(data, "one factor")},
        data=data,
        split={"region": ["nsw"]},
        engine=ENGINE,
        derived=pattern,
        options=bd.ReportOptions(
            source="Australian Bureau of Meteorology, as bomregions2021 of DAAG; IGCC 2024 "
            "(Forster et al. 2025)",
            licence="GPL-3; CC BY 4.0",
        ),
    )


def picture(run: Run) -> Figure:
    """New South Wales, which nobody fitted, by one factor and by the hybrid, beside what was
    observed.
    """
    fig, axes = panels()
    observed = run.study.test["anomaly"].sel(region="nsw")
    for place, (ax, name) in enumerate(zip(axes, ("one factor", "hybrid"), strict=True)):
        held = (
            bd.load(run.path(name, "forecast.nc"))["predictions"]
            .dataset["anomaly"]
            .sel(region="nsw")
        )
        band(ax, held["time"].values, held, name, place)
        ax.plot(observed["time"], observed, label="observed, not fitted", **UNSEEN)
        ax.set(xlabel="year", title=name, ylim=(-1.8, 2.2))
    axes[0].set_ylabel("anomaly (K)")
    return finished(fig)


def tasks(quick: bool) -> list[dict]:
    """Each model without each region in turn; in the full form also up to 2000, without a region
    and with all.
    """
    some = ["one factor", "hybrid", "mlp"]
    if quick:
        return bd.many.combinations(model=some, left_out=[*CENTRES], until=[LAST], seed=[0])
    found = bd.many.combinations(model=[*KINDS], left_out=[*CENTRES], until=[LAST, SPLIT], seed=[0])
    return found + bd.many.combinations(model=[*KINDS], left_out=["none"], until=[SPLIT], seed=[0])


def row(model: str, left_out: str, until: float, seed: int) -> dict:
    """What a model that was fitted up to a year to all regions but one says of it, or of all if
    none was left out.
    """
    data = load(until)
    train = masked(data, until, [left_out])
    of = data.sel(region=[name for name in CENTRES if left_out in (name, "none")])
    ahead = {"since 2001": of.sel(time=slice(SPLIT + 0.5, None))}
    if left_out != "none":
        ahead["all years"] = of
    return bd.many.measure(
        model_of(data, model), train, ahead, ENSEMBLE if model == "mlp" else ENGINE, key=seed
    )


def summary(rows: pd.DataFrame) -> dict:
    """Means over the regions left out, differences to one factor, paired over these, and later
    years of all.
    """
    table: Any = bd.many.tidy(rows)
    table = table.assign(until=table["until"].astype(int))
    what = ["rmse", "crps", "log_score", "coverage_90", "fit_s"]
    of_all = table["left_out"] == "none"
    apart, whole = table[~of_all], table[of_all]
    found = {
        "Regions left out": pd.DataFrame(apart.groupby(["until", "ahead", "model"])[what].mean())
    }
    for (until, ahead), each in apart.groupby(["until", "ahead"]):
        found[f"CRPS against one factor, fitted up to {until}, {ahead}"] = bd.many.paired(
            each, "crps", between="model", against="one factor", over=["left_out"]
        )
    return found | (
        {} if whole.empty else {"All regions, later years": whole.set_index("model")[what]}
    )
