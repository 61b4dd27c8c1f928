r"""Measles in twenty English towns, 1944–1964: forecasts of half a year, from a chain of infections
by the fortnight.

The model is TSIR: everybody who falls ill infects others in the next fortnight, at a rate that goes
with the seasons; susceptibles are born, and reconstructed from births and reported cases. Up to
where the reports end each fortnight is predicted from those before it; from there on the chain goes
on by chance.

Data: cases, births and people of each town by the fortnight, from the R package tsiR (Becker &
Grenfell 2017). Source: Finkenstädt & Grenfell (2000); Bjørnstad, Finkenstädt & Grenfell (2002).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pandas as pd
import xarray as xr
from jax import lax

import bayes_dasl as bd

from ._data import path_of

FIELD = "epidemiology"
RUN_TIME = "2 min"
DATA = ("epidemiology/tsiR_twentymeas.csv",)

FILE = "epidemiology/tsiR_twentymeas.csv"
FORTNIGHT = 14.0
"""Days from one row of the data to the next, in which who is ill infects others and recovers."""
HARMONICS = 6
YEAR = 365.25
_FEWEST = 1e-4
"""Of people, who are susceptible: where a wrong share of reports would leave fewer."""


class Chain(bd.Module):
    r"""Infections of one fortnight from those of the last one.

    $\lambda_k
    = N_k s_k \left(1 - e^{-c\,\sigma(t_k)\,(C_{k-1} / r + i_k) / N_k}\right), \quad C_k \sim
    \mathrm{NegativeBinomial}(r \lambda_k, \kappa), \quad s_{k+1} = s_k + (B_k - C_k / r) / N_k$

    States: `susceptible` s, as a share of the people N; `reported` C, the cases of the fortnight
        before. Forcings:
    `reported`, `births` B and `people` in each fortnight; `known` is 1 as long as cases are
    reported, and 0 from there on, where they are drawn. One over the share r that is reported goes
    in a straight line with time; from outside come $i_k = i\,(N_k / 100\,000)^a$ infectious people.
    """

    contact: Any
    season: Any
    reporting: bd.Scalar
    attraction: bd.Scalar
    concentration: bd.Scalar
    chance: Any  # of which the random numbers of a draw's future are made
    drift: bd.Scalar = bd.field(units="1/year")
    imported: bd.Scalar = bd.field(units="people")
    town: bd.Scalar = 0.0
    middle: float = 0.0

    def seasonal(self, t):
        r"""How the rate of contacts at a time compares with its geometric mean over a year,
        $\sigma(t)$.
        """
        return jnp.exp(_harmonics(bd.layers.phase(t, "year")) @ self.season)

    def share(self, t):
        """Of infections, those that are reported."""
        return self.reporting / (1 + self.drift * years_after(t, self.middle))

    def cases(self, t, y, u):
        """What is reported of this fortnight on average, given those before it."""
        share = self.share(t)
        infectious = y["reported"] / share + self.imported * (u["people"] / 1e5) ** self.attraction
        met = self.contact * self.seasonal(t) * infectious / u["people"]
        return {
            "cases": share * u["people"] * jnp.maximum(y["susceptible"], _FEWEST) * -jnp.expm1(-met)
        }

    def __call__(self, t, y, u):
        expected, share = self.cases(t, y, u)["cases"], self.share(t)
        most = share * u["people"] * y["susceptible"]
        # Not `where`, so that where all is known nothing is drawn.
        cases = lax.cond(
            u["known"] > 0.5,
            lambda: u["reported"],
            lambda: jnp.minimum(self._drawn(t, expected), most),
        )
        return {
            "susceptible": y["susceptible"] + (u["births"] - cases / share) / u["people"],
            "reported": cases,
        }

    def _drawn(self, t, expected):
        """Cases of a future fortnight, by chance; the same for the same draw, town and time."""
        size, mean = lax.stop_gradient((jnp.asarray(self.concentration), expected))
        key = jax.random.key(jnp.asarray(self.chance * 2**32).astype(jnp.uint32))
        for part in (self.town, t):
            key = jax.random.fold_in(key, jnp.asarray(part).astype(jnp.int32))
        one, two = jax.random.split(key)
        return jax.random.poisson(two, jax.random.gamma(one, size) * mean / size).astype(mean.dtype)


class Reconstructed(bd.Module):
    r"""The same where all cases are known: susceptibles follow from sums of births and cases,
    without steps.

    $s_k = s_0 + \sum_{j<k} B_j / N_j - \frac1r \sum_{j<k} (1 + d\,\tau_j)\,C_j / N_j$
    """

    chain: Chain
    susceptible: bd.Scalar

    def __call__(self, t, y, u):
        infected = (u["ill"] + self.chain.drift * u["ill_later"]) / self.chain.reporting
        state = {"susceptible": self.susceptible + u["born"] - infected, "reported": u["before"]}
        return self.chain.cases(t, state, u)


def years_after(t, middle):
    """Years from one time to another, both in days."""
    return (t - middle) / YEAR


def _harmonics(phase):
    angle = 2 * jnp.pi * jnp.arange(1, HARMONICS + 1) * phase
    return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)])


def load() -> xr.Dataset:
    """Cases, births and people of twenty towns, every fourteen days from 7 January 1944 on."""
    table = pd.read_csv(path_of(FILE))
    names = table["city"].unique()
    days = pd.date_range("1944-01-07", periods=len(table) // len(names), freq="14D", name="time")
    columns = {"cases": "cases", "births": "births", "people": "pop"}
    data = {
        name: (
            ("time", "town"),
            table[column].to_numpy().reshape(len(names), -1).T,
            {"units": "people"},
        )
        for name, column in columns.items()
    }
    return xr.Dataset(data, {"time": days, "town": [str(name) for name in names]})


def as_known_at(
    data: xr.Dataset, origin: int, *, years: float = 6.0, ahead: int = 13
) -> xr.Dataset:
    """What is known when the first fortnight that is not known begins, and the rows to forecast.

    Of these rows the data hold cases, to score by, and nothing else that came later: births and
    people stay as they were last. The first row has no cases, since they follow from a row that is
    not there.

    Args:
        data: what `load` returned.
        origin: the row of the first fortnight that is not known.
        years: how long before it the model begins.
        ahead: how many fortnights are to be forecast.
    """
    first = max(origin - round(years * YEAR / FORTNIGHT), 0)
    rows = data.isel(time=slice(first, origin + ahead))
    number = xr.DataArray(np.arange(rows.sizes["time"]), dims="time")
    known = number < origin - first
    held = (
        rows[["births", "people"]]
        .isel(time=number.clip(max=origin - first - 1))
        .assign_coords(time=rows["time"])
    )
    reported = rows["cases"].where(known, 0.0).assign_attrs(units="people")
    tau = years_after(days_of(rows["time"]), middle_of(rows["time"].values[known.values]))
    ill = reported / held["people"]
    sums = {"born": held["births"] / held["people"], "ill": ill, "ill_later": tau * ill}
    before = {
        name: (share.cumsum("time") - share).assign_attrs(units="") for name, share in sums.items()
    }
    found = {
        "cases": rows["cases"].where(number > 0),
        "reported": reported,
        "before": reported.shift(time=1, fill_value=0.0),
        "known": known.astype(float),
    }
    return held.assign(found | before)


def known(data: xr.Dataset) -> xr.Dataset:
    """The rows before the origin.

    Args:
        data: what `as_known_at` returned.
    """
    return data.isel(time=data["known"].values > 0.5)


def days_of(time: xr.DataArray) -> xr.DataArray:
    """Days since 1970, as equations count them."""
    return (time - np.datetime64("1970-01-01")) / np.timedelta64(1, "D")


def middle_of(times: np.ndarray) -> float:
    """The middle of some dates, in days since 1970."""
    return float(days_of(xr.DataArray(times[[0, -1]])).mean())


UNITS = {name: "people" for name in ("reported", "before", "births", "people", "cases")}
FORCINGS = ("reported", "before", "births", "people", "known", "born", "ill", "ill_later")


def unknowns(data: xr.Dataset) -> tuple[Chain, bd.Scalar]:
    """The equations of towns that share their seasons, and the shares of people who are susceptible
    at the start.

    Args:
        data: what `as_known_at` returned.
    """
    amplitude = np.tile(0.3 / np.arange(1, HARMONICS + 1) ** 0.7, 2)
    named = {
        "contact": bd.population(dist.LogNormal(np.log(27.0), 0.4), 0.2),
        "season": dist.Normal(np.zeros(2 * HARMONICS), amplitude).to_event(1),
        "reporting": bd.varying(dist.Beta(6.0, 6.0)),
        "drift": bd.varying(dist.Normal(0.0, 0.05)),
        "imported": dist.LogNormal(1.0, 1.0),
        "attraction": dist.Normal(0.5, 0.25),
        "concentration": bd.population(dist.LogNormal(1.0, 1.0), 1.0),
        "chance": dist.Uniform(0.0, 1.0),
    }
    town = bd.varying(np.arange(float(data.sizes["town"])))
    middle = middle_of(known(data)["time"].values)
    chain = Chain(
        **{name: bd.shared(one, name) for name, one in named.items()}, town=town, middle=middle
    )
    return chain, bd.shared(bd.varying(dist.LogNormal(np.log(0.05), 0.4)), "susceptible")


def model(data: xr.Dataset) -> bd.Model:
    """The chain, step by step: for forecasts, which go on from the last reports.

    Args:
        data: what `as_known_at` returned.
    """
    chain, susceptible = unknowns(data)
    layer = bd.Difference(  # pyright: ignore[reportCallIssue]
        chain,
        initial={"susceptible": susceptible, "reported": 0.0},  # pyright: ignore[reportCallIssue]
        observe=Chain.cases,
        forcings=FORCINGS,
        length=FORTNIGHT,
        units=UNITS,
    )
    return _of_towns(layer, data, chain)


def reconstructed(data: xr.Dataset) -> bd.Model:
    """The same posterior without steps, which is several times quicker to fit; `model` forecasts
    from it (`what_if`).

    Args:
        data: what `as_known_at` returned.
    """
    chain, susceptible = unknowns(data)
    return _of_towns(
        bd.Algebraic(Reconstructed(chain, susceptible), forcings=FORCINGS, units=UNITS), data, chain
    )


def _of_towns(layer, data: xr.Dataset, chain: Chain) -> bd.Model:
    noise = {"cases": bd.NegativeBinomialNoise(chain.concentration)}
    return bd.Model(bd.Each(layer, data["town"].values, dim="town"), noise)


def study() -> bd.Study:
    """The study that `bayes-dasl run measles` runs: three towns of different size, the first half
    of 1955.
    """
    data = load().sel(town=["London", "Leeds", "Hastings"])
    known_rows = int(np.searchsorted(data["time"].values, np.datetime64("1955-01-01")))
    data = as_known_at(data, known_rows)
    return bd.Study(
        name="measles",
        title="Measles in three English towns, 1955",
        model=model(data),
        label="chain of infections",
        data=data,
        split=str(known(data)["time"].values[-1])[:10],
        engine=bd.NUTS(chains=2, draws=500, map_starts=8),
        options=bd.ReportOptions(
            source="R package tsiR, twentymeas (Becker & Grenfell 2017)", licence="GPL-3.0"
        ),
    )
