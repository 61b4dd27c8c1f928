"""A posterior and a model that is not its own: refused, unless one asks what would be under it."""

import json

import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr
from library_equations import DATA, model
from sifting import Sifting

import bayes_dasl as bd
from bayes_dasl.errors import MismatchError
from bayes_dasl.prediction import check_same_posterior, identity

TIMES = np.arange(5.0)
OTHER = (
    "belongs to another model with the same random leaves: an equation, a prior, the noise, a "
    "known number or"
)


class Decay(bd.Module):
    rate: bd.Scalar

    def __call__(self, t, y, u):
        return {"y": -self.rate * y["y"] + u["u"]}


def decay(field=Decay, prior=None, noise=None, **options):
    layer = bd.ODE(field(prior or bd.between(0.1, 1.0)), {"y": 2.0}, forcings=("u",), **options)
    return bd.Model(layer, noise or bd.NormalNoise(0.2))


def of_the_same_name():
    """An equation that was edited."""

    class Decay(bd.Module):
        rate: bd.Scalar

        def __call__(self, t, y, u):
            return {"y": -self.rate * y["y"] ** 2 + u["u"]}

    return Decay


FORCED = DATA.assign(u=("time", [0.1, 0.2, 0.0]))
OTHERS = {
    "equation": lambda: decay(of_the_same_name()),
    "prior": lambda: decay(prior=bd.between(0.1, 1.1)),
    "noise": lambda: decay(noise=bd.StudentTNoise(5.0, 0.2)),
    "scale of the noise": lambda: decay(noise=bd.NormalNoise(0.3)),
    "tolerance": lambda: decay(rtol=1e-9),
    "solver": lambda: decay(solver="rodas5p"),
    "interpolation": lambda: decay(interpolation={"u": "step"}),
    "constraint": lambda: bd.Model(
        decay().layer, decay().noise, {"small": lambda values, inputs: values["y"]}
    ),
}


@pytest.fixture(scope="module")
def fitted():
    return bd.fit(decay(), FORCED, Sifting(draws=20))


@pytest.fixture(scope="module")
def closed():
    """Of a closed form, `2 * level + 0.01 * t`."""
    return bd.fit(model("cond"), DATA, Sifting(draws=20))


@pytest.mark.thorough
@pytest.mark.parametrize("name", OTHERS)
def test_another_model_with_the_same_leaves_is_refused(name, fitted):
    later = xr.Dataset({"u": ("time", np.zeros(5))}, {"time": TIMES})
    with pytest.raises(MismatchError, match=OTHER):
        bd.forecast(OTHERS[name](), fitted, later)


@pytest.mark.thorough
def test_the_model_of_the_fit_is_taken_at_other_times_and_forcings(fitted, tmp_path):
    later = xr.Dataset({"u": ("time", np.ones(5))}, {"time": TIMES})
    loaded = bd.load(bd.save(fitted, tmp_path / "posterior.nc"))
    for post in (fitted, loaded):
        fc = bd.forecast(decay(), post, later)
        assert (fc.attrs["model"], fc.attrs["what_if"]) == ("that of the fit", 0)


@pytest.mark.thorough
def test_what_if_another_number_were_known(closed):
    with pytest.raises(MismatchError, match="what_if=True"):
        bd.forecast(model("cond", 3.0), closed, TIMES)
    fc = bd.forecast(model("cond", 3.0), closed, TIMES, what_if=True)
    level = closed["posterior"]["level"].values
    np.testing.assert_allclose(fc["conditional_mean"]["y"], 3.0 * level[..., None] + 0.01 * TIMES)
    assert (fc.attrs["model"], fc.attrs["what_if"]) == ("another than that of the fit", 1)
    own = bd.forecast(model("cond"), closed, TIMES, what_if=True)
    assert (own.attrs["model"], own.attrs["what_if"]) == ("that of the fit", 0)


@pytest.mark.thorough
def test_a_what_if_is_called_so(closed):
    fc = bd.forecast(model("cond", 3.0), closed, TIMES, what_if=True)
    (found,) = [f for f in bd.diagnose(closed, fc).findings if f.subject == "what if"]
    assert (found.level, found.aspect) == ("warning", "model")
    assert (
        found.message
        == "the forecast is of another model than the fitted one, by draws of the latter"
    )
    said = "what if: the forecast is of another model than the fitted one"
    assert said in bd.report(closed, fc).html
    own = bd.forecast(model("cond"), closed, TIMES)
    assert said not in bd.report(closed, own).html
    assert "what if" not in [f.subject for f in bd.diagnose(closed, own).findings]


@pytest.mark.thorough
def test_what_if_needs_the_same_random_leaves(closed):
    class Other(bd.Module):
        height: bd.Scalar

        def __call__(self, t, y, u):
            return {"y": self.height + 0.0 * t}

    other = bd.Model(bd.Algebraic(Other(dist.LogNormal())), bd.NormalNoise(0.2))
    with pytest.raises(MismatchError, match="only the posterior has"):
        bd.forecast(other, closed, TIMES, what_if=True)


@pytest.mark.thorough
def test_a_model_that_cannot_have_been_fitted_is_another(fitted):
    class Decay(bd.Module):
        rate: bd.Scalar

        def __call__(self, t, y, u):
            return {"y": -self.rate * y["absent"]}

    with pytest.raises(
        MismatchError, match=r"cannot be evaluated on the data of the fit \(KeyError: .absent"
    ):
        bd.forecast(decay(Decay), fitted, FORCED)


@pytest.mark.thorough
@pytest.mark.parametrize("attribute", ["version_jax", "platform"])
def test_after_a_fit_elsewhere_only_a_difference_is_uncertain(closed, attribute):
    elsewhere = closed.copy()
    elsewhere.attrs[attribute] = "another"
    assert bd.forecast(model("cond"), elsewhere, TIMES).attrs["model"] == "that of the fit"
    with pytest.warns(
        UserWarning, match="fitted by other versions of the libraries or on another system"
    ):
        fc = bd.forecast(model("cond", 3.0), elsewhere, TIMES)
    assert (fc.attrs["model"], fc.attrs["what_if"]) == (
        "that of the fit as far as its random leaves tell",
        0,
    )


@pytest.mark.thorough
def test_a_forecast_from_another_posterior_is_refused(closed):
    moved = bd.fit(model("cond"), DATA.assign(y=DATA["y"] + 0.1), Sifting(draws=20))
    fc = bd.forecast(model("cond"), moved, TIMES)
    for judge in (bd.diagnose, bd.report):
        with pytest.raises(
            MismatchError, match="made from a posterior of another model or other data"
        ):
            judge(closed, fc)


@pytest.mark.thorough
def test_updates_and_checks_know_no_what_if(closed, fitted):
    new = xr.Dataset({"y": ("time", [2.0])}, {"time": [3.0]})
    with pytest.raises(MismatchError, match=OTHER):
        bd.update(model("cond", 3.0), closed, new)
    with pytest.raises(MismatchError, match=OTHER):
        bd.updating.check_solver(decay(rtol=1e-9), fitted)
    assert check_same_posterior(model("cond"), closed)
    assert json.loads(closed.attrs["signature"])["observables"] == ["y"]


def test_an_edited_source_is_another_version(tmp_path, monkeypatch):
    monkeypatch.setattr(identity, "_SOURCE", tmp_path)
    (tmp_path / "inference").mkdir()
    told = []
    for text in ("target = 0.8", "target = 0.9", "target = 0.8"):
        (tmp_path / "inference" / "nuts.py").write_text(text)
        identity.source_hash.cache_clear()
        told.append(identity.versions()["bayes_dasl"])
    identity.source_hash.cache_clear()
    assert told[0] == told[2] != told[1]
    assert told[0].startswith(f"{bd.__version__}+")


def test_a_checkpoint_of_an_edited_source_is_refused(tmp_path, monkeypatch):
    engine = Sifting(draws=20)
    bd.fit(model("cond"), DATA, engine, checkpoint=tmp_path, key=0)
    monkeypatch.setattr(identity, "source_hash", lambda folder: "0" * 8)
    with pytest.raises(
        MismatchError, match=r"versions 'bayes_dasl .*instead of 'bayes_dasl .*\+00000000"
    ):
        bd.fit(model("cond"), DATA, engine, checkpoint=tmp_path, key=0)
