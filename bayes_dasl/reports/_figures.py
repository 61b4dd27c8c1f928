"""Figures of the report, each with a caption and a text alternative."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from .. import plots
from .._jax.tree import short_names
from ..data.datasets import index_of
from ..layers.layer import AbstractPopulation
from ..model import Model
from ..plots._series import (
    MOST_INTERVALS,
    can_be_drawn,
    points_drawn,
    series_of_members,
)
from ..plots._style import beside
from ..plots.function import functions_of
from ..scores.matching import RECALIBRATED, Span
from ..weighting.comparison import Comparison
from ._cards import Card, card
from ._text import MISSING, count, listed, percent, slug

MOST_OBSERVABLES = 8
MOST_PANELS = 12


def forecast_cards(
    fc: xr.DataTree, train: xr.Dataset, test: xr.Dataset | None, names: Sequence[str], of: str = ""
) -> list[Card]:
    """Draw the forecast of each observable with the data.

    Args:
        fc: the forecast.
        train: the fitted data.
        test: the held-out data, if there are any.
        names: names of the observables to draw.
        of: name of the model for the title; empty if the page shows one model.

    Returns:
        One card per observable.
    """
    return [
        card(
            _forecast_figure(fc, name)(fc, train, test, name),
            f"forecast-{slug(f'{of} {name}')}",
            f"{of}: {name}" if of else _long_name(fc, name),
            _data_words(fc, train, test, name),
            f"Forecast of {name}{f' by {of}' if of else ''}: median, {_spread_words(fc, name)}, "
            "and the data.",
        )
        for name in names
    ]


def recalibrated_cards(
    forecasts: Mapping[str, xr.DataTree],
    train: xr.Dataset,
    test: xr.Dataset | None,
    names: Sequence[str],
) -> list[Card]:
    """Draw each observable of recalibrated forecasts, and say how they were recalibrated.

    Args:
        forecasts: recalibrated forecasts by name.
        train: the fitted data.
        test: the held-out data, if there are any.
        names: names of the observables to draw.

    Returns:
        One card per forecast and observable. Observables that a forecast lacks are skipped.
    """
    return [
        card(
            _forecast_figure(fc, name)(fc, train, test, name),
            f"recalibrated-{slug(competitor)}-{slug(name)}",
            f"{name}, {competitor}:",
            f"{fc.attrs[RECALIBRATED]}. {_data_words(fc, train, test, name)}",
            f"Recalibrated forecast of {name}: median, {_spread_words(fc, name)}, and the data.",
        )
        for competitor, fc in forecasts.items()
        for name in names
        if name in fc["predictions"].data_vars
    ]


def member_cards(
    forecasts: Mapping[str, xr.DataTree],
    train: xr.Dataset,
    test: xr.Dataset | None,
    names: Sequence[str],
) -> list[Card]:
    """Draw the forecast of each model of a mixture, for up to about `MOST_PANELS` figures.

    Args:
        forecasts: forecasts by name of the model.
        train: the fitted data.
        test: the held-out data, if there are any.
        names: names of the observables to draw.

    Returns:
        One card per model for each of the first observables, ordered by observable.
    """
    # Each observable takes one figure per model.
    shown = names[: max(1, MOST_PANELS // len(forecasts))]
    cards = []
    for name in shown:
        for of, fc in forecasts.items():
            cards += forecast_cards(fc, train, test, [name], of)
    return cards


def comparison_cards(comparison: Comparison) -> list[Card]:
    """Draw the CRPS of each model minus that of the best one, against the lead time.

    The CRPS is that of forecasts of the end of the training data from earlier origins.

    Returns:
        A list of one card.
    """
    best = comparison.by_lead.attrs["best"]
    caption = (
        f"By how much the CRPS is above that of {best}, by how far ahead; bars are two standard "
        "errors to either side, rough ones of few windows."
    )
    alt = f"CRPS of each model above that of {best}, by lead."
    figure = plots.plot_comparison(comparison)
    return [card(figure, "comparison", "How far ahead.", caption, alt)]


def _forecast_figure(fc: xr.DataTree, name: str) -> Callable[..., Figure]:
    """Return the plot function for an observable: of a field, a population or a time series."""
    if is_field(fc, name):
        return plots.plot_field
    return plots.plot_members if _has_groups(fc, name) else plots.plot_forecast


def is_field(fc: xr.DataTree, name: str) -> bool:
    """Whether an observable has spatial dimensions beside chain, draw, index and groups."""
    return fc["predictions"].dataset[name].ndim > (4 if _has_groups(fc, name) else 3)


def _has_groups(fc: xr.DataTree, name: str) -> bool:
    """Whether an observable has a dimension of groups, as in a forecast of several groups."""
    return fc.attrs.get("members") in fc["predictions"].dataset[name].dims


def _long_name(fc: xr.DataTree, name: str) -> str:
    """Return the long name of an observable, or its name."""
    return str(fc["predictions"].dataset[name].attrs.get("long_name") or name)


def _spread_words(fc: xr.DataTree, name: str) -> str:
    """Return words for how the figure of an observable shows the spread of the draws."""
    return "width of the 90 % interval" if is_field(fc, name) else "50 and 90 % bands"


def decomposition_cards(parts: xr.Dataset, fitted: Span, of: str = "") -> list[Card]:
    """Draw the parts of the predictive variance of each observable over time.

    Args:
        parts: the result of `decompose`, averaged over places.
        fitted: first and last time of the fitted data, None where unknown.
        of: name of the model for the title; empty if the page shows one model.

    Returns:
        One card per observable.
    """
    return [
        card(
            plots.plot_decomposition(parts, name, fitted[1], fitted[0]),
            f"decomposition-{slug(f'{of} {name}')}",
            f"{of}: {name}" if of else name,
            _share_words(parts.sel(observable=name), fitted),
            f"Predictive variance of {name} over time, stacked by origin, with its total.",
        )
        for name in map(str, parts["observable"].values)
    ]


def function_cards(model: Model | None, post: xr.DataTree) -> list[Card]:
    """Draw each unknown function of the model over its inputs, under prior and posterior.

    Populations are skipped, since a function may differ between their groups.

    Args:
        model: the fitted model, or None if it is not known.
        post: the posterior.

    Returns:
        One card per unknown function, up to `MOST_OBSERVABLES`.
    """
    if model is None or isinstance(model.layer, AbstractPopulation):
        return []
    return [
        card(
            plots.plot_function(model, post, path),
            f"function-{slug(name)}",
            name,
            "Over each input, the others in their middle: 90 % of what the prior allows, and the "
            "posterior.",
            f"Prior and posterior of the unknown function {name} over its inputs.",
        )
        for path, name in list(short_names(functions_of(model)).items())[:MOST_OBSERVABLES]
    ]


def derived_cards(fc: xr.DataTree, derived: xr.Dataset | None) -> list[Card]:
    """Draw derived quantities and unobserved outputs of the model.

    Args:
        fc: the forecast, which holds the unobserved outputs.
        derived: the result of `evaluate`, if there is one.

    Returns:
        One card for all small panels of each kind, and one card per quantity that is a series for
        each group. Quantities with too many dimensions are skipped.
    """
    groups = _dimension_of_groups(fc)
    cards = []
    for kind, values in _quantities(fc, derived).items():
        # Small panels share a figure; each series of groups has its own.
        together, alone, _ = _by_figure(values, groups)
        figures = [together] if together else []
        for names in [*figures, *([name] for name in alone)]:
            figure = plots.plot_derived(values[names], members=groups)
            dim = series_of_members(values[names[0]], groups)
            panels = f", a panel for each {dim}" if dim else ""
            caption = f"{_KINDS[kind].begin}{listed(names)}{panels}, over all draws."
            place = f"{kind}-{slug(names[0])}" if dim else kind
            alt = f"Posterior of {listed(names)}{panels}."
            cards.append(card(figure, place, _KINDS[kind].title, caption, alt))
    return cards


def not_drawn(fc: xr.DataTree, derived: xr.Dataset | None) -> list[str]:
    """Return sentences on the quantities that `derived_cards` leaves out, with a remedy.

    Args:
        fc: the forecast.
        derived: the result of `evaluate`, if there is one.

    Returns:
        One sentence per quantity with too many dimensions, and one for all that exceed the room.
    """
    groups = _dimension_of_groups(fc)
    said = []
    for kind, values in _quantities(fc, derived).items():
        source = _KINDS[kind].source
        for name in map(str, values.data_vars):
            if can_be_drawn(values[name], groups):
                continue
            dims = beside(values[name])
            # Two dimensions can be drawn, so choose one place of the others.
            chosen = ", ".join(f"{dim}=0" for dim in dims[1:] if dim != groups)
            said.append(
                f"{name} is not drawn, since it has {len(dims)} dimensions beside chain and draw, "
                f"{listed(dims)}: it is {source}['{name}'], of which bd.plots.plot_derived draws a "
                f"part, such as .isel({chosen})."
            )
        together, alone, more = _by_figure(values, groups)
        if more:
            found = listed([f"{source}['{name}']" for name in more])
            room = len(together) + len(alone)
            said.append(f"Not drawn, since the page has room for {room} of them: {found}.")
    return said


@dataclass(frozen=True)
class _Kind:
    """Texts for one kind of quantities.

    Args:
        title: first words of the caption.
        begin: beginning of the rest of the caption.
        source: Python expression of the dataset with the quantities, for a remedy.
    """

    title: str
    begin: str
    source: str


_KINDS = {
    "unobserved": _Kind("Predicted, but not observed.", "Without noise: ", "fc['unobserved']"),
    "derived": _Kind("Derived quantities.", "", "derived"),
}


def _quantities(fc: xr.DataTree, derived: xr.Dataset | None) -> dict[str, xr.Dataset]:
    """Return unobserved outputs and derived quantities by kind; a kind without any is absent."""
    found = {}
    if "unobserved" in fc.children:
        found["unobserved"] = fc["unobserved"].to_dataset()
    if derived is not None:
        found["derived"] = derived
    return found


def _dimension_of_groups(fc: xr.DataTree) -> str:
    """Return the dimension of groups; "subject" if the forecast names none."""
    return fc.attrs.get("members", "subject")


def _by_figure(values: xr.Dataset, groups: str) -> tuple[list[str], list[str], list[str]]:
    """Distribute quantities over figures.

    Args:
        values: the quantities.
        groups: name of the dimension of groups.

    Returns:
        Three lists of names: quantities that share one figure; quantities that are a series for
        each group and get a figure each; and drawable quantities that exceed the room on the page.
    """
    drawn = [str(n) for n, variable in values.data_vars.items() if can_be_drawn(variable, groups)]
    alone = [name for name in drawn if series_of_members(values[name], groups)]
    together = [name for name in drawn if name not in alone]
    more = [*together[MOST_PANELS:], *alone[MOST_OBSERVABLES:]]
    return together[:MOST_PANELS], alone[:MOST_OBSERVABLES], more


def density_cards(post: xr.DataTree, names: Sequence[str]) -> list[Card]:
    """Draw prior and posterior densities of scalar parameters.

    Args:
        post: the posterior.
        names: labels of the parameters.

    Returns:
        One card, or two if there are more than four parameters.
    """
    return [
        card(
            plots.plot_prior_posterior(post, part),
            f"prior-posterior-{i + 1}",
            "What the data taught.",
            "Where the posterior lies on its prior, the data said little about that parameter."
            if i == 0
            else "The same for the other parameters.",
            f"Prior and posterior densities of {listed(part)}.",
        )
        for i, part in enumerate(_halves(names))
    ]


def rank_cards(post: xr.DataTree, names: Sequence[str], chains: int) -> list[Card]:
    """Draw rank plots of scalar parameters, with one line per chain.

    Args:
        post: the posterior.
        names: labels of the parameters.
        chains: number of chains.

    Returns:
        One card, or two if there are more than four parameters.
    """
    # A single chain is split into halves, which are compared.
    who = "The two halves of the one chain" if chains == 1 else "The chains"
    return [
        card(
            plots.plot_ranks(post, part),
            f"ranks-{i + 1}",
            "Do they agree?",
            f"{who} agree where every line stays in the grey band, which holds 99 % of such lines "
            "for as many independent draws as a chain is worth. A line that leaves it marks a "
            "chain that is apart from the others."
            if i == 0
            else "The same for the other parameters.",
            f"Rank plots of {listed(part)}, one line a chain.",
        )
        for i, part in enumerate(_halves(names))
    ]


def training_cards(post: xr.DataTree) -> list[Card]:
    """Draw the loss against the step, for engines that optimise by gradient descent.

    Returns:
        A list of one card; empty for other engines.
    """
    if "training" not in post.children:
        return []
    members = post["training"].sizes["member"]
    return [
        card(
            plots.plot_training(post),
            "training",
            "How it was learned.",
            "The loss and its terms, step by step"
            + (f", one line for each of {members} members." if members > 1 else ".")
            + " A loss that still falls at the end asks for more steps.",
            "Loss of the descent and its terms against the step.",
        )
    ]


def calibration_cards(pit: xr.Dataset, scores: pd.DataFrame, *, series: bool) -> list[Card]:
    """Draw the distribution of the PIT (probability integral transform) and the coverage.

    Args:
        pit: PIT values of the test data.
        scores: scores of the forecast, with a row per observable and one for "all".
        series: whether the data are a time series rather than rows in any order.

    Returns:
        A card of the PIT, and one of the coverage of intervals.
    """
    # The row "all" would count every value twice.
    n = int(scores.loc[[i for i in scores.index if i != "all"], "n"].sum())
    # The band of the PIT assumes independent values, so the page says that they are not.
    alike = (
        "neighbours in time and not independent"
        if series
        else "which share the parameters of one fit"
    )
    guide = f"{count(n, 'test value')}, {alike}: a guide, no test."
    return [
        card(
            plots.plot_pit(pit),
            "pit",
            "Where the truth falls in the forecast.",
            "A calibrated forecast follows the diagonal. A line that is flat in the middle means "
            "bands too narrow; steep in the middle, bands too wide; all to one side, a bias. "
            + guide,
            "Empirical distribution of the probability integral transform of the test data.",
        ),
        card(
            plots.plot_coverage(scores),
            "coverage",
            "How often the truth is inside.",
            _coverage_words(scores) + " Bars are 90 % intervals for a share of so few values.",
            "Observed against nominal coverage of the 50, 80, 90 and 95 % intervals.",
        ),
    ]


def _halves(names: Sequence[str]) -> list[Sequence[str]]:
    """Split names over two figures that stand side by side; up to four stay in one figure."""
    if len(names) <= 4:
        return [names]
    # A figure has two columns, so the first half has an even number of panels.
    first = 2 * -(-len(names) // 4)
    return [names[:first], names[first:]]


def _data_words(fc: xr.DataTree, train: xr.Dataset, test: xr.Dataset | None, name: str) -> str:
    """Return how many values of an observable are fitted, held out, missing and drawn, in words."""
    said = []
    is_series = fc.attrs.get("series", True)
    known = {
        kind: np.isfinite(data[name].values)
        for data, kind in ((train, "fitted"), (test, "held out"))
        if data is not None and name in data
    }
    counts = [int(seen.sum()) for seen in known.values()]
    # Panels of groups and maps have data of their own, and rows without an order are left out.
    one_panel = is_series and all(seen.ndim == 1 for seen in known.values())
    drawn = points_drawn(*counts) if one_panel else counts
    for (kind, seen), kept, shown in zip(known.items(), counts, drawn, strict=True):
        gaps = [f"{int((~seen).sum())} missing"] if not seen.all() else []
        thin = [f"{shown} of them drawn"] if shown < kept else []
        notes = f" ({', '.join([*gaps, *thin])})" if gaps or thin else ""
        said.append(f"{count(kept, 'value')} {kind}{notes}")
    words = listed(said) if said else "no data"
    rows = len(np.unique(fc["predictions"].dataset[index_of(fc["predictions"].dataset)]))
    if not is_series and rows > MOST_INTERVALS:
        words += f"; {MOST_INTERVALS} of {rows} rows are drawn"
    return words[:1].upper() + words[1:] + "."


def _share_words(parts: xr.Dataset, fitted: Span) -> str:
    """Return the mean share of each part of the predictive variance in words.

    The mean is over times outside the fitted span, or over all times if there are none outside.

    Args:
        parts: the parts of the variance of one observable over time.
        fitted: first and last time of the fitted data, None where unknown.
    """
    index = next(str(dim) for dim in parts.dims if dim != "observable")
    start, end = fitted
    # The parts that the figure stacks.
    epistemic = plots.epistemic_parts(parts)
    parts = parts[["total", "aleatoric"]].assign(epistemic)
    # 1. Keep the times before and after the fitted data; all times if there are none.
    never = xr.zeros_like(parts[index], dtype=bool)
    sides = {
        "after": never if end is None else parts[index] > end,
        "before": never if start is None else parts[index] < start,
    }
    beyond = [side for side, there in sides.items() if bool(there.any())]
    ahead, where = parts, "over all times"
    if beyond:
        ahead = parts.where(sides["after"] | sides["before"], drop=True)
        where = f"{' and '.join(beyond)} the training data"
    # 2. Average over the times with a finite variance.
    whole = ahead.isel({index: np.flatnonzero(np.isfinite(ahead["total"].values))})
    # Say how many times are left out.
    lost = ahead.sizes[index] - whole.sizes[index]
    total = float(whole["total"].mean()) if whole.sizes[index] else np.nan
    if np.isnan(total) and np.isfinite(ahead["aleatoric"]).any():
        return (
            f"One draw has no epistemic uncertainty: what is known of the variance {where} is "
            "aleatoric."
        )
    if np.isnan(total):
        return f"The predictive variance {where} is not known: it is not finite."
    if not total > 0:
        return f"No predictive variance {where}."
    shares = [f"{n} {percent(float(whole[n].mean()) / total)}" for n in ("aleatoric", *epistemic)]
    without = f", without {count(lost, 'value')} of no finite variance" if lost else ""
    return f"Mean variance {where}{without}: {listed(shares)}."


def _coverage_words(scores: pd.DataFrame) -> str:
    """Return a sentence on the share of test values within the 90 % interval."""
    inside = percent(scores.loc["all", "coverage_90"])
    if inside == MISSING:
        return "No test value could be scored."
    return f"The 90 % interval holds {inside} of the test values."
