"""Shares of science and network against closed forms, through `forecast` and `decompose`."""

import pickle

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr

import bayes_dasl as bd
from bayes_dasl.prediction import exchange as _exchange, forecasts, renewal
from tests.studies.uncertainty import shares
from tests.studies.uncertainty.shares import Weights, numbers

ERROR = 0.05


@pytest.fixture(scope="module")
def model():
    return shares.model()


def decomposed(model, science, weight):
    fc = shares.forecast(model, science, weight)
    return fc, bd.decompose(fc).isel(time=0)


@pytest.fixture(scope="module")
def independent(model):
    return decomposed(model, *numbers(0))


def assert_shares(parts, name, science, network):
    of = parts.sel(observable=name)
    whole = float(of["epistemic"])
    shares = {part: float(of[part]) / whole for part in ("science", "network", "interaction")}
    assert shares["science"] == pytest.approx(science, abs=ERROR)
    assert shares["network"] == pytest.approx(network, abs=ERROR)
    assert shares["interaction"] == pytest.approx(1 - science - network, abs=2 * ERROR)
    for group, share in (("science", science), ("network", network)):
        assert 0 <= float(of[f"{group}_least"]) / whole <= share + ERROR


@pytest.mark.parametrize("name", shares.shares(0.0))
def test_of_independent_groups(independent, name):
    _, parts = independent
    assert_shares(parts, name, *shares.shares(0.0)[name])
    assert parts.attrs["share_error"] == pytest.approx(4000**-0.5)


@pytest.mark.thorough
@pytest.mark.parametrize("correlation", [0.8, pytest.param(-0.6, marks=pytest.mark.slow)])
def test_of_correlated_groups(model, correlation):
    _, parts = decomposed(model, *numbers(2, correlation))
    for name, truths in shares.shares(correlation).items():
        assert_shares(parts, name, *truths)


@pytest.mark.thorough
def test_what_cannot_be_told_is_unknown(model):
    """Groups that hang together by a square: no pairs can be made by a regression, and the parts
    say so.
    """
    s, e = numbers(3)
    _, parts = decomposed(model, s, s**2 + 0.5 * e)
    of = parts.sel(observable="compensation")  # 0.5 e, whatever s is: Var(E[m | s]) = 0
    assert float(of["epistemic"]) == pytest.approx(0.25, rel=0.1)
    assert not of["split_known"] and of["science"] == of["science_least"] and of["interaction"] == 0
    assert float(of["science"] + of["network"] + of["unknown"]) == pytest.approx(
        float(of["epistemic"]), rel=1e-12
    )
    assert float(of["science_least"]) < 0.05 * float(of["epistemic"])
    of = parts.sel(observable="sum")  # s + 2 s² + e: Var = 1 + 8 + 1
    assert not of["split_known"] or abs(float(of["science"]) / float(of["epistemic"]) - 0.9) < ERROR
    assert float(of["science_least"]) / float(of["epistemic"]) == pytest.approx(0.9, abs=ERROR)


@pytest.mark.thorough
def test_exchanged_draws_that_fail_tell_nothing(independent):
    fc, _ = independent
    broken = fc.copy(deep=True)
    broken["exchanged_mean"]["sum"].values[0, :400] = np.nan
    parts = bd.decompose(broken)
    of = parts.sel(observable="sum")
    assert not of["split_known"].any() and (of["science"] == of["science_least"]).all()
    assert (of["network"] != of["network_least"]).all()
    few = fc.copy(deep=True)
    few["exchanged_mean"]["sum"].values[0, :40] = np.nan
    assert bd.decompose(few)["split_known"].all()


@pytest.mark.thorough
def test_few_draws_are_not_exchanged(model):
    fc, parts = decomposed(model, *numbers(4, draws=24))
    assert "exchanged_mean" not in fc.children
    assert not parts["split_known"].any() and (parts["science"] == parts["science_least"]).all()
    assert np.isfinite(parts["science_least"]).all()


@pytest.mark.thorough
def test_nothing_is_exchanged_before_someone_looks(model, monkeypatch, tmp_path):
    """Not for a score; then once, and a file, a copy and a pickle hold the numbers."""
    asked = []
    exchanged = forecasts.exchanged
    monkeypatch.setattr(forecasts, "exchanged", lambda *a: asked.append(len(a[2])) or exchanged(*a))
    monkeypatch.setattr(_exchange, "MOST", 120)
    fc = shares.forecast(model, *numbers(8))
    truth = xr.Dataset(
        {name: ("time", [0.3]) for name in model.observables}, {"time": [shares.TIME]}
    )
    bd.score(fc, truth)
    assert fc["exchanged_mean"]["sum"].shape == (2, 120, 1) and repr(fc)
    assert not asked
    others = [
        pickle.loads(pickle.dumps(fc)),
        fc.copy(deep=True),
        bd.load(bd.save(fc, tmp_path / "fc.nc")),
    ]
    bd.decompose(fc)
    assert asked == [120]
    for other in others:
        xr.testing.assert_equal(
            other["exchanged_mean"].to_dataset(), fc["exchanged_mean"].to_dataset()
        )


@pytest.mark.thorough
def test_other_draws_keep_one_group_and_nothing_else(model, monkeypatch):
    monkeypatch.setattr(_exchange, "MOST", 300)
    fc, _ = decomposed(model, *numbers(5))
    posterior = fc["posterior"].to_dataset().stack(flat=("chain", "draw"))
    index = fc["exchanged_mean"]["exchange"].values
    assert len(index) == 300
    mean = fc["exchanged_mean"]["product"].isel(time=0)
    s, w = posterior["parameter"].values[index], posterior["weight"].values[index]
    for kept, own, other in (("science", s, w), ("network", w, s)):
        of_others = mean.sel(kept=kept).values / own
        partner = np.abs(of_others[:, None] - other).argmin(axis=1)
        np.testing.assert_allclose(of_others, other[partner], rtol=1e-6)
        assert sorted(partner) == list(range(300)) and (partner != np.arange(300)).all()


def test_the_regression_sees_nothing_of_the_draws_that_it_moves():
    """Of independent numbers it moves next to nothing, however many there are."""
    rng = np.random.default_rng(6)
    kept, others = rng.normal(size=(2000, 60)), rng.normal(size=(2000, 3))
    partner, shift = renewal(kept, others)
    moved = others[partner] + shift
    assert np.abs(np.corrcoef(others.T, moved.T)[:3, 3:]).max() < 4 / np.sqrt(2000)
    assert np.abs(shift).max() < 0.5


def test_leaves_stay_in_their_support():
    class Positive(bd.Module):
        rate: bd.Scalar
        network: Weights

        def __call__(self, t, y, u):
            return {"y": jnp.log(self.rate) + self.network.weight}

    weights = Weights(dist.LogNormal(), dist.Normal().expand((2,)), dist.Normal().expand((2,)))
    leaves = bd.Model(bd.Algebraic(Positive(dist.LogNormal(), weights)), bd.NormalNoise(0.1))
    s, w = np.exp(numbers(7, 0.9))
    none = np.zeros((4000, 2))
    draws = {
        "layer.function.rate": s.ravel(),
        "layer.function.network.weight": w.ravel(),
        "layer.function.network.inner": none,
        "layer.function.network.outer": none,
    }
    found = _exchange.exchanged(leaves, draws, np.arange(4000))
    again = found["layer.function.network.weight"][:4000]
    assert (again > 0).all()
    correlation = np.corrcoef(np.log(s.ravel()), np.log(again))[0, 1]
    assert correlation == pytest.approx(0.9, abs=0.02)
