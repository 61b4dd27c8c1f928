"""The chain of measles: what it conserves, that the future stays unknown, and that its two forms
are one posterior.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

import bayes_dasl as bd
from case_studies import measles

ORIGIN = 40
CHAIN = measles.Chain(
    contact=25.0,
    season=jnp.asarray(0.2 * np.random.default_rng(0).normal(size=2 * measles.HARMONICS)),
    reporting=0.5,
    drift=0.04,
    imported=2.0,
    attraction=0.5,
    concentration=10.0,
    chance=0.3,
    middle=-7000.0,
)
STATE = {"susceptible": jnp.asarray(0.05), "reported": jnp.asarray(80.0)}
U = {"reported": 90.0, "births": 300.0, "people": 4e5, "known": 1.0}


@pytest.fixture(scope="module")
def towns():
    """Two towns of which the cases are made up."""
    rng = np.random.default_rng(1)
    shape = 60, 2
    data = {"cases": rng.poisson(80.0, shape), "births": rng.uniform(200.0, 300.0, shape)}
    data["people"] = np.linspace(4e5, 4.2e5, 60)[:, None] * [1.0, 0.5]
    days = np.datetime64("1944-01-07") + 14 * np.arange(60) * np.timedelta64(1, "D")
    variables = {
        name: (("time", "town"), values.astype(float), {"units": "people"})
        for name, values in data.items()
    }
    return xr.Dataset(variables, {"time": days.astype("M8[ns]"), "town": ["Ay", "Bee"]})


def test_the_table(shared_file, monkeypatch):
    monkeypatch.setenv(
        "BAYES_DASL_DATA", str(shared_file("data/epidemiology/tsiR_twentymeas.csv").parents[1])
    )
    data = measles.load()
    assert dict(data.sizes) == {"time": 548, "town": 20}
    assert data["time"].values[0] == np.datetime64("1944-01-07") and data["time"].values[
        -1
    ] == np.datetime64("1964-12-25")
    assert (
        float(data["cases"].sel(town="London").max()) == 7192.0
    )  # the largest fortnight of the table


def test_contacts_have_a_geometric_mean_of_one():
    days = np.arange(0.0, 365.0, 0.25)  # of 1970, all of it
    assert float(jnp.mean(jnp.log(jax.vmap(CHAIN.seasonal)(days)))) == pytest.approx(0.0, abs=1e-12)


def test_who_is_no_longer_susceptible_was_born_or_infected():
    following = CHAIN(jnp.asarray(-7100.0), STATE, U)
    share = 0.5 / (1 + 0.04 * (-100.0 / 365.25))
    assert float(following["susceptible"]) == pytest.approx(
        0.05 + (300.0 - 90.0 / share) / 4e5, rel=1e-12
    )
    assert float(following["reported"]) == 90.0


def test_few_ill_infect_in_proportion():
    """To first order c σ s (C / r + i) r, of which the remainder is half the share that is met."""
    found = float(CHAIN.cases(-7000.0, STATE, U)["cases"])
    ill = 80.0 / 0.5 + 2.0 * np.sqrt(4.0)
    met = 25.0 * float(CHAIN.seasonal(-7000.0)) * ill / 4e5
    assert found == pytest.approx(0.5 * 4e5 * 0.05 * met, rel=0.51 * met)


@pytest.mark.thorough
def test_the_future_goes_by_chance():
    """Mean and variance of the negative binomial, by 4 standard errors; the same draw has the same
    future.
    """
    ahead = U | {"known": 0.0}
    cases = jax.jit(
        jax.vmap(
            lambda chance: dataclasses.replace(CHAIN, chance=chance)(-7000.0, STATE, ahead)[
                "reported"
            ]
        )
    )
    drawn = np.asarray(cases(np.random.default_rng(2).uniform(size=4000)))
    mean = float(CHAIN.cases(-7000.0, STATE, U)["cases"])
    sd = np.sqrt(mean + mean**2 / 10.0)
    assert abs(drawn.mean() - mean) < 4 * sd / np.sqrt(4000)
    assert drawn.std() == pytest.approx(
        sd, rel=4 * np.sqrt((0.6 + 2) / (4 * 4000))
    )  # a gamma's excess kurtosis is 6 / k
    np.testing.assert_array_equal(cases(np.full(2, 0.3)), cases(np.full(2, 0.3)))


def test_nothing_after_the_origin_is_known(towns):
    later = towns.where(towns["time"] < towns["time"][ORIGIN], 2 * towns + 1)
    one, other = (measles.as_known_at(data, ORIGIN, years=1.0) for data in (towns, later))
    xr.testing.assert_identical(one.drop_vars("cases"), other.drop_vars("cases"))
    assert one.sizes["time"] == 26 + 13 and one["cases"].isel(time=0).isnull().all()
    assert (
        float(one["known"].sum()) == 26
        and float(one["reported"].isel(time=slice(26, None)).max()) == 0.0
    )


@pytest.mark.slow
def test_both_forms_are_one_posterior(towns):
    """Sums without steps and steps give the same density, to rounding of some thousand terms."""
    data = measles.as_known_at(towns, ORIGIN, years=1.0)
    steps, sums = (
        bd.inference.pose(form(data), measles.known(data))
        for form in (measles.model, measles.reconstructed)
    )
    assert steps.dimension == sums.dimension
    at = steps.prior(1, key=jax.random.key(0))[0]
    np.testing.assert_array_equal(at, sums.prior(1, key=jax.random.key(0))[0])
    assert float(steps.log_density(at)) == pytest.approx(float(sums.log_density(at)), rel=1e-10)
