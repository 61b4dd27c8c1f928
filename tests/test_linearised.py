"""Science and unknown functions, given their hyperparameters, in units of what data and prior say
of them.
"""

import functools

import arviz as az
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr
from jaxtyping import Array
from scipy.stats import multivariate_normal

import bayes_dasl as bd
from bayes_dasl.inference import pose
from bayes_dasl.inference.gradient import traced_once
from bayes_dasl.inference.reparametrisations.linearised import Linearisation, linearisation_of
from bayes_dasl.inference.reparametrisations.local_start import local_start
from bayes_dasl.inference.starts import Optimiser

X = np.linspace(0.0, 1.0, 25)
THOROUGH = pytest.mark.thorough


class Line(bd.Module):
    """A line and an unknown function beside it."""

    slope: bd.Scalar
    extra: bd.Basis

    def __call__(self, t, y, u):
        return {"y": self.slope * t + self.extra(t, y, u)["g"]}


class Shares(bd.Module):
    """A mixture of three curves and an unknown function beside it."""

    shares: Array | dist.Distribution
    extra: bd.Basis

    def __call__(self, t, y, u):
        curves = jnp.stack([t, t**2, jnp.sin(3 * t)])
        return {"y": self.shares @ curves + self.extra(t, y, u)["g"]}


class Growth(bd.Module):
    """Exponential growth of a level that an unknown function changes."""

    rate: bd.Scalar
    extra: bd.Basis

    def __call__(self, t, y, u):
        return {"y": jnp.exp(self.rate * t) * (1 + self.extra(t, y, u)["g"])}


class Scaled(Line):
    def __call__(self, t, y, u):
        return {"y": self.slope * (1 + self.extra(t, y, u)["g"])}


class Average(bd.Module):
    """Averages of an unknown function over what lies near."""

    slope: bd.Scalar
    extra: bd.Basis

    def __call__(self, t, y, u):
        at = jnp.linspace(0.0, 1.0, 41)
        weight = jnp.exp(-(((at - t) / 0.3) ** 2))
        return {"y": self.slope * t + jnp.sum(weight * self.extra(at, y, u)["g"]) / jnp.sum(weight)}


TURNS = bd.bases.HilbertGP(0.0, 1.0, 12, length=0.1, amplitude=1.0)


def average(positive):
    return formula(Average, bd.Basis(TURNS, "t", "g", positive=positive), bd.NormalNoise(0.02))


class Pull(bd.Module):
    rate: bd.Scalar
    extra: bd.Basis

    def __call__(self, t, y, u):
        return {"y": -self.rate * y["y"] + self.extra(t, y, u)["g"]}


def process(**options):
    return bd.Basis(
        bd.bases.HilbertGP(0.0, 1.0, 12, amplitude=dist.HalfNormal(1.0)), "t", "g", **options
    )


def data(values=None):
    rng = np.random.default_rng(0)
    values = np.exp(0.7 * X) * (1 + 0.3 * np.sin(7 * X)) if values is None else values
    return xr.Dataset({"y": ("time", values + 0.03 * rng.normal(size=25))}, {"time": X})


def with_gaps():
    found = data()
    found["y"][3:6] = np.nan
    return found


def formula(equation=Growth, extra=None, noise=None):
    extra = process() if extra is None else extra
    return bd.Model(
        bd.Algebraic(equation(dist.Normal(0.0, 1.0), extra)),
        noise or bd.NormalNoise(dist.HalfNormal(0.3)),
    )


def shooting():
    ode = bd.ODE(Pull(dist.LogNormal(0.0, 0.5), process()), {"y": 1.0}, rtol=1e-5, atol=1e-5)
    return bd.Model(bd.equations.MultipleShooting(ode, (0.5,), {"y": dist.Normal(1.0, 0.5).expand([1]).to_event(1)}, gap=0.1),
                    bd.NormalNoise(0.05))  # fmt: skip


SPLINES = bd.bases.BSpline(0.0, 1.0, 8)
MODELS = {
    "a Gaussian process": lambda: (formula(), data()),
    "gaps": lambda: (formula(), with_gaps()),
    "a positive function": lambda: (formula(Line, process(positive=True)), data()),
    "splines that walk": lambda: (
        formula(Line, bd.Basis(SPLINES, "t", "g", bd.bases.RandomWalk(8), scale=0.5)),
        data(),
    ),
    "a horseshoe": lambda: (
        formula(Line, bd.Basis(SPLINES, "t", "g", bd.bases.Horseshoe(8))),
        data(),
    ),
    "a monotone function": lambda: (
        formula(Line, bd.Basis(SPLINES, "t", "g", monotone="increasing")),
        data(),
    ),
    "log-normal noise": lambda: (formula(noise=bd.LogNormalNoise(dist.HalfNormal(0.3))), data()),
    "weights of another scale": lambda: (
        formula(extra=process(weights=dist.Normal(0.5, 0.3).expand((12,)).to_event(1))),
        data(),
    ),
    "correlated noise": lambda: (
        formula(
            noise=bd.filtering.CorrelatedNoise(
                bd.filtering.AR1(dist.HalfNormal(0.3), dist.Uniform(0.0, 0.9))
            )
        ),
        with_gaps(),
    ),
}
LINE = {"a line": lambda: (formula(Line), data())}
SOLVED = {
    "an ODE": lambda: (bd.Model(bd.ODE(Pull(dist.LogNormal(0.0, 0.5), process()), {"y": 1.0}), bd.NormalNoise(0.05)),
                       data()),
    "shooting": lambda: (shooting(), data()),
    "a filter": lambda: (bd.Model(bd.filtering.Kalman(Pull(dist.LogNormal(0.0, 0.5), process()), {"y": dist.HalfNormal(0.3)},
                                            {"y": 1.0}, {}, start=-0.1), bd.NormalNoise(0.05)), data()),
}  # fmt: skip


def made(model, data):
    """What makes frames, of which problem, and one of them around a prior draw."""
    problem = pose(model, data)
    maker = linearisation_of(problem)
    draw = np.asarray(problem.prior(1, key=jax.random.key(1)))
    return problem, maker, maker.restored(maker.from_draws(draw))


@functools.cache
def made_once(case):
    """Programs are compiled once for each maker."""
    return made(*(MODELS | SOLVED | LINE)[case]())


def framed(of, told=None):
    """Also coordinates; so many directions of weights are `told`. Of a case by name or of a model
    and data.
    """
    problem, maker, frame = made_once(of) if isinstance(of, str) else made(*of)
    if told is not None:
        number = maker.weights.size
        turn = np.linalg.qr(np.random.default_rng(1).normal(size=(number, number)))[0]
        frame = eqx.tree_at(
            lambda f: (f.turn, f.informed), frame, (jnp.asarray(turn), jnp.asarray(told))
        )
    return problem, maker, frame, np.random.default_rng(0).normal(size=(8, maker.dimension))


class TestFrames:
    @pytest.mark.parametrize(
        "case",
        [
            "a positive function", pytest.param("gaps", marks=THOROUGH),
            pytest.param("a Gaussian process", marks=THOROUGH),
            pytest.param("splines that walk", marks=THOROUGH), pytest.param("weights of another scale", marks=THOROUGH),
            pytest.param("correlated noise", marks=THOROUGH), pytest.param("a horseshoe", marks=THOROUGH),
            pytest.param("a monotone function", marks=THOROUGH), pytest.param("log-normal noise", marks=THOROUGH),
            *(pytest.param(name, marks=THOROUGH) for name in SOLVED),
        ],
    )  # fmt: skip
    def test_there_and_back(self, case):
        _, maker, frame, xi = framed(case)
        x, _ = frame.forward_many(xi)
        assert np.isfinite(x).all() and np.abs(x - xi).max() > 0.1
        np.testing.assert_allclose(frame.inverse_many(x)[0], xi, atol=1e-9)
        np.testing.assert_array_equal(
            maker.like.forward_many(xi)[0], xi
        )  # plain ones until there is a reference
        assert not any(
            leaf.weak_type for leaf in jax.tree.leaves(maker.like)
        )  # else each program is compiled twice

    @pytest.mark.parametrize("told", [*(pytest.param(n, marks=THOROUGH) for n in (0, 1, 5)), 2])
    @pytest.mark.parametrize(
        "case", ["a positive function", pytest.param("weights of another scale", marks=THOROUGH)]
    )
    def test_there_and_back_where_not_all_directions_are_told(self, case, told):
        _, _, frame, xi = framed(case, told)
        np.testing.assert_allclose(frame.inverse_many(frame.forward_many(xi)[0])[0], xi, atol=1e-9)

    @pytest.mark.parametrize(
        ("case", "told"),
        [
            pytest.param("a Gaussian process", None, marks=THOROUGH),
            pytest.param("a positive function", None, marks=THOROUGH),
            pytest.param("correlated noise", None, marks=THOROUGH),
            pytest.param("a positive function", 0, marks=THOROUGH), ("a positive function", 2),
            pytest.param("a positive function", 5, marks=THOROUGH),
            pytest.param("weights of another scale", 5, marks=THOROUGH),
        ],
    )  # fmt: skip
    def test_volumes_are_those_of_the_way(self, case, told):
        _, _, frame, xi = framed(case, told)
        jacobian = jax.jit(jax.jacfwd(lambda v: frame.forward(v)[0]))(jnp.asarray(xi[0]))
        assert frame.forward_many(xi)[1][0] == pytest.approx(
            np.linalg.slogdet(jacobian)[1], abs=1e-9
        )

    @pytest.mark.parametrize(
        "told", [None, pytest.param(0, marks=THOROUGH), 2, pytest.param(5, marks=THOROUGH)]
    )
    def test_of_a_linear_model_coordinates_are_standard_normal_given_hyperparameters(self, told):
        problem, maker, frame, xi = framed("a line", told=told)
        names = problem.labels()
        assert [names[i] for i in maker.direct] == ["layer.function.slope"]
        assert [names[i].rpartition(".")[2] for i in maker.hyper] == [
            "length",
            "amplitude",
            "scale",
        ]
        xi[:, maker.hyper] = xi[0, maker.hyper]
        x, volume = frame.forward_many(xi)
        density = np.asarray(jax.jit(jax.vmap(problem.log_density))(x)) + volume
        inside = xi[:, np.setdiff1d(np.arange(maker.dimension), maker.hyper)]
        left = density + 0.5 * (inside**2).sum(1)
        assert np.ptp(density) > 2 and np.ptp(left) < 1e-8

    @pytest.mark.thorough
    def test_what_is_left_is_the_evidence_of_hyperparameters(self):
        model = formula(Line, process(), bd.NormalNoise(0.1))
        problem, maker, frame, xi = framed((model, data()))
        xi[:, [*maker.weights, *maker.direct]] = 0.0
        x, volume = frame.forward_many(xi)
        density = np.asarray(jax.jit(jax.vmap(problem.log_density))(x)) + volume
        evidence = [self.evidence(problem, np.asarray(at)) for at in x]
        assert np.ptp(evidence) > 1.0
        np.testing.assert_allclose(np.diff(density), np.diff(evidence), atol=1e-6)

    def evidence(self, problem, x):
        """Of length and amplitude, by the covariance of data that they give."""
        values = problem.constrain(jnp.asarray(x))
        family = bd.bases.HilbertGP(
            0.0,
            1.0,
            12,
            *(values[f"layer.function.extra.family.{n}"] for n in ("length", "amplitude")),
        )
        features = np.asarray(family(X))
        covariance = features @ features.T + np.outer(X, X) + 0.1**2 * np.eye(25)
        hyper = ("layer.function.extra.family.length", "layer.function.extra.family.amplitude")
        rest = {path: v for path, v in values.items() if path not in hyper}
        at_rest = problem.unconstrain(
            values | {path: jnp.zeros_like(v) for path, v in rest.items()}
        )
        # The prior of all others at zero is the same number everywhere.
        prior = float(problem.log_prior(at_rest))
        return (
            multivariate_normal(np.zeros(25), covariance).logpdf(np.asarray(problem.observed["y"]))
            + prior
        )

    def test_one_step_of_the_model_itself_corrects_the_mean(self):
        """Far from the reference the linear mean is wrong, the corrected one close to the most
        likely weights.
        """
        problem, maker, frame, xi = framed((formula(noise=bd.NormalNoise(0.03)), data()))
        xi[:] = 0.0
        xi[:, maker.direct] = 1.5 * np.random.default_rng(1).normal(size=(len(xi), 1))
        x, _ = frame.forward_many(xi)
        fall = jax.jit(jax.vmap(jax.grad(problem.log_density)))(x)[:, maker.weights]
        inside = jax.jit(jax.vmap(jax.hessian(problem.log_density)))(x)
        of_weights = [h[np.ix_(maker.weights, maker.weights)] for h in np.asarray(inside)]
        away = [np.linalg.solve(h, g) for h, g in zip(of_weights, np.asarray(fall), strict=True)]
        sd = [np.sqrt(np.diag(np.linalg.inv(-h))) for h in of_weights]
        assert np.max(np.abs(away) / sd) < 3.0  # of the linear one it is 16

    @pytest.mark.parametrize(
        "science",
        [
            "a logarithm",
            pytest.param("a bounded number", marks=THOROUGH),
            pytest.param("shares", marks=THOROUGH),
        ],
    )
    def test_weights_may_follow_the_values_of_the_science(self, science):
        """Predictions are linear in what the equations see, and not in the numbers on the real
        line.
        """
        equation = {
            "a logarithm": Line(dist.LogNormal(0.0, 1.0), process()),
            "a bounded number": Line(dist.Uniform(0.0, 2.0), process()),
            "shares": Shares(dist.Dirichlet(jnp.ones(3)), process()),
        }[science]
        model = bd.Model(bd.Algebraic(equation), bd.NormalNoise(0.05))
        problem, maker, frame, xi = framed((model, data()), told=0)  # no step by the model itself
        xi[:, np.setdiff1d(np.arange(maker.dimension), maker.weights)] = 0.7
        far = []
        for follows in (False, True):
            given = eqx.tree_at(lambda f: f.follows_values, frame, jnp.asarray(follows))
            x, volume = given.forward_many(xi)
            np.testing.assert_allclose(given.inverse_many(x)[0], xi, atol=1e-9)
            density = np.asarray(jax.jit(jax.vmap(problem.log_density))(x)) + volume
            far.append(np.ptp(density + 0.5 * (xi[:, maker.weights] ** 2).sum(1)))
        assert far[1] < 1e-8 < 0.1 < far[0]

    @pytest.mark.parametrize(
        ("equation", "follows"), [(Line, True), pytest.param(Scaled, False, marks=THOROUGH)]
    )
    def test_weights_follow_values_where_that_suits_positions(self, equation, follows):
        """What makes up for an addend hangs on its value, what makes up for a factor rather on its
        logarithm.
        """
        law = equation(dist.LogNormal(0.0, 1.0), process(positive=True))
        maker = linearisation_of(
            pose(bd.Model(bd.Algebraic(law), bd.NormalNoise(0.1)), data(3 + X))
        )
        at = np.zeros(maker.dimension)
        at[maker.direct] = 1.0
        frame = maker.restored(maker.around(at))
        assert not frame.follows_values  # one position tells nothing
        xi = 0.3 * np.random.default_rng(0).normal(size=(100, maker.dimension))
        xi[:, maker.direct] *= 5
        given = eqx.tree_at(lambda f: f.follows_values, frame, jnp.asarray(follows))
        found = maker.restored(maker.from_draws(given.forward_many(xi)[0]))
        assert bool(found.follows_values) == follows

    def test_climbs_outside_of_a_frame_are_those_of_the_model(self):
        """Until there is a reference positions are plain ones; in a frame a gradient is that of its
        coordinates.
        """
        problem, maker, frame, xi = framed("a positive function")
        value_and_gradient, density = traced_once(problem)
        optimiser = Optimiser(value_and_gradient, len(xi), maker.like)
        wanted = jax.jit(jax.vmap(value_and_gradient))(xi)
        for found, of in zip(optimiser.evaluate(xi), wanted, strict=True):
            np.testing.assert_allclose(found, of, rtol=1e-9)
        x, volumes = frame.forward_many(xi)
        optimiser.reparametrisation = frame
        values, gradients = optimiser.evaluate(xi)
        np.testing.assert_allclose(values, jax.vmap(density)(x) + volumes, rtol=1e-9)
        assert np.abs(gradients - wanted[1]).max() > 0.1

    def test_what_data_say_follows_the_rest(self):
        """Around a reference that is wrong the directions that data tell are what is most likely
        given all others.
        """
        problem, maker, frame, xi = framed("a line", told=5)
        frame = eqx.tree_at(
            lambda f: f.centre["y"], frame, frame.centre["y"] + jnp.asarray(np.sin(5 * X))
        )
        xi[:, maker.weights[:5]] = 0.0
        fall = jax.jit(jax.vmap(jax.grad(problem.log_density)))(frame.forward_many(xi)[0])[
            :, maker.weights
        ]
        along = np.abs(np.asarray(fall @ frame.turn))
        assert along[:, :5].max() < 1e-8 < 1.0 < along[:, 5:].max()

    @THOROUGH
    def test_few_told_directions_follow_the_slopes_where_they_are(self):
        """Of a formula two directions lie near where they are most likely given all others, far
        from the reference.
        """
        problem, _, _, xi = framed((average(True), data(np.ones(25))))
        xi *= 0.5
        away = []
        for slopes_there in (False, True):
            maker = Linearisation(
                problem, ("layer.function.extra.weights",), slopes_there=slopes_there
            )
            frame = maker.restored(
                maker.around(np.asarray(problem.prior(1, key=jax.random.key(1)))[0])
            )
            turn = np.linalg.eigh(np.asarray(maker._information_of(frame)))[1][:, ::-1]
            frame = eqx.tree_at(
                lambda f: (f.turn, f.informed), frame, (jnp.asarray(turn), jnp.asarray(2))
            )
            xi[:, maker.weights[:2]] = 0.0
            x, _ = frame.forward_many(xi)
            along = np.zeros((maker.dimension, 2))
            along[maker.weights] = turn[:, :2]
            fall = np.asarray(jax.jit(jax.vmap(jax.grad(problem.log_density)))(x)) @ along
            bend = (
                along.T @ np.asarray(jax.jit(jax.vmap(jax.hessian(problem.log_density)))(x)) @ along
            )
            step = np.linalg.solve(-bend, fall[..., None])[..., 0]
            away.append(np.sqrt(np.mean(step * fall)))
        assert away[1] < 2.0 < away[0]  # standard deviations: 16 by the slopes of the reference

    @pytest.mark.thorough
    def test_what_data_say_little_of_comes_first_where_that_suits_positions(self):
        """Averages of a positive function say much of few of its directions, and these bend with
        all others.
        """
        at = np.linspace(0.0, 1.0, 41)
        weight = np.exp(-(((at - X[:, None]) / 0.3) ** 2))
        slopes = weight / weight.sum(1, keepdims=True) @ np.asarray(TURNS(at)) / 0.02
        precision, turn = np.linalg.eigh(slopes.T @ slopes)
        few = int((precision > 1.0).sum())
        xi = 0.3 * np.random.default_rng(0).normal(size=(100, 13))
        for positive in (True, False):
            _, maker, *_ = framed((average(positive), data(np.ones(25))))
            frame = maker.restored(maker.around(np.zeros(13)))
            assert frame.informed == 12  # one position tells nothing
            given = eqx.tree_at(
                lambda f: (f.turn, f.informed),
                frame,
                (jnp.asarray(turn[:, ::-1]), jnp.asarray(few)),
            )
            found = maker.restored(maker.from_draws(given.forward_many(xi)[0]))
            assert found.informed == (few if positive else 12)


def exact(noise):
    """A model without hyperparameters."""
    known = bd.Basis(SPLINES, "t", "g", bd.bases.NormalShrinkage(8, scale=1.0))
    return formula(Line, known, bd.NormalNoise(noise))


@jax.custom_vjp
def reverse_only(x):
    return x


reverse_only.defvjp(lambda x: (x, None), lambda _, slope: (slope,))


class OneWay(Line):
    def __call__(self, t, y, u):
        return {name: reverse_only(value) for name, value in super().__call__(t, y, u).items()}


class TestWhere:
    @pytest.mark.thorough
    def test_without_hyperparameters_coordinates_are_those_of_one_normal(self):
        problem, maker, frame, xi = framed((exact(0.1), data()))
        assert not maker.hyper.size
        density = np.asarray(jax.jit(jax.vmap(problem.log_density))(frame.forward_many(xi)[0]))
        assert np.ptp(density + 0.5 * (xi**2).sum(1)) < 1e-8
        optimiser = Optimiser(traced_once(problem)[0], 2, maker.like)
        _, inside, _ = local_start(maker, optimiser, frame.forward_many(0.5 * xi[:2])[0], 2, 0)
        np.testing.assert_allclose(inside.modes, 0.0, atol=0.05)

    def test_not_where_equations_have_derivatives_one_way_only(self):
        assert linearisation_of(pose(formula(OneWay), data())) is None

    @THOROUGH
    def test_a_datum_without_spread_tells_nothing(self):
        rare = data(np.full(25, 0.3)).assign(n=("time", np.where(np.arange(25) % 5, 10.0, 0.0)))
        rare["y"] = rare["y"] * 0.0
        model = formula(Line, process(positive=True, scale=0.1), bd.noise.BinomialNoise("n"))
        _, _, frame, xi = framed((model, rare))
        x, volume = frame.forward_many(xi)
        assert np.isfinite(x).all() and np.isfinite(volume).all()

    def test_not_where_there_is_a_network(self):
        network = bd.Network.mlp(("t",), ("g",), width=2, depth=1)
        assert linearisation_of(pose(formula(Line, network), data())) is None

    def test_not_where_functions_have_known_weights(self):
        known = process(weights=jnp.ones(12))
        assert linearisation_of(pose(formula(Line, known), data())) is None


@pytest.mark.thorough
class TestSampling:
    def test_the_posterior_stays_and_takes_fewer_gradients(self):
        model, seen = formula(), data()
        engine = bd.NUTS(chains=4, draws=500, map_starts=8)
        one = bd.fit(model, seen, engine, key=0, progress=False)
        other = bd.fit(
            model,
            seen,
            bd.NUTS(chains=4, draws=2000, map_starts=8, reparametrisation="none"),
            key=1,
            progress=False,
        )
        assert one.attrs["sampled_in"] == "linearised coordinates"

        def looked_at(m):
            extra = m.layer.function.extra
            return {
                "g": jax.vmap(lambda t: extra(t, {}, {})["g"])(X),
                "rate": m.layer.function.rate,
            }

        values = [bd.evaluate(model, post, looked_at) for post in (one, other)]
        means, errors = [v.mean(("chain", "draw")) for v in values], [az.mcse(v) for v in values]
        for name in ("g", "rate"):
            apart = np.abs(means[0][name] - means[1][name]).values
            assert np.all(apart < 4.5 * np.hypot(*(e[name].values for e in errors)))
            assert float(az.rhat(values[0])[name].max()) < 1.02
        steps = [float(post["sample_stats"]["n_steps"].mean()) for post in (one, other)]
        assert steps[0] < 0.5 * steps[1]
