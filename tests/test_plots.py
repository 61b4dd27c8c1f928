"""Figures say what their data say: positions of bands, stacks, ranks and labels, not pixels."""

from __future__ import annotations

import io

import numpy as np
import pytest
import trees
import xarray as xr
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from bayes_dasl import decompose, plots, scores
from bayes_dasl.plots import _style


def band(ax, label: str) -> np.ndarray:
    """Return (lower, upper) of a filled band by its label."""
    shape = next(c for c in ax.collections if c.get_label() == label)
    vertices = shape.get_paths()[0].vertices
    times = np.unique(vertices[:, 0])
    ends = [vertices[vertices[:, 0] == t, 1] for t in times]
    return np.array([[y.min() for y in ends], [y.max() for y in ends]])


def line(ax, label: str) -> np.ndarray:
    return next(x for x in ax.lines if x.get_label() == label).get_ydata()


def rendered(fig) -> str:
    buffer = io.StringIO()
    fig.savefig(buffer, format="svg")
    return buffer.getvalue()


def outside(ax, label: str) -> bool:
    """Does the labelled line leave the first filled band of the axes?"""
    vertices = ax.collections[0].get_paths()[0].vertices
    return bool(np.abs(line(ax, label)).max() > np.abs(vertices[:, 1]).max())


@pytest.fixture(scope="module")
def post() -> xr.DataTree:
    return trees.make_post()


@pytest.fixture(scope="module")
def fc() -> xr.DataTree:
    return trees.make_fc(failures=5)


def test_forecast_bands_are_quantiles_of_the_draws_that_did_not_fail(fc):
    train, test = trees.make_data()
    ax = plots.plot_forecast(fc, train, test, "hare").axes[0]
    draws = fc["predictions"]["hare"].values.reshape(-1, fc["predictions"].sizes["time"])
    for label, mass in (("50 % band", 0.5), ("90 % band", 0.9)):
        expected = np.nanquantile(draws, [(1 - mass) / 2, (1 + mass) / 2], axis=0)
        np.testing.assert_allclose(band(ax, label), expected, rtol=1e-12)
    np.testing.assert_allclose(line(ax, "median"), np.nanmedian(draws, axis=0), rtol=1e-12)


def test_rows_in_any_order_are_not_joined(fc):
    rows = fc.copy()
    rows.attrs = fc.attrs | {"series": 0}
    ax = plots.plot_forecast(rows, *trees.make_data(), "hare").axes[0]
    draws = fc["predictions"]["hare"].values.reshape(-1, fc["predictions"].sizes["time"])
    low, high = np.nanquantile(draws, [0.05, 0.95], axis=0)
    (bars,) = [c for c in ax.containers if c.get_label() == "90 % interval"]
    np.testing.assert_allclose(
        [(b.get_y(), b.get_y() + b.get_height()) for b in bars], np.transpose([low, high])
    )
    assert all(line.get_linestyle() == "None" for line in ax.lines)


def test_censored_data_are_triangles_that_say_where_they_lie(fc):
    train, test = trees.make_data()
    codes = np.zeros(train.sizes["time"])
    codes[[1, 2, 4]] = 1, 1, -1
    ax = plots.plot_forecast(fc, train.assign(lynx_censored=("time", codes)), test, "lynx").axes[0]
    lynx, markers = train["lynx"].values, {x.get_label(): x.get_marker() for x in ax.lines}
    np.testing.assert_array_equal(line(ax, "training data"), lynx[codes == 0])
    np.testing.assert_array_equal(line(ax, "training data, at most"), lynx[[1, 2]])
    np.testing.assert_array_equal(line(ax, "training data, at least"), lynx[[4]])
    assert (markers["training data, at most"], markers["training data, at least"]) == ("v", "^")
    assert "test data, at most" not in markers


def test_forecast_shows_every_datum_and_the_boundary(fc):
    train, test = trees.make_data(missing=2)
    ax = plots.plot_forecast(fc, train, test, "lynx").axes[0]
    seen = train["lynx"].values
    np.testing.assert_array_equal(line(ax, "training data"), seen[np.isfinite(seen)])
    assert len(line(ax, "test data")) == test.sizes["time"] - 2
    faces = {x.get_label(): x.get_markerfacecolor() for x in ax.lines}
    assert faces["training data"] != "white"
    assert faces["test data"] == "white"
    assert any(np.all(np.asarray(x.get_xdata()) == fc.attrs["train_end"]) for x in ax.lines)
    assert ax.get_ylabel() == "lynx pelts (thousand pelts)"
    assert ax.get_xlabel() == "time (year)"


def test_a_forecast_to_earlier_times_has_its_boundary_where_the_fit_begins(fc):
    earlier = fc.copy(deep=True)
    earlier.attrs |= {"train_start": 1910.0, "train_end": 1913.0}
    drawn = plots.plot_decomposition(decompose(fc), "lynx", 1913.0, 1910.0)
    for figure in (plots.plot_forecast(earlier, None, None, "lynx"), drawn):
        ax = figure.axes[0]
        told = {
            t.xy[0]: t.get_text()
            for t in ax.texts
            if t.get_text() in ("fitted", "forecast") and t.get_ha() == "left"
        }
        assert told == {1910.0: "fitted", 1913.0: "forecast"}


def test_a_runaway_band_is_clipped_and_said_so(fc):
    train, test = trees.make_data()
    wild = fc.copy(deep=True)
    wild["predictions"]["hare"].values[:, ::10, -1] = 1e9
    ax = plots.plot_forecast(wild, train, test, "hare").axes[0]
    low, high = ax.get_ylim()
    seen = np.concatenate([train["hare"].values, test["hare"].values])
    assert low <= seen.min()
    assert seen.max() <= high < 1e4
    assert any("goes on up to" in text.get_text() for text in ax.texts)
    calm = plots.plot_forecast(fc, train, test, "hare").axes[0]
    assert not any("goes on" in text.get_text() for text in calm.texts)


def test_a_forecast_without_one_good_draw_says_so():
    train, test = trees.make_data()
    dead = trees.make_fc(chains=1, draws=20, failures=20)
    ax = plots.plot_forecast(dead, train, test, "hare").axes[0]
    assert any("failed" in text.get_text() for text in ax.texts)
    assert len(line(ax, "training data")) == train.sizes["time"]


@pytest.mark.parametrize("network", [True, False])
def test_the_stack_adds_up_to_the_total(network):
    parts = decompose(trees.make_fc(network=network))
    if network:
        parts["interaction"][:] = -0.2 * parts["science"]
        parts["total"] = parts["aleatoric"] + 0.8 * parts["science"] + parts["network"]
    fig = plots.plot_decomposition(parts, "hare", 1912.0)
    ax = fig.axes[0]
    names = ["aleatoric", "science", "network"] if network else ["aleatoric", "epistemic"]
    top = band(ax, names[-1])[1]
    bottom = band(ax, "interaction")[0] if network else 0.0
    np.testing.assert_allclose(top + bottom, line(ax, "total"), rtol=1e-9)
    np.testing.assert_allclose(line(fig.axes[1], "total"), 1.0, rtol=1e-12)
    assert np.all(np.asarray(bottom) <= 0)
    assert ax.get_ylabel() == "variance, (thousand pelts)²"


def test_ranks_show_a_stuck_chain_and_only_that():
    names = ["birth", "death"]
    good = plots.plot_ranks(trees.make_post(seed=3), names).axes
    assert not any(outside(ax, f"chain {c}") for ax in good[:2] for c in range(4))
    bad = plots.plot_ranks(trees.make_post(seed=3, stuck_chain=2), names).axes
    assert all(outside(ax, "chain 2") for ax in bad[:2])


def test_ranks_of_one_chain_compare_its_halves():
    one = trees.make_post(chains=1)
    ax = plots.plot_ranks(one, ["birth"]).axes[0]
    np.testing.assert_allclose(line(ax, "half 1"), -line(ax, "half 2"), atol=0.011)
    drifting = one.copy(deep=True)
    drifting["posterior"]["birth"].values[:] += np.linspace(0, 1, 200)
    assert outside(plots.plot_ranks(drifting, ["birth"]).axes[0], "half 1")


def test_ranks_of_many_chains_are_those_of_sixteen_groups():
    names = [f"group of 4 chains {c}" for c in range(16)]
    post = trees.make_post(chains=64, draws=30)
    ax = plots.plot_ranks(post, ["birth"]).axes[0]
    assert [drawn.get_label() for drawn in ax.lines] == names
    assert not any(outside(ax, name) for name in names)
    post["posterior"]["birth"].values[12:16] += 3.0
    ax = plots.plot_ranks(post, ["birth"]).axes[0]
    assert outside(ax, names[3])


def test_densities_integrate_to_one(post):
    axes = plots.plot_prior_posterior(post).axes
    assert [ax.get_title(loc="left") for ax in axes] == list(trees.SCIENCE)
    for ax in axes:
        for drawn in ax.lines:
            area = np.trapezoid(drawn.get_ydata(), drawn.get_xdata())
            assert area == pytest.approx(1.0, abs=0.05)
    assert axes[0].get_xlabel() == "1/year"


def test_a_long_tail_neither_hides_the_posterior_nor_makes_its_prior_coarse(post):
    """Of a Cauchy distribution half of the prior lies within one of its middle,
    whatever its tails.
    """
    wide = post.copy(deep=True)
    name = "birth"
    rng = np.random.default_rng(0)
    wide["prior"][name].values = rng.standard_cauchy(wide["prior"][name].shape)
    wide["posterior"][name].values = rng.normal(0.3, 0.2, wide["posterior"][name].shape)
    ax = plots.plot_prior_posterior(wide, [name]).axes[0]
    low, high = ax.get_xlim()
    assert high - low < 17 * 0.2 * 6.5
    prior = next(drawn for drawn in ax.lines if drawn.get_label() == "prior")
    x, y = prior.get_xdata(), prior.get_ydata()
    assert np.interp(0.0, x, y) == pytest.approx(1 / np.pi, rel=0.25)
    assert np.trapezoid(np.where(np.abs(x) < 1, y, 0.0), x) == pytest.approx(0.5, abs=0.1)


def test_array_parameters_become_one_scalar_an_element(post):
    grown = post.copy(deep=True)
    values = np.random.default_rng(0).normal(size=(4, 200, 2))
    rate = xr.DataArray(values, dims=("chain", "draw", "site"), coords={"site": ["a", "b"]})
    grown["posterior"] = grown["posterior"].to_dataset().assign(rate=rate.assign_attrs(units="m"))
    scalars = plots.science_parameters(grown)
    assert list(scalars)[-2:] == ["rate[a]", "rate[b]"]
    np.testing.assert_array_equal(scalars["rate[b]"].values, values[..., 1])
    assert "layers.0.weight" not in scalars


def test_pit_and_coverage_follow_the_scores(fc):
    _, test = trees.make_data()
    ax = plots.plot_pit(scores.pit(fc, test)).axes[0]
    steps = line(ax, "all")
    assert steps[0] == 0
    assert steps[-1] == 1
    assert np.all(np.diff(steps) >= 0)
    table = scores.score(fc, test)
    ax = plots.plot_coverage(table).axes[0]
    columns = [f"coverage_{level}" for level in plots.LEVELS]
    np.testing.assert_allclose(line(ax, "hare"), table.loc["hare", columns].to_numpy(float))


@pytest.mark.parametrize(
    ("spread", "inside"),
    [(lambda u: u, True), (lambda u: np.clip((u - 0.5) * 8 + 0.5, 0, 1), False)],
)
def test_pit_of_a_forecast_that_is_too_sure_leaves_the_band(spread, inside):
    u = (np.arange(100) + 0.5) / 100
    ax = plots.plot_pit(xr.Dataset({"hare": ("time", spread(u))})).axes[0]
    drawn = next(x for x in ax.lines if x.get_label() == "observed")
    x, y = np.asarray(drawn.get_xdata()), np.asarray(drawn.get_ydata())
    # The published 95 % point of the Kolmogorov statistic for 100 values.
    assert bool(np.abs(y - x)[1:-1].max() < 0.1340) is inside
    low, high = band(ax, "95 % band")
    assert np.max(high - low) == pytest.approx(2 * 0.1340, abs=0.002)


def test_user_text_with_dollar_signs_is_text(post, fc):
    train, test = trees.make_data()
    names = {"hare": "cost $x^2"}
    odd_fc = fc.map_over_datasets(lambda ds: ds.rename({k: v for k, v in names.items() if k in ds}))
    odd_fc["predictions"]["cost $x^2"].attrs = {"units": "$ and $"}
    fig = plots.plot_forecast(odd_fc, train.rename(names), test.rename(names), "cost $x^2")
    assert "<svg" in rendered(fig)


def test_figures_come_out_the_same_twice(fc):
    train, test = trees.make_data()
    first, second = (plots.plot_forecast(fc, train, test, "hare") for _ in range(2))
    np.testing.assert_array_equal(
        band(first.axes[0], "90 % band"), band(second.axes[0], "90 % band")
    )


def test_many_times_stay_small():
    time = np.linspace(0, 1, 20_000)
    draws = np.random.default_rng(0).normal(size=(1, 20, time.size))
    wide = xr.Dataset({"x": (("chain", "draw", "time"), draws)}, coords={"time": time})
    data = xr.Dataset({"x": ("time", draws[0, 0])}, coords={"time": time})
    fig = plots.plot_forecast(xr.DataTree.from_dict({"predictions": wide}), data, None, "x")
    assert len(rendered(fig)) < 1_000_000


@pytest.mark.parametrize(
    ("begin", "days", "corner"),
    [
        ("2023-03-01", 61, "2023"),
        ("2023-12-10", 45, "2023–2024"),
        ("2023-03-03", 20, "2023-Mar"),
        ("2010-01-01", 912, ""),
    ],
)
@pytest.mark.filterwarnings("error")
def test_the_corner_of_an_axis_of_dates_names_the_month_only_where_all_ticks_lie_in_it(
    begin, days, corner
):
    dates = np.datetime64(begin) + np.arange(days)
    fig = Figure()
    ax = fig.subplots()
    ax.plot(_style.positions(dates), np.arange(days))
    _style.along_dates(ax)
    fig.savefig(io.BytesIO())
    assert ax.xaxis.get_offset_text().get_text() == corner


def thinned(count: int, *, of: str, series: bool = True, held_out: int = 2):
    """A figure of `count` rows, of which every n-th is held out, and its forecast."""
    values = np.random.default_rng(0).normal(size=(1, 20, count))
    rows = {of: np.arange(count)}
    predictions = xr.Dataset({"y": (("chain", "draw", of), values)}, rows)
    fc = xr.DataTree.from_dict({"predictions": predictions})
    fc.attrs |= {"series": int(series)}
    data = xr.Dataset({"y": (of, values[0, 0])}, rows)
    test = np.arange(count) % held_out == 0
    return plots.plot_forecast(fc, data.isel({of: ~test}), data.isel({of: test}), "y")


def test_points_that_would_hide_the_bands_are_thinned_and_the_legend_says_so():
    fig = thinned(3650, of="time", held_out=5)
    trained = line(fig.axes[0], "training data, 320 of 2920")
    tested = line(fig.axes[0], "test data, 80 of 730")
    assert (trained.shape[-1], tested.shape[-1]) == (320, 80)
    fig = thinned(400, of="time")
    assert line(fig.axes[0], "training data").shape[-1] == 200


@pytest.mark.parametrize("held_out", range(2, 13))
def test_rows_without_an_order_are_thinned_with_their_data_of_either_kind(held_out):
    ax = thinned(720, of="row", series=False, held_out=held_out).axes[0]
    at = {found.get_label(): found.get_xdata() for found in ax.lines}
    trained, tested, median = (at[of] for of in ("training data", "test data", "median"))
    assert sorted([*trained, *tested]) == sorted(median) and len(median) == 60
    # Every twelfth row would be a held-out one each time for n = 2, 3, 4, 6 and 12.
    assert abs(len(tested) / 60 - 1 / held_out) < 0.1


LONG = "layer.vector_field.science.growth_rate_of_the_population_in_the_northern_lakes"


def test_long_names_do_not_overlap(post):
    names = {"birth": LONG, "death": "the death rate of a population of lynx in a cold winter"}
    renamed = post.map_over_datasets(
        lambda ds: ds.rename({a: b for a, b in names.items() if a in ds})
    )
    fig = plots.plot_prior_posterior(renamed)
    renderer = FigureCanvasAgg(fig)
    renderer.draw()
    boxes = [ax.title.get_window_extent() for ax in fig.axes if ax.get_visible()]
    boxes += [ax._left_title.get_window_extent() for ax in fig.axes]
    boxes = [box for box in boxes if box.width > 1]
    assert len(boxes) == len(fig.axes)
    for number, box in enumerate(boxes):
        assert box.x1 <= fig.bbox.x1
        assert not any(box.overlaps(other) for other in boxes[number + 1 :])


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("hare", "hare"),
        ("thousand pelts of the northern lakes", "thousand pelts of the northern\nlakes"),
        ("vector_field.science.growth_rate_of_hare", "vector_field.science.growth_\nrate_of_hare"),
        ("x" * 70, "x" * 31 + "\n\N{HORIZONTAL ELLIPSIS}" + "x" * 30),
    ],
)
def test_labels_break_at_words_and_are_shortened_in_the_middle(text, shown):
    found = _style.fitted(text)
    assert found == shown and max(map(len, found.split("\n"))) <= 32


def test_a_notebook_shows_a_figure_that_pyplot_does_not_know():
    """Without pyplot Jupyter would print its type and size."""
    figure, _ = _style.one_panel()
    assert figure._repr_png_().startswith(b"\x89PNG")
