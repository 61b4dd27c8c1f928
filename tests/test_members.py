"""Engines that descend: point estimates, ensembles, dropout, SWAG and Laplace."""

import dataclasses

import jax
import jax.numpy as jnp
import networks_in_solvers as small
import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr
from scipy import stats

import bayes_dasl as bd
from bayes_dasl.engines import dropout, laplace, swag
from bayes_dasl.inference import Journal, ProgressBar, pose
from bayes_dasl.inference.descent import members as _members
from bayes_dasl.inference.descent.adam import Descended
from bayes_dasl.inference.descent.members import Adversary
from bayes_dasl.inference.linearisation import gauss_newton
from bayes_dasl.inference.reparametrisations.reference import references_of
from bayes_dasl.priors import draw_prior
from bayes_dasl.random import realise
from tests.studies.uncertainty.problems import lotka_volterra

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
    model = bd.Model(
        bd.Algebraic(Line(dist.Normal(0, 1), dist.Normal(0, 2))), bd.NormalNoise(noise)
    )
    features = np.stack([np.ones(12), times], 1)
    precision = features.T @ features / noise**2 + np.diag([1.0, 0.25])
    return (
        model,
        data,
        np.linalg.solve(precision, features.T @ y / noise**2),
        np.linalg.inv(precision),
    )


def lines(post):
    return np.stack([post["posterior"][name].values.ravel() for name in ("level", "slope")], 1)


def run(engine, problem, key=0):
    """What an engine says by itself, with the random numbers that it has in `bd.fit`, and without
    what that adds.
    """
    key = jax.random.split(jax.random.key(key))[0]
    return engine.run(problem, key=key, journal=Journal(), bar=ProgressBar(False))


def ends(engine, problem, key=0):
    """Where it ends, `(draw, dimension)`; of a line level and slope themselves, whose priors are
    normal.
    """
    return run(engine, problem, key).positions[0]


@pytest.mark.thorough
def test_terms_add_up_to_the_log_density():
    problem = pose(small.stepped(), small.data())
    held_out = np.arange(15) % 3 > 0
    seen, unseen = problem.split(held_out)
    assert (seen.data, unseen.data, problem.data) == (5, 10, 15)

    @jax.jit
    @jax.vmap
    def said(x, other):
        priors = problem.log_priors(x)
        return {
            "value": problem.log_density(x),
            "prior": problem.log_prior(x),
            "priors": priors,
            "terms": problem.terms(x),
            "of some": problem.terms(x, problem.weights((~held_out).astype(float))).data,
            "seen": seen.terms(x).data,
            "unseen": unseen.terms(x).data,
            "mixed": problem.terms(other, priors=priors, data_at=x),
        }

    x = problem.prior(5, key=jax.random.key(0))
    found = said(x, x[::-1])
    np.testing.assert_allclose(sum(found["terms"]), found["value"], rtol=1e-9)
    np.testing.assert_allclose(sum(found["priors"].values()), found["prior"], rtol=1e-9)
    np.testing.assert_allclose(found["terms"].network, found["priors"]["network"], rtol=1e-9)
    np.testing.assert_allclose(found["seen"], found["of some"], rtol=1e-9)
    np.testing.assert_allclose(found["seen"] + found["unseen"], found["terms"].data, rtol=1e-9)
    np.testing.assert_allclose(np.array(found["mixed"]), np.array(found["terms"]), rtol=1e-9)


@pytest.mark.thorough
def test_terms_at_some_rows_are_those_of_data_that_count_there(line):
    problem, x = pose(*line[:2]), jnp.asarray([0.2, 0.3])
    some = jnp.arange(0, 12, 3)
    weights = problem.weights(np.isin(np.arange(12), some).astype(float))
    part, of_all = jax.jit(lambda x: (problem.rows(some).terms(x), problem.terms(x, weights)))(x)
    np.testing.assert_allclose(np.array(part), np.array(of_all), rtol=1e-9)


def test_the_prior_of_a_group_is_that_of_its_leaves(line):
    """With the volume of the way to the unconstrained space, which for a positive number is an
    exponential.
    """
    model = bd.Model(
        bd.Algebraic(Line(dist.Normal(0, 1), dist.HalfNormal(2.0))), bd.NormalNoise(0.3)
    )
    level, logarithm = 0.7, -0.4
    priors = pose(model, line[1]).log_priors(jnp.asarray([level, logarithm]))
    by_hand = (
        stats.norm.logpdf(level) + stats.halfnorm(scale=2.0).logpdf(np.exp(logarithm)) + logarithm
    )
    assert float(priors["science"]) == pytest.approx(by_hand, rel=1e-12)
    assert float(priors["network"]) == float(priors["latent"]) == 0.0


@pytest.mark.thorough
def test_coordinates_keep_their_order_when_a_problem_is_mapped():
    problem = pose(small.model(), small.data())
    assert list(problem.sites) != sorted(problem.sites)
    mapped = jax.tree.map(lambda leaf: leaf, problem.reversible())
    assert mapped.labels() == problem.labels()
    draws = mapped.prior(5, key=jax.random.key(1))
    np.testing.assert_array_equal(draws, problem.prior(5, key=jax.random.key(1)))
    back = jax.jit(jax.vmap(lambda x: mapped.unconstrain(mapped.constrain(x))))(draws)
    np.testing.assert_allclose(back, draws, atol=1e-9)


@pytest.mark.thorough
def test_joint_learning_ends_at_the_mode(line):
    model, data, mean, _ = line
    found = run(bd.Joint(starts=2, descent=bd.Descent(steps=2000)), pose(model, data))
    np.testing.assert_allclose(found.positions[0], [mean], atol=2e-3)
    short = bd.fit(model, data, bd.Joint(starts=1, descent=bd.Descent(steps=50)), key=0)
    assert "[warning] descent: the loss still fell after 50 steps" in str(bd.diagnose(short))
    assert short["posterior"].sizes["draw"] == 1
    training = short["training"].to_dataset()
    total = training["data"] + training["science"] + training["network"]
    np.testing.assert_allclose(total, -training["loss"], rtol=1e-9)
    taken = found.curves["loss"][0]
    taken = taken[np.isfinite(taken)]  # a descent that has done takes no more steps
    assert taken[-1] < taken[0]


@pytest.mark.slow
def test_a_descent_does_not_depend_on_units(line):
    """Time in milliseconds makes the prior of the slope narrow and its gradients large; steps stay
    what they were.
    """
    model, data, _, _ = line
    slow = bd.Model(
        bd.Algebraic(Line(dist.Normal(0, 1), dist.Normal(0, 2e-3))), bd.NormalNoise(0.3)
    )
    ms = data.assign_coords(time=data["time"] * 1e3)
    engine = bd.Joint(starts=1, descent=bd.Descent(steps=200, patience=200))
    in_s, in_ms = (run(engine, pose(m, d)) for m, d in ((model, data), (slow, ms)))
    falls = [np.diff(found.curves["loss"][0]) for found in (in_s, in_ms)]
    np.testing.assert_allclose(*falls, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(in_ms.positions[0] * [1.0, 1e3], in_s.positions[0], rtol=1e-6)


@pytest.mark.thorough
def test_last_layers_take_steps_in_units_of_their_own_normal():
    problem = pose(small.stepped(), small.data())
    widths = references_of(problem).widths(problem.prior_widths())
    last = np.asarray(["layers.1" in label for label in problem.labels()])
    assert last.sum() == 4
    np.testing.assert_array_equal(widths[last], 1.0)
    np.testing.assert_array_equal(widths[~last], problem.prior_widths()[~last])


@pytest.mark.slow
def test_widths_of_a_prior_are_finite_and_those_of_a_normal(line):
    """Half of the draws of a vague gamma distribution are zero in floats, and have no logarithm."""
    _, data, _, _ = line
    vague = bd.Model(
        bd.Algebraic(Line(dist.Normal(0, 1), dist.Normal(0, 2))),
        bd.NormalNoise(dist.Gamma(1e-3, 1e-3)),
    )
    problem = pose(vague, data)
    assert list(problem.prior_widths()) == [
        pytest.approx(1, rel=0.1),
        pytest.approx(2, rel=0.1),
        1.0,
    ]
    found = ends(bd.Joint(starts=2, descent=bd.Descent(steps=1500)), problem)[0]
    np.testing.assert_allclose(found[:2], [0.4, -0.7], atol=0.3)
    assert 0.1 < float(problem.constrain(jnp.asarray(found))["noise.scale"]) < 0.6


@pytest.mark.thorough
def test_the_weights_of_the_terms_count(line):
    model, data, _, _ = line
    strong = bd.Joint(starts=1, science_weight=1e4, descent=bd.Descent(steps=1500))
    np.testing.assert_allclose(ends(strong, pose(model, data))[0], 0.0, atol=0.02)
    problem = pose(small.stepped(), small.data())
    loss = _members.weighted_loss(problem, science=2.0, network=3.0).objective
    own = {"weights": {"y": jnp.full(15, 0.5)}}
    x = problem.prior(1, key=jax.random.key(1))[0]
    value, found = jax.jit(loss)(x, own, jax.random.key(0))
    assert float(value) == pytest.approx(-float(found.data + 2 * found.science + 3 * found.network))


@pytest.mark.thorough
def test_a_descent_knows_nothing_of_data_held_out():
    """Neither where it begins, nor its loss, nor its coordinates; only the judge sees them."""
    problem = pose(small.stepped(), small.data())
    training, judged = _members.held_back(problem, 0.3, key=jax.random.key(0))
    assert judged is not None
    seen, unseen = (np.isfinite(np.asarray(p.observed["y"])) for p in (training, judged))
    assert not (seen & unseen).any() and (seen | unseen).all() and unseen.sum() == round(0.3 * 15)
    other = dataclasses.replace(
        problem, observed={"y": problem.observed["y"] + jnp.where(unseen, 5.0, 0.0)}
    )
    again, judged_again = _members.held_back(other, 0.3, key=jax.random.key(0))
    begun, same = (_members.begin(p, 2, key=jax.random.key(1)) for p in (training, again))
    np.testing.assert_array_equal(begun, same)
    own, key = {"weights": {"y": jnp.ones(15)}}, jax.random.key(2)
    one, two = (_members.weighted_loss(*p) for p in ((training, judged), (again, judged_again)))
    said = jax.jit(
        lambda x: [(loss.objective(x, own, key)[0], loss.judge(x, own)) for loss in (one, two)]
    )
    (lowered, judged), (again_lowered, again_judged) = said(jnp.asarray(begun[0]))
    assert float(lowered) == float(again_lowered)
    assert float(judged) < float(again_judged)
    for share in (0.01, 0.99):
        with pytest.raises(
            bd.BayesDaslError, match=f"held_out={share} of 15 times leaves one side without data"
        ):
            _members.held_back(problem, share, key=key)


@pytest.mark.thorough
def test_data_held_out_stop_a_descent(line):
    engine = bd.Joint(starts=2, descent=bd.Descent(steps=5000, held_out=0.3, patience=3))
    post = bd.fit(*line[:2], engine, key=0)
    assert post.attrs["descent_stopped"] == 1
    assert post.attrs["descent_steps"] < 5000
    said = str(bd.diagnose(post))
    assert "[warning] point estimate: one draw says nothing of how uncertain it is" in said
    assert "the loss still fell" not in said
    assert (post.attrs["draws_are"], post.attrs["markov"]) == ("a point estimate", 0)


@pytest.mark.slow
def test_batches_of_rows_lead_to_the_same_place(line):
    model, data, mean, covariance = line
    engine = bd.Joint(starts=1, descent=bd.Descent(steps=3000, minibatch=4, patience=60))
    assert (np.abs(ends(engine, pose(model, data))[0] - mean) < np.sqrt(np.diag(covariance))).all()


def test_a_step_on_some_rows_is_on_average_one_on_all(line):
    model, data, *_ = line
    problem = pose(model, data)
    own, x = {"weights": {"y": jnp.ones(12)}}, jnp.asarray([0.2, 0.3])
    some, every = (
        _members.weighted_loss(problem, minibatch=number).objective for number in (3, None)
    )
    found = jax.vmap(lambda key: some(x, own, key)[0])(jax.random.split(jax.random.key(0), 2000))
    mean, error = float(found.mean()), float(found.std()) / np.sqrt(2000)
    assert abs(mean - float(every(x, own, jax.random.key(0))[0])) < 4 * error < 0.2 * abs(mean)
    lawful = bd.Model(
        model.layer, model.noise, constraints={"flat": lambda values, given: values["y"]}
    )
    with pytest.raises(
        bd.BayesDaslError, match="minibatch=3 would hold the constraints flat against some"
    ):
        bd.fit(lawful, data, bd.Joint(descent=bd.Descent(steps=50, minibatch=3)))


@pytest.mark.slow
def test_laws_hold_for_every_member(line):
    """Anchors stand in for the priors, not for what constraints say."""
    model, data, *_ = line
    law = {"level": lambda values, given: jnp.mean(values["y"]) / 1e-3}
    lawful = bd.Model(model.layer, model.noise, constraints=law)
    problem = pose(lawful, data)
    found = ends(bd.DeepEnsemble(members=5, descent=bd.Descent(steps=2000)), problem)
    assert np.abs(found[:, 0]).max() < 0.02
    drawn = ends(
        bd.engines.Laplace(draws=500, starts=1, descent=bd.Descent(steps=2000, patience=20)),
        problem,
    )
    assert drawn[:, 0].std() == pytest.approx(1e-3, rel=0.15)


@pytest.mark.slow
def test_groups_have_rates_of_their_own():
    problem = pose(small.stepped(), small.data())
    descent = bd.Descent(steps=200, science_rate=1e-9, adaptive=False, reparametrisation="none")
    still = dataclasses.replace(descent, steps=50, network_rate=1e-9)
    slow, start = (
        problem.constrain(jnp.asarray(ends(bd.Joint(starts=1, descent=d), problem)[0]))
        for d in (descent, still)
    )
    rate, weight = "layer.vector_field.science.rate", f"{PATH}.0.weight"
    np.testing.assert_allclose(slow[rate], start[rate], rtol=1e-4)
    assert np.abs(slow[weight] - start[weight]).max() > 0.01


@pytest.mark.thorough
def test_anchored_and_bootstrapped_members_are_draws_of_a_normal_posterior():
    """Where residuals are as large as the noise is said to be; a third of what is known of the
    slope is its prior.
    """
    times, noise = np.linspace(-1.0, 1.0, 40), 3.0
    residuals = np.random.default_rng(0).normal(size=40)
    residuals *= noise / residuals.std()
    data = xr.Dataset({"y": ("time", 0.4 - 0.7 * times + residuals)}, {"time": times})
    model = bd.Model(
        bd.Algebraic(Line(dist.Normal(0, 1), dist.Normal(0, 1))), bd.NormalNoise(noise)
    )
    features = np.stack([np.ones(40), times], 1)
    covariance = np.linalg.inv(features.T @ features / noise**2 + np.eye(2))
    mean = covariance @ features.T @ data["y"].values / noise**2
    found = ends(
        bd.DeepEnsemble(members=100, descent=bd.Descent(steps=1500)), pose(model, data), key=1
    )
    np.testing.assert_allclose(
        found.mean(0), mean, atol=4 * np.sqrt(np.diag(covariance) / 100).max()
    )
    np.testing.assert_allclose(found.std(0), np.sqrt(np.diag(covariance)), rtol=0.25)


def test_anchored_members_spread_as_far_as_the_prior_and_no_further(line):
    """Randomised MAP: the spread of the members is that of the anchors, as far as the data leave
    it.
    """
    model, data, mean, covariance = line
    problem = pose(model, data)
    found = ends(
        bd.DeepEnsemble(members=60, bootstrap=False, descent=bd.Descent(steps=1500)), problem
    )
    np.testing.assert_allclose(
        found.mean(0), mean, atol=4 * np.sqrt(np.diag(covariance) / 60).max()
    )
    # Of an anchored member the variance is Σ Λ₀ Σ; the noise of the data would add the rest of Σ.
    expected = np.sqrt(np.diag(covariance @ np.diag([1.0, 0.25]) @ covariance))
    np.testing.assert_allclose(found.std(0), expected, rtol=0.35)
    plain = ends(
        bd.DeepEnsemble(5, anchored=False, bootstrap=False, descent=bd.Descent(steps=1500)), problem
    )
    assert plain.std(0).max() < 0.05 * expected.min()


def test_bootstrapped_members_see_other_data(line):
    model, data, *_ = line
    engine = bd.DeepEnsemble(
        members=60, anchored=False, bootstrap=True, descent=bd.Descent(steps=1000)
    )
    found = ends(engine, pose(model, data))
    # What a bootstrap of the regression itself gives.
    times, y = data["time"].values, data["y"].values
    features, by_hand = np.stack([np.ones(12), times], 1), []
    for counts in np.random.default_rng(1).multinomial(12, np.full(12, 1 / 12), size=2000):
        precision = (features.T * counts) @ features / 0.09 + np.diag([1.0, 0.25])
        by_hand.append(np.linalg.solve(precision, (features.T * counts) @ y / 0.09))
    np.testing.assert_allclose(found.std(0), np.std(by_hand, axis=0), rtol=0.35)


def test_adversarial_members_see_inputs_moved_to_where_data_are_less_likely(line):
    model, data, _, _ = line
    problem = pose(model, data)
    x = jnp.asarray([0.4, -0.7])

    def said(problem):
        return problem.terms(x).data

    moved = Adversary(problem, 0.01).moved(problem, said)
    np.testing.assert_allclose(np.abs(moved.inputs.times - problem.inputs.times), 0.02, rtol=1e-9)
    # To first order the data lose |slope| by so much at each row; the second order is small here.
    ((name, times),) = problem.movable.items()
    np.testing.assert_array_equal(times, problem.inputs.times)
    slopes = jax.jit(jax.grad(lambda t: said(problem.moved_to({name: t}))))(times)
    assert float(said(problem) - said(moved)) == pytest.approx(
        0.02 * float(jnp.abs(slopes).sum()), rel=0.1
    )


@pytest.mark.slow
def test_adversarial_training_makes_a_line_flatter(line):
    """Inputs in error by d in the worst direction are as residuals larger by d |slope|: the slope
    shrinks.
    """
    model, data, mean, _ = line
    problem = pose(model, data)
    plain, moved = (
        ends(
            bd.DeepEnsemble(
                3, anchored=False, bootstrap=False, adversarial=a, descent=bd.Descent(steps=1500)
            ),
            problem,
        )
        for a in (0.0, 0.05)
    )
    np.testing.assert_allclose(plain[:, 1], mean[1], rtol=0.02)
    # By the loss at inputs moved half of the time: with |slope| s the residuals grow by 0.1 s in
    # each wrong direction.
    assert np.all(np.abs(moved[:, 1]) < 0.98 * np.abs(plain[:, 1]))
    loss = _members.weighted_loss(problem, adversary=Adversary(problem, 0.05))
    own, x = {"weights": {"y": jnp.ones(12)}}, jnp.asarray(mean)
    assert float(loss.judge(x, own)) == pytest.approx(
        float(loss.objective(x, own, jax.random.key(0))[0])
    )


@pytest.mark.thorough
def test_a_solver_without_forcings_has_no_inputs_to_move():
    with pytest.raises(bd.BayesDaslError, match="inputs that can be moved"):
        bd.fit(
            small.model(),
            small.data(),
            bd.DeepEnsemble(2, adversarial=0.01, descent=bd.Descent(steps=50)),
            progress=False,
        )


@pytest.mark.thorough
def test_members_that_end_elsewhere_are_dropped_and_counted():
    problem = pose(small.stepped(), small.data())
    values = {path: jnp.zeros(site.shape) for path, site in problem.sites.items()}
    values |= {"layer.vector_field.science.rate": 0.6, "layer.initial.y": 2.0, "noise.scale": 0.1}
    good = np.asarray(
        problem.unconstrain({path: jnp.asarray(value) for path, value in values.items()})
    )
    elsewhere, lost = good.copy(), np.full_like(good, np.nan)
    elsewhere[problem.labels().index("layer.initial.y")] = 4.0
    once = {"y": np.ones((4, 15))}
    kept = _members.usable(problem, np.stack([good, good, elsewhere, lost]), once)
    assert list(kept.members) == [True, True, False, False]
    assert (kept.failed, kept.stuck) == (1, 1)


@pytest.mark.thorough
def test_members_are_judged_by_the_data_that_they_saw():
    data = small.data()
    data["y"][7] += 5.0
    problem = pose(small.stepped(), data)
    good = problem.unconstrain(
        {path: v[0] for path, v in draw_prior(problem.model, 1, key=jax.random.key(0)).items()}
    )
    seen = np.ones((3, 15))
    seen[:2, 7] = 0.0
    seen[2, 7] = 2.0
    for weights, expected in ((np.ones((3, 15)), [True, True, True]), (seen, [True, True, False])):
        assert (
            list(_members.usable(problem, np.tile(good, (3, 1)), {"y": weights}).members)
            == expected
        )


@pytest.mark.slow
def test_dropout_leaves_units_out():
    rate, draws = 0.3, 400
    post = bd.fit(
        small.stepped(),
        small.data(),
        bd.engines.MCDropout(
            rate,
            draws,
            starts=1,
            descent=bd.Descent(steps=300, patience=None, reparametrisation="none"),
        ),
        key=0,
    )
    first, second = (by_path(post)[f"{PATH}.{i}.weight"][0] for i in (0, 1))
    assert np.ptp(first, axis=0).max() == 0  # inputs are never left out
    out = second[:, 0] == 0
    assert abs(out.mean() - rate) < 4 * np.sqrt(rate * (1 - rate) / (3 * draws))
    for unit in range(3):
        assert np.unique(second[~out[:, unit], 0, unit].round(12)).size == 1
    said = str(bd.diagnose(post))
    assert (
        "[warning] point estimate: what no mask changes, scientific parameters too, has one value"
        in said
    )
    assert "[good] confounding: the parameters could do" in said
    with pytest.raises(bd.BayesDaslError, match="hidden"):
        shallow = small.network(depth=0)
        bd.fit(
            small.model(shallow),
            small.data(),
            bd.engines.MCDropout(draws=10, descent=bd.Descent(steps=50, patience=None)),
        )
    for prior in (
        bd.networks.sparse(2),
        lambda name, weight: dist.HalfNormal(1.0).expand(weight.shape).to_event(weight.ndim),
    ):
        with pytest.raises(bd.BayesDaslError, match=r"layers.1.weight' forbids"):
            positive = bd.Network.mlp({"y": (1.0, 0.6)}, ("y",), 0.5, width=3, depth=1, prior=prior)
            bd.fit(
                small.model(positive),
                small.data(),
                bd.engines.MCDropout(draws=10, descent=bd.Descent(steps=50, patience=None)),
            )


def ended_at(monkeypatch, module, position):
    """An engine's descent takes no step and ends at a known position."""
    curves = {"loss": np.zeros((1, 200))}
    found = Descended(position[None], position[None, None], curves, {}, 200, None)
    monkeypatch.setattr(module, "descended", lambda *args, **options: found)


def test_units_that_stay_count_for_those_left_out(monkeypatch, line):
    """A weight is zero or counts for more, so that on average it is what it was."""
    rate, draws = 0.3, 2000
    network = bd.Network.mlp({"t": (0.0, 1.0)}, ("y",), width=3, depth=1)
    problem = pose(bd.Model(bd.Algebraic(network), bd.NormalNoise(0.3)), line[1])
    position = np.asarray(problem.prior(1, key=jax.random.key(1))[0])
    ended_at(monkeypatch, dropout, position)
    share = ends(bd.engines.MCDropout(rate, draws, starts=1), problem) / position
    masked = np.ptp(share, axis=0) > 0
    assert masked.sum() == 3
    np.testing.assert_allclose(
        np.unique(share[:, masked].round(9)), [0.0, 1 / (1 - rate)], rtol=1e-8
    )
    error = np.sqrt(rate / (1 - rate) / draws)
    np.testing.assert_allclose(share[:, masked].mean(axis=0), 1.0, atol=4 * error)


class Level(Line):
    """The data say nothing of the slope."""

    def __call__(self, t, y, u):
        return {"y": self.level + 0.0 * self.slope}


def test_no_direction_of_laplace_is_wider_than_the_prior(monkeypatch, line):
    """The logarithm of this prior is not bent anywhere: a normal from its curvature alone would
    have no end.
    """
    draws = 4000
    prior = dist.Laplace(0.0, 1.0)
    problem = pose(
        bd.Model(bd.Algebraic(Level(dist.Normal(0, 1), prior)), bd.NormalNoise(0.3)), line[1]
    )
    ended_at(monkeypatch, laplace, np.array([0.4, 0.1]))
    level, slope = ends(bd.engines.Laplace(draws=draws, starts=1), problem).std(axis=0)
    assert level == pytest.approx((1 + 12 / 0.3**2) ** -0.5, rel=4 / np.sqrt(2 * draws))
    # The width of a prior is half of its central 68 %, from 500 of its draws.
    assert slope == pytest.approx(-np.log(2 * 0.15866), rel=0.2)


@pytest.mark.thorough
def test_laplace_is_exact_for_a_normal_posterior(line):
    model, data, mean, covariance = line
    engine = bd.engines.Laplace(draws=4000, starts=1, descent=bd.Descent(steps=2000, patience=20))
    found = ends(engine, pose(model, data))
    np.testing.assert_allclose(found.mean(0), mean, atol=0.01)
    np.testing.assert_allclose(np.cov(found.T), covariance, atol=0.06 * covariance.max())


@pytest.mark.slow
def test_laplace_of_the_last_layer_keeps_the_others():
    problem = pose(small.stepped(), small.data())
    engine = bd.engines.Laplace(
        "last", draws=200, starts=1, descent=bd.Descent(steps=500, patience=20)
    )
    found = run(engine, problem)
    values = jax.vmap(problem.constrain)(jnp.asarray(found.positions[0]))
    assert np.ptp(values[f"{PATH}.0.weight"], axis=0).max() == 0
    assert np.ptp(values[f"{PATH}.1.weight"], axis=0).min() > 0
    assert np.ptp(values["noise.scale"]) > 0
    assert (found.draws_are, found.markov) == ("independent", False)
    assert "point estimate" not in " ".join(map(str, found.findings))
    bent = small.model(small.network(final_activation=jnp.tanh))
    with pytest.raises(bd.BayesDaslError, match="last layer"):
        bd.fit(
            bent,
            small.data(),
            bd.engines.Laplace(
                "last", draws=10, starts=1, descent=bd.Descent(steps=50, patience=20)
            ),
        )


@pytest.mark.slow
def test_laplace_knows_scales_of_noise_and_variances_of_a_layer():
    """A level, its noise and the variance of what is added to it, against the Fisher information by
    hand.
    """

    class Level(bd.Module):
        level: bd.Scalar

        def __call__(self, t, y, u):
            return {"y": self.level + 0.0 * t}

    times, known = np.linspace(0.0, 1.0, 30), 0.4
    data = xr.Dataset(
        {"y": ("time", known * np.random.default_rng(0).normal(size=30))}, {"time": times}
    )
    noise = bd.NormalNoise(dist.LogNormal(np.log(known), 1.0))
    problem = pose(bd.Model(bd.Algebraic(Level(dist.Normal(0, 2))), noise), data)
    names = problem.labels()
    x = np.zeros(2)
    x[names.index("noise.scale")] = np.log(known)
    found = np.asarray(gauss_newton(problem, x))
    expected = np.diag([30 / known**2 + 1 / 4, 2 * 30 + 1.0])[
        :: 1 if names[0].startswith("layer") else -1
    ]
    np.testing.assert_allclose(
        found, expected[:, :: 1 if names[0].startswith("layer") else -1], rtol=1e-6, atol=1e-6
    )
    # A rate known to 0.3 makes the place at the time t uncertain by 0.3 t.
    head = bd.filtering.VarianceHead(
        lambda t, y, u: {"place": 0.0 * y["place"]}, {"place": dist.LogNormal(np.log(0.3), 1.0)}
    )
    field = bd.Residual(lambda t, y, u: {"place": 0.0 * y["place"]}, head)
    layer = bd.filtering.Unscented(small.Stepped(field, {"place": 0.0}))
    data = data.rename(y="place").isel(time=slice(1, None))
    problem = pose(bd.Model(layer, bd.NormalNoise(known)), data)
    found = float(gauss_newton(problem, np.full(1, np.log(0.3))).squeeze())
    moved = (0.3 * (times[1:] - times[1])) ** 2
    share = moved / (moved + known**2)
    assert found == pytest.approx(float(2 * np.sum(share**2)) + 1.0, rel=1e-3)


@pytest.mark.slow
def test_swag_wanders_around_the_mode(line):
    model, data, mean, covariance = line
    engine = bd.engines.SWAG(
        members=2, draws=300, collected=20, descent=bd.Descent(steps=1000, patience=None)
    )
    samples = run(engine, pose(model, data))
    found = samples.positions[0]
    sd = np.sqrt(np.diag(covariance))
    assert (np.abs(found.mean(0) - mean) < sd).all()
    assert ((found.std(0) > 0.02 * sd) & (found.std(0) < 2 * sd)).all()
    assert samples.facts["members"] == 2
    assert (samples.draws_are, samples.markov) == ("draws around members (2 of 2 kept)", False)
    assert str(samples.findings[0]).startswith("[good] ensemble: 2 of 2 members")


def test_swag_draws_from_its_normal():
    """Half of the diagonal, half of the last twenty deviations."""
    rng = np.random.default_rng(0)
    mixed = np.array([[1.0, 0.8, 0.0], [0.0, 0.5, -0.4], [0.0, 0.0, 2.0]])
    places = rng.normal(size=(40, 3)) @ mixed + [3.0, 0.0, -1.0]
    away = places - places.mean(axis=0)
    expected = (np.diag(places.var(axis=0)) + away[-20:].T @ away[-20:] / 19) / 2
    found = swag._swag_draws(places, 200_000, rng)
    np.testing.assert_allclose(found.mean(axis=0), places.mean(axis=0), atol=0.02)
    np.testing.assert_allclose(np.cov(found.T), expected, atol=0.03)


@pytest.mark.thorough
def test_the_same_key_gives_the_same_members_and_a_checkpoint_goes_on(tmp_path, line):
    model, data, *_ = line
    engine = bd.DeepEnsemble(members=3, descent=bd.Descent(steps=200))
    whole = bd.fit(model, data, engine, checkpoint=tmp_path / "run", key=3)
    for path in sorted((tmp_path / "run").glob("*.step"))[-2:]:
        path.unlink()
    again = bd.resume(model, data, tmp_path / "run")
    np.testing.assert_array_equal(lines(whole), lines(again))
    assert not np.array_equal(lines(whole), ends(engine, pose(model, data), key=4))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: bd.Joint(descent=bd.Descent(steps=10)),
            "steps must be a whole number, at least 50",
        ),
        (
            lambda: bd.Joint(descent=bd.Descent(minibatch=0)),
            "minibatch must be a whole number, at least 1",
        ),
        (
            lambda: bd.Joint(descent=bd.Descent(science_rate=2.0)),
            "science_rate must lie between 0 and 1",
        ),
        (
            lambda: bd.Joint(descent=bd.Descent(held_out=1.0)),
            "held_out must lie at least 0 and below 1",
        ),
        (lambda: bd.Joint(network_weight=-1.0), "network_weight must lie"),
        (lambda: bd.DeepEnsemble(members=1), "members must be a whole number, at least 2"),
        (
            lambda: bd.DeepEnsemble(descent=bd.Descent(network_rate=-0.1)),
            "network_rate must lie between 0 and 1",
        ),
        (lambda: bd.engines.MCDropout(rate=0.0), "rate must lie between 0 and 1"),
        (lambda: bd.engines.MCDropout(draws=True), "draws must be a whole number"),
        (lambda: bd.engines.SWAG(collected=2), "collected must be a whole number, at least 3"),
        (lambda: bd.engines.Laplace("first"), "subset must be one of all, last"),
        (lambda: bd.Joint(descent=100), r"descent must be a bd\.Descent"),
        (lambda: bd.DeepEnsemble(5, descent=bd.NUTS()), r"descent must be a bd\.Descent"),
        (lambda: bd.Descent(patience=0), "patience must be a whole number, at least 1"),
        (
            lambda: bd.Descent(reparametrisation="polar"),
            "reparametrisation must be one of auto, none",
        ),
    ],
)
def test_numbers_that_make_no_sense_are_refused(make, message, unchecked):
    with pytest.raises(bd.BayesDaslError, match=message):
        make()


@pytest.mark.slow
def test_uncertainty_of_members_reaches_the_forecast(line):
    model, data, *_ = line
    post = bd.fit(model, data, bd.DeepEnsemble(members=12, descent=bd.Descent(steps=800)), key=0)
    assert (post.attrs["draws_are"], post.attrs["markov"]) == ("members (12 of 12 kept)", 0)
    said = str(bd.diagnose(post))
    assert "[good] ensemble: 12 of 12 members" in said
    assert "R-hat" not in said and "point estimate" not in said
    fc = bd.forecast(model, post, xr.Dataset(coords={"time": [0.0, 5.0]}))
    parts = bd.decompose(fc, ["y"])
    epistemic = parts["epistemic"].values[0]
    assert epistemic[1] > 4 * epistemic[0]
    np.testing.assert_allclose(parts["aleatoric"].values[0], 0.09, rtol=1e-6)
    # Copies of one member have no epistemic uncertainty.
    copies = post.isel(draw=[0] * 12)
    alike = bd.decompose(bd.forecast(model, copies, xr.Dataset(coords={"time": [5.0]})))
    assert float(alike["epistemic"].max()) < 1e-12


@pytest.mark.slow
def test_a_network_inside_a_solver_is_descended_in_coordinates_of_its_last_layer():
    problem = lotka_volterra(0)
    posed = pose(problem.model, problem.data)
    found, plain = (
        run(bd.Joint(starts=2, descent=bd.Descent(steps=200, reparametrisation=c)), posed)
        for c in ("auto", "none")
    )
    lowest = [float(np.nanmin(samples.curves["loss"])) for samples in (found, plain)]
    assert lowest[0] < lowest[1] - 5.0
    # What is called the loss is that of the weights: minus the log density of the draw, but for its
    # last few steps.
    assert -float(found.stats["lp"].squeeze()) == pytest.approx(lowest[0], abs=1.0)


@pytest.mark.slow
def test_laplace_of_a_network_inside_a_solver_keeps_to_the_data():
    """In the weights themselves hidden ones would move as far as the prior lets them, without the
    last ones.
    """
    problem = pose(small.stepped(), small.data())

    @jax.jit
    @jax.vmap
    def predicted(x):
        return realise(problem.model, problem.constrain(x)).predict(problem.inputs).values["y"]

    def misfit(samples):
        away = predicted(samples.positions[0]) - small.data()["y"].values
        return float(np.median(np.sqrt((away**2).mean(-1))))

    found = run(
        bd.engines.Laplace(draws=200, starts=1, descent=bd.Descent(steps=500, patience=20)), problem
    )
    assert misfit(found) < 2 * small.NOISE
    # What a descent in conditional coordinates calls its loss is that of the weights.
    assert -found.modes.log_densities[0] == pytest.approx(
        float(np.nanmin(found.curves["loss"])), abs=1.0
    )
