"""The verdict on a closure that does what a parameter could do, and on posteriors that lean on a
bound.
"""

import json

import jax
import jax.numpy as jnp
import networks_in_solvers as small
import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr
from by_hand import posterior

import bayes_dasl as bd
from bayes_dasl._findings import SPREAD
from bayes_dasl.prediction.confounding import _confounding_table, confounding
from bayes_dasl.priors import draw_prior
from bayes_dasl.random import paths
from bayes_dasl.verdict import posterior_findings

TIMES = np.linspace(0.0, 3.0, 25)


class Decay(bd.Module):
    rate: bd.Scalar

    def __call__(self, t, y, u):
        return {"y": -self.rate * y["y"]}


class Offset(bd.Module):
    """A correction of the rate per unit of y: what a change of the rate would do too."""

    value: bd.Scalar

    def __call__(self, t, y, u):
        return {"y": self.value}


def data(seed=0):
    noise = np.random.default_rng(seed).normal(0, 0.02, TIMES.size)
    return xr.Dataset({"y": ("time", 2 * np.exp(-0.7 * TIMES) + noise)}, {"time": TIMES})


def fitted(field):
    model = bd.Model(small.Stepped(field, {"y": 2.0}), bd.NormalNoise(0.02))
    return bd.fit(model, data(), bd.NUTS(chains=2, draws=300), progress=False)


@pytest.fixture(scope="module")
def alone():
    """Without a correction, under a prior whose upper bound the posterior leans on."""
    return fitted(Decay(dist.Uniform(0.1, 0.695)))


@pytest.fixture(scope="module")
def plain():
    return fitted(
        bd.Residual(Decay(bd.between(0.2, 2.0)), Offset(dist.Normal(0.0, 0.5)), relative=True)
    )


@pytest.mark.thorough
def test_a_correction_that_could_be_the_parameter_is_named(plain):
    found = plain["confounding"].to_dataset().sel(parameter="rate")
    # The offset o adds o·y to the rate of y, which is what taking o from the decay rate does.
    assert float(found["correlation"]) < -0.95
    assert plain["confounding"].attrs["explained"] == pytest.approx(1.0, abs=1e-6)
    said = str(bd.diagnose(plain))
    assert "[warning] confounding: the correction moves most with rate" in said


@pytest.mark.thorough
def test_where_no_draw_could_be_looked_at_nothing_is_said(plain):
    silent = plain.copy(deep=True)
    silent["confounding"].attrs["draws"] = 0
    assert "confounding" not in str(bd.diagnose(silent))


def test_parameters_of_one_value_are_not_said_to_correlate():
    """Equal numbers may differ from their mean by what rounding leaves."""
    model = bd.Model(
        bd.ODE(Decay(bd.between(0.2, 2.0)), {"y": dist.Normal(2.0, 0.1)}), bd.NormalNoise(0.02)
    )
    leaves = {path: leaf for path, leaf in paths(model).items() if leaf.group == "science"}
    shift = np.random.default_rng(0).normal(size=(128, 2))
    for values in np.random.default_rng(1).lognormal(size=(20, 2)):
        found = _confounding_table(model, leaves, np.tile(values, (128, 1)), shift, np.ones(128))
        assert found["parameter"].size == 2
        assert not found["correlation"].any() and not found["shift_sd"].any()


@pytest.mark.parametrize(("width", "level"), [(0.02, "good"), (0.9, "warning")])
def test_a_parameter_that_is_settled_all_the_same_is_no_fault(width, level):
    """Only a posterior nearly as wide as the prior says that the correction has taken the
    parameter's place.
    """
    rng = np.random.default_rng(0)
    groups = {
        "posterior": xr.Dataset({"rate": (("chain", "draw"), np.exp(width * rng.normal(size=(4, 250))))}),
        "prior": xr.Dataset({"rate": (("chain", "draw"), np.exp(rng.normal(size=(1, 500))))}),
        "confounding": xr.Dataset(
            {"correlation": ("parameter", [-0.9]), "shift_sd": ("parameter", [0.9])},
            {"parameter": ["rate"]}, {"explained": 0.8, "draws": 128, "of": "correction"},
        ),
    }  # fmt: skip
    (said,) = posterior_findings._confounding_findings(xr.DataTree.from_dict(groups))
    assert said.level == level and bool(said.remedy) == (level == "warning")
    assert ("the data settle these parameters" in said.message) == (level == "good")


@pytest.mark.slow
def test_an_orthogonal_one_is_not():
    points = xr.Dataset({"y": ("time", 2 * np.exp(-0.7 * TIMES))}, {"time": TIMES})
    science = Decay(bd.between(0.2, 2.0))
    post = fitted(
        bd.Residual(science, Offset(dist.Normal(0.0, 0.5)), relative=True, orthogonal=points)
    )
    assert "[good] confounding" in str(bd.diagnose(post))
    assert float(post["posterior"]["rate"].std()) < 0.02


@pytest.mark.thorough
def test_science_alone_is_not_asked(alone):
    assert "confounding" not in alone.children


@pytest.mark.thorough
def test_a_posterior_that_leans_on_a_bound_is_named(alone):
    """What is said of the same draws depends on where the bound is."""
    bounds = json.loads(alone.attrs["bounds"])
    assert bounds["rate"] == {"lower": 0.1, "upper": 0.695}
    assert "[warning] upper bound of rate" in str(bd.diagnose(alone))
    wide = alone.copy()
    wide.attrs["bounds"] = json.dumps(bounds | {"rate": {"lower": 0.1, "upper": 2.0}})
    assert "bound of rate" not in str(bd.diagnose(wide))


@pytest.mark.slow
def test_shares_are_judged_by_what_they_can_do():
    """Between equal models the weights change nothing, so they cannot stand for the correction."""
    field = bd.Residual(
        bd.Parallel({"a": Decay(0.5), "b": Decay(0.5)}),
        Offset(dist.Normal(0.0, 0.1)),
        relative=True,
    )
    model = bd.Model(bd.ODE(field, {"y": 2.0}), bd.NormalNoise(0.02))
    draws = {
        path: np.asarray(v) for path, v in draw_prior(model, 16, key=jax.random.key(0)).items()
    }
    found = confounding(model, model.inputs(data()), draws)
    assert list(found["parameter"].values) == ["weights[0]"]
    assert found.attrs["explained"] == pytest.approx(0.0, abs=1e-6)


class Swing(Offset):
    """A correction of the output."""

    def __call__(self, t, y, u):
        return {"y": self.value * jnp.sin(20 * t)}


@pytest.mark.slow
def test_the_correction_inside_another_is_judged_too():
    inner = bd.Residual(Decay(bd.between(0.2, 2.0)), Offset(dist.Normal(0.0, 0.5)), relative=True)
    alone = bd.ODE(inner, {"y": 2.0})

    def found(layer):
        model = bd.Model(layer, bd.NormalNoise(0.02))
        # As a fit would leave it: the rate less the correction is known.
        rate = np.linspace(0.5, 1.0, 16)
        values = {"rate": rate, "value": rate - 0.7}
        draws = {
            path: values[path.rsplit(".", 1)[1]] if "vector_field" in path else np.full(16, 0.01)
            for path in paths(model)
        }
        return confounding(model, model.inputs(data()), draws)

    joined = found(bd.Residual(alone, Swing(dist.Normal(0.0, 0.1))))
    assert list(joined["parameter"].values) == ["rate"]
    np.testing.assert_allclose(joined["correlation"], found(alone)["correlation"], atol=0.02)
    np.testing.assert_allclose(joined["shift_sd"], found(alone)["shift_sd"], rtol=0.1)


class Curve(bd.Module):
    rate: bd.Scalar

    def __call__(self, t, y, u):
        return {"y": 2 * jnp.exp(-self.rate * t)}


class Tangent(Offset):
    """What a change of the rate does, to first order."""

    def __call__(self, t, y, u):
        return {"y": self.value * t * jnp.exp(-0.7 * t)}


def test_a_formula_is_judged_too():
    field = bd.Residual(Curve(bd.between(0.2, 2.0)), Tangent(dist.Normal(0.0, 0.1)))
    model = bd.Model(bd.Algebraic(field), bd.NormalNoise(0.02))
    rate = np.linspace(0.65, 0.75, 16)
    draws = {path: rate if path.endswith("rate") else 2 * (rate - 0.7) for path in paths(model)}
    found = confounding(model, model.inputs(data()), draws)
    assert list(found["parameter"].values) == ["rate"]
    assert found["correlation"].item() < -0.99 and found.attrs["explained"] > 0.95


class Factor(bd.Module):
    """A decay whose size is a number times an unknown function."""

    size: bd.Scalar
    activity: bd.Basis

    def __call__(self, t, y, u):
        return {"y": self.size * self.activity(t, y, u)["activity"] * jnp.exp(-0.7 * t)}


@pytest.mark.parametrize("positive", [True, False])
@pytest.mark.parametrize("along", [1.0, 0.0])
def test_a_function_that_is_a_factor_is_told_from_what_it_makes_up_for(along, positive):
    weights = dist.Normal(0.0, 1.0).expand((5,)).to_event(1)
    activity = bd.Basis(bd.bases.BSpline(0.0, 10.0, 5), "t", "activity", weights, positive=positive)
    model = bd.Model(bd.Algebraic(Factor(bd.between(0.5, 8.0), activity)), bd.NormalNoise(0.02))
    z = np.linspace(-0.5, 0.5, 16)
    other = z * np.where(np.arange(16) % 2, 1.0, -1.0)
    shift = -along * z - (1 - along) * other  # splines sum to one
    shift = shift if positive else np.exp(shift)
    draws = {
        path: np.exp(z) if path.endswith("size") else np.repeat(shift[:, None], 5, axis=1)
        for path in paths(model)
    }
    found = confounding(model, model.inputs(data()), draws)
    assert [*found["parameter"].values] == ["size"] and found.attrs["of"] == "unknown function"
    assert found["correlation"].item() < -0.9 if along else abs(found["correlation"].item()) < 0.6
    assert found.attrs["explained"] > 0.99
    post = posterior(model, data(), {path: values[None] for path, values in draws.items()})
    post["confounding"] = xr.DataTree(found)
    (said,) = [f for f in bd.diagnose(post).findings if f.subject == "confounding"]
    assert said.level == ("warning" if along else "good") and said.message.startswith(
        "the unknown function moves most"
    )


def test_process_noise_and_known_functions_are_no_unknown_functions():
    noise = bd.layers.ProcessNoise({"y": dist.HalfNormal(0.1)}, (0.0, 3.0, 4))
    layer = bd.ODE(Decay(bd.between(0.2, 2.0)), {"y": 2.0}, process_noise=noise)
    known = bd.Basis(bd.bases.BSpline(0.0, 10.0, 5), "t", "activity", jnp.ones(5))
    for of in (layer, bd.Algebraic(Factor(bd.between(0.5, 8.0), known))):
        model = bd.Model(of, bd.NormalNoise(0.02))
        draws = {
            path: np.asarray(v) for path, v in draw_prior(model, 8, key=jax.random.key(0)).items()
        }
        assert confounding(model, model.inputs(data()), draws) is None


@pytest.mark.parametrize(
    ("place", "subject", "group"),
    [
        ("fit_and_resume.confounding", "confounding", "confounding"),
        pytest.param(
            "groups.rates_along_paths", "vector field", "vector_field", marks=pytest.mark.thorough
        ),
    ],
)
def test_a_look_that_raises_after_the_sampling_costs_no_draws(monkeypatch, place, subject, group):
    def raises(*_):
        raise ZeroDivisionError("somewhere in an equation")

    monkeypatch.setattr(f"bayes_dasl.fitting.{place}", raises)
    engine = bd.NUTS(chains=2, warmup=25, draws=20, map_starts=2, reparametrisation="none")
    of_time = bd.Model(bd.Algebraic(Curve(bd.between(0.2, 2.0))), bd.NormalNoise(0.02))
    model = small.stepped() if group == "vector_field" else of_time
    with pytest.warns(UserWarning, match=f"{subject} could not be looked at"):
        post = bd.fit(model, small.data(), engine, progress=False)
    assert post["posterior"].sizes["draw"] == 20
    assert group not in post.children
    diagnosis = bd.diagnose(post)
    (finding,) = [f for f in diagnosis.findings if "could not be looked at" in f.message]
    assert (finding.level, finding.subject, finding.aspect) == ("warning", subject, "sampling")
    assert finding.message.endswith("ZeroDivisionError: somewhere in an equation")
    assert diagnosis.model is None
    post.attrs["markov"] = 0  # of draws of which the engine says nothing that stays said beside it
    assert [f.subject for f in bd.diagnose(post).findings if f.level == "warning"][:2] == [
        SPREAD,
        subject,
    ]
