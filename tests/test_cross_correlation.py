"""Residuals that are correlated across observables, against dense normal distributions of all data
at once.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr
from by_hand import posterior
from numpyro.handlers import block, condition, seed, trace
from numpyro.infer.util import log_density
from scipy import stats

import bayes_dasl as bd
from bayes_dasl.errors import ModelError
from bayes_dasl.filtering import CrossCorrelation, White
from bayes_dasl.inference import pose

TIMES = np.array([0.5, 1.0, 1.2, 2.0, 3.5, 3.6, 5.0])
LATER = np.array([5.5, 6.0, 9.0])
R = np.array([[1.0, 0.6, -0.3], [0.6, 1.0, 0.2], [-0.3, 0.2, 1.0]])
NAMES = ("land", "ocean", "ice")


class Lines(bd.Module):
    level: bd.Scalar

    def __call__(self, t, y, u):
        return {
            "land": self.level + 0.1 * t,
            "ocean": 2 * self.level + 0.0 * t,
            "ice": self.level * (2.0 + jnp.sin(t)),
        }


def lines(times, level=2.0):
    return {
        "land": level + 0.1 * times,
        "ocean": 2 * level + 0.0 * times,
        "ice": level * (2.0 + np.sin(times)),
    }


class OU:
    """The response of a residual to an impulse of its innovation:
    $x(t) = \\int h(t - s)\\,dW(s)$.
    """

    def __init__(self, scale, time):
        self.process = bd.filtering.OrnsteinUhlenbeck(scale, time)
        self.response = lambda s: scale * np.sqrt(2.0 / time) * np.exp(-s / time)


class AR:
    def __init__(self, scale, correlation):
        rate = -np.log(correlation) / 0.5
        self.process = bd.filtering.AR1(scale, correlation, step=0.5)
        self.response = lambda s: scale * np.sqrt(2.0 * rate) * np.exp(-s * rate)


class Smooth:
    def __init__(self, scale, length):
        rate = np.sqrt(3.0) / length
        self.process = bd.filtering.Matern32(scale, length)
        self.response = lambda s: 2.0 * scale * rate**1.5 * s * np.exp(-rate * s)


EDGES = np.concatenate([[0.0], np.geomspace(1e-2, 100.0, 40)])
NODES, WEIGHTS = np.polynomial.legendre.leggauss(12)
S = np.ravel(EDGES[:-1, None] + np.diff(EDGES)[:, None] * (NODES + 1) / 2)
WIDTHS = np.ravel(np.diff(EDGES)[:, None] * WEIGHTS / 2)


def covariance(one, other, lag):
    """cov(x(t + lag), z(t)) of two residuals that one Wiener process drives, by quadrature."""
    return WIDTHS @ (one.response(S + max(lag, 0.0)) * other.response(S + max(-lag, 0.0)))


def dense(kinds, white, correlation, rows):
    """The covariance of data, each a time and which observable."""
    found = np.array(
        [
            [correlation[i, j] * covariance(kinds[i], kinds[j], t - s) for s, j in rows]
            for t, i in rows
        ]
    )
    return found + np.diag([white[i] ** 2 for _, i in rows])


KINDS = {
    "AR1 alike": (AR(0.7, 0.6), AR(0.7, 0.6), AR(1.5, 0.6)),
    "OU of different times": (OU(0.7, 2.5), OU(0.4, 0.8), OU(1.0, 6.0)),
    "mixed": (OU(0.7, 2.5), Smooth(0.5, 2.0), AR(0.9, 0.3)),
    "Matern32": (Smooth(0.7, 2.5), Smooth(0.5, 1.0), Smooth(0.6, 4.0)),
}
WHITE = (0.0, 0.3, 0.2)


def model_of(kinds, white=WHITE, correlation=R, logarithm=(), names=NAMES):
    noise = {
        name: (
            bd.filtering.CorrelatedLogNoise if name in logarithm else bd.filtering.CorrelatedNoise
        )(kind.process, own)
        for name, kind, own in zip(names, kinds, white, strict=False)
    }
    cross = CrossCorrelation(names, correlation)
    return bd.Model(bd.Algebraic(Lines(bd.between(1.0, 4.0))), noise, cross_correlation=cross)


def data_of(times=TIMES, missing=True):
    rng = np.random.default_rng(0)
    values = {name: line + 0.5 * rng.normal(size=times.size) for name, line in lines(times).items()}
    if missing:  # of some of the observables, at some of the times of all
        values["land"][[2, 4]] = values["ocean"][[0, 4]] = values["ice"][[4, 5]] = np.nan
    return xr.Dataset({name: ("time", v) for name, v in values.items()}, {"time": times})


def at_truth(model):
    return block(
        condition(model, {"layer.function.level": jnp.asarray(2.0)}), hide=["layer.function.level"]
    )


def rows_of(data):
    return [
        (t, i)
        for k, t in enumerate(data["time"].values)
        for i, n in enumerate(NAMES)
        if np.isfinite(data[n][k])
    ]


def residuals(data):
    line = lines(data["time"].values)
    return np.array(
        [
            data[NAMES[i]].sel(time=t) - line[NAMES[i]][data.get_index("time").get_loc(t)]
            for t, i in rows_of(data)
        ]
    )


@pytest.mark.thorough("OU of different times", "Matern32", "mixed")
@pytest.mark.parametrize("kinds", KINDS.values(), ids=list(KINDS))
def test_the_density_is_that_of_the_dense_normal(kinds):
    data = data_of()
    found, _ = log_density(at_truth(model_of(kinds)), (data,), {}, {})
    exact = dist.MultivariateNormal(0.0, dense(kinds, WHITE, R, rows_of(data))).log_prob(
        residuals(data)
    )
    np.testing.assert_allclose(found, exact, rtol=1e-7)


@pytest.mark.thorough
def test_on_the_scale_of_a_logarithm():
    kinds, data = KINDS["mixed"], data_of()
    line = lines(TIMES)["ice"]
    data["ice"] = ("time", line * np.exp(data["ice"].values - line))
    found, _ = log_density(at_truth(model_of(kinds, logarithm=("ice",))), (data,), {}, {})
    as_normal = data.assign(ice=("time", line + np.log(data["ice"].values / line)))
    exact = dist.MultivariateNormal(0.0, dense(kinds, WHITE, R, rows_of(data))).log_prob(
        residuals(as_normal)
    )
    np.testing.assert_allclose(
        found, exact - np.log(data["ice"].values[np.isfinite(data["ice"])]).sum(), rtol=1e-7
    )


@pytest.mark.thorough
def test_residuals_that_are_independent_in_time():
    scales = np.array([0.7, 0.4, 1.0])
    noise = {
        name: bd.filtering.CorrelatedNoise(White(scale))
        for name, scale in zip(NAMES, scales, strict=True)
    }
    data, cross = data_of(), CrossCorrelation(NAMES, R)
    model = bd.Model(bd.Algebraic(Lines(bd.between(1.0, 4.0))), noise, cross_correlation=cross)
    found, _ = log_density(at_truth(model), (data,), {}, {})
    rows, left, exact = rows_of(data), residuals(data), 0.0
    for time in TIMES:
        of = [k for k, (t, _) in enumerate(rows) if t == time]
        which = [rows[k][1] for k in of]
        if which:
            part = (R * np.outer(scales, scales))[np.ix_(which, which)]
            exact += dist.MultivariateNormal(0.0, part).log_prob(left[of])
    np.testing.assert_allclose(found, exact, rtol=1e-10)


@pytest.mark.thorough
def test_a_number_is_the_correlation_of_two():
    kinds, data = KINDS["AR1 alike"][:2], data_of()[["land", "ocean"]]
    both = [model_of(kinds, correlation=given, names=NAMES[:2]) for given in (0.6, R[:2, :2])]
    one, other = (log_density(at_truth(model), (data,), {}, {})[0] for model in both)
    assert float(one) == float(other)


@pytest.mark.thorough
def test_without_correlation_each_is_by_itself():
    kinds, data = KINDS["mixed"], data_of()
    alone = model_of(kinds)
    alone = bd.Model(alone.layer, alone.noise)
    found, want = (
        log_density(at_truth(m), (data,), {}, {})[0]
        for m in (model_of(kinds, correlation=np.eye(3)), alone)
    )
    np.testing.assert_allclose(found, want, rtol=1e-12)


@pytest.mark.thorough
def test_a_forecast_is_conditioned_on_all_and_its_paths_hold_together():
    kinds, data = KINDS["mixed"], data_of()
    model = model_of(kinds)
    known = bd.Model(
        bd.Algebraic(Lines(2.0)), model.noise, cross_correlation=model.cross_correlation
    )
    past = model.inputs(data).past
    inputs = model.inputs(xr.Dataset(coords={"time": LATER}))
    inputs = dataclasses.replace(inputs, past=dataclasses.replace(past, same=False))
    given = known.conditional(known.predict(inputs), inputs)

    rows, later = rows_of(data), [(t, i) for i in range(3) for t in LATER]
    joint = dense(kinds, WHITE, R, [*rows, *later])
    n = len(rows)
    gain = np.linalg.solve(joint[:n, :n], joint[:n, n:]).T
    mean, want = gain @ residuals(data), joint[n:, n:] - gain @ joint[:n, n:]
    line = np.concatenate([lines(LATER)[name] for name in NAMES])
    np.testing.assert_allclose(
        np.concatenate([given[name].alone.loc for name in NAMES]), line + mean, rtol=1e-6
    )
    spread = np.concatenate([given[name].alone.scale for name in NAMES])
    np.testing.assert_allclose(spread, np.sqrt(np.diag(want)), rtol=1e-6)

    number, key = 40_000, jax.random.key(1)
    drawn = np.concatenate(
        [np.asarray(given[name].sample(key, (number,))) for name in NAMES], axis=1
    )
    error = np.sqrt((want**2 + np.outer(np.diag(want), np.diag(want))) / number)
    assert np.all(np.abs(np.cov((drawn - line).T) - want) < 4.5 * error)


@pytest.mark.thorough
def test_draws_without_data_hold_together():
    """At one time residuals of processes that forget equally fast have the correlation that is
    given.
    """
    model = model_of(KINDS["AR1 alike"], white=(0.0, 0.0, 0.0))
    inputs = model.inputs(xr.Dataset(coords={"time": LATER}))

    def drawn(key):
        sites = trace(seed(at_truth(model), key)).get_trace(inputs)
        return jnp.stack([sites[name]["value"][1] for name in NAMES])

    found = np.corrcoef(np.asarray(jax.vmap(drawn)(jax.random.split(jax.random.key(0), 20_000))).T)
    np.testing.assert_allclose(found, R, atol=4.5 / np.sqrt(20_000))


@pytest.mark.thorough
def test_any_of_the_rows_keep_what_the_data_say_of_them():
    """Whatever a minibatch holds, its terms add up to the density of all data."""
    unknown = model_of(KINDS["AR1 alike"][:2], correlation=dist.Uniform(-1.0, 1.0), names=NAMES[:2])
    problem = pose(unknown, data_of()[["land", "ocean"]])
    parts = [problem, *(problem.rows(jnp.array(rows)) for rows in ((0, 3, 4), (1, 2, 5, 6)))]
    density = jax.jit(lambda x: jnp.stack([part.terms(x).data for part in parts]))
    found = np.array([density(jnp.full(problem.dimension, at)) for at in (-0.3, 0.4)])
    np.testing.assert_allclose(found[:, 0], found[:, 1] + found[:, 2], rtol=1e-9)


@pytest.mark.thorough
def test_draws_at_the_times_of_the_data_have_the_moments_that_are_said_of_them():
    model, data = model_of(KINDS["AR1 alike"]), data_of()
    known = bd.Model(
        bd.Algebraic(Lines(2.0)), model.noise, cross_correlation=model.cross_correlation
    )
    inputs = known.inputs(data)
    given = known.conditional(known.predict(inputs), inputs)
    for name in NAMES:
        drawn = np.asarray(given[name].sample(jax.random.key(2), (20_000,)))
        mean, spread = given[name].alone.loc, given[name].alone.scale
        assert np.all(np.abs(drawn.mean(0) - mean) < 4.5 * spread / np.sqrt(20_000))
        np.testing.assert_allclose(drawn.std(0), spread, rtol=0.03)


def test_a_forecast_at_a_time_of_the_data_is_given_the_observables_named_before():
    """Residuals of one time alone: what land was tells the mean and takes all of the variance but 1
    - r².
    """
    noise = {
        name: bd.filtering.CorrelatedNoise(White(scale))
        for name, scale in (("land", 0.5), ("ocean", 0.2))
    }
    model = bd.Model(
        bd.Algebraic(Lines(2.0)), noise, cross_correlation=CrossCorrelation(("land", "ocean"), 0.9)
    )
    data = data_of(missing=False)[["land", "ocean"]]
    data["ocean"][1:] = data["land"][[2, 4]] = np.nan
    inputs = model.inputs(data)
    inputs = dataclasses.replace(inputs, past=dataclasses.replace(inputs.past, same=False))
    given = model.conditional(model.predict(inputs), inputs)["ocean"].alone
    left, seen = (data["land"] - lines(TIMES)["land"]).values, data["land"].notnull().values
    np.testing.assert_allclose(
        given.loc[seen], (lines(TIMES)["ocean"] + 0.9 * 0.4 * left)[seen], rtol=1e-12
    )
    np.testing.assert_allclose(
        given.scale, np.where(seen, 0.2 * np.sqrt(1 - 0.81), 0.2), rtol=1e-12
    )


def test_what_the_support_fixes_is_not_told_of_as_stuck():
    model = model_of(KINDS["AR1 alike"], correlation=dist.LKJ(3, 1.0))
    rng = np.random.default_rng(0)
    free = np.tanh(rng.normal(size=(4, 300, 3)) * 0.2)
    matrix = np.broadcast_to(np.eye(3), (4, 300, 3, 3)).copy()
    for value, (i, j) in zip(np.moveaxis(free, -1, 0), ((0, 1), (0, 2), (1, 2)), strict=True):
        matrix[..., i, j] = matrix[..., j, i] = value
    draws = {
        "layer.function.level": rng.normal(2.0, 0.1, (4, 300)),
        "cross_correlation.correlation": matrix,
    }
    told = bd.diagnose(posterior(model, data_of(), draws)).findings
    assert not [finding for finding in told if "never moved" in finding.message]
    stuck = draws | {"layer.function.level": np.full((4, 300), 2.0)}
    told = bd.diagnose(posterior(model, data_of(), stuck)).findings
    assert [finding for finding in told if "level never moved" in finding.message]


def test_a_forecast_draws_all_of_them_together():
    model = model_of(KINDS["AR1 alike"], white=(0.0, 0.0, 0.0))
    draws = {"layer.function.level": np.full((2, 200), 2.0)}
    post = posterior(model, data_of(), draws)
    fc = bd.forecast(model, post, xr.Dataset(coords={"time": [*TIMES, 40.0]}), key=0)
    last = np.stack([np.ravel(fc["predictions"][name].isel(time=-1)) for name in NAMES])
    np.testing.assert_allclose(np.corrcoef(last), R, atol=4.5 / np.sqrt(400))


@pytest.fixture(scope="module")
def fitted():
    """Sixty years of which both series have AR(1) residuals that share most of what is new."""
    rng, years = np.random.default_rng(3), np.arange(80.0)
    new = rng.multivariate_normal([0.0, 0.0], [[1.0, 0.8], [0.8, 1.0]], size=years.size) * [
        0.2,
        0.1,
    ]
    left = np.zeros((years.size, 2))
    for k in range(1, years.size):
        left[k] = 0.6 * left[k - 1] + new[k]
    line = lines(years)
    data = xr.Dataset(
        {
            "land": ("time", line["land"] + left[:, 0]),
            "ocean": ("time", line["ocean"] + left[:, 1]),
        },
        {"time": years},
    )
    noise = {
        name: bd.filtering.CorrelatedNoise(
            bd.filtering.AR1(dist.HalfNormal(1.0), dist.Uniform(0.0, 1.0))
        )
        for name in ("land", "ocean")
    }
    cross = CrossCorrelation(("land", "ocean"), dist.Uniform(-1.0, 1.0))
    model = bd.Model(bd.Algebraic(Lines(bd.between(1.0, 4.0))), noise, cross_correlation=cross)
    train = data.isel(time=slice(0, 60))
    return (
        model,
        data,
        bd.fit(model, train, bd.NUTS(chains=2, warmup=200, draws=200), key=0, progress=False),
    )


@pytest.mark.thorough
def test_a_fit_finds_the_correlation(fitted):
    model, _, post = fitted
    found = post["posterior"]["cross_correlation.correlation"].values
    low, high = np.quantile(found, [0.025, 0.975])
    assert low < 0.8 < high and low > 0.5
    assert "correlation ~ Uniform(-1, 1)" in str(bd.describe(model))


@pytest.mark.thorough
def test_draws_of_a_forecast_hold_together_and_one_tells_of_the_other(fitted):
    model, data, post = fitted
    fc = bd.forecast(model, post, data[["time"]].isel(time=slice(60, None)), key=0)
    far = fc["predictions"].isel(time=-1)
    land, ocean = (np.ravel(far[name]) for name in ("land", "ocean"))
    assert np.corrcoef(land, ocean)[0, 1] > 0.5
    told = bd.diagnose(post, fc, data.isel(time=slice(60, None)))
    assert not [f for f in told.findings if f.aspect == "model" and f.level == "bad"]


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: CrossCorrelation(("land",), 0.5), "two observables or more"),
        (lambda: CrossCorrelation(("land", "land"), 0.5), "different names"),
        (lambda: CrossCorrelation("land", 0.5), "tuple of different names"),
        (lambda: CrossCorrelation(NAMES, 0.5), r"matrix of shape \(3, 3\), such as dist.LKJ\(3"),
        (lambda: CrossCorrelation(NAMES[:2], 1.5), "between −1 and 1"),
        (lambda: CrossCorrelation(NAMES[:2], -1.0), "between −1 and 1"),
        (
            lambda: CrossCorrelation(NAMES[:2], None),
            "a number between −1 and 1, or a matrix .* not None",
        ),
        (lambda: CrossCorrelation(NAMES[:2], "high"), "not 'high'"),
        (lambda: CrossCorrelation(NAMES[:2], [[1.0], [0.5, 1.0]]), "a matrix of shape"),
        (
            lambda: bd.Model(bd.Algebraic(Lines(2.0)), bd.NormalNoise(1.0), cross_correlation=0.5),
            "must be a bd.filtering.CrossCorrelation",
        ),
        (lambda: CrossCorrelation(NAMES[:2], dist.Normal(0.0, 1.0)), "between −1 and 1"),
        (
            lambda: CrossCorrelation(NAMES[:2], np.array([[1.0, 2.0], [2.0, 1.0]])),
            "positive definite",
        ),
        (
            lambda: CrossCorrelation(NAMES[:2], np.array([[2.0, 0.5], [0.5, 2.0]])),
            "ones on its diagonal",
        ),
        (
            lambda: CrossCorrelation(NAMES[:2], dist.Normal(0.0, 1.0).expand([2, 2]).to_event(2)),
            r"dist.LKJ\(2",
        ),
        (lambda: model_of(KINDS["mixed"], names=("land", "sea", "ice")), "sea"),
        (
            lambda: _with({"land": bd.NormalNoise(1.0), "ocean": bd.NormalNoise(1.0)}),
            "give it a bd.filtering.CorrelatedNoise",
        ),
        (
            lambda: _with(
                dict.fromkeys(
                    NAMES[:2], bd.filtering.CorrelatedNoise(bd.filtering.RandomWalk(1.0, 0.0), 1.0)
                )
            ),
            "not stationary",
        ),
        (
            lambda: _with(
                {
                    "land": bd.filtering.CorrelatedNoise(White(1.0)),
                    "ocean": bd.filtering.CorrelatedNoise(bd.filtering.AR1(1.0, 0.5)),
                }
            ),
            "no correlation with those that are not",
        ),
        (
            lambda: _with({"land": bd.filtering.CorrelatedNoise(White(1.0))}),
            "names 'ocean', which is no observable: land",
        ),
    ],
)
def test_refuses(make, match, unchecked):
    with pytest.raises(ModelError, match=match):
        make()


def _with(noise):
    cross = CrossCorrelation(NAMES[:2], 0.5)
    return bd.Model(bd.Algebraic(Lines(bd.between(1.0, 4.0))), noise, cross_correlation=cross)


@pytest.mark.thorough
def test_a_matrix_may_be_unknown():
    model = model_of(KINDS["AR1 alike"], correlation=dist.LKJ(3, 1.0))
    data = data_of()
    problem = pose(model, data)
    position = jnp.zeros(problem.dimension)
    assert problem.dimension == 4
    value, slope = jax.value_and_grad(problem.log_density)(position)
    assert np.isfinite(value) and np.all(np.isfinite(slope))
    np.testing.assert_allclose(
        problem.constrain(position)["cross_correlation.correlation"], np.eye(3), atol=1e-12
    )
    assert bd.describe(model).unknowns == 4


def test_a_censored_observable_is_judged_given_the_other():
    """Residuals that are independent in time: the density of one, times the probability of the
    other given it.
    """
    limit, rho = 4.0, 0.6
    data = xr.Dataset(
        {"land": ("time", [2.3, 1.8]), "ocean": ("time", [limit, limit])}, {"time": [0.0, 1.0]}
    )
    noises = {
        "land": bd.filtering.CorrelatedNoise(White(0.5)),
        "ocean": bd.noise.Censored(bd.filtering.CorrelatedNoise(White(0.2)), below=limit),
    }
    layer = bd.Algebraic(Lines(bd.between(1.0, 4.0)))
    model = bd.Model(layer, noises, cross_correlation=CrossCorrelation(("land", "ocean"), rho))
    path = "layer.function.level"
    at_truth = block(condition(model, {path: jnp.asarray(2.0)}), hide=[path])
    found = log_density(at_truth, (data,), {}, {})[0]
    residuals = data["land"].values - np.array([2.0, 2.1])
    given = stats.norm(4.0 + rho * 0.2 / 0.5 * residuals, 0.2 * np.sqrt(1 - rho**2))
    wanted = stats.norm(0.0, 0.5).logpdf(residuals) + given.logcdf(limit)
    assert float(found) == pytest.approx(wanted.sum(), rel=1e-9)
