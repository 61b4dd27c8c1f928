"""Weights, paired errors and mixtures of forecasts against closed forms; what cannot be compared or
mixed.
"""

import json

import numpy as np
import pytest
import scoringrules
import xarray as xr
from by_hand import at_times, levels_model, posterior
from scipy.optimize import minimize_scalar
from scipy.stats import norm

import bayes_dasl as bd
from bayes_dasl.errors import MismatchError
from bayes_dasl.weighting.comparison import clearly, independent, paired, shared_times

SD, OTHER, APART = 0.5, 2.0, 3.0


def result(
    density,
    *,
    crps=None,
    first=10,
    step=2,
    horizon=2,
    data="same",
    k=0.1,
    draws=4000,
    units="m",
    error=0.01,
):
    """As from `leave_future_out`, of one observable: log joint densities of windows, and scores by
    lead.
    """
    density = np.asarray(density, float)
    origins = first + step * np.arange(len(density)) - 1.0
    crps = np.ones((len(density), 1, horizon)) if crps is None else np.asarray(crps, float)
    scores = {
        "crps": crps,
        "log_score": np.repeat(-density[:, None, None] / horizon, horizon, axis=2),
    }
    variables = {
        name: (("origin", "observable", "lead"), values) for name, values in scores.items()
    }
    whole = np.ones(len(density))
    of_origin = {"log_density": density, "refitted": whole, "density_pareto_k": k * whole}
    of_origin |= {"bridged": 0 * whole, "draws": draws * whole, "density_error": error * whole}
    coords = {
        "origin": ("origin", origins, {"units": "day"}), "observable": ["y"], "units": ("observable", [units]),
        "lead": 1 + np.arange(horizon),
        "time": (("origin", "lead"), origins[:, None] + 1 + np.arange(horizon), {"units": "day"}),
    }  # fmt: skip
    found = xr.Dataset(variables | {name: ("origin", v) for name, v in of_origin.items()}, coords)
    return xr.DataTree(found.assign_attrs(data_sha256=data, index="time"))


def drawn(number, centre=0.0, seed=0):
    return norm(centre).rvs(number, random_state=seed)


def said(comparison, subject):
    return [finding for finding in comparison.findings if subject in finding.subject]


@pytest.mark.parametrize("windows", [1, 5, 40])
@pytest.mark.parametrize("models", [2, 3])
def test_a_model_that_wins_every_window_has_one_window_more_than_none(models, windows):
    """Each window is possible under the first model alone: (m + 1) / (m + K)."""
    others = {f"other {i}": result(np.full(windows, -1e4)) for i in range(models - 1)}
    weights = bd.compare({"true": result(np.zeros(windows))} | others).weights
    assert weights["true"] == pytest.approx((windows + 1) / (windows + models), abs=1e-9)
    assert sum(weights.values()) == pytest.approx(1.0)


def test_models_that_are_alike_share_alike():
    density = drawn(6)
    weights = bd.compare({name: result(density) for name in "abc"}).weights
    np.testing.assert_allclose(list(weights.values()), 1 / 3, atol=1e-9)


def test_few_windows_do_not_put_all_weight_on_one_model():
    """Ahead by 0.3 nats in each of five windows, which stacking alone would take for all: by a grid
    of the target.
    """
    weights = bd.compare({"a": result(np.full(5, 0.3)), "b": result(np.zeros(5))}).weights
    best = minimize_scalar(
        lambda w: -(5 * np.log(w * np.exp(0.3) + 1 - w) + np.log(w) + np.log(1 - w)), bounds=(0, 1), method="bounded",
        options={"xatol": 1e-10},
    )  # fmt: skip
    assert weights["a"] == pytest.approx(best.x, abs=1e-6)
    assert 0.5 < weights["a"] < 0.7


def test_a_true_mixture_gets_its_shares():
    """Windows of which 3 in 10 come from the second model, 4 standard errors of a binomial share of
    them.
    """
    rng = np.random.default_rng(2)
    number = 400
    y = np.where(rng.random(number) < 0.3, 4 + rng.normal(size=number), rng.normal(size=number))
    windows = {"near": result(norm(0).logpdf(y)), "far": result(norm(4).logpdf(y))}
    assert bd.compare(windows).weights["far"] == pytest.approx(
        0.3, abs=4 * np.sqrt(0.3 * 0.7 / number)
    )


def test_windows_side_by_side_have_the_usual_error():
    a, b = drawn(8), drawn(8, centre=-1.0, seed=1)
    found = bd.compare({"b": result(b), "a": result(a)})
    assert list(found.table.index) == ["a", "b"] and found.windows == pytest.approx(8)
    assert found.table.loc["b", "log_score_difference"] == pytest.approx((a - b).mean())
    assert found.table.loc["b", "log_score_error"] == pytest.approx(
        (a - b).std(ddof=1) / np.sqrt(8)
    )
    assert found.table.loc["b", "refits"] == 7


def test_the_error_of_windows_that_share_times_is_that_of_their_mean():
    """Differences that are sums of independent numbers of each time: over many series, the spread
    of their mean.
    """
    windows, horizon, series = 6, 4, 4000
    at_each = np.random.default_rng(0).normal(size=(series, windows + horizon))
    lead = np.stack([at_each[:, i : i + horizon].sum(axis=1) for i in range(windows)], axis=1)
    shared = shared_times(np.arange(windows)[:, None] + np.arange(horizon))
    means, errors = paired(lead, shared)
    # The mean square is that of the spread, to 4 standard errors of both, which are those of about
    # chi-squared numbers.
    ratio = np.mean(np.square(errors)) / np.mean(np.square(means))
    spread = np.sqrt(np.var(np.square(errors)) / np.mean(np.square(errors)) ** 2 + 2) / np.sqrt(
        series
    )
    assert abs(ratio - 1) < 4 * spread
    assert 1 < independent(shared) < windows / 2


def test_what_may_be_chance_is_called_so():
    turns = np.array([1.0, -1.0, 1.0, -1.0, 1.0, -1.0])
    close = bd.compare({"a": result(0.1 + turns), "b": result(0 * turns)})
    assert [finding.level for finding in said(close, "against")] == ["warning"]
    assert "may be chance" in str(close) and "may be chance" in close._repr_html_()
    clear = bd.compare({"a": result(drawn(6)), "b": result(drawn(6, centre=-9.0, seed=1))})
    assert [finding.level for finding in said(clear, "against")] == ["good"]
    assert not said(clear, "windows") and said(
        bd.compare({n: result(drawn(3)) for n in "ab"}), "windows"
    )


def test_one_window_tells_no_error():
    found = bd.compare({"a": result([0.0]), "b": result([-50.0])})
    assert np.isnan(found.table.loc["b", "log_score_error"]) and "nan" not in str(found)
    assert [finding.level for finding in said(found, "against")] == ["warning"]


def test_a_density_that_hangs_on_few_draws_and_a_crps_that_disagrees_are_told():
    other = result(drawn(6, centre=-9.0, seed=1), crps=np.full((6, 1, 2), 0.5), k=0.9)
    found = bd.compare({"a": result(drawn(6)), "b": other})
    assert "at 6 of 6 origins" in str(said(found, "densities of b")[0])
    assert "CRPS of b is lower" in str(said(found, "CRPS")[0])


def test_a_model_that_rules_out_what_came_is_last():
    density = drawn(6)
    found = bd.compare({"never": result([-np.inf, *density[1:]]), "a": result(density)})
    assert list(found.table.index) == ["a", "never"]
    assert "rules out" in str(said(found, "against")[0])
    assert found.weights["a"] > 0.5


@pytest.mark.parametrize("draws, bad", [(100, 4), (4000, 0)])
def test_how_large_a_k_hat_may_be_hangs_on_the_number_of_draws(draws, bad):
    """0.6 is too much for 100 draws, of which the largest is 1 - 1 / log10(100)."""
    found = said(bd.compare({n: result(drawn(4), k=0.6, draws=draws) for n in "ab"}), "densities")
    assert len(found) == (2 if bad else 0) and all(
        "at 4 of 4 origins" in str(finding) for finding in found
    )
    assert all("k-hat from 0.5 on" in str(finding) for finding in found)


def test_a_window_that_all_models_rule_out_tells_nothing():
    a, b = drawn(6), drawn(6, centre=-9.0, seed=1)
    whole = bd.compare({"a": result(a[1:], first=12), "b": result(b[1:], first=12)})
    a[0] = b[0] = -np.inf
    found = bd.compare({"a": result(a), "b": result(b)})
    assert "in 1 of 6 windows" in str(said(found, "impossible data")[0]) and not said(
        whole, "impossible data"
    )
    columns = [name for name in found.table if name.startswith("log_score")] + ["weight"]
    np.testing.assert_allclose(found.table[columns], whole.table[columns], rtol=1e-12)
    assert found.windows == whole.windows == 5
    nothing = bd.compare({n: result([-np.inf, -np.inf]) for n in "ab"})
    assert nothing.weights == {"a": 0.5, "b": 0.5} and "no window tells them apart" in str(nothing)


def test_models_that_are_alike_are_hardly_ever_told_apart():
    """One in twenty comparisons of two or three windows, to 4 binomial errors; by two standard
    errors 30 and 18 %.
    """
    for windows in (2, 3):
        differences = np.random.default_rng(windows).normal(size=(4000, windows))
        means, errors = paired(differences, np.eye(windows))
        told = np.mean(np.abs(means) > clearly(windows) * errors)
        assert abs(told - 0.05) < 4 * np.sqrt(0.05 * 0.95 / 4000)


def test_the_error_of_many_windows_allows_for_errors_that_go_on_from_one_to_the_next():
    """Side by side, with a correlation of 0.7: two errors hold the mean of hardly 60 % as if
    independent.
    """
    rng, windows = np.random.default_rng(0), 40
    differences = rng.normal(size=(500, windows))
    for i in range(1, windows):
        differences[:, i] = 0.7 * differences[:, i - 1] + np.sqrt(1 - 0.7**2) * differences[:, i]
    means, errors = paired(differences, np.eye(windows))
    assert np.mean(np.abs(means) < 2 * errors) > 0.85
    assert np.median(errors) == pytest.approx(means.std(), rel=0.2)


def test_windows_that_agree_by_chance_are_no_surer_than_their_densities():
    """Of errors of 0.3 and 0.4 nats of each density, a mean of two differences has one of 0.5 over
    the root of two.
    """
    found = bd.compare({"a": result([0.0, 0.0], error=0.3), "b": result([-2.0, -2.0], error=0.4)})
    assert found.table.loc["b", "log_score_error"] == pytest.approx(0.5 / np.sqrt(2))
    assert found.table.loc["a", "log_score_error"] == 0.0
    assert "may be chance" in str(said(found, "against")[0])


def test_a_density_that_hangs_on_few_draws_is_that_of_each_datum():
    """Log scores of each datum are kept; the joint density of the other is a thousand nats too low,
    as a draw says.
    """
    one, other = result([-50.0, -52.0]), result([-51.0, -53.0])
    low = other.to_dataset().assign(
        log_density=("origin", [-1200.0, -1300.0]), density_error=("origin", [1.0, 1.0])
    )
    found = bd.compare({"one": one, "other": xr.DataTree(low)})
    assert found.table.loc["other", "log_score_difference"] == pytest.approx(1.0)
    assert "2 of 2 windows" in str(said(found, "joint densities")[0])
    assert found.weights == pytest.approx(bd.compare({"one": one, "other": other}).weights)


def test_a_solver_that_fails_in_a_window_is_said_to():
    failed = result([-50.0, np.nan, -51.0]).to_dataset().assign(draws=("origin", [1000, 0, 1000]))
    found = bd.compare({"one": result([-50.0, -50.0, -50.0]), "other": xr.DataTree(failed)})
    assert "solver that fails" in str(said(found, "against")[0])


def test_scores_by_lead():
    crps = np.random.default_rng(0).random((2, 6, 1, 2))
    crps[:, 2, 0, 1] = np.nan  # nothing was observed there
    found = bd.compare(
        {"b": result(drawn(6) - 9, crps=crps[0]), "a": result(drawn(6), crps=crps[1])}
    ).by_lead
    difference = found["crps_difference"].sel(model="b", observable="y")
    np.testing.assert_allclose(difference, np.nanmean(crps[0] - crps[1], axis=0)[0])
    several = np.nanstd(crps[0] - crps[1], axis=0, ddof=1)[0] / np.sqrt([6, 5])
    np.testing.assert_allclose(found["crps_error"].sel(model="b", observable="y"), several)
    np.testing.assert_array_equal(found["step"], [1.0, 2.0])
    assert found.attrs["best"] == "a" and (found["crps_difference"].sel(model="a") == 0).all()


def test_the_figure_shows_differences_by_lead():
    """With bars of two errors, in units of the observable, at the times ahead; the best is the line
    at zero.
    """
    crps = np.random.default_rng(0).random((2, 6, 1, 2))
    found = bd.compare(
        {"a": result(drawn(6), crps=crps[1]), "b": result(drawn(6) - 9, crps=crps[0])}
    )
    figure = bd.plots.plot_comparison(found)
    (ax,) = figure.axes
    (bars,) = ax.containers
    line, _, (segments,) = bars.lines
    of_b = found.by_lead.sel(model="b", observable="y")
    np.testing.assert_allclose(line.get_xdata(), [1.0, 2.0])
    np.testing.assert_allclose(line.get_ydata(), of_b["crps_difference"])
    height = [np.ptp(segment[:, 1]) for segment in segments.get_segments()]
    np.testing.assert_allclose(height, 4 * of_b["crps_error"])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("ahead (day)", "difference (m)")
    assert "above that of a" in figure.legends[0].get_title().get_text()
    assert bd.plots.plot_comparison(found, "log_score").axes[0].get_ylabel() == "difference (nat)"
    with pytest.raises(MismatchError, match="not 'rmse'"):
        bd.plots.plot_comparison(found, "rmse")


def test_dates_are_days_ahead():
    def dated(tree):
        found = tree.to_dataset()
        day = lambda values: np.datetime64("2001-01-01") + (values * 24).astype("m8[h]")  # noqa: E731
        at = {name: (found[name].dims, day(found[name].values)) for name in ("origin", "time")}
        return xr.DataTree(found.assign_coords(at))

    found = bd.compare({"a": dated(result(drawn(6))), "b": dated(result(drawn(6) - 9))})
    ax = bd.plots.plot_comparison(found).axes[0]
    assert ax.get_xlabel() == "ahead (day)"
    np.testing.assert_allclose(ax.containers[0].lines[0].get_xdata(), [1.0, 2.0])


@pytest.mark.parametrize(
    "results, message",
    [
        pytest.param({"a": result([0.0])}, "two results", id="one"),
        pytest.param(
            {"a": result([0.0]), "b": xr.DataTree()}, "'b' is no result", id="another tree"
        ),
        pytest.param(
            {"a": result([0.0]), "b": result([0.0], data="other")}, "other data", id="other data"
        ),
        pytest.param(
            {"a": result([0.0]), "b": result([0.0], units="cm")}, "other units", id="other units"
        ),
        pytest.param(
            {"a": result([0.0]), "b": result([0.0], first=11)}, "other origins", id="other origins"
        ),
        pytest.param(
            {"a": result([0.0]), "b": result([0.0], horizon=3)}, "other times", id="another horizon"
        ),
    ],
)
def test_what_cannot_be_compared(results, message):
    with pytest.raises(MismatchError, match=message):
        bd.compare(results)


def forecasts(noise=None, draws=4000):
    """Two models of normal data, with levels that are known but for a spread of SD each."""
    found = {}
    for name, centre, kind in (
        ("low", 0.0, bd.NormalNoise(1.0)),
        ("high", APART, noise or bd.NormalNoise(OTHER)),
    ):
        model = levels_model(3, kind)
        at = centre + SD * np.random.default_rng(len(name)).normal(size=(4, draws // 4, 3))
        post = posterior(model, at_times([0.0, 1.0, np.nan]), {"layer.function.level": at})
        found[name] = post, bd.forecast(model, post, np.arange(3.0), key=len(name))
    return found


@pytest.fixture(scope="module")
def both():
    return forecasts()


def mixed(both, weights):
    return bd.mixture({name: fc for name, (_, fc) in both.items()}, weights)


WEIGHTS = {"low": 0.3, "high": 0.7}
MEANS, SDS = np.array([0.0, APART]), np.sqrt(SD**2 + np.array([1.0, OTHER**2]))
SHARES = np.array([0.3, 0.7])


def test_moments_of_a_mixture(both):
    fc = mixed(both, WEIGHTS)
    drawn = fc["predictions"]["y"].values.reshape(-1, 3)
    assert len(drawn) == 4000
    assert json.loads(fc.attrs["mixture"]) == WEIGHTS
    of_draw = fc["sample_stats_predictions"]["model_of_draw"].values
    assert of_draw.sum() == 2800 and set(of_draw.ravel()) == {0, 1}
    mean = SHARES @ MEANS
    variance = SHARES @ (SDS**2 + MEANS**2) - mean**2
    fourth = SHARES @ (3 * SDS**4 + 6 * SDS**2 * (MEANS - mean) ** 2 + (MEANS - mean) ** 4)
    np.testing.assert_allclose(drawn.mean(axis=0), mean, atol=4 * np.sqrt(variance / len(drawn)))
    np.testing.assert_allclose(
        drawn.var(axis=0), variance, atol=4 * np.sqrt((fourth - variance**2) / len(drawn))
    )


def test_draws_in_which_a_solver_failed_cost_no_weight(both):
    found = {name: fc.copy() for name, (_, fc) in both.items()}
    drawn = found["high"]["predictions"].to_dataset()
    half = drawn["y"].where(drawn["draw"] % 2 == 0)
    found["high"]["predictions"] = drawn.assign(y=half.assign_attrs(drawn["y"].attrs))
    fc = bd.mixture(found, WEIGHTS)
    assert np.isfinite(fc["predictions"]["y"].values).all()
    assert fc["sample_stats_predictions"]["model_of_draw"].values.sum() == 2800
    assert fc.attrs["series"] == 1
    found["high"]["predictions"] = drawn.assign(
        y=(np.nan * drawn["y"]).assign_attrs(drawn["y"].attrs)
    )
    with pytest.raises(MismatchError, match="fails in all draws"):
        bd.mixture(found, WEIGHTS)


def test_what_ifs_and_other_scenarios_are_not_mixed(both):
    for attribute, value, words in (
        ("what_if", 1, "is a what-if"),
        ("scenario", "wet", "another scenario"),
    ):
        found = {name: fc.copy() for name, (_, fc) in both.items()}
        found["high"].attrs[attribute] = value
        with pytest.raises(MismatchError, match=words):
            bd.mixture(found, WEIGHTS)


def test_what_models_differ_by_is_epistemic(both):
    parts = bd.decompose(mixed(both, WEIGHTS))
    np.testing.assert_allclose(parts["aleatoric"], SHARES @ [1.0, OTHER**2], rtol=1e-12)
    between = SHARES.prod() * APART**2
    # Only the spread within each is drawn: its error is at most that of 1200 draws, and that of
    # their means.
    error = 4 * (SD**2 * np.sqrt(2 / 1200) + 2 * APART * SD / np.sqrt(1200))
    np.testing.assert_allclose(parts["epistemic"], SD**2 + between, atol=error)
    assert error < between / 2


def test_scores_of_a_mixture(both):
    y = np.array([-1.0, 1.5, 7.0])
    table = bd.score(mixed(both, WEIGHTS), at_times(y))
    each = [scoringrules.crps_mixnorm(v, MEANS, SDS, SHARES) for v in y]
    assert table.loc["y", "crps"] == pytest.approx(np.mean(each), abs=4 * SDS.max() / np.sqrt(4000))
    density = norm(MEANS, SDS).pdf(y[:, None]) @ SHARES
    # That of a draw is at most that of the narrower noise: a share of the density where it lies.
    assert table.loc["y", "log_score"] == pytest.approx(
        -np.log(density).mean(), abs=4 / np.sqrt(1200)
    )
    assert table.attrs["log_score"] == {"y": "exact"}


def test_noise_of_different_distributions_is_not_kept():
    both = forecasts(bd.StudentTNoise(OTHER, 5.0))
    fc = mixed(both, WEIGHTS)
    assert not fc["noise"].data_vars
    table = bd.score(fc, at_times([-1.0, 1.5, 7.0]))
    assert table.attrs["log_score"]["y"].startswith("a kernel")
    assert np.isfinite(table.loc["y", "log_score"])


def test_a_weight_of_one_is_that_forecast(both):
    """In its draws, which need not lie in chains any more."""
    fc, whole = mixed(both, {"low": 0.0, "high": 2.0}), both["high"][1]
    for group in ("predictions", "conditional_mean", "conditional_variance"):
        np.testing.assert_array_equal(
            fc[group]["y"].values.ravel(), whole[group]["y"].values.ravel()
        )
    assert fc.attrs["train_end"] == whole.attrs["train_end"]


def test_a_mixture_is_drawn_saved_and_a_rival(both, tmp_path):
    fc, (post, own) = mixed(both, WEIGHTS), both["low"]
    bd.plots.plot_forecast(fc, None, None, "y")
    bd.plots.plot_decomposition(bd.decompose(fc), "y")
    xr.testing.assert_identical(bd.load(bd.save(fc, tmp_path / "mixture.nc"))["noise"], fc["noise"])
    test = at_times([0.0, 0.5, -0.5])
    assert "against mixture" in str(bd.diagnose(post, own, test, competitors={"mixture": fc}))
    assert "mixture" in bd.report(post, own, test, competitors={"mixture": fc}).html
    for use in (bd.diagnose, bd.report):
        with pytest.raises(MismatchError, match="of several posteriors"):
            use(post, fc, test)


@pytest.mark.parametrize(
    "weights, message",
    [
        pytest.param({"low": 1.0}, "a weight for each", id="too few"),
        pytest.param({"low": -1.0, "high": 2.0}, "from 0 on", id="negative"),
        pytest.param({"low": 0.0, "high": 0.0}, "from 0 on", id="none"),
    ],
)
def test_weights_that_are_none(both, weights, message):
    with pytest.raises(MismatchError, match=message):
        mixed(both, weights)


def test_forecasts_that_cannot_be_mixed(both):
    low, high = both["low"][1], both["high"][1].copy(deep=True)
    with pytest.raises(MismatchError, match="other times"):
        bd.mixture({"low": low, "high": high.isel(time=[0, 1])}, WEIGHTS)
    renamed = high.map_over_datasets(
        lambda group: group.rename({n: "z" for n in group.data_vars if n == "y"})
    )
    with pytest.raises(MismatchError, match="'high' forecasts z, others y"):
        bd.mixture({"low": low, "high": renamed}, WEIGHTS)
    high["predictions"]["y"].attrs["units"] = "m"
    with pytest.raises(MismatchError, match="with units m, others with none"):
        bd.mixture({"low": low, "high": high}, WEIGHTS)
    with pytest.raises(MismatchError, match="no forecast"):
        bd.mixture({"low": low, "high": both["high"][0]}, WEIGHTS)


def test_few_members_are_mixed_by_their_predictive_draws():
    """As of `bd.DeepEnsemble`: several predictive draws of each member, one after the other."""
    model, times = levels_model(3, bd.NormalNoise(1.0)), np.arange(3.0)
    members = np.array([-1.0, 0.0, 1.0, 4.0])[:, None, None] + np.zeros((4, 1, 3))
    few = posterior(
        model, at_times([0.0, 1.0, np.nan]), {"layer.function.level": members}, chains=False
    )
    many = forecasts()["low"][1]
    each = {"low": many, "few": bd.forecast(model, few, times, key=1)}
    assert (
        each["few"]["predictions"].sizes["draw"] == 250
        and each["few"]["conditional_mean"].sizes["draw"] == 1
    )
    fc = bd.mixture(each, {"low": 0.5, "few": 0.5})
    of_few = fc["sample_stats_predictions"]["model_of_draw"].values[0] == 1
    assert of_few.sum() == 2000
    for group in ("predictions", "conditional_mean"):
        assert fc[group]["y"].shape == (1, 4000, 3)
    drawn, own = (
        fc["predictions"]["y"].values[0, of_few],
        each["few"]["predictions"]["y"].values.reshape(-1, 3),
    )
    np.testing.assert_array_equal(
        np.unique(drawn), np.unique(own)
    )  # each of 1000 predictive draws, twice
    np.testing.assert_allclose(fc["conditional_mean"]["y"].values[0, of_few].mean(axis=0), 1.0)
    # The draws of a member are those that have its mean.
    means = fc["conditional_mean"]["y"].values[0, of_few, 0]
    of_last = drawn[means == 4.0, 0]
    np.testing.assert_array_equal(
        np.unique(of_last), np.unique(each["few"]["predictions"]["y"].values[3, :, 0])
    )
    assert bd.score(fc, at_times([0.0, 0.0, 0.0])).attrs["log_score"] == {"y": "exact"}


def test_a_few_draws_of_few_members_are_not_all_of_one_spread():
    """Repetitions of a member lie in the order of their spread: a stride must not pick the
    narrowest of each.
    """
    model = levels_model(3, bd.NormalNoise(0.01))
    members = np.arange(4.0)[:, None, None] + np.zeros((4, 1, 3))
    few = posterior(
        model, at_times([0.0, 1.0, np.nan]), {"layer.function.level": members}, chains=False
    )
    each = {"low": forecasts()["low"][1], "few": bd.forecast(model, few, np.arange(3.0), key=1)}
    fc = bd.mixture(each, {"low": 0.999, "few": 0.001})
    of_few = fc["sample_stats_predictions"]["model_of_draw"].values[0] == 1
    drawn = np.sort(fc["predictions"]["y"].values[0, of_few, 0])
    own = each["few"]["predictions"]["y"].values[..., 0]
    middle = np.median(own, axis=1)
    np.testing.assert_allclose(drawn, middle, atol=0.25 * np.ptp(own[0]))
