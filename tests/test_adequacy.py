"""Does the verdict see a model that does not fit, and leave one alone that does? Posteriors in
closed form.
"""

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from bayes_dasl import diagnose
from bayes_dasl.errors import MismatchError
from bayes_dasl.scores.draws_at_data import crps_at, fair_crps
from bayes_dasl.verdict.adequacy import adequacy_findings
from bayes_dasl.verdict.residuals import NUMBER, residual_findings, share_beyond

DRAWS, NOISE = 2000, 0.5
TIMES = np.linspace(0.0, 6.0, 45)
FITTED = TIMES <= 4.0
PRIOR_SD = np.array([2.0, 1.0])


def results(y, design, rng, *, prior_mean=(0.0, 0.0), prior_sd=PRIOR_SD, noise=NOISE):
    """Posterior and forecast of a linear model with normal noise of a known scale, by its conjugate
    posterior.
    """
    prior_mean, prior_sd = (
        np.asarray(prior_mean)[: design.shape[1]],
        np.asarray(prior_sd)[: design.shape[1]],
    )
    x = design[FITTED]
    precision = np.diag(prior_sd**-2.0) + x.T @ x / noise**2
    covariance = np.linalg.inv(precision)
    mean = covariance @ (prior_mean / prior_sd**2 + x.T @ y[FITTED] / noise**2)
    drawn = rng.multivariate_normal(mean, covariance, DRAWS)
    return trees(
        y,
        drawn @ design.T,
        np.full(DRAWS, noise),
        drawn,
        prior_mean + prior_sd * rng.normal(size=(500, len(mean))),
        rng,
    )


def trees(y, centre, scale, parameters, prior, rng):
    def over_time(values):
        return xr.Dataset({"y": (("chain", "draw", "time"), values[None])}, {"time": TIMES})

    def named(values):
        columns = {
            f"p{i}": (("chain", "draw"), v[None], {"group": "science"})
            for i, v in enumerate(values.T)
        }
        return xr.Dataset(columns)

    fitted = xr.Dataset({"y": ("time", y[FITTED])}, {"time": TIMES[FITTED]})
    post = xr.DataTree.from_dict(
        {"posterior": named(parameters), "prior": named(prior), "observed_data": fitted}
    )
    scale = np.broadcast_to(scale if scale.ndim == 2 else scale[:, None], centre.shape)
    groups = {
        "predictions": centre + scale * rng.normal(size=centre.shape),
        "conditional_mean": centre,
    }
    groups["conditional_variance"] = scale**2
    fc = xr.DataTree.from_dict({name: over_time(values) for name, values in groups.items()})
    fc.attrs = {"train_start": 0.0, "train_end": float(TIMES[FITTED][-1])}
    return post, fc, xr.Dataset({"y": ("time", y)}, {"time": TIMES})


LINE = np.stack([np.ones_like(TIMES), TIMES], axis=1)


def levels(found):
    return {finding.subject: finding.level for finding in found}


def judged(*arguments, competitors=None):
    post, fc, data = arguments
    return list(adequacy_findings(post, fc, data, competitors or {}))


def sound(seed):
    rng = np.random.default_rng(seed)
    truth = PRIOR_SD * rng.normal(size=2)
    return results(LINE @ truth + NOISE * rng.normal(size=TIMES.size), LINE, rng)


@pytest.mark.thorough
def test_sound_models_are_left_alone():
    """Truths from their own priors: of a hundred hardly any are called into question."""
    found = [
        [f for f in judged(*sound(seed)) if f.level in ("warning", "bad")] for seed in range(100)
    ]
    assert sum(map(bool, found)) <= 5, [str(f) for each in found for f in each]
    assert sum(f.level == "bad" for each in found for f in each) <= 1


STEEP = np.stack([np.exp(-2 * TIMES), np.exp(1.5 * (TIMES - 4))], axis=1)
MANY = np.exp(-2 * (TIMES[:, None] - np.linspace(0.0, 4.0, 14)) ** 2)


@pytest.mark.thorough
@pytest.mark.parametrize("design", [LINE, STEEP, MANY], ids=["line", "steep", "many"])
def test_the_evenness_of_sound_models_is_left_alone(design):
    """Also where the fit hangs on the few data at which most is predicted, and with a parameter for
    every two data.
    """
    questioned, sd = 0, np.full(design.shape[1], 5.0)
    for seed in range(100):
        rng = np.random.default_rng(seed)
        y = design @ (sd * rng.normal(size=sd.size)) + NOISE * rng.normal(size=TIMES.size)
        fc = results(y, design, rng, prior_mean=np.zeros(sd.size), prior_sd=sd)[1]
        mean, drawn = (
            fc[name]["y"].values[0, ::4, FITTED].T for name in ("conditional_mean", "predictions")
        )
        found = residual_findings("y", drawn, y[FITTED], mean, np.full(mean.shape, NOISE), NUMBER)
        questioned += "evenness of residuals of y" in levels(found)
    assert questioned <= 3  # of a binomial with a mean of 0.2


@pytest.mark.parametrize("draws", [100, 1000])
@pytest.mark.parametrize("observables", [1, 30])
def test_noise_a_hundred_times_as_large_is_bad_however_much_is_looked_at(draws, observables):
    rng = np.random.default_rng(0)
    mean = np.zeros((draws, TIMES.size))
    drawn = rng.normal(size=mean.shape)
    found = residual_findings(
        "y", drawn, 100 * rng.normal(size=TIMES.size), mean, np.ones(mean.shape), 5 * observables
    )
    assert levels(found)["size of residuals of y"] == "bad"


def test_how_rare_a_statistic_is_beyond_all_replicates():
    """As rare as the distribution has it where its tail is exponential, and no rarer where that is
    lighter.
    """
    rng = np.random.default_rng(0)
    several = [share_beyond(rng.exponential(size=400), 12.0) for _ in range(50)]
    assert np.exp(np.mean(np.log(several))) == pytest.approx(np.exp(-12.0), rel=0.6)
    assert np.median([share_beyond(rng.normal(size=400), 4.5) for _ in range(50)]) > stats.norm.sf(
        4.5
    )
    assert share_beyond(np.arange(100.0), 89.5) == pytest.approx(0.1)
    assert share_beyond(np.ones(100), 2.0) == pytest.approx(0.001)


def constant_for_a_line(rng):
    y = 1.0 + 2.0 * TIMES + NOISE * rng.normal(size=TIMES.size)
    return results(y, LINE[:, :1], rng)


def prior_against_data(rng):
    y = 50.0 + NOISE * rng.normal(size=TIMES.size)
    return results(y, LINE[:, :1], rng, prior_sd=[0.5])


def outliers(rng, scale=2.3):
    """A fifth of the data ten times as far out as the noise; the scale is what a fit would find."""
    y = LINE @ [1.0, 1.0] + NOISE * rng.normal(size=TIMES.size)
    y[rng.choice(TIMES.size, TIMES.size // 5, replace=False)] += (
        rng.choice([-1, 1], TIMES.size // 5) * 10 * NOISE
    )
    return results(y, LINE, rng, noise=scale)


def noise_too_small(rng):
    return results(LINE @ [1.0, 1.0] + 2 * NOISE * rng.normal(size=TIMES.size), LINE, rng)


def correlated_noise(rng):
    e = rng.normal(size=TIMES.size)
    for i in range(1, e.size):
        e[i] = 0.9 * e[i - 1] + np.sqrt(1 - 0.9**2) * e[i]
    return results(LINE @ [1.0, 1.0] + NOISE * e, LINE, rng)


def regime_changes(rng):
    y = (
        LINE @ [1.0, 0.3]
        + np.where(FITTED, 0.0, 1.5 * (TIMES - 4))
        + NOISE * rng.normal(size=TIMES.size)
    )
    return results(y, LINE, rng)


def curved(rng):
    return results(1.0 + 0.6 * (TIMES - 2) ** 2 + NOISE * rng.normal(size=TIMES.size), LINE, rng)


GROWTH = np.exp(0.9 * TIMES)[:, None]


def relative_noise(rng):
    """A third of what is predicted, 1 to 37; the scale is what a fit would find."""
    mean = GROWTH[:, 0]
    scale = 0.3 * np.sqrt(np.mean(mean[FITTED] ** 2))
    return results(mean * (1 + 0.3 * rng.normal(size=TIMES.size)), GROWTH, rng, noise=scale)


def absolute_noise(rng):
    """The same at all times, taken for a share of what is predicted."""
    mean, share = GROWTH[:, 0], NOISE * np.sqrt(np.mean(GROWTH[FITTED] ** -2.0))
    centre = mean * (1 + 0.05 * rng.normal(size=(DRAWS, 1)))
    y = mean + NOISE * rng.normal(size=TIMES.size)
    return trees(y, centre, share * centre, np.zeros((DRAWS, 1)), rng.normal(size=(500, 1)), rng)


def one_error_for_all(rng):
    """Errors of the forecast are those of one rate, so that a tenth of sound ones hold nothing in
    their intervals.
    """
    rate = 0.9 + 0.05 * rng.normal(size=(DRAWS, 1))
    y = np.where(FITTED, GROWTH[:, 0], GROWTH[FITTED][-1, 0]) + NOISE * rng.normal(size=TIMES.size)
    centre = GROWTH[FITTED][-1, 0] * np.exp(rate * (TIMES - 4.0))
    return trees(y, centre, np.full(DRAWS, NOISE), rate, 0.9 + 0.3 * rng.normal(size=(500, 1)), rng)


FAULTS = {
    constant_for_a_line: "order of residuals of y",
    prior_against_data: "prior of p0",
    outliers: "tails of residuals of y",
    noise_too_small: "size of residuals of y",
    correlated_noise: "order of residuals of y",
    relative_noise: "evenness of residuals of y",
    absolute_noise: "evenness of residuals of y",
    one_error_for_all: "held-out data",
    regime_changes: "held-out data",
    curved: "held-out data",
}


@pytest.mark.thorough(
    "outliers", "noise_too_small", "correlated_noise", "absolute_noise", "regime_changes", "curved"
)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_planted_faults_are_found(fault):
    """Of twenty data sets each, at least eighteen;
    a line takes some correlated noise for a trend.
    """
    found = [levels(judged(*fault(np.random.default_rng(seed)))) for seed in range(20)]
    seen = sum(each.get(FAULTS[fault]) in ("warning", "bad") for each in found)
    assert seen >= (16 if fault is correlated_noise else 18), found


def with_sure_zeros(scale):
    """A forecast that is sure of every other datum, as of a dry river, and one draw of which has no
    noise at all.
    """
    rng = np.random.default_rng(0)
    dry = np.arange(TIMES.size) % 2 == 1
    sd = np.where(dry, 0.0, NOISE) * np.ones((DRAWS, 1))
    sd[7] = 0.0
    y = np.where(dry, 0.0, 2.0 + scale * rng.normal(size=TIMES.size))
    level = np.where(dry, 0.0, 2.0 + 0.1 * rng.normal(size=(DRAWS, 1)))
    return trees(y, level, sd, np.zeros((DRAWS, 1)), rng.normal(size=(500, 1)), rng)


@pytest.mark.parametrize(
    ("scale", "found"), [(NOISE, set()), (4 * NOISE, {"size of residuals of y"})]
)
def test_data_that_a_model_is_sure_of_are_no_reason_to_judge_no_residual(scale, found):
    said = [
        f
        for f in judged(*with_sure_zeros(scale))
        if "residuals" in f.subject or f.subject == "training data"
    ]
    assert {f.subject for f in said if f.level != "good"} == found, [*map(str, said)]
    assert found or "the residuals of 15 values" in said[0].message


def test_a_rival_or_a_baseline_that_wins_is_named():
    rng = np.random.default_rng(0)
    good = results(y := LINE @ [1.0, 1.0] + NOISE * rng.normal(size=TIMES.size), LINE, rng)
    poor = results(y, LINE[:, :1], rng)
    assert levels(judged(*poor, competitors={"line": good[1]}))["against line"] == "warning"
    assert levels(judged(*good, competitors={"level": poor[1]}))["against level"] == "good"
    noisy = results(rng.normal(size=TIMES.size), 5 * LINE**2, rng, noise=0.05)
    assert levels(judged(*noisy))["against climatology"] == "bad"


def test_a_rival_of_other_observables_is_refused():
    rng = np.random.default_rng(0)
    post, fc, data = results(LINE @ [1.0, 1.0] + NOISE * rng.normal(size=TIMES.size), LINE, rng)
    other = xr.DataTree.from_dict(
        {n: g.to_dataset().rename(y="z") for n, g in fc.children.items() if "y" in g}
    )
    with pytest.raises(
        MismatchError, match="the competitor 'other' forecasts z, but is compared with a model of y"
    ):
        diagnose(post, fc, data, competitors={"other": other})


def test_a_rival_is_compared_at_the_times_that_both_forecast():
    rng = np.random.default_rng(0)
    good = results(y := LINE @ [1.0, 1.0] + NOISE * rng.normal(size=TIMES.size), LINE, rng)
    poor = results(y, LINE[:, :1], rng)[1]

    def at(fc, times):
        some = xr.DataTree.from_dict(
            {n: g.to_dataset().isel(time=times) for n, g in fc.children.items()}
        )
        some.attrs = fc.attrs
        return some

    late = slice(37, None)
    both = judged(good[0], at(poor, late), good[2], competitors={"line": at(good[1], late)})
    expected = [f for f in both if f.subject == "against line"]
    assert expected[0].level == "warning"
    for ours, theirs in ((poor, at(good[1], late)), (at(poor, late), good[1])):
        found = judged(good[0], ours, good[2], competitors={"line": theirs})
        assert [f for f in found if f.subject == "against line"] == expected
    with pytest.raises(MismatchError, match="forecast at the times of the data"):
        judged(good[0], at(poor, slice(0, 35)), good[2], competitors={"line": at(good[1], late)})


def test_a_seasonal_climatology_that_wins_is_named():
    rng = np.random.default_rng(3)
    wave = 3 * np.sin(2 * np.pi * TIMES) + NOISE * rng.normal(size=TIMES.size)
    post, fc, data = results(wave, LINE, rng, noise=2.2)
    assert "against seasonal climatology" not in levels(judged(post, fc, data))
    years = post["observed_data"].to_dataset()
    years["time"].attrs["units"] = "year"
    post["observed_data"] = xr.DataTree(years)
    assert levels(judged(post, fc, data))["against seasonal climatology"] in ("warning", "bad")


def test_what_was_not_looked_at_is_not_good():
    post, fc, data = sound(0)
    assert levels(adequacy_findings(post, None, None, {})) == {}
    assert set(levels(adequacy_findings(post, fc, None, {}))) == {"training data"}
    assert set(levels(adequacy_findings(post, fc, data, {}))) == {"training data", "held-out data"}
    # Only what was fitted is given, so that nothing is held out.
    assert set(levels(adequacy_findings(post, fc, data.isel(time=FITTED), {}))) == {"training data"}
    later = xr.DataTree.from_dict(
        {n: g.to_dataset().isel(time=~FITTED) for n, g in fc.children.items()}
    )
    assert levels(adequacy_findings(post, later, None, {})) == {}


def test_the_verdict_has_a_sentence_on_the_model():
    post, fc, data = constant_for_a_line(np.random.default_rng(0))
    diagnosis = diagnose(post, fc, data)
    assert diagnosis.model == "bad" and "The model does not fit: " in diagnosis.verdict
    assert (
        "Whether the model fits was not looked at" in diagnose(post).verdict
        and diagnose(post).model is None
    )
    diagnosis = diagnose(*sound(1))
    assert diagnosis.model == "good"
    assert "The model fits what was looked at: training data, held-out data." in diagnosis.verdict


def test_the_verdict_does_not_say_that_a_model_fits_where_nothing_could_have_shown_that_it_does_not():
    """Fourteen of fifteen values are held,
    but their errors are so alike that they are worth four.
    """
    diagnosis = diagnose(*sound(0))
    assert diagnosis.model == "inconclusive" and diagnosis.to_dict()["model"] == "inconclusive"
    said = "Whether the model fits is not shown: held-out data could hardly have contradicted it."
    assert said in diagnosis.verdict and "fits what was looked at" not in diagnosis.verdict


def test_the_crps_at_many_values_is_that_of_the_scores():
    rng = np.random.default_rng(0)
    draws, values = rng.normal(size=50), rng.normal(size=7)
    np.testing.assert_allclose(
        crps_at(draws, values), fair_crps(values, np.tile(draws, (7, 1))), rtol=1e-9
    )


def test_data_that_miss_together_show_nothing():
    """Of a level that is hardly known all held-out values miss together, one time in a few."""
    rng = np.random.default_rng(3)
    centre, noise = np.zeros((DRAWS, len(TIMES))), np.full(DRAWS, 0.1)
    centre += rng.normal(size=(DRAWS, 1))
    y = np.where(FITTED, 0.0, 1.75) + 0.1 * rng.normal(size=len(TIMES))
    post, fc, data = trees(y, centre, noise, centre[:, :1], centre[:500, :1], rng)
    [held_out] = [f for f in judged(post, fc, data) if f.subject == "held-out data"]
    assert held_out.level == "inconclusive" and "worth about 1 independent ones" in held_out.message


def test_a_forecast_of_other_draws_is_refused():
    """Another key or engine gives another posterior of the same model and data."""
    rng = np.random.default_rng(4)
    y = 1.0 + 0.5 * TIMES + NOISE * rng.normal(size=len(TIMES))
    post, fc, data = results(y, LINE, rng)
    other, _, _ = results(y, LINE, rng)
    for tree in (post, fc):
        tree.attrs["posterior_sha256"] = "of this model and these data"
    drawn = post["posterior"].to_dataset().assign_coords(chain=[0], draw=np.arange(DRAWS))
    post["posterior"], fc["posterior"] = (
        xr.DataTree(drawn),
        xr.DataTree(drawn.isel(draw=slice(0, None, 4))),
    )
    diagnose(post, fc, data)
    with pytest.raises(MismatchError, match="other draws than those of this posterior"):
        fc["posterior"] = other["posterior"].copy()
        diagnose(post, fc, data)
