"""Fisher information and profile likelihoods, of lines whose answers are known and of a pair that
nothing tells.
"""

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr
from jaxtyping import Array
from scipy.stats import norm

import bayes_dasl as bd
from bayes_dasl import plots
from bayes_dasl.errors import MismatchError, ModelError

TIMES = np.linspace(0.0, 5.0, 20)


class Line(bd.Module):
    level: bd.Scalar
    slope: bd.Scalar

    def __call__(self, t, y, u):
        return {"y": self.level + self.slope * t}


class Decay(bd.Module):
    """Of amount and share only the product is seen."""

    amount: bd.Scalar
    share: bd.Scalar
    rate: bd.Scalar

    def __call__(self, t, y, u):
        return {"y": self.amount * self.share * jnp.exp(-self.rate * t)}


def data(values, sd):
    return xr.Dataset(
        {"y": ("time", values + sd * np.random.default_rng(0).normal(size=20))}, {"time": TIMES}
    )


def line():
    return bd.Model(
        bd.Algebraic(Line(dist.Normal(0.0, 2.0), dist.Normal(0.0, 0.5))), bd.NormalNoise(0.3)
    )


LINE = data(1.0 + 0.4 * TIMES, 0.3)
COVARIANCE = 0.3**2 * np.linalg.inv(
    np.stack([np.ones(20), TIMES]) @ np.stack([np.ones(20), TIMES]).T
)


@pytest.fixture(scope="module")
def decay():
    law = Decay(bd.between(0.5, 8.0), bd.between(0.1, 2.0), bd.between(0.1, 3.0))
    return bd.Model(bd.Algebraic(law), bd.NormalNoise(bd.between(0.01, 0.5)))


DECAY = data(2 * np.exp(-0.7 * TIMES), 0.05)


def at_the_median(model, data):
    """The information at the median of the prior, which is warned of."""
    with pytest.warns(UserWarning, match="without a posterior looks at the median of the prior"):
        return bd.sensitivity.fisher_information(model, data)


def test_of_a_line_it_is_that_of_least_squares():
    found = at_the_median(line(), LINE)
    unit = np.array([2.0, 0.5])
    sampled = found.matrix.values / np.outer(
        unit, unit
    )  # but for the widths of the prior, from 500 draws
    np.testing.assert_allclose(sampled, np.linalg.inv(COVARIANCE), rtol=0.15)
    np.testing.assert_allclose(
        found.directions["contraction"], 1 - 1 / (1 + found.directions["information"])
    )
    first, second = found.sentences
    assert first.startswith(
        "looked at the median of the prior, perhaps far from where the data put"
    )
    assert second == "the data say more than the prior of all 2 directions"


def test_of_a_line_the_profile_is_a_parabola():
    found = bd.sensitivity.profile_likelihood(line(), LINE, "slope", np.linspace(-0.5, 1.5, 9))
    best = float(np.polyfit(TIMES, LINE["y"], 1)[0])
    wide = norm.ppf(0.975) * np.sqrt(COVARIANCE[1, 1])
    assert found.attrs["low"] == pytest.approx(best - wide, abs=2e-3)
    assert found.attrs["high"] == pytest.approx(best + wide, abs=2e-3)
    parabola = -((found["value"] - best) ** 2) / 2 / COVARIANCE[1, 1]
    np.testing.assert_allclose(found["log_likelihood"], parabola - parabola.max(), atol=1e-5)
    along = [np.mean(LINE["y"] - slope * TIMES) for slope in found["value"].values]
    np.testing.assert_allclose(found["level"], along, atol=1e-4)


def test_a_pair_that_nothing_tells_is_named_by_both(decay):
    found = at_the_median(decay, DECAY)
    assert (
        found.sentences[1]
        == "not informed by the data: amount up with share down (of the prior's variance 100% is left)"
    )
    profile = bd.sensitivity.profile_likelihood(decay, DECAY, "amount")
    assert np.isnan([profile.attrs["low"], profile.attrs["high"]]).all()
    np.testing.assert_allclose(profile["log_likelihood"], 0.0, atol=1e-4)
    product = profile["value"] * profile["share"]
    np.testing.assert_allclose(product, product[0], rtol=1e-3)
    words = [text.get_text() for text in plots.plot_profile(profile).axes[0].texts]
    assert words == ["95 % interval, no end below or above among these values"]


@pytest.mark.thorough
def test_what_is_told_has_the_same_width_by_both(decay):
    """The rate is known to three per cent: there its logarithm is as good as normal."""
    found = bd.sensitivity.fisher_information(
        decay, DECAY, bd.fit(decay, DECAY, bd.engines.Laplace(draws=500), progress=False)
    )
    matrix, unit = (
        found.matrix.sel(unknown=["amount", "rate"], other=["amount", "rate"]).values,
        np.log(3.0 / 0.1) / 3.92,
    )
    sd = unit * np.sqrt(np.linalg.inv(matrix)[1, 1])
    profile = bd.sensitivity.profile_likelihood(decay, DECAY, "rate")
    assert np.log(profile.attrs["high"] / profile.attrs["low"]) / 3.92 == pytest.approx(
        sd, rel=0.15
    )


class Weighed(bd.Module):
    shares: Array | dist.Distribution
    slope: bd.Scalar

    def __call__(self, t, y, u):
        return {"y": self.shares[0] + self.slope * t}


@pytest.mark.parametrize(
    ("law", "said"),
    [
        (
            lambda: Line(
                bd.dependent(dist.Normal, dist.Normal(0.0, 1.0), 1.0), dist.Normal(0.0, 0.5)
            ),
            "depends on other",
        ),
        (
            lambda: Weighed(dist.Dirichlet(jnp.ones(3)), dist.Normal(0.0, 0.5)),
            "fewer directions than they are",
        ),
    ],
)
def test_numbers_that_are_bound_to_others_are_refused(law, said):
    model = bd.Model(bd.Algebraic(law()), bd.NormalNoise(0.3))
    with pytest.raises(ModelError, match=said):
        bd.sensitivity.fisher_information(model, LINE)
    with pytest.raises(ModelError, match=said):
        bd.sensitivity.profile_likelihood(model, LINE, "slope")


@pytest.mark.thorough
def test_an_interval_ends_neither_outside_of_the_values_nor_where_a_solver_fails():
    outside = bd.sensitivity.profile_likelihood(line(), LINE, "slope", np.array([2.0, 2.5, 3.0]))
    assert (
        np.isnan([outside.attrs["low"], outside.attrs["high"]]).all()
        and outside["log_likelihood"].max() < -100
    )
    assert outside.attrs["best"] == pytest.approx(
        float(np.polyfit(TIMES, LINE["y"], 1)[0]), abs=1e-3
    )

    class Breaks(Line):
        def __call__(self, t, y, u):
            found = self.level + 0.0 * self.slope * t
            return {"y": jnp.where(self.slope > 0.6, jnp.nan, found)}

    law = Breaks(dist.Normal(0.0, 2.0), dist.Normal(0.0, 0.5))
    broken = bd.sensitivity.profile_likelihood(
        bd.Model(bd.Algebraic(law), bd.NormalNoise(0.3)), LINE, "slope"
    )
    assert (
        np.isnan([broken.attrs["low"], broken.attrs["high"]]).all() and broken.attrs["failed"] > 0
    )


@pytest.mark.parametrize(
    ("asked", "error", "said"),
    [
        (
            {"name": "lynx"},
            MismatchError,
            "no unknown number of the model; its numbers are level, slope",
        ),
        ({"values": [1.0, 0.5]}, ModelError, "in increasing order"),
        ({"level": 1.5}, ModelError, "between 0 and 1"),
        ({"values": [0.1, 1e9]}, ModelError, "does not allow the value"),
    ],
)
def test_what_makes_no_sense_is_refused(asked, error, said):
    values = np.asarray(asked.pop("values")) if "values" in asked else None
    with pytest.raises(error, match=said):
        bd.sensitivity.profile_likelihood(
            line(), LINE, **({"name": "slope", "values": values} | asked)
        )
