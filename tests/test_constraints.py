"""Soft laws: what they add to the density, how they are reported, scored and weighed."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr
from curves import Gaps
from numpyro.infer.util import log_density
from sifting import Sifting

import bayes_dasl as bd
from bayes_dasl.errors import MismatchError, ModelError
from bayes_dasl.inference import pose

TIMES = np.linspace(0.0, 2.0, 6)
LEAK = dist.Normal(0.0, 0.2)


class Exchanged(bd.Module):
    """What two boxes hold that exchange, with a leak that should not be there."""

    rate: bd.Scalar
    leak: bd.Scalar

    def __call__(self, t, y, u):
        lost = self.leak / self.rate
        a = (1.0 + lost) * jnp.exp(-self.rate * t) - lost
        return {"a": a, "b": 1.0 - a - self.leak * t}


def total(values, inputs):
    return (values["a"] + values["b"] - 1.0) / 0.01


def model(leak, constraints=None, noise=0.05):
    layer = bd.Algebraic(Exchanged(dist.LogNormal(0.0, 0.5), leak))
    return bd.Model(layer, bd.NormalNoise(noise), constraints or {})


def data(leak=0.0, seed=0):
    rng = np.random.default_rng(seed)
    a = np.exp(-TIMES) - leak * (1 - np.exp(-TIMES))
    b = 1 - np.exp(-TIMES) - leak * (TIMES - 1 + np.exp(-TIMES))
    noisy = {"a": a, "b": b}
    return xr.Dataset(
        {n: ("time", v + rng.normal(0, 0.05, TIMES.size)) for n, v in noisy.items()},
        {"time": TIMES},
    )


@pytest.mark.thorough
def test_a_law_adds_half_its_sum_of_squares():
    values = {"layer.function.leak": 0.1, "layer.function.rate": 1.0}
    loose, lawful = (model(dist.Normal(0.0, 1.0), laws) for laws in ({}, {"mass": total}))
    substituted = lambda m: jax.tree.map(jnp.asarray, values)  # noqa: E731
    at = [float(log_density(m, (data(),), {}, substituted(m))[0]) for m in (loose, lawful)]
    broken = 0.1 * TIMES / 0.01
    assert at[1] - at[0] == pytest.approx(-0.5 * np.sum(broken**2), rel=1e-5)


@pytest.fixture(scope="module")
def fits():
    laws = {"mass": total}
    engine = Sifting(draws=300, proposals=100_000)
    return {
        "free": bd.fit(model(LEAK), data(0.1), engine, progress=False),
        "lawful": bd.fit(model(LEAK, laws), data(), engine, progress=False),
        "against": bd.fit(model(LEAK, laws, noise=0.02), data(0.3), engine, progress=False),
    }


@pytest.mark.thorough
def test_a_law_narrows_what_it_speaks_of(fits):
    free, lawful = (float(fits[name]["posterior"]["leak"].std()) for name in ("free", "lawful"))
    assert lawful < 0.3 * free


@pytest.mark.thorough
def test_it_is_reported_and_scored(fits):
    assert "constraint_residual" not in fits["free"].children
    with pytest.raises(MismatchError, match="nothing was constrained"):
        bd.scores.consistency(fits["free"])
    leak = fits["lawful"]["posterior"]["leak"].values
    rms = np.sqrt(np.mean((leak[..., None] * TIMES / 0.01) ** 2, axis=-1))
    np.testing.assert_allclose(fits["lawful"]["constraint_residual"]["mass"].values, rms, rtol=1e-3)
    table = bd.scores.consistency(fits["lawful"])
    assert table.loc["mass", "rms"] == pytest.approx(np.median(rms), rel=1e-3)
    assert table.loc["mass", "within"] == pytest.approx(np.mean(rms < 1), abs=0.01)
    assert "[good] constraint mass" in str(bd.diagnose(fits["lawful"]))


@pytest.mark.thorough
def test_data_against_the_law_are_said_to_be(fits):
    assert "[warning] constraint mass" in str(bd.diagnose(fits["against"]))


@pytest.mark.thorough
def test_a_forecast_is_scored_at_its_own_times(fits):
    lawful = model(LEAK, {"mass": total})
    later = bd.forecast(lawful, fits["lawful"], np.array([2.0, 4.0]))
    assert (
        bd.scores.consistency(later).loc["mass", "rms"]
        > bd.scores.consistency(fits["lawful"]).loc["mass", "rms"]
    )


@pytest.mark.thorough
def test_an_update_weighs_the_law_too(fits):
    """Weights of draws are those of the whole density: with data that say nothing they are the
    law's at new times.
    """
    lawful = model(LEAK, {"mass": total})
    new = xr.Dataset({"a": ("time", [np.exp(-2.2)])}, {"time": [2.2]})
    updated = bd.update(lawful, fits["lawful"], new)
    problem = pose(lawful, xr.merge([data(), new], join="outer", compat="no_conflicts"))
    draws = {n: updated["posterior"][n].values[0, :3] for n in ("leak", "rate")}
    for i in range(3):
        values = {f"layer.function.{n}": jnp.asarray(v[i]) for n, v in draws.items()}
        position = problem.unconstrain(values)
        held = float(
            updated["log_likelihood"]
            .to_dataset()
            .isel(chain=0, draw=i)
            .to_dataarray()
            .sum(skipna=True)
        )
        held += float(updated["sample_stats"]["log_factor"][0, i])
        want = float(problem.log_density(position) - problem.log_prior(position))
        assert held == pytest.approx(want, rel=1e-6)


@pytest.mark.parametrize("law", [3.0, dist.Normal(0.0, 1.0)])
def test_what_is_no_law_is_refused(unchecked, law):
    with pytest.raises(ModelError, match="constraints must be a dict of functions"):
        model(0.1, {"mass": law})


@pytest.mark.parametrize("name", ["a/b", "chain", "draw", 3])
def test_a_name_that_a_posterior_cannot_hold_is_refused(unchecked, name):
    with pytest.raises(ModelError, match="a constraint cannot have the name"):
        model(0.1, {name: total})


def test_the_name_of_a_gap_is_refused():
    layer = Gaps(gap=np.ones(2))
    free = bd.Model(layer, bd.NormalNoise(0.05))
    [name] = free.predict(free.inputs(data())).constraint_residuals
    taken = bd.Model(layer, bd.NormalNoise(0.05), {name: lambda values, inputs: values["y"]})
    with pytest.raises(
        ModelError, match=f"constraint '{name}' has the name of a constraint residual"
    ):
        taken.predict(taken.inputs(data()))
