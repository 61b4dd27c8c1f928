"""Correlated noise against dense normal distributions: density, forecasts and the paths that are
drawn.
"""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr
from numpyro.handlers import block, condition
from numpyro.infer.util import log_density

import bayes_dasl as bd
from bayes_dasl.errors import DataError, ModelError
from bayes_dasl.inference import pose

TIMES = np.array([0.5, 1.0, 1.2, 2.0, 3.5, 3.6, 5.0, 7.0, 7.25, 9.0])
LATER = np.array([9.5, 10.0, 12.0, 20.0])
SCALE, TIME = 0.7, 2.5


class Line(bd.Module):
    level: bd.Scalar

    def __call__(self, t, y, u):
        return {"y": self.level * (1.0 + 0.3 * jnp.sin(t))}


def line(times):
    return 2.0 * (1.0 + 0.3 * np.sin(times))


def _lags(a, b):
    return np.abs(a[:, None] - b[None])


def _walk(a, b):
    return SCALE**2 * np.minimum(a[:, None], b[None])


def _matern(a, b):
    x = np.sqrt(3.0) * _lags(a, b) / TIME
    return SCALE**2 * (1 + x) * np.exp(-x)


def _decays(a, b):
    return SCALE**2 * np.exp(-_lags(a, b) / TIME)


PROCESSES = {
    "AR1": (bd.filtering.AR1(SCALE, np.exp(-0.5 / TIME), step=0.5), _decays),
    "OrnsteinUhlenbeck": (bd.filtering.OrnsteinUhlenbeck(SCALE, TIME), _decays),
    "Matern32": (bd.filtering.Matern32(SCALE, TIME), _matern),
    "RandomWalk": (bd.filtering.RandomWalk(SCALE, start=0.0), _walk),
}
CASES = [
    (name, white) for name in PROCESSES for white in (0.0, 0.4) if white or name != "RandomWalk"
]


def _model(noise):
    return bd.Model(bd.Algebraic(Line(bd.between(1.0, 4.0))), noise)


def _data(log=False, missing=(3, 7)):
    rng = np.random.default_rng(0)
    residual = np.cumsum(rng.normal(size=TIMES.size)) * 0.4
    values = line(TIMES) * np.exp(residual) if log else line(TIMES) + residual
    values[list(missing)] = np.nan
    return xr.Dataset({"y": ("time", values)}, {"time": TIMES})


def _residuals(data, log):
    values = data["y"].values
    return np.log(values / line(TIMES)) if log else values - line(TIMES)


def _conditional(model, inputs):
    realised = _at_truth(model)
    return realised.conditional(realised.predict(inputs), inputs)["y"]


def _at_truth(model):
    return bd.Model(bd.Algebraic(Line(2.0)), model.noise)


def _noise(name, white, log=False):
    return (bd.filtering.CorrelatedLogNoise if log else bd.filtering.CorrelatedNoise)(
        PROCESSES[name][0], white
    )


@pytest.mark.parametrize("log", [False, True], ids=["data", "log"])
@pytest.mark.parametrize(("name", "white"), CASES)
class TestDensity:
    @pytest.mark.thorough("AR1-0.0-data", "AR1-0.0-log", "Matern32-0.0-data", "Matern32-0.0-log")
    def test_is_that_of_the_dense_normal(self, name, white, log):
        data = _data(log)
        model = _model(_noise(name, white, log))
        found, _ = log_density(_conditioned(model, 2.0), (data,), {}, {})
        seen = np.isfinite(data["y"].values)
        residuals, times = _residuals(data, log)[seen], TIMES[seen]
        covariance = PROCESSES[name][1](times, times) + white**2 * np.eye(times.size)
        exact = dist.MultivariateNormal(np.zeros(times.size), covariance).log_prob(residuals)
        exact -= np.log(data["y"].values[seen]).sum() if log else 0.0
        np.testing.assert_allclose(found, exact, rtol=1e-9)

    @pytest.mark.thorough("AR1-0.0-data", "AR1-0.0-log", "Matern32-0.0-data", "Matern32-0.0-log")
    def test_forecasts_are_conditioned_on_the_residuals(self, name, white, log):
        data = _data(log)
        model = _model(_noise(name, white, log))
        inputs = _ahead(model, data)
        given = _conditional(model, inputs)
        mean, covariance = _dense(name, white, data, log)
        loc, scale = given.alone.loc, given.alone.scale
        place = np.log(line(LATER)) if log else line(LATER)
        np.testing.assert_allclose(loc, place + mean, rtol=1e-9)
        np.testing.assert_allclose(scale, np.sqrt(np.diag(covariance)), rtol=1e-8)
        drawn = np.asarray(given.sample(jax.random.key(1), (40_000,)))
        drawn = (np.log(drawn) if log else drawn) - place
        # Four standard errors of a covariance: the fourth moments of a normal give them.
        error = np.sqrt(
            (covariance**2 + np.outer(np.diag(covariance), np.diag(covariance))) / 40_000
        )
        assert np.all(np.abs(np.cov(drawn.T) - covariance) < 4.5 * error)


def _conditioned(model, level):
    path = "layer.function.level"
    return block(condition(model, {path: jnp.asarray(level)}), hide=[path])


def _ahead(model, data):
    inputs = model.inputs(data)
    past = dataclasses.replace(inputs.past, same=False)
    return dataclasses.replace(inputs, times=jnp.asarray(LATER), past=past)


def _dense(name, white, data, log):
    seen = np.isfinite(data["y"].values)
    times, residuals = TIMES[seen], _residuals(data, log)[seen]
    covariance = PROCESSES[name][1]
    known = covariance(times, times) + white**2 * np.eye(times.size)
    across = covariance(LATER, times)
    mean = across @ np.linalg.solve(known, residuals)
    left = (
        covariance(LATER, LATER)
        - across @ np.linalg.solve(known, across.T)
        + white**2 * np.eye(LATER.size)
    )
    return mean, left


YEARS = np.arange(120.0)
PHI = 0.8


def _simulated(seed=0, years=YEARS):
    rng = np.random.default_rng(seed)
    x = np.empty(years.size)
    x[0] = SCALE * rng.normal()
    for i in range(1, years.size):
        x[i] = PHI * x[i - 1] + SCALE * np.sqrt(1 - PHI**2) * rng.normal()
    return xr.Dataset({"y": ("time", line(years) + x)}, {"time": years})


def _fitted(noise):
    model, whole = _model(noise), _simulated()
    train = whole.isel(time=slice(100))
    post = bd.fit(model, train, bd.NUTS(chains=2, draws=300), progress=False)
    return model, post, train, whole


@pytest.fixture(scope="module")
def correlated():
    return _fitted(
        bd.filtering.CorrelatedNoise(bd.filtering.AR1(bd.between(0.1, 2.0), dist.Uniform(0.0, 1.0)))
    )


@pytest.fixture(scope="module")
def forecast(correlated):
    model, post, _, whole = correlated
    return bd.forecast(model, post, whole[["time"]])


class TestFit:
    @pytest.mark.thorough
    def test_recovers_the_process(self, correlated):
        _, post, _, _ = correlated
        draws = post["posterior"].to_dataset()
        for name, truth in {"correlation": PHI, "scale": SCALE, "level": 2.0}.items():
            low, high = np.quantile(draws[name], [0.005, 0.995])
            assert low < truth < high

    @pytest.mark.thorough
    def test_paths_go_on_from_the_last_residual_and_hold_together(self, correlated, forecast):
        _, post, train, _ = correlated
        drawn = forecast["predictions"]["y"].values.reshape(600, -1)[:, 100:]
        kept = post["posterior"].to_dataset()
        level, phi, scale = (
            kept[n].values.ravel()[:, None] for n in ("level", "correlation", "scale")
        )
        shape = 1.0 + 0.3 * np.sin(YEARS)
        last = train["y"].values[-1] - level * shape[99]
        before = np.concatenate([last, drawn - level * shape[100:]], axis=1)
        innovations = (before[:, 1:] - phi * before[:, :-1]) / (scale * np.sqrt(1 - phi**2))
        assert abs(innovations.mean()) < 4 / np.sqrt(innovations.size)
        assert abs(innovations.std() - 1) < 4 / np.sqrt(2 * innovations.size)
        neighbours = np.mean(innovations[:, 1:] * innovations[:, :-1])
        assert abs(neighbours) < 4 / np.sqrt(innovations.size)

    @pytest.mark.thorough
    def test_residuals_are_judged_as_they_came(self, correlated, forecast):
        _, post, _, whole = correlated
        verdict = bd.diagnose(post, forecast, whole.isel(time=slice(100, None)))
        assert not [f for f in verdict.findings if f.aspect == "model" and f.level != "good"]

    @pytest.mark.slow
    def test_independent_noise_is_told_that_neighbours_are_correlated(self):
        model, post, _, whole = _fitted(bd.NormalNoise(bd.between(0.1, 2.0)))
        verdict = bd.diagnose(post, bd.forecast(model, post, whole[["time"]]))
        order = [f for f in verdict.findings if f.subject == "order of residuals of y"]
        assert order and "bd.filtering.CorrelatedNoise" in order[0].remedy

    @pytest.mark.thorough
    def test_log_scores_are_exact(self, correlated, forecast):
        _, _, _, whole = correlated
        test = whole.isel(time=slice(100, None))
        scores = bd.score(forecast, test)
        kept = forecast["noise"].to_dataset()
        loc, scale = (kept[f"y.{n}"].values.reshape(600, -1)[:, 100:] for n in ("loc", "scale"))
        each = dist.Normal(loc, scale).log_prob(test["y"].values)
        exact = np.log(600) - np.asarray(jax.nn.logsumexp(each, axis=0))
        np.testing.assert_allclose(scores["log_score"].loc["y"], exact.mean(), rtol=1e-9)

    def test_units_are_those_of_the_data(self):
        layer = bd.Algebraic(Line(bd.between(1.0, 4.0)), units={"y": "mm"})
        model = bd.Model(
            layer,
            bd.filtering.CorrelatedNoise(
                bd.filtering.OrnsteinUhlenbeck(bd.between(0.1, 2.0), 3.0), bd.between(0.1, 1)
            ),
        )
        assert model.__leaf_units__(("noise", "process", "scale")) == "mm"
        assert model.__leaf_units__(("noise", "white")) == "mm"

    @pytest.mark.thorough
    def test_describe_names_the_process(self, correlated):
        text = str(bd.describe(correlated[0]))
        assert "correlation" in text and "AR1" in text

    @pytest.mark.thorough
    def test_an_update_goes_on_from_the_residuals_of_the_fit(self, correlated):
        model, post, train, whole = correlated
        later = bd.update(model, post, whole.isel(time=slice(100, 103)))
        assert later.attrs["updated_by"] == "importance weights"
        gained = later["log_likelihood"]["y"].sizes["time"], later.attrs["effective_draws"]
        assert gained[0] == 103 and gained[1] > 100
        # What the next datum adds to the log likelihood is the density that the forecast gives it.
        one, before = pose(model, whole.isel(time=slice(101))), pose(model, train)
        draws = post["posterior"].to_dataset()
        values = {v.attrs["path"]: jnp.asarray(v.values[0, 0]) for v in draws.data_vars.values()}
        told = (
            one.terms(one.unconstrain(values)).data - before.terms(before.unconstrain(values)).data
        )
        ahead = bd.forecast(model, post, whole.isel(time=slice(100, 103))[["time"]])
        first = dist.Normal(*(ahead["noise"][f"y.{n}"].values[0, 0, 0] for n in ("loc", "scale")))
        np.testing.assert_allclose(told, first.log_prob(whole["y"].values[100]), rtol=1e-8)

    @pytest.mark.thorough
    def test_files_hold_the_same_forecast(self, correlated, forecast, tmp_path):
        model, post, _, whole = correlated
        bd.save(post, tmp_path / "post.nc")
        again = bd.forecast(
            model, bd.load(tmp_path / "post.nc"), whole[["time"]], path=tmp_path / "forecast.nc"
        )
        np.testing.assert_array_equal(again["predictions"]["y"], forecast["predictions"]["y"])

    @pytest.mark.thorough
    def test_a_report_is_made(self, correlated, forecast, tmp_path):
        _, post, _, whole = correlated
        bd.report(post, forecast, whole.isel(time=slice(100, None))).save(tmp_path / "report.html")
        assert "correlation" in (tmp_path / "report.html").read_text()


class TestPopulation:
    """A process for each member, which knows its own data alone."""

    NAMES = np.array([1.0, 2.0, 5.0])

    @pytest.fixture
    def model(self):
        layer = bd.Each(bd.Algebraic(Line(bd.varying(bd.between(1.0, 4.0)))), self.NAMES)
        return bd.Model(
            layer, bd.filtering.CorrelatedNoise(bd.filtering.OrnsteinUhlenbeck(SCALE, TIME), 0.4)
        )

    @pytest.fixture
    def data(self):
        rng = np.random.default_rng(3)
        values = line(TIMES)[:, None] + np.cumsum(rng.normal(size=(TIMES.size, 3)), axis=0) * 0.4
        values[[0, 3, 7], [0, 1, 2]] = np.nan
        return xr.Dataset(
            {"y": (("time", "subject"), values)}, {"time": TIMES, "subject": self.NAMES}
        )

    @pytest.mark.thorough
    def test_the_density_is_the_product_over_members(self, model, data):
        problem = pose(model, data)
        position = problem.unconstrain({"layer.layer.function.level": jnp.full(3, 2.0)})
        exact = 0.0
        for member in self.NAMES:
            seen = np.isfinite(own := data["y"].sel(subject=member).values)
            times = TIMES[seen]
            covariance = _decays(times, times) + 0.16 * np.eye(times.size)
            exact += dist.MultivariateNormal(np.zeros(times.size), covariance).log_prob(
                own[seen] - line(times)
            )
        np.testing.assert_allclose(problem.terms(position).data, exact, rtol=1e-9)

    def test_the_future_of_one_member_goes_on_from_its_own_residuals(self, model, data):
        from bayes_dasl.prediction.forecasts import _past_of_fit

        tree = xr.DataTree.from_dict({"fitted_data": data})
        asked = xr.Dataset(coords={"time": LATER, "subject": [5.0]})
        past = _past_of_fit(model, tree, asked)
        np.testing.assert_array_equal(past.values["y"][:, 0], data["y"].sel(subject=5.0))
        unknown = _past_of_fit(model, tree, asked.assign_coords(subject=[4.0]))
        assert np.isnan(unknown.values["y"]).all()


class TestProblem:
    @pytest.fixture
    def problem(self):
        return pose(
            _model(
                bd.filtering.CorrelatedNoise(
                    bd.filtering.OrnsteinUhlenbeck(bd.between(0.1, 2.0), TIME), 0.4
                )
            ),
            _data(),
        )

    @pytest.mark.thorough
    def test_data_held_out_are_predicted_from_those_before(self, problem):
        held_out = TIMES > 4.0
        training, judged = problem.split(held_out)
        at = problem.prior(1, key=jax.random.key(0))[0]
        total = problem.terms(at).data
        np.testing.assert_allclose(
            training.terms(at).data + judged.terms(at).data, total, rtol=1e-12
        )

    def test_rows_keep_the_data_before_them(self, problem):
        at = problem.prior(1, key=jax.random.key(0))[0]
        index = jnp.asarray([2, 5])
        some = jax.jit(lambda x, rows: problem.rows(rows).terms(x).data)(at, index)
        weights = {"y": jnp.isin(jnp.arange(TIMES.size), index).astype(float)}
        np.testing.assert_allclose(some, problem.terms(at, weights).data, rtol=1e-12)

    @pytest.mark.thorough
    def test_curvature_by_first_derivatives_is_that_of_the_density_where_it_is_quadratic(self):
        from bayes_dasl.inference.linearisation import gauss_newton

        model = _model(
            bd.filtering.CorrelatedNoise(bd.filtering.OrnsteinUhlenbeck(SCALE, TIME), 0.4)
        )
        model = bd.Model(bd.Algebraic(Line(dist.Normal(2.0, 1.0))), model.noise)
        problem = pose(model, _data())
        at = np.array([2.1])
        np.testing.assert_allclose(
            gauss_newton(problem, at), -jax.hessian(problem.log_density)(at), rtol=1e-8
        )

    @pytest.mark.thorough
    def test_draws_of_a_model_without_data_are_a_path(self):
        noise = bd.filtering.CorrelatedNoise(bd.filtering.OrnsteinUhlenbeck(SCALE, TIME))
        model = _at_truth(_model(noise))
        inputs = bd.inputs(xr.Dataset(coords={"time": TIMES}))
        given = model.conditional(model.predict(inputs), inputs)["y"]
        drawn = np.asarray(given.sample(jax.random.key(2), (20_000,)))
        exact = _decays(TIMES, TIMES)
        error = np.sqrt((exact**2 + SCALE**4) / 20_000)
        assert np.all(np.abs(np.cov(drawn.T) - exact) < 4.5 * error)


class TestWhite:
    def test_may_vary(self):
        """The white noise of each datum is that at its own time, also in the past of a forecast."""
        white = bd.noise.VaryingScale(0.4, lambda t, y, u: {"log": 0.1 * t})
        model, data = (
            _model(
                bd.filtering.CorrelatedNoise(bd.filtering.OrnsteinUhlenbeck(SCALE, TIME), white)
            ),
            _data(),
        )
        given = _conditional(model, _ahead(model, data))
        seen = np.isfinite(data["y"].values)
        times = TIMES[seen]
        known = _decays(times, times) + np.diag((0.4 * np.exp(0.1 * times)) ** 2)
        across = _decays(LATER, times)
        mean = across @ np.linalg.solve(known, _residuals(data, False)[seen])
        left = SCALE**2 - np.sum(across * np.linalg.solve(known, across.T).T, axis=1)
        np.testing.assert_allclose(given.alone.loc, line(LATER) + mean, rtol=1e-9)
        np.testing.assert_allclose(
            given.variance, left + (0.4 * np.exp(0.1 * LATER)) ** 2, rtol=1e-9
        )


class TestSteps:
    @pytest.mark.thorough
    def test_layers_of_steps_know_their_times_in_a_forecast(self):
        layer = bd.Difference(lambda t, y, u: {"y": 0.9 * y["y"]}, {"y": 2.0}, start=0.0)
        model = bd.Model(layer, bd.filtering.CorrelatedNoise(bd.filtering.AR1(SCALE, 0.5)))
        days = np.arange(6.0)
        inputs = model.inputs(xr.Dataset({"y": ("time", 2 * 0.9**days + 0.4)}, {"time": days}))
        past = dataclasses.replace(inputs.past, same=False)
        ahead = dataclasses.replace(inputs, times=jnp.asarray([6.0, 8.0]), past=past)
        found = jax.jit(lambda: model.conditional(model.predict(ahead), ahead)["y"].mean)()
        np.testing.assert_allclose(
            found, 2 * 0.9 ** np.array([6, 8]) + 0.4 * 0.5 ** np.array([1, 3]), rtol=1e-12
        )


class TestCheck:
    @pytest.mark.thorough
    def test_priors_are_judged_without_the_data(self):
        """Of one step ahead data that wander together would lie within any prior."""
        data = _data(missing=())
        data["y"] += 50.0
        found = bd.check(
            _model(
                bd.filtering.CorrelatedNoise(
                    bd.filtering.AR1(dist.HalfNormal(1.0), dist.Uniform(0.0, 1.0))
                )
            ),
            data,
        )
        (prior,) = [f for f in found.findings if f.subject == "prior of y"]
        assert prior.level != "good"


class TestTrajectories:
    @pytest.mark.slow
    def test_states_given_in_place_of_solves_lie_at_the_past_too(self):
        """A hybrid's forecast keeps the states along its paths:
        those of the times asked for alone.
        """
        from bayes_dasl.prediction import Pusher, Watched

        network = bd.Network(
            eqx.nn.MLP(1, 1, 2, 1, jnp.tanh, key=jax.random.key(0)),
            {"y": (2.0, 1.0)},
            outputs=("y",),
            scale=0.1,
        )
        model = bd.Model(
            bd.ODE(bd.Residual(lambda t, y, u: {"y": -0.1 * y["y"]}, network), {"y": 2.0}),
            bd.filtering.CorrelatedNoise(bd.filtering.OrnsteinUhlenbeck(SCALE, TIME), 0.1),
        )
        problem = pose(model, _data())
        draws = {
            path: np.asarray(v)[None]
            for path, v in problem.constrain(jnp.zeros(problem.dimension)).items()
        }
        past = dataclasses.replace(problem.inputs.past, same=False)
        inputs = dataclasses.replace(problem.inputs, times=jnp.asarray(LATER), past=past)
        plain = Pusher(model, inputs, draws, key=jax.random.key(0)).whole()
        pusher = Pusher(
            model,
            inputs,
            draws,
            key=jax.random.key(0),
            watched=Watched(np.array([0]), np.arange(LATER.size)),
        )
        np.testing.assert_allclose(pusher.whole().mean["y"], plain.mean["y"], rtol=1e-12)
        assert pusher.watched_states[0]["y"].shape == (1, LATER.size)


class TestMembers:
    def test_moved_draws_hold_together(self):
        from bayes_dasl.prediction import Pusher, repeated

        model = _model(bd.filtering.CorrelatedLogNoise(bd.filtering.OrnsteinUhlenbeck(SCALE, TIME)))
        inputs = bd.inputs(xr.Dataset(coords={"time": TIMES}))
        levels = {"layer.function.level": np.array([1.9, 2.1])}
        pushed = Pusher(model, inputs, levels, key=jax.random.key(0), repeats=3000).whole()
        predictions, noise = repeated(pushed, 3000, key=jax.random.key(1))
        z = (np.log(predictions["y"]) - noise["y"]["loc"]) / SCALE
        exact = _decays(TIMES, TIMES) / SCALE**2
        assert np.all(np.abs(np.cov(z.T) - exact) < 4.5 * np.sqrt((exact**2 + 1) / 6000))


class TestRefusals:
    @pytest.mark.usefixtures("unchecked")
    def test_what_is_no_process(self):
        with pytest.raises(ModelError, match=r"process must be one such as bd\.filtering\.AR1"):
            bd.filtering.CorrelatedNoise(0.5)

    @pytest.mark.parametrize(
        ("make", "told"),
        [
            (lambda: bd.filtering.AR1(0.5, 1.0), "AR1.correlation must lie between 0 and 1"),
            (
                lambda: bd.filtering.AR1(0.5, dist.Normal(0.5, 0.1)),
                "AR1.correlation must lie between 0 and 1",
            ),
            (lambda: bd.filtering.AR1(0.5, 0.5, step=0.0), "the step must be positive"),
            (
                lambda: bd.filtering.OrnsteinUhlenbeck(-1.0, 1.0),
                "OrnsteinUhlenbeck.scale must be positive",
            ),
            (
                lambda: bd.filtering.OrnsteinUhlenbeck(1.0, dist.Normal(1.0, 1.0)),
                "OrnsteinUhlenbeck.time must be positive",
            ),
            (
                lambda: bd.filtering.CorrelatedNoise(bd.filtering.AR1(0.5, 0.5), -0.1),
                "white must be positive",
            ),
            (
                lambda: bd.filtering.CorrelatedNoise(bd.filtering.RandomWalk(0.5, 0.0)),
                "give white noise beside it",
            ),
        ],
    )
    def test_what_cannot_be(self, make, told):
        with pytest.raises(ModelError, match=told):
            make()

    def test_several_rows_at_one_time(self):
        data = _data().isel(time=[0, 1, 1, 2])
        with pytest.raises(DataError, match="CorrelatedNoise goes from each row to the next"):
            pose(_model(_noise("AR1", 0.0)), data)

    def test_a_filter(self):
        layer = bd.filtering.Kalman(lambda t, y, u: {"y": -y["y"]}, {"y": 0.3}, {"y": 1.0}, {})
        with pytest.raises(ModelError, match="Kalman looks back at the data itself"):
            bd.Model(layer, _noise("AR1", 0.0))
