"""Closed forms of linear compartments against matrix exponentials and the ODE."""

import io

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pandas as pd
import pytest
import xarray as xr
from scipy.linalg import expm

import bayes_dasl as bd
from bayes_dasl.errors import ModelError

TIMES = np.array([0.0, 0.5, 1.5, 3.0, 4.3, 5.0, 6.2, 9.0, 12.0, 13.3, 17.5, 24.0])
INTO = ("depot", "central")
LAG, SHARE = 0.7, 0.8
# Doses at once and infusions, repeats, resets, steady states that replace and add, an endless
# infusion.
EVENTS = """id,time,amt,cmt,evid,rate,dur,addl,ii,ss
1,0,100,2,1,0,0,0,0,0
1,3,40,1,1,0,0,2,4,0
2,0,100,2,1,20,0,0,0,0
2,2,40,2,1,0,1.5,3,5,0
3,0,100,1,1,0,0,5,2,0
3,5,0,1,3,0,0,0,0,0
3,9,70,2,4,0,6,0,0,0
4,1,90,2,1,0,9,0,0,0
4,4,0,2,3,0,0,0,0,0
5,0,100,2,1,0,0,0,8,1
5,4,50,2,1,0,0,0,6,2
6,0,100,1,1,0,5.6,2,6,1
7,3,0,2,1,30,0,0,0,1
"""
EVER = range(1, 400)
# Of each: begin, amount, lasting, into, since, until.
BY_HAND = [
    [(0, 80, 0, 1)] + [(t + LAG, 40, 0, 0) for t in (3, 7, 11)],
    [(0, 80, 4, 1)] + [(t, 32, 1.5, 1) for t in (2, 7, 12, 17)],
    [(t + LAG, 100, 0, 0, -np.inf, 5.0) for t in (0, 2, 4)] + [(9, 56, 6, 1)],
    [(1, 72, 9, 1, -np.inf, 4.0)],
    [(-8 * k, 80, 0, 1) for k in (0, *EVER)]
    + [(4, 40, 0, 1)]
    + [(4 - 6 * k, 40, 0, 1, 4.0) for k in EVER],
    [(LAG - 6 * k, 100, 5.6, 0) for k in (-2, -1, 0, *EVER)],
    [(3 - 3000, 90000, 3000, 1, 3.0)],
]
ONE = {"clearance": 2.0, "volume": 10.0, "absorption": 1.3}
TWO = ONE | {"exchange": 1.5, "peripheral": 20.0}


def table(text):
    return pd.read_csv(io.StringIO(text))


def doses(text=EVENTS, **options):
    return bd.dosing.doses(table(text), INTO, **options)


def population(numbers, lag=LAG):
    given = doses(subject="id", lag={"depot": lag}, bioavailability={"central": SHARE})
    return bd.Each(bd.dosing.Compartments(**numbers, doses=given), given.members)


def inputs(times=TIMES):
    return bd.inputs(xr.Dataset({}, {"time": times}), start=0.0)


def matrix(p):
    """Of depot, central and peripheral."""
    out, there = p["clearance"] / p["volume"], p.get("exchange", 0.0) / p["volume"]
    back = p.get("exchange", 0.0) / p.get("peripheral", 1.0)
    return np.array(
        [[-p["absorption"], 0, 0], [p["absorption"], -out - there, back], [0, there, -back]]
    )


def superposed(events, p):
    """Each dose by itself, by exponentials of a matrix; infusions by one more row that holds their
    rate.
    """
    total, a = np.zeros(len(TIMES)), matrix(p)
    for begin, amount, lasting, into, *limits in events:
        since, until = (*limits, -np.inf, np.inf)[:2] if limits else (-np.inf, np.inf)
        until = limits[1] if len(limits) > 1 else np.inf
        unit = np.eye(3)[into]
        held = np.zeros((4, 4))
        held[:3, :3], held[:3, 3] = a, unit * amount / (lasting or 1.0)
        for i, t in enumerate(TIMES):
            if max(begin, since) <= t < until and (t - begin) < 600 + lasting:
                if lasting:
                    during = expm(held * min(t - begin, lasting))[:3, 3]
                    total[i] += (expm(a * max(t - begin - lasting, 0.0)) @ during)[1]
                else:
                    total[i] += amount * (expm(a * (t - begin)) @ unit)[1]
    return total / p["volume"]


@pytest.mark.parametrize(
    "numbers", [pytest.param(ONE, marks=pytest.mark.slow), TWO], ids=["one", "two"]
)
def test_every_event_is_the_sum_of_matrix_exponentials(numbers):
    """Values, and gradients by finite differences, by one program."""
    weights = np.random.default_rng(0).normal(size=(len(TIMES), len(BY_HAND)))

    def weighted(p):
        prediction = population({n: v for n, v in p.items() if n != "lag"}, p["lag"])(inputs())
        return jnp.sum(weights * prediction.values["conc"]), prediction

    solve = jax.jit(jax.value_and_grad(weighted, has_aux=True))
    at, step = numbers | {"lag": LAG}, 1e-5
    (_, prediction), slopes = solve(at)
    assert bool(prediction.ok)
    for i, events in enumerate(BY_HAND):
        np.testing.assert_allclose(
            prediction.values["conc"][:, i], superposed(events, numbers), atol=1e-9
        )
    for name, value in at.items():
        finite = (
            solve(at | {name: value + step})[0][0] - solve(at | {name: value - step})[0][0]
        ) / (2 * step)
        assert float(slopes[name]) == pytest.approx(float(finite), rel=1e-6, abs=1e-6), name


@pytest.mark.thorough
@pytest.mark.parametrize(
    "numbers", [ONE, pytest.param(TWO, marks=pytest.mark.slow)], ids=["one", "two"]
)
def test_rates_that_coincide(numbers):
    """Values and slopes pass smoothly where absorption is as fast as what the blood loses."""
    out = -np.linalg.eigvals(
        matrix(numbers)[1:, 1:] if "exchange" in numbers else matrix(numbers)[1:2, 1:2]
    )
    same, text = float(np.max(out.real)), "time,amt,dur,ii,ss\n0,100,0,6,1\n1,50,2,0,0\n"

    def total(ka):
        one = bd.dosing.Compartments(
            **(numbers | {"absorption": ka}), doses=bd.dosing.doses(table(text), "depot")
        )
        return jnp.sum(one(inputs()).values["conc"] * (1 + TIMES))

    away = np.array([0.0, 1e-12, 1e-6, -1e-6, 0.9e-3, 1.1e-3, 3e-3])
    values, slopes = jax.jit(jax.vmap(jax.value_and_grad(total)))(same * (1 + away))
    smooth = np.polynomial.Polynomial.fit(away, values, 4)
    np.testing.assert_allclose(values, smooth(away), rtol=1e-9)
    np.testing.assert_allclose(slopes, smooth.deriv()(away) / same, rtol=1e-6)
    doses_by_hand = [(-6 * k, 100, 0, 0) for k in (0, *EVER)] + [(1, 50, 2, 0)]
    expected = superposed(doses_by_hand, numbers | {"absorption": same * (1 + 1e-9)}) @ (1 + TIMES)
    assert float(values[0]) == pytest.approx(expected, rel=1e-6)


class Equations(bd.Module):
    numbers: dict

    def __call__(self, t, y, u):
        p = self.numbers
        taken, there = p["absorption"] * y["depot"], p["exchange"] * y["central"] / p["volume"]
        back = p["exchange"] * y["peripheral"] / p["peripheral"]
        out = p["clearance"] * y["central"] / p["volume"]
        return {"depot": -taken, "central": taken - out - there + back, "peripheral": there - back}

    def conc(self, t, y, u):
        return {"conc": y["central"] / self.numbers["volume"]}


@pytest.mark.slow
def test_is_the_ode():
    given = doses(subject="id", lag={"depot": LAG}, bioavailability={"central": SHARE})
    states = {"depot": 0.0, "central": 0.0, "peripheral": 0.0}
    ode = bd.ODE(Equations(TWO), states, Equations.conc, doses=given, rtol=1e-9, atol=1e-9)
    found = eqx.filter_jit(bd.Each(ode, given.members))(inputs())
    np.testing.assert_allclose(
        population(TWO)(inputs()).values["conc"], found.values["conc"], atol=1e-6
    )


def test_a_lag_longer_than_the_interval_fails_as_a_value():
    given = bd.dosing.doses(table("time,amt,ii,ss\n0,1,6,1\n"), "depot", lag={"depot": 7.0})
    assert not bool(jax.jit(lambda: bd.dosing.Compartments(**ONE, doses=given)(inputs()).ok)())


@pytest.mark.slow
def test_theophylline_is_that_of_nlme(shared_file):
    """As the ODE in test_population: log Cl −3.21, log ka 0.45, log ke −2.43 per kilogram (Pinheiro
    & Bates 2000).
    """
    frame = pd.read_csv(shared_file("data/pk/theo_sd.csv"))
    frame["AMT"] = frame["AMT"] / frame["WT"]
    data = bd.from_table(frame, "dv", subject="id", names={"DV": "conc"})
    given = bd.dosing.doses(frame, "depot", subject="id")
    clearance = bd.shared(
        bd.population(dist.LogNormal(-3.0, 1.0), dist.HalfNormal(0.5)), "clearance"
    )
    elimination = bd.shared(
        bd.population(dist.LogNormal(-2.5, 1.0), dist.HalfNormal(0.5)), "elimination"
    )
    absorption = bd.population(dist.LogNormal(0.5, 1.0), dist.HalfNormal(1.0))
    layer = bd.dosing.Compartments(
        clearance, clearance / elimination, absorption=absorption, doses=given
    )
    model = bd.Model(bd.Each(layer, given.members), {"conc": bd.NormalNoise(dist.HalfNormal(2.0))})
    post = bd.fit(model, data, bd.NUTS(), progress=False)
    for name, mean, error in (
        ("elimination", -2.43, 0.064),
        ("absorption", 0.45, 0.20),
        ("clearance", -3.21, 0.082),
    ):
        found = float(np.log(post["posterior"][f"{name}.center"]).mean())
        assert abs(found - mean) < 2 * error, (name, found)


@pytest.mark.slow
def test_a_fit_of_a_population():
    """Simulated clearances are found again, by numbers of each around what is typical."""
    text = "id,time,amt\n1,0,100\n2,0,100\n3,0,100\n4,0,100\n"
    times = np.array([0.5, 2.0, 6.0, 12.0, 24.0])
    given = bd.dosing.doses(table(text), "central", subject="id")
    truth = np.array([1.0, 1.5, 2.0, 3.0])
    exact = bd.Each(bd.dosing.Compartments(bd.varying(truth), 10.0, doses=given), given.members)(
        inputs(times)
    )
    coordinates = {"time": times, "subject": np.arange(1.0, 5.0)}
    data = xr.Dataset(
        {"conc": (("time", "subject"), np.asarray(exact.values["conc"]))}, coordinates
    )
    layer = bd.dosing.Compartments(
        bd.population(bd.between(0.5, 5.0), dist.HalfNormal(0.5)),
        bd.between(5.0, 20.0),
        doses=given,
    )
    model = bd.Model(bd.Each(layer, given.members), bd.LogNormalNoise(0.05))
    post = bd.fit(model, data, bd.NUTS(chains=2, draws=200), progress=False)
    np.testing.assert_allclose(
        post["posterior"]["clearance"].median(("chain", "draw")), truth, rtol=0.1
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: bd.dosing.Compartments(
                1.0, 1.0, doses=bd.dosing.doses(table("time,amt\n0,1\n"), "gut")
            ),
            "doses go into 'gut'",
        ),
        (
            lambda: bd.dosing.Compartments(
                1.0, 1.0, doses=bd.dosing.doses(table("time,amt\n0,1\n"), "depot")
            ),
            "the rate of absorption",
        ),
        (
            lambda: bd.dosing.Compartments(
                1.0, 1.0, exchange=1.0, doses=bd.dosing.doses(table("time,amt\n0,1\n"), "central")
            ),
            "exchange and peripheral belong together",
        ),
        (
            lambda: bd.Each(
                bd.dosing.Compartments(**ONE, doses=doses(subject="id")),
                [2.0, 1.0, 3.0, 4.0, 5.0, 6.0, 7.0],
            ),
            "the members are not those of the doses, in their order",
        ),
    ],
)
def test_refusals(make, message):
    with pytest.raises(ModelError, match=message):
        make()


@pytest.mark.thorough
def test_the_concentration_at_one_time_is_that_of_the_layer():
    drug = bd.dosing.Compartments(
        **TWO, doses=doses(EVENTS.split("\n2,")[0] + "\n", lag={"depot": LAG})
    )
    values = jax.jit(jax.vmap(drug.concentration))(TIMES)
    np.testing.assert_allclose(values, drug(inputs()).values["conc"], rtol=1e-12, atol=1e-14)
