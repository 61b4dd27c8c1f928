"""Engines that descend: point estimates, ensembles, dropout, SWAG and Laplace."""

import dataclasses

import jax
import jax.numpy as jnp
import networks_in_solvers as small
import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr
from uncertainty.problems import lotka_volterra

import bayes_dasl as bd
from bayes_dasl.inference import _descent, _members, _terms
from bayes_dasl.inference._adversarial import Adversary
from bayes_dasl.inference._problem import pose, traced_once

PATH = "layer.vector_field.closure.module.layers"


def by_path(post):
    return {v.attrs["path"]: v.values for v in post["posterior"].data_vars.values()}


class Line(bd.Module):
    level: bd.Scalar
    slope: bd.Scalar

    def __call__(self, t, y, u):
        return {"y": self.level + self.slope * t}


@pytest.fixture(scope="module")
def line():
    """A model whose posterior is normal, data, and its mean and covariance."""
    times, noise = np.linspace(-1.0, 1.0, 12), 0.3
    y = 0.4 - 0.7 * times + noise * np.random.default_rng(0).normal(size=12)
    data = xr.Dataset({"y": ("time", y)}, coords={"time": times})
    model = bd.Model(bd.Algebraic(Line(dist.Normal(0, 1), dist.Normal(0, 2))), bd.NormalNoise(noise))
    features = np.stack([np.ones(12), times], 1)
    precision = features.T @ features / noise**2 + np.diag([1.0, 0.25])
    return model, data, np.linalg.solve(precision, features.T @ y / noise**2), np.linalg.inv(precision)


def lines(post):
    return np.stack([post["posterior"][name].values.ravel() for name in ("level", "slope")], 1)


def test_terms_add_up_to_the_log_density():
    problem = pose(small.model(), small.data())
    value, _ = traced_once(problem)
    whole = {name: jnp.ones(v.shape) for name, v in problem.observed.items()}
    for x in problem.prior(4, key=jax.random.key(0)):
        found = _terms.terms(problem, x, problem.inputs, problem.observed, whole)
        assert float(sum(found)) == pytest.approx(float(value(x)[0]), rel=1e-9)
    some = jnp.arange(0, 15, 3)
    given, observed = _terms.rows(problem, some)
    weights = {"y": jnp.where(jnp.isin(jnp.arange(15), some), 1.0, 0.0)}
    part = _terms.terms(problem, x, given, observed, {"y": jnp.ones(some.size)})
    of_all = _terms.terms(problem, x, problem.inputs, problem.observed, weights)
    np.testing.assert_allclose(np.array(part), np.array(of_all), rtol=1e-5)


def test_joint_learning_ends_at_the_mode(line):
    model, data, mean, _ = line
    post = bd.fit(model, data, bd.Joint(steps=2000, starts=2), key=0)
    np.testing.assert_allclose(lines(post)[0], mean, atol=2e-3)
    assert post["posterior"].sizes["draw"] == 1
    training = post["training"].to_dataset()
    total = training["data"] + training["science"] + training["network"]
    np.testing.assert_allclose(total, -training["loss"], rtol=1e-9)
    assert float(training["loss"][0, -1]) < float(training["loss"][0, 0])


def test_the_weights_of_the_terms_count(line):
    model, data, _, _ = line
    strong = bd.fit(model, data, bd.Joint(steps=1500, starts=1, science_weight=1e4), key=0)
    np.testing.assert_allclose(lines(strong)[0], 0.0, atol=0.02)
    problem = pose(small.model(), small.data())
    loss, _ = _members.weighted_loss(problem, science=2.0, network=3.0)
    own = {"weights": {"y": jnp.full(15, 0.5)}, "held_out": {"y": jnp.zeros(15)}}
    x = problem.prior(1, key=jax.random.key(1))[0]
    value, found = loss(x, own, jax.random.key(0))
    assert float(value) == pytest.approx(-float(found.data + 2 * found.science + 3 * found.network))


def test_data_held_out_stop_a_descent():
    post = bd.fit(small.model(), small.data(), bd.Joint(steps=5000, starts=2, held_out=0.3, patience=3), key=0)
    assert post.attrs["descent_stopped"] == 1
    assert post.attrs["descent_steps"] < 5000
    assert "point estimate" in str(bd.diagnose(post))


def test_batches_of_rows_lead_to_the_same_place(line):
    model, data, mean, covariance = line
    post = bd.fit(model, data, bd.Joint(steps=3000, starts=1, minibatch=4, patience=60), key=0)
    assert (np.abs(lines(post)[0] - mean) < np.sqrt(np.diag(covariance))).all()


def test_groups_have_rates_of_their_own():
    slow = bd.fit(small.model(), small.data(), bd.Joint(200, 1, science_rate=1e-9, adaptive=False), key=0)
    start = bd.fit(small.model(), small.data(), bd.Joint(50, 1, science_rate=1e-9, network_rate=1e-9, adaptive=False))
    rate, weight = f"{'layer.vector_field.science'}.rate", f"{PATH}.0.weight"
    np.testing.assert_allclose(by_path(slow)[rate], by_path(start)[rate], rtol=1e-4)
    assert np.abs(by_path(slow)[weight] - by_path(start)[weight]).max() > 0.01


def test_anchored_and_bootstrapped_members_are_draws_of_a_normal_posterior():
    """Where residuals are as large as the noise is said to be; a third of what is known of the slope is its prior."""
    times, noise = np.linspace(-1.0, 1.0, 40), 3.0
    residuals = np.random.default_rng(0).normal(size=40)
    residuals *= noise / residuals.std()
    data = xr.Dataset({"y": ("time", 0.4 - 0.7 * times + residuals)}, {"time": times})
    model = bd.Model(bd.Algebraic(Line(dist.Normal(0, 1), dist.Normal(0, 1))), bd.NormalNoise(noise))
    features = np.stack([np.ones(40), times], 1)
    covariance = np.linalg.inv(features.T @ features / noise**2 + np.eye(2))
    mean = covariance @ features.T @ data["y"].values / noise**2
    found = lines(bd.fit(model, data, bd.DeepEnsemble(members=100, steps=1500), key=1))
    np.testing.assert_allclose(found.mean(0), mean, atol=4 * np.sqrt(np.diag(covariance) / 100).max())
    np.testing.assert_allclose(found.std(0), np.sqrt(np.diag(covariance)), rtol=0.25)


def test_anchored_members_spread_as_far_as_the_prior_and_no_further(line):
    """Randomised MAP: the spread of the members is that of the anchors, as far as the data leave it."""
    model, data, mean, covariance = line
    post = bd.fit(model, data, bd.DeepEnsemble(members=60, steps=1500, bootstrap=False), key=0)
    found = lines(post)
    np.testing.assert_allclose(found.mean(0), mean, atol=4 * np.sqrt(np.diag(covariance) / 60).max())
    # Of an anchored member the variance is Σ Λ₀ Σ; the noise of the data would add the rest of Σ.
    expected = np.sqrt(np.diag(covariance @ np.diag([1.0, 0.25]) @ covariance))
    np.testing.assert_allclose(found.std(0), expected, rtol=0.35)
    plain = bd.fit(model, data, bd.DeepEnsemble(5, 1500, anchored=False, bootstrap=False), key=0)
    assert lines(plain).std(0).max() < 0.05 * expected.min()


def test_bootstrapped_members_see_other_data(line):
    model, data, *_ = line
    post = bd.fit(model, data, bd.DeepEnsemble(members=60, steps=1000, anchored=False, bootstrap=True), key=0)
    # What a bootstrap of the regression itself gives.
    times, y = data["time"].values, data["y"].values
    features, ends = np.stack([np.ones(12), times], 1), []
    for counts in np.random.default_rng(1).multinomial(12, np.full(12, 1 / 12), size=2000):
        precision = (features.T * counts) @ features / 0.09 + np.diag([1.0, 0.25])
        ends.append(np.linalg.solve(precision, (features.T * counts) @ y / 0.09))
    np.testing.assert_allclose(lines(post).std(0), np.std(ends, axis=0), rtol=0.35)


def test_adversarial_members_see_inputs_moved_to_where_data_are_less_likely(line):
    model, data, _, _ = line
    problem = pose(model, data)
    whole = {"y": jnp.ones(12)}
    x = jnp.asarray([0.4, -0.7])

    def said(given):
        return _terms.terms(problem, x, given, problem.observed, whole).data

    moved = Adversary(problem, 0.01).moved(problem.inputs, said)
    np.testing.assert_allclose(np.abs(moved.times - problem.inputs.times), 0.02, rtol=1e-9)
    # To first order the data lose |slope| by so much at each row; the second order is small here.
    slopes = jax.grad(lambda t: said(dataclasses.replace(problem.inputs, times=t)))(problem.inputs.times)
    assert float(said(problem.inputs) - said(moved)) == pytest.approx(0.02 * float(jnp.abs(slopes).sum()), rel=0.1)


def test_adversarial_training_makes_a_line_flatter(line):
    """Inputs in error by d in the worst direction are as residuals larger by d |slope|: the slope shrinks."""
    model, data, mean, _ = line
    plain, moved = (
        lines(
            bd.fit(
                model,
                data,
                bd.DeepEnsemble(3, 1500, anchored=False, bootstrap=False, adversarial=a),
                key=0,
                progress=False,
            )
        )
        for a in (0.0, 0.05)
    )
    np.testing.assert_allclose(plain[:, 1], mean[1], rtol=0.02)
    assert np.all(np.abs(moved[:, 1]) < 0.98 * np.abs(plain[:, 1]))


def test_a_solver_without_forcings_has_no_inputs_to_move():
    with pytest.raises(bd.BayesDaslError, match="inputs that can be moved"):
        bd.fit(small.model(), small.data(), bd.DeepEnsemble(2, 50, adversarial=0.01), progress=False)


def test_members_that_end_elsewhere_are_dropped_and_counted():
    problem = pose(small.model(), small.data())
    best = bd.fit(small.model(), small.data(), bd.Joint(steps=500, starts=1), key=0)
    values = {path: jnp.asarray(v[0, 0]) for path, v in by_path(best).items()}
    good = np.asarray(problem.unconstrain(values))
    elsewhere, lost = good.copy(), np.full_like(good, np.nan)
    elsewhere[problem.labels().index("layer.initial.y")] = 4.0
    kept, failed, stuck = _members.usable(problem, np.stack([good, good, elsewhere, lost]))
    assert list(kept) == [True, True, False, False]
    assert (failed, stuck) == (1, 1)


def test_dropout_leaves_units_out():
    rate, draws = 0.3, 400
    post = bd.fit(small.model(), small.data(), bd.MCDropout(rate, draws, steps=300, starts=1), key=0)
    first, second = (by_path(post)[f"{PATH}.{i}.weight"][0] for i in (0, 1))
    assert np.ptp(first, axis=0).max() == 0  # inputs are never left out
    out = second[:, 0] == 0
    assert abs(out.mean() - rate) < 4 * np.sqrt(rate * (1 - rate) / (3 * draws))
    for unit in range(3):
        assert np.unique(second[~out[:, unit], 0, unit].round(12)).size == 1
    assert bd.diagnose(post).level != "bad"
    with pytest.raises(bd.BayesDaslError, match="hidden"):
        shallow = small.network(depth=0)
        bd.fit(small.model(shallow), small.data(), bd.MCDropout(draws=10, steps=50))


def test_laplace_is_exact_for_a_normal_posterior(line):
    model, data, mean, covariance = line
    found = lines(bd.fit(model, data, bd.Laplace(draws=4000, steps=2000, starts=1), key=0))
    np.testing.assert_allclose(found.mean(0), mean, atol=0.01)
    np.testing.assert_allclose(np.cov(found.T), covariance, atol=0.06 * covariance.max())


def test_laplace_of_the_last_layer_keeps_the_others():
    post = bd.fit(small.model(), small.data(), bd.Laplace("last", draws=50, steps=500, starts=1), key=0)
    values = by_path(post)
    assert np.ptp(values[f"{PATH}.0.weight"], axis=1).max() == 0
    assert np.ptp(values[f"{PATH}.1.weight"], axis=1).min() > 0
    assert np.ptp(values["noise.scale"]) > 0
    bent = small.model(small.network(final_activation=jnp.tanh))
    with pytest.raises(bd.BayesDaslError, match="last layer"):
        bd.fit(bent, small.data(), bd.Laplace("last", draws=10, steps=50, starts=1))


def test_swag_wanders_around_the_mode(line):
    model, data, mean, covariance = line
    post = bd.fit(model, data, bd.SWAG(members=2, draws=300, steps=1000, collected=20), key=0)
    found = lines(post)
    sd = np.sqrt(np.diag(covariance))
    assert (np.abs(found.mean(0) - mean) < sd).all()
    assert ((found.std(0) > 0.02 * sd) & (found.std(0) < 2 * sd)).all()
    assert post.attrs["members"] == 2


def test_the_same_key_gives_the_same_members_and_a_checkpoint_goes_on(tmp_path, line):
    model, data, *_ = line
    engine = bd.DeepEnsemble(members=3, steps=200)
    whole = bd.fit(model, data, engine, checkpoint=tmp_path / "run", key=3)
    for path in sorted((tmp_path / "run").glob("*.step"))[-2:]:
        path.unlink()
    again = bd.fit(model, data, engine, checkpoint=tmp_path / "run", key=3)
    np.testing.assert_array_equal(lines(whole), lines(again))
    other = bd.fit(model, data, engine, key=4)
    assert not np.array_equal(lines(whole), lines(other))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: bd.Joint(steps=10), "steps must be a whole number, at least 50"),
        (lambda: bd.Joint(minibatch=0), "minibatch must be a whole number, at least 1"),
        (lambda: bd.Joint(science_rate=2.0), "science_rate must lie between 0 and 1"),
        (lambda: bd.Joint(held_out=1.0), "held_out must lie at least 0 and below 1"),
        (lambda: bd.Joint(network_weight=-1.0), "network_weight must lie"),
        (lambda: bd.DeepEnsemble(members=1), "members must be a whole number, at least 2"),
        (lambda: bd.DeepEnsemble(network_rate=-0.1), "network_rate must lie between 0 and 1"),
        (lambda: bd.MCDropout(rate=0.0), "rate must lie between 0 and 1"),
        (lambda: bd.MCDropout(draws=True), "draws must be a whole number"),
        (lambda: bd.SWAG(collected=2), "collected must be a whole number, at least 3"),
        (lambda: bd.Laplace("first"), "subset must be one of all, last"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(make, message):
    with pytest.raises(bd.BayesDaslError, match=message):
        make()


def test_uncertainty_of_members_reaches_the_forecast(line):
    model, data, *_ = line
    post = bd.fit(model, data, bd.DeepEnsemble(members=12, steps=800), key=0)
    fc = bd.forecast(model, post, xr.Dataset(coords={"time": [0.0, 5.0]}))
    parts = bd.decompose(fc, ["y"])
    epistemic = parts["epistemic"].values[0]
    assert epistemic[1] > 4 * epistemic[0]
    np.testing.assert_allclose(parts["aleatoric"].values[0], 0.09, rtol=1e-6)
    # Copies of one member have no epistemic uncertainty.
    copies = post.isel(draw=[0] * 12)
    alike = bd.decompose(bd.forecast(model, copies, xr.Dataset(coords={"time": [5.0]})))
    assert float(alike["epistemic"].max()) < 1e-12


def test_a_network_inside_a_solver_is_descended_in_coordinates_of_its_last_layer(monkeypatch):
    problem = lotka_volterra(0)
    model, data, engine = problem.model, problem.data, bd.Joint(steps=200, starts=2)
    found = bd.fit(model, data, engine, key=0, progress=False)
    monkeypatch.setattr(_descent, "references_of", lambda problem: None)
    plain = bd.fit(model, data, engine, key=0, progress=False)
    lowest = [float(np.nanmin(post["training"]["loss"])) for post in (found, plain)]
    assert lowest[0] < lowest[1] - 5.0
    # What is called the loss is that of the weights: minus the log density of the draw, but for its last few steps.
    assert -float(found["sample_stats"]["lp"].squeeze()) == pytest.approx(lowest[0], abs=1.0)
