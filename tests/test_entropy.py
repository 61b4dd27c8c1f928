"""The split of a forecast's entropy for counts."""

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr
from scipy import special, stats
from sifting import Sifting

import bayes_dasl as bd
from bayes_dasl.errors import MismatchError
from bayes_dasl.sensitivity.entropy import split


def test_one_rate_is_all_chance():
    total, aleatoric, epistemic = split(np.full(5, 3.0), np.full(5, 3.0))
    assert aleatoric == pytest.approx(stats.poisson(3.0).entropy(), abs=1e-6)
    assert epistemic == pytest.approx(0.0, abs=1e-9) and total == pytest.approx(aleatoric)


def test_gamma_mixed_rates_make_a_negative_binomial():
    """Poisson rates from a gamma distribution mix to a negative binomial,
    whose entropy is known.
    """
    shape, rate = 2.0, 0.5
    rates = stats.gamma(shape, scale=1 / rate).ppf((np.arange(4000) + 0.5) / 4000)
    total, aleatoric, epistemic = split(rates, rates)
    counts = np.arange(200)
    assert total == pytest.approx(
        stats.entropy(stats.nbinom.pmf(counts, shape, rate / (1 + rate))), abs=1e-3
    )
    assert aleatoric == pytest.approx(
        np.mean([stats.poisson(r).entropy() for r in rates[::20]]), abs=0.01
    )
    assert epistemic == pytest.approx(total - aleatoric) and epistemic > 0.3


def test_two_rates_far_apart_are_worth_one_bit():
    _, _, epistemic = split(np.array([1.0, 400.0]), np.array([1.0, 400.0]))
    assert epistemic == pytest.approx(np.log(2), abs=1e-6)


def test_large_counts_are_taken_together():
    mean = np.full(3, 2e4)
    total, _, _ = split(mean, mean + mean**2 / 50)
    assert total == pytest.approx(stats.gamma(50, scale=2e4 / 50).entropy(), abs=0.01)


@pytest.mark.parametrize("rate", [2e6, 1e9, 1e12])
def test_counts_beyond_a_million(rate):
    """The entropy of a Poisson law is ½ ln(2πe rate) to within 1 / (12 rate)."""
    rates = np.full(3, rate)
    total, aleatoric, epistemic = split(rates, rates)
    assert aleatoric == pytest.approx(0.5 * np.log(2 * np.pi * np.e * rate), abs=1e-6)
    assert total == pytest.approx(aleatoric) and epistemic == pytest.approx(0.0, abs=1e-9)
    apart = rate * np.array([1.0, 1.3])
    assert split(apart, apart)[2] == pytest.approx(np.log(2), abs=1e-6)


def test_a_large_and_an_enormous_rate_are_worth_one_bit():
    """The one's counts lie closer together than the cells in which the other's are taken."""
    rates = np.array([1e6, 1e10])
    _, aleatoric, epistemic = split(rates, rates)
    assert epistemic == pytest.approx(np.log(2), abs=1e-6)
    assert aleatoric == pytest.approx(0.5 * np.log(2 * np.pi * np.e * rates).mean(), abs=1e-6)


@pytest.mark.parametrize("size", [0.1, 1.0, 20.0])
def test_every_count_is_in_a_cell(size):
    """Against sums over each count, of laws that overlap; the smaller their size, the more lies
    near zero.
    """
    mean = np.array([300.0, 2e3, 2.5e3, 1e4])
    share = size / (size + mean)
    p = stats.nbinom.pmf(
        np.arange(stats.nbinom.isf(1e-12, size, share).max())[:, None], size, share
    )
    total, aleatoric, _ = split(mean, mean + mean**2 / size)
    assert aleatoric == pytest.approx(special.entr(p).sum() / 4, abs=1e-3)
    assert total == pytest.approx(special.entr(p.mean(axis=1)).sum(), abs=1e-3)


def test_one_draw_tells_of_chance_alone():
    total, aleatoric, epistemic = split(np.array([3.0]), np.array([3.0]))
    assert aleatoric == pytest.approx(stats.poisson(3.0).entropy(), abs=1e-6)
    assert np.isnan([total, epistemic]).all() and np.isnan(split(np.zeros(0), np.zeros(0))).all()


@pytest.fixture(scope="module")
def fitted():
    class Decay(bd.Module):
        rate: bd.Scalar
        cases: bd.Scalar

        def __call__(self, t, y, u):
            left = jnp.exp(-self.rate * t)
            return {"cases": self.cases * left, "mass": left}

    times = np.linspace(0.0, 4.0, 9)
    rng = np.random.default_rng(0)
    truth = np.exp(-0.6 * times)
    data = xr.Dataset(
        {
            "cases": ("time", rng.poisson(20 * truth)),
            "mass": ("time", truth + 0.01 * rng.normal(size=9)),
        },
        {"time": times},
    )
    layer = bd.Algebraic(Decay(dist.LogNormal(-0.5, 0.5), dist.LogNormal(3.0, 0.3)))

    class Reported(bd.PoissonNoise):
        """One's own kind of count."""

    model = bd.Model(layer, {"cases": Reported(), "mass": bd.NormalNoise(0.01)})
    post = bd.fit(model, data, Sifting(draws=300, proposals=40_000), key=0, progress=False)
    return bd.forecast(model, post, np.linspace(0.0, 8.0, 5))


def test_of_a_forecast(fitted):
    parts = bd.sensitivity.decompose_entropy(fitted)
    assert list(parts["observable"].values) == ["cases"] and parts["total"].dims == (
        "observable",
        "time",
    )
    np.testing.assert_allclose(parts["total"], parts["aleatoric"] + parts["epistemic"])
    assert (parts["epistemic"] >= 0).all() and parts["total"].attrs["units"] == "nat"
    drawn = fitted["predictions"]["cases"].sel(time=4.0).values.ravel().astype(int)
    counted = stats.entropy(np.bincount(drawn))
    assert float(parts["total"].sel(time=4.0).squeeze()) == pytest.approx(counted, abs=0.15)


def test_refusals(fitted):
    with pytest.raises(MismatchError, match="'mass' is no count"):
        bd.sensitivity.decompose_entropy(fitted, ["mass"])
    with pytest.raises(MismatchError, match="no observable lynx"):
        bd.sensitivity.decompose_entropy(fitted, ["lynx"])
