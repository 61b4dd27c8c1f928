r"""Measles in twenty English towns, 1944–1964: forecasts of half a year, from a chain of infections by the fortnight.

The model is TSIR: everybody who falls ill infects others in the next fortnight, at a rate that goes with the seasons;
susceptibles are born, and reconstructed from births and reported cases. Up to where the reports end each fortnight is
predicted from those before it; from there on the chain goes on by chance.

Data: cases, births and people of each town by the fortnight, from the R package tsiR (Becker & Grenfell 2017).
Source: Finkenstädt & Grenfell (2000); Bjørnstad, Finkenstädt & Grenfell (2002).
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pandas as pd
import xarray as xr
from jax import lax
from jax.scipy.special import logit

import bayes_dasl as bd

from ._data import path_of

FILE = "epidemiology/tsiR_twentymeas.csv"
FORTNIGHT = 14.0
"""Days from one row of the data to the next, in which who is ill infects others and recovers."""
HARMONICS = 6
YEAR = 365.25


class Chain(bd.Module):
    r"""Infections of one fortnight from those of the last one.

    $\lambda_k = N_k s_k \left(1 - e^{-c\,\sigma(t_k)\,(C_{k-1} / r + i) / N_k}\right), \quad C_k \sim
    \mathrm{NegativeBinomial}(r \lambda_k, \kappa), \quad s_{k+1} = s_k + (B_k - C_k / r) / N_k$

    States: `susceptible` s, as a share of the people N; `reported` C, the cases of the fortnight before. Forcings:
    `reported`, `births` B and `people` in each fortnight; `known` is 1 as long as cases are reported, and 0 from there
    on, where they are drawn. The log odds of the share r that is reported go in a straight line with time.
    """

    contact: bd.Scalar
    season: jax.Array
    reporting: bd.Scalar
    drift: bd.Scalar = bd.field(units="1/year")
    imported: bd.Scalar = bd.field(units="people")
    concentration: bd.Scalar
    attraction: bd.Scalar
    chance: bd.Scalar  # of which the random numbers of a draw's future are made
    town: bd.Scalar = 0.0
    middle: float = 0.0

    def seasonal(self, t):
        r"""How the rate of contacts at a time compares with its geometric mean over a year, $\sigma(t)$."""
        return jnp.exp(_harmonics(bd.phase(t, "year")) @ self.season)

    def reported(self, t):
        """The share of infections that is reported."""
        return jax.nn.sigmoid(logit(self.reporting) + self.drift * (t - self.middle) / YEAR)

    def infections(self, t, y, u):
        """How many are infected in this fortnight, on average."""
        imported = self.imported * (u["people"] / 1e5) ** self.attraction
        infectious = y["reported"] / self.reported(t) + imported
        met = self.contact * self.seasonal(t) * infectious / u["people"]
        return u["people"] * y["susceptible"] * -jnp.expm1(-met)

    def __call__(self, t, y, u):
        share = self.reported(t)
        expected = share * self.infections(t, y, u)
        # Not `where`, so that a fit, of which all is known, draws nothing.
        cases = lax.cond(u["known"] > 0.5, lambda: u["reported"], lambda: self._drawn(t, expected))
        cases = jnp.minimum(cases, share * u["people"] * y["susceptible"] + u["births"])
        gained = (u["births"] - cases / share) / u["people"]
        return {"susceptible": y["susceptible"] + gained, "reported": cases}

    def cases(self, t, y, u):
        """What is reported of this fortnight on average, given those before it."""
        return {"cases": self.reported(t) * self.infections(t, y, u)}

    def _drawn(self, t, expected):
        """Cases of a future fortnight, by chance; the same for the same draw and time."""
        size, mean = lax.stop_gradient((jnp.asarray(self.concentration), expected))
        key = jax.random.key((self.chance * 2**32).astype(jnp.uint32))
        for part in (self.town, t):
            key = jax.random.fold_in(key, jnp.asarray(part).astype(jnp.int32))
        one, two = jax.random.split(key)
        return jax.random.poisson(two, jax.random.gamma(one, size) * mean / size).astype(mean.dtype)


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
        name: (("time", "town"), table[column].to_numpy().reshape(len(names), -1).T, {"units": "people"})
        for name, column in columns.items()
    }
    return xr.Dataset(data, {"time": days, "town": [str(name) for name in names]})


def as_known_at(data: xr.Dataset, origin: int, *, years: float = 6.0, ahead: int = 13) -> xr.Dataset:
    """What is known when the first fortnight that is not known begins, and the rows to forecast.

    Of these rows the data hold cases, to score by, and nothing else that came later: births and people stay as they
    were last. The first row has no cases, since they follow from a row that is not there.

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
    held = rows[["births", "people"]].isel(time=number.clip(max=origin - first - 1)).assign_coords(time=rows["time"])
    cases, reported = rows["cases"].where(number > 0), rows["cases"].where(known, 0.0)
    return held.assign(cases=cases, reported=reported.assign_attrs(units="people"), known=known.astype(float))


def model(data: xr.Dataset) -> bd.Model:
    """A chain for each of the towns of some data, with the same seasons for all of them.

    Args:
        data: what `as_known_at` returned.
    """
    known = data["time"].values[data["known"].values > 0.5]
    days = (known[[0, -1]] - np.datetime64("1970-01-01")) / np.timedelta64(1, "D")
    concentration = bd.shared(bd.population(dist.LogNormal(1.0, 1.0), 1.0), "concentration")
    amplitude = np.tile(0.3 / np.arange(1, HARMONICS + 1) ** 0.7, 2)
    chain = Chain(
        contact=bd.population(dist.LogNormal(np.log(27.0), 0.4), 0.2),
        season=dist.Normal(np.zeros(2 * HARMONICS), amplitude).to_event(1),
        reporting=bd.varying(dist.Beta(6.0, 6.0)),
        drift=bd.varying(dist.Normal(0.0, 0.1)),
        imported=dist.LogNormal(1.0, 1.0),
        attraction=dist.Normal(0.5, 0.25),
        concentration=concentration,
        chance=dist.Uniform(0.0, 1.0),
        town=bd.varying(np.arange(float(data.sizes["town"]))),
        middle=float(days.mean()),
    )
    layer = bd.Difference(
        chain,
        initial={"susceptible": bd.varying(dist.LogNormal(np.log(0.05), 0.4)), "reported": 0.0},
        observe=Chain.cases,
        forcings=("reported", "births", "people", "known"),
        length=FORTNIGHT,
        units={"reported": "people", "births": "people", "people": "people", "cases": "people"},
    )
    return bd.Model(
        bd.Each(layer, data["town"].values, dim="town"), {"cases": bd.NegativeBinomialNoise(concentration)}
    )
