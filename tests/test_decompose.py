"""The variance split against closed forms, its identity, and what failures leave of it."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings, strategies as st
from scipy import stats
from trees import make_fc

from bayes_dasl import decompose
from bayes_dasl._statistics import basis, explained_by
from bayes_dasl.scores import Decomposition
from bayes_dasl.scores.decomposition import total_variance


def explained_variance(features, mean):
    """The part of the variance of a mean that all features explain."""
    return explained_by(basis(features), mean)


def forecast_of(mean, variance, science=None, network=None):
    """A forecast of the observable y in one chain, from moments (draw, time) and leaves (draw,
    ...).
    """
    dims = ("chain", "draw", "time")
    coords = {"time": np.arange(float(mean.shape[1]))}
    groups = {
        "conditional_mean": xr.Dataset({"y": (dims, mean[None])}, coords),
        "conditional_variance": xr.Dataset({"y": (dims, variance[None])}, coords),
    }
    leaves = {
        group: (
            ("chain", "draw", f"{group}_leaf")[: values.ndim + 1],
            values[None],
            {"group": group},
        )
        for group, values in (("science", science), ("network", network))
        if values is not None
    }
    if leaves:
        groups["posterior"] = xr.Dataset(leaves)
    return xr.DataTree.from_dict(groups)


@given(
    st.integers(0, 2**32 - 1),
    st.floats(-1e6, 1e6),
    st.floats(1e-3, 1e3),
    st.floats(1e-3, 1e3),
)
@settings(deadline=None, max_examples=100)
def test_total_is_aleatoric_plus_epistemic(seed, offset, between, within):
    rng = np.random.default_rng(seed)
    mean = offset + between * rng.normal(size=(50, 3))
    parts = total_variance(mean, within**2 * rng.gamma(2.0, size=(50, 3)))
    assert parts["total"] == pytest.approx(parts["aleatoric"] + parts["epistemic"], rel=1e-6)


def test_total_is_computed_on_its_own():
    # Were it the sum of the other two, a wrong epistemic part would go unseen.
    rng = np.random.default_rng(1)
    mean, variance = rng.normal(size=(400, 2)), rng.gamma(2.0, size=(400, 2))
    parts = total_variance(mean, variance)
    second_moment = (variance + mean**2).mean(axis=0)
    square_of_mean = mean.mean(axis=0) ** 2 - mean.var(axis=0, ddof=1) / 400
    assert parts["total"] == pytest.approx(second_moment - square_of_mean)
    assert parts["total"] != pytest.approx(parts["aleatoric"] + mean.var(axis=0), rel=1e-6)


@pytest.mark.parametrize(("chains", "draws"), [(1, 3), (3, 1), (3, 20)])
def test_few_members_or_chains_have_the_whole_epistemic_variance(chains, draws):
    """Three values of variance 1, in chains that do not move: with n in the place of n - 1 it would
    be 2 / 3.
    """
    values = np.random.default_rng(18).normal(size=(3, 4000))
    mean = np.repeat(values, draws, axis=0) if chains > 1 else values
    found = total_variance(mean, np.ones_like(mean), np.repeat(np.arange(chains), draws))
    assert abs(standard_errors(found["epistemic"], 1.0)) < 4
    assert found["total"] == pytest.approx(1 + found["epistemic"])


def test_chains_of_unequal_length_leave_no_variance_negative():
    """Failed draws are missing in some chains; a constant has no variance."""
    rng = np.random.default_rng(19)
    mean, chain = rng.normal(size=(60, 50)), np.sort(rng.choice(4, 60, p=[0.1, 0.2, 0.3, 0.4]))
    found = total_variance(mean, np.ones_like(mean), chain)
    assert (found["epistemic"] > 0).all()
    assert abs(standard_errors(found["epistemic"], 1.0)) < 4
    shifted = total_variance(mean + 1e3, np.ones_like(mean), chain)
    np.testing.assert_allclose(shifted["epistemic"], found["epistemic"], rtol=1e-9)
    assert not total_variance(np.full((60, 2), 0.1), np.ones((60, 2)), chain)["epistemic"].any()


def test_total_is_the_variance_of_the_predictions():
    fc = make_fc(draws=4000, network=False)
    parts = decompose(fc)
    for name in ("hare", "lynx"):
        predictions = fc["predictions"][name].values.reshape(-1, 21)
        ratio = predictions.var(axis=0) / parts["total"].sel(observable=name).values
        deviation = (predictions - predictions.mean(axis=0)) ** 2
        error = deviation.std(axis=0) / np.sqrt(len(predictions)) / deviation.mean(axis=0)
        assert (np.abs(ratio - 1) < 4 * error).all()
        assert (np.abs(1.2 * ratio - 1) > 4 * error).all()


def standard_errors(estimate, exact):
    estimate = np.asarray(estimate)
    return (estimate.mean() - exact) / (estimate.std(ddof=1) / np.sqrt(estimate.size))


def split_of(science, network, mean):
    """What regressions tell at the one time of a forecast whose leaves are given as `(draw,)` or
    `(draw, leaf)`.
    """
    parts = decompose(forecast_of(mean[:, None], np.ones((mean.size, 1)), science, network))
    found = {name: values.item() for name, values in parts.sel(observable="y").data_vars.items()}
    found |= {group: found[f"{group}_least"] for group in ("science", "network")}
    return found | {"interaction": found["epistemic"] - found["science"] - found["network"]}


def replicated(draw, count):
    """Columns of `count` splits, of the `science, network, mean` that `draw()` gives."""
    splits = [split_of(*draw()) for _ in range(count)]
    return {name: np.array([split[name] for split in splits]) for name in splits[0]}


@pytest.mark.thorough("-0.6")
@pytest.mark.parametrize("rho", [-0.6, pytest.param(0.0, marks=pytest.mark.slow), 0.8])
def test_correlated_gaussian_groups(rho):
    # E[m | s] = (a + rho b) s: a group also tells what it knows of the other.
    rng, a, b, draws = np.random.default_rng(2), 1.5, -0.7, 300

    def draw():
        s, e = rng.normal(size=(2, draws))
        w = rho * s + np.sqrt(1 - rho**2) * e
        return s, w, a * s + b * w

    exact = {
        "science": (a + rho * b) ** 2,
        "network": (b + rho * a) ** 2,
        "epistemic": a**2 + b**2 + 2 * rho * a * b,
    }
    exact["interaction"] = exact["epistemic"] - exact["science"] - exact["network"]
    parts = replicated(draw, 300)
    for name, variance in exact.items():
        assert abs(standard_errors(parts[name], variance)) < 4
    assert abs(standard_errors(parts["science"], 1.2 * exact["science"])) > 4
    if rho:
        assert abs(standard_errors(parts["science"], a**2)) > 4


@pytest.mark.thorough
def test_a_group_of_many_correlated_leaves():
    rng, draws = np.random.default_rng(3), 400
    mixing, weights = rng.normal(size=(7, 7)), rng.normal(size=7)
    covariance = mixing @ mixing.T

    def draw():
        x = rng.normal(size=(draws, 7)) @ mixing.T
        return x[:, :4], x[:, 4:], x @ weights

    parts = replicated(draw, 200)
    for name, group in (("science", slice(4)), ("network", slice(4, None))):
        with_mean = covariance[group] @ weights
        exact = with_mean @ np.linalg.solve(covariance[group, group], with_mean)
        assert abs(standard_errors(parts[name], exact)) < 4


def test_a_product_of_independent_groups_is_interaction():
    rng, draws = np.random.default_rng(4), 2000
    a, b, c = 1.5, -0.8, 0.6
    science_mean, science_sd, network_mean, network_sd = 0.5, 1.2, -1.0, 0.7

    def draw():
        s = rng.normal(science_mean, science_sd, draws)
        w = rng.normal(network_mean, network_sd, draws)
        return s, w, a * s + b * w + c * s * w

    exact = {
        "science": ((a + c * network_mean) * science_sd) ** 2,
        "network": ((b + c * science_mean) * network_sd) ** 2,
        "interaction": (c * science_sd * network_sd) ** 2,
    }
    parts = replicated(draw, 150)
    for name, variance in exact.items():
        assert abs(standard_errors(parts[name], variance)) < 4
        assert abs(standard_errors(parts[name], 1.2 * variance)) > 4


def test_compensating_groups_tell_little_alone():
    rng = np.random.default_rng(5)
    s, e = rng.normal(size=(2, 4000))
    w = -s + 0.1 * e
    parts = split_of(s, w, s + w)
    # Var(E[m | w]) is a share 0.01 / 1.01 of Var(m), Var(E[m | s]) is nothing.
    assert parts["science"] < 0.01 * parts["epistemic"]
    assert parts["network"] < 0.02 * parts["epistemic"]
    assert parts["interaction"] > 0.97 * parts["epistemic"]


def test_redundant_groups_are_counted_twice():
    rng = np.random.default_rng(6)
    s, e = rng.normal(size=(2, 4000))
    w = s + 0.1 * e
    parts = split_of(s, w, s + w)
    assert parts["science"] > 0.99 * parts["epistemic"]
    assert parts["network"] > 0.99 * parts["epistemic"]
    assert parts["interaction"] == pytest.approx(-parts["epistemic"], rel=0.02)


def test_a_wave_of_one_scalar_is_seen():
    """Quadratics found 0.0005 of it."""
    s, w = np.random.default_rng(20).normal(size=(2, 4000))
    parts = split_of(s, w, np.cos(4 * s) + 0.711 * w)
    assert parts["science"] / parts["epistemic"] == pytest.approx(0.497, abs=0.05)


def test_squares_and_products_within_a_group_are_seen():
    x = np.random.default_rng(7).normal(size=(3000, 3))
    s, w = x[:, :2], x[:, 2]
    parts = split_of(s, w, s[:, 0] * s[:, 1] + s[:, 0] ** 2 + w)
    # The regression leaves nothing of what science says; an estimate of Var[s1 s2 + s1^2] = 3 from
    # n draws.
    assert parts["science"] / parts["epistemic"] == pytest.approx(3 / 4, abs=0.05)
    assert parts["network"] / parts["epistemic"] == pytest.approx(1 / 4, abs=0.05)


def test_what_a_regression_misses_is_unknown_and_no_interaction():
    s, w = np.sign(np.random.default_rng(8).normal(size=(2, 3, 4000)))
    parts = split_of(s.T, w.T, w.prod(axis=0))
    assert parts["network"] < 0.02 * parts["epistemic"]
    assert parts["interaction"] > 0.98 * parts["epistemic"]
    told = decompose(forecast_of(w.prod(axis=0)[:, None], np.ones((4000, 1)), s.T, w.T))
    assert (told["interaction"] == 0).all() and not told["split_known"].any()
    assert told["unknown"] > 0.95 * told["epistemic"]


@pytest.mark.parametrize(("leaves", "fitted"), [(1, 12), (5, 25), (60, 25), (700, 25)])
def test_unrelated_leaves_explain_nothing(leaves, fitted):
    rng, draws = np.random.default_rng(9), 500
    mean = rng.normal(size=(draws, 400))
    share = explained_variance(rng.normal(size=(draws, leaves)), mean) / mean.var(axis=0)
    # R^2 of Gaussian noise on p features is Beta(p / 2, (n - 1 - p) / 2).
    law = stats.beta(fitted / 2, (draws - 1 - fitted) / 2)
    inflation = (draws - 1) / (draws - 1 - fitted)
    expected = law.expect(lambda r: max(0.0, 1 - (1 - r) * inflation), lb=0, ub=1)
    assert abs(standard_errors(share, expected)) < 4
    assert law.mean() > 2 * expected  # what the plain R^2 would show


def test_the_number_of_features_is_bounded():
    rng = np.random.default_rng(10)
    x = rng.normal(size=(400, 4))
    product = (x[:, 2] * x[:, 3])[:, None]
    # Four leaves have 14 features, the last of them this product: 400 draws allow 20, and 279 allow
    # 13.
    assert explained_variance(x, product) == pytest.approx(product.var(axis=0))
    assert explained_variance(x[:279], product[:279]) < 0.5 * product[:279].var(axis=0)
    assert explained_variance(x[:280], product[:280]) == pytest.approx(product[:280].var(axis=0))


@pytest.mark.thorough("900")
@pytest.mark.parametrize("weights", [60, 900])
def test_too_many_leaves_go_by_their_leading_principal_components(weights):
    rng = np.random.default_rng(11)
    draws = 400  # 20 features
    factors, loadings = rng.normal(size=(draws, 3)), rng.normal(size=(3, weights))
    leaves = factors @ loadings + 0.01 * rng.normal(size=(draws, weights))
    share = explained_variance(leaves * rng.uniform(1e-3, 1e3, weights), factors) / factors.var(
        axis=0
    )
    assert share.min() > 0.99
    # Leaves with nothing in common have no leading components: twenty of many hold about half, or
    # less, of them.
    leaves = rng.normal(size=(draws, weights))
    alike = explained_variance(leaves, leaves[:, :30]) / leaves[:, :30].var(axis=0)
    assert 0 <= alike.mean() < 0.6


def test_copies_of_a_leaf_are_one_feature():
    rng = np.random.default_rng(17)
    x = rng.normal(size=(400, 2))
    mean = x + rng.normal(size=(400, 2))
    few, many = (explained_variance(np.tile(x, copies), mean) for copies in (15, 400))
    residual = mean - mean.mean(axis=0)
    design = np.column_stack([x, np.ones(400)])
    residual -= design @ np.linalg.lstsq(design, residual)[0]
    expected = mean.var(axis=0) - (residual**2).sum(axis=0) / 400 * 399 / 397
    assert few == pytest.approx(expected)
    assert many == pytest.approx(expected)


def test_one_principal_component_more_would_tell():
    rng = np.random.default_rng(12)
    factors = rng.normal(size=(400, 30))
    factors = np.linalg.qr(factors - factors.mean(axis=0))[0]
    # Copies of a factor make it lead: factor i has 30 - i copies, so the twenty components are the
    # first twenty.
    leaves = np.repeat(factors, np.arange(30, 0, -1), axis=1)
    share = explained_variance(leaves, factors) / factors.var(axis=0)
    assert share[:20] == pytest.approx(1.0)
    assert share[20:] == pytest.approx(0.0, abs=1e-9)


@pytest.mark.thorough
@given(st.integers(0, 2**32 - 1), st.integers(20, 90), st.integers(1, 12), st.floats(0.0, 1.0))
@settings(deadline=None, max_examples=100)
def test_the_parts_are_bounded(seed, draws, leaves, tie):
    rng = np.random.default_rng(seed)
    x = rng.standard_t(3, size=(draws, 2, leaves))
    mean = tie * x.sum(axis=(1, 2)) + (1 - tie) * rng.normal(size=draws)
    parts = split_of(x[:, 0], x[:, 1], mean)
    ceiling = parts["epistemic"] * (1 + 1e-12)
    assert 0 <= parts["science"] <= ceiling
    assert 0 <= parts["network"] <= ceiling
    whole = parts["science"] + parts["network"] + parts["interaction"]
    assert whole == pytest.approx(parts["epistemic"])


@given(st.integers(0, 2**32 - 1), st.floats(1e-6, 1e6), st.floats(-100.0, 100.0))
@settings(deadline=None, max_examples=40)
def test_units_of_leaves_do_not_matter(seed, factor, shift):
    rng = np.random.default_rng(seed)
    x, mean = rng.normal(size=(200, 12)), rng.normal(size=(200, 2))
    mean[:, 0] += x[:, 0]
    units = np.where(np.arange(12) % 2, factor, 1.0)
    for leaves in (3, 12):  # as they are, and by principal components
        expected = explained_variance(x[:, :leaves], mean)
        changed = explained_variance((units * (x + shift))[:, :leaves], mean)
        assert changed == pytest.approx(expected, abs=1e-9)
    scaled = explained_variance(x, factor * (mean + shift))
    assert scaled == pytest.approx(factor**2 * expected, rel=1e-6, abs=1e-9 * factor**2)


def test_constant_and_repeated_leaves_change_nothing():
    rng = np.random.default_rng(13)
    x = np.sign(rng.normal(size=(200, 2)))  # the square of a sign is a constant
    mean = x + rng.normal(size=(200, 2))
    padded = np.concatenate([x, np.full((200, 3), 0.1)], axis=1)
    assert explained_variance(padded, mean) == pytest.approx(explained_variance(x, mean))
    assert explained_variance(np.full((200, 3), 0.1), mean).tolist() == [0.0, 0.0]
    once = explained_variance(x[:, :1], mean)
    assert explained_variance(x[:, [0, 0]], mean) == pytest.approx(once)


def test_a_mean_without_variance_and_too_few_draws():
    x = np.random.default_rng(14).normal(size=(200, 2))
    constant = np.tile(np.linspace(0.1, 1e6, 50), (200, 1))
    assert not explained_variance(x, constant).any()
    assert np.isfinite(explained_variance(x[:20], x[:20])).all()
    assert np.isnan(explained_variance(x[:19], x[:19])).all()


def test_failed_draws_have_no_part_in_the_regression():
    rng = np.random.default_rng(15)
    x = rng.normal(size=(100, 4))
    mean = x @ rng.normal(size=4) + rng.normal(size=100)
    broken, wild = mean.copy(), x.copy()
    broken[::9], wild[::9] = np.nan, 1e6
    left = np.arange(100) % 9 > 0
    expected = split_of(x[left, :2], x[left, 2:], mean[left])
    assert split_of(wild[:, :2], wild[:, 2:], broken) == pytest.approx(expected)


def test_an_observable_that_fails_leaves_the_others_alone():
    fc = make_fc()
    whole = decompose(fc)
    fc["conditional_mean"]["lynx"].values[0, :100] = np.nan
    parts = decompose(fc)
    assert parts.attrs["failed_draws"] == 100
    xr.testing.assert_allclose(parts.sel(observable="hare"), whole.sel(observable="hare"))
    alone = decompose(fc.map_over_datasets(lambda ds: ds.drop_vars("hare", errors="ignore")))
    xr.testing.assert_allclose(parts.sel(observable=["lynx"]), alone)


def test_parts_of_several_observables_and_times_keep_their_places():
    x = np.random.default_rng(16).normal(size=(1, 2000, 2))
    shares = {"first": [0.0, 1.0, 2.0], "second": [3.0, 0.5, 0.0]}
    dims, coords = ("chain", "draw", "time"), {"time": np.arange(3.0)}
    mean = {n: (dims, x[..., :1] * np.array(a) + x[..., 1:]) for n, a in shares.items()}
    fc = forecast_of(np.zeros((2000, 3)), np.ones((2000, 3)), x[0, :, 0], x[0, :, 1])
    fc["conditional_mean"] = xr.Dataset(mean, coords)
    fc["conditional_variance"] = xr.ones_like(fc["conditional_mean"].to_dataset())
    science = decompose(fc)["science_least"]
    for name, a in shares.items():
        # Four standard errors of a variance from 2000 draws, and as much for the chance correlation
        # with the rest.
        tolerance = 0.13 * np.square(a) + 0.18 * np.array(a) + 0.01
        assert (np.abs(science.sel(observable=name) - np.square(a)) < tolerance).all()


def test_the_leaves_of_the_synthetic_forecast_explain_it():
    parts = decompose(make_fc()).mean("time")
    for part in ("science", "network"):
        assert (parts[part] > 0.2 * parts["epistemic"]).all()
    # Its groups are independent, and their product matters little.
    assert (abs(parts["interaction"]) < 0.1 * parts["epistemic"]).all()


def test_failed_draws_are_left_out_and_counted():
    parts = decompose(make_fc(failures=9))
    assert parts.attrs["failed_draws"] == 9
    assert parts.to_array().notnull().all()


def test_without_a_network_there_is_no_split():
    parts = decompose(make_fc(network=False))
    assert set(parts.data_vars) == {"total", "aleatoric", "epistemic"}
    assert set(decompose(make_fc()).data_vars) > {"science", "network", "interaction"}
    one, zero = np.ones((30, 1)), np.zeros((30, 1))
    assert "science" not in decompose(forecast_of(zero, one))
    assert "science" not in decompose(forecast_of(zero, one, network=np.arange(30.0)))


def test_labels_and_shapes():
    parts = decompose(make_fc())
    assert all(variable.dims == ("observable", "time") for variable in parts.data_vars.values())
    assert list(parts["observable"].values) == ["hare", "lynx"]
    assert set(parts["units"].values) == {"thousand pelts"}
    assert parts["time"].attrs["units"] == "year"


def test_a_forecast_that_failed_throughout_gives_nan():
    parts = decompose(make_fc(failures=800))
    assert (
        parts.drop_vars("split_known").to_array().isnull().all() and not parts["split_known"].any()
    )
    assert parts.attrs["failed_draws"] == 800


def test_one_draw_has_an_aleatoric_part_alone():
    mean, variance = np.array([[1.0, 2.0]]), np.array([[0.5, 0.7]])
    parts = decompose(forecast_of(mean, variance, np.ones(1), np.ones(1))).sel(observable="y")
    np.testing.assert_array_equal(parts["aleatoric"], variance[0])
    assert parts.drop_vars(["aleatoric", "split_known"]).to_array().isnull().all()
    failed = decompose(
        forecast_of(np.array([[np.nan, 2.0], [1.0, 2.0]]), np.tile(variance, (2, 1)))
    )
    np.testing.assert_array_equal(failed["aleatoric"].sel(observable="y"), variance[0])
    assert np.isnan(total_variance(mean[:0], variance[:0])["aleatoric"]).all()


def test_an_infinite_observation_variance_stays_infinite_in_its_own_part():
    mean = np.random.default_rng(6).normal(size=(30, 2))
    variance = np.ones_like(mean)
    variance[:, 1] = np.inf
    parts = decompose(forecast_of(mean, variance)).sel(observable="y")
    assert np.isinf(parts["aleatoric"].values).tolist() == [False, True]
    assert np.isinf(parts["total"].values).tolist() == [False, True]
    assert np.isfinite(parts["epistemic"].values).all()


def split_in_part(known=(True, True, False, False, False)):
    """A decomposition after the fit ended at time 1, of which some rows have no known split."""
    known = np.array([known])
    variances = {
        "total": [2.0, 4.0, 8.0, 8.0, 4.0],
        "aleatoric": [1.0, 1.0, 2.0, 4.0, 1.0],
        "epistemic": [1.0, 3.0, 6.0, 4.0, 3.0],
        "science": [0.5, 1.0, 3.0, 1.0, 3.0],
        "network": [0.5, 1.0, 1.0, 1.0, 0.0],
    }
    dims = ("observable", "time")
    parts = {name: (dims, np.array([values])) for name, values in variances.items()}
    rest = parts["epistemic"][1] - parts["science"][1] - parts["network"][1]
    parts |= {
        "interaction": (dims, np.where(known, rest, 0.0)),
        "unknown": (dims, np.where(known, 0.0, rest)),
    }
    coords = {"observable": ["y"], "time": np.arange(5.0)}
    return Decomposition(
        {**parts, "split_known": (dims, known)}, coords, {"failed_draws": 2, "train_end": 1.0}
    )


def test_shares_by_horizon_add_up():
    table = split_in_part().shares().loc["y"]
    assert list(table.index) == ["fitted", "near", "middle", "far"]
    parts = ["aleatoric", "science", "network", "interaction", "unknown"]
    np.testing.assert_allclose(table[parts].sum(axis=1), 100.0)
    np.testing.assert_allclose(table.loc["fitted", parts], [37.5, 25.0, 25.0, 12.5, 0.0])
    np.testing.assert_allclose(table.loc["near", parts], [25.0, 37.5, 12.5, 0.0, 25.0])
    assert (table.loc["middle", "from"], table.loc["far", "to"]) == ("3", "4")


def test_rows_that_were_all_fitted_are_called_so():
    parts = split_in_part()
    parts.attrs["train_end"] = 4.0
    table = parts.shares().loc["y"]
    assert list(table.index) == ["fitted"] and (
        table.loc["fitted", "from"],
        table.loc["fitted", "to"],
    ) == ("0", "4")


def test_a_decomposition_prints_its_shares():
    parts = split_in_part()
    for said in (repr(parts), parts._repr_html_()):
        assert (
            "per cent" in said
            and "near" in said
            and "at least" in said
            and "2 failed draws" in said
        )
    assert "at least" not in repr(split_in_part((True,) * 5))
    assert "per cent" not in repr(parts["total"]) and "per cent" not in repr(
        parts.mean("observable")
    )
    assert "per cent" in repr(decompose(forecast_of(np.zeros((4, 2)), np.ones((4, 2)))))
