"""The report's figures: SVG in data URIs, with a caption and a text alternative each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from .. import plots
from .._jax.tree import short_names
from ..layers.layer import AbstractPopulation
from ..model import Model
from ..plots._series import can_be_drawn, series_of_members
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
    """Draw the forecast of each observable; `of` names the model, where there are several."""
    return [
        card(
            _forecast_figure(fc, name)(fc, train, test, name),
            f"forecast-{slug(f'{of} {name}')}",
            f"{of}: {name}"
            if of
            else str(fc["predictions"].dataset[name].attrs.get("long_name") or name),
            _data_words(train, test, name),
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
    """Draw each observable of each of some forecasts that were recalibrated,
    and say how they were.
    """
    return [
        card(
            _forecast_figure(fc, name)(fc, train, test, name),
            f"recalibrated-{slug(rival)}-{slug(name)}",
            f"{name}, {rival}:",
            f"{fc.attrs[RECALIBRATED]}. {_data_words(train, test, name)}",
            f"Recalibrated forecast of {name}: median, {_spread_words(fc, name)}, and the data.",
        )
        for rival, fc in forecasts.items()
        for name in names
        if name in fc["predictions"].data_vars
    ]


def member_cards(
    forecasts: Mapping[str, xr.DataTree],
    train: xr.Dataset,
    test: xr.Dataset | None,
    names: Sequence[str],
) -> list[Card]:
    """Draw what each model of a mixture forecasts by itself, observable by observable, as far as
    there is room.
    """
    shown = names[: max(1, MOST_PANELS // len(forecasts))]
    return [
        card
        for name in shown
        for of, fc in forecasts.items()
        for card in forecast_cards(fc, train, test, [name], of)
    ]


def comparison_cards(comparison: Comparison) -> list[Card]:
    """Draw by how much each model's CRPS within the training data is above that of the best one, by
    lead.
    """
    figure = plots.plot_comparison(comparison)
    best = comparison.by_lead.attrs["best"]
    caption = (
        f"By how much the CRPS is above that of {best}, by how far ahead; bars are two standard "
        "errors to either side, "
        "rough ones of few windows."
    )
    return [
        card(
            figure,
            "comparison",
            "How far ahead.",
            caption,
            f"CRPS of each model above that of {best}, by lead.",
        )
    ]


def _forecast_figure(fc: xr.DataTree, name: str) -> Callable[..., Figure]:
    if is_field(fc, name):
        return plots.plot_field
    return plots.plot_members if _has_members(fc, name) else plots.plot_forecast


def is_field(fc: xr.DataTree, name: str) -> bool:
    return fc["predictions"].dataset[name].ndim > (4 if _has_members(fc, name) else 3)


def _has_members(fc: xr.DataTree, name: str) -> bool:
    return (
        fc.attrs.get("members") in fc["predictions"].dataset[name].dims
    )  # not where one was chosen


def _spread_words(fc: xr.DataTree, name: str) -> str:
    return "width of the 90 % interval" if is_field(fc, name) else "50 and 90 % bands"


def decomposition_cards(parts: xr.Dataset, fitted: Span, of: str = "") -> list[Card]:
    """Draw the parts of the predictive variance of each observable; `of` names the model, where
    there are several.
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
    """Draw what each unknown function of the model says over its inputs, under the prior and the
    posterior.

    Of a population nothing is drawn: a function may differ between its members.
    """
    found = (
        {} if model is None or isinstance(model.layer, AbstractPopulation) else functions_of(model)
    )
    called = short_names(found)
    return [
        card(
            plots.plot_function(model, post, path),  # pyright: ignore
            f"function-{slug(called[path])}",
            called[path],
            "Over each input, the others in their middle: 90 % of what the prior allows, and the "
            "posterior.",
            f"Prior and posterior of the unknown function {called[path]} over its inputs.",
        )
        for path in list(found)[:MOST_OBSERVABLES]
    ]


def derived_cards(fc: xr.DataTree, derived: xr.Dataset | None) -> list[Card]:
    """Draw derived quantities, and outputs of the model that nobody observes; series of members one
    by one.
    """
    members = _members_of(fc)
    cards = []
    for kind, values in _quantities(fc, derived).items():
        together, alone, _ = _shown(values, members)
        for names in [*([together] if together else []), *([name] for name in alone)]:
            figure = plots.plot_derived(values[names], members=members)
            dim = series_of_members(values[names[0]], members)
            panels = f", a panel for each {dim}" if dim else ""
            cards.append(
                card(
                    figure,
                    f"{kind}-{slug(names[0])}" if dim else kind,
                    _KINDS[kind].title,
                    f"{_KINDS[kind].begin}{listed(names)}{panels}, over all draws.",
                    f"Posterior of {listed(names)}{panels}.",
                )
            )
    return cards


def not_drawn(fc: xr.DataTree, derived: xr.Dataset | None) -> list[str]:
    """Say of what `derived_cards` leaves out why, and how to see it: a sentence for each."""
    members = _members_of(fc)
    said = []
    for kind, values in _quantities(fc, derived).items():
        held = _KINDS[kind].held
        for name in map(str, values.data_vars):
            if not can_be_drawn(values[name], members):
                dims = beside(values[name])
                chosen = ", ".join(f"{dim}=0" for dim in dims[1:] if dim != members)
                said.append(
                    f"{name} is not drawn, since it has {len(dims)} dimensions beside chain and "
                    f"draw, {listed(dims)}: "
                    f"it is {held}['{name}'], of which bd.plots.plot_derived draws a part, such as "
                    f".isel({chosen})."
                )
        together, alone, more = _shown(values, members)
        if more:
            found = listed([f"{held}['{name}']" for name in more])
            said.append(
                f"Not drawn, since the page has room for {len(together) + len(alone)} of them: "
                f"{found}."
            )
    return said


@dataclass(frozen=True)
class _Kind:
    """What the page says of some quantities, and where they are held."""

    title: str
    begin: str
    held: str


_KINDS = {
    "unobserved": _Kind("Predicted, but not observed.", "Without noise: ", "fc['unobserved']"),
    "derived": _Kind("Derived quantities.", "", "derived"),
}


def _quantities(fc: xr.DataTree, derived: xr.Dataset | None) -> dict[str, xr.Dataset]:
    held = {
        "unobserved": fc["unobserved"].to_dataset() if "unobserved" in fc.children else None,
        "derived": derived,
    }
    return {kind: values for kind, values in held.items() if values is not None}


def _members_of(fc: xr.DataTree) -> str:
    return fc.attrs.get("members", "subject")


def _shown(values: xr.Dataset, members: str) -> tuple[list[str], list[str], list[str]]:
    """Names of what is drawn in one figure, of what has a figure of its own, and of what is too
    much of either.
    """
    drawn = [
        str(name) for name, variable in values.data_vars.items() if can_be_drawn(variable, members)
    ]
    alone = [name for name in drawn if series_of_members(values[name], members)]
    together = [name for name in drawn if name not in alone]
    more = [*together[MOST_PANELS:], *alone[MOST_OBSERVABLES:]]
    return together[:MOST_PANELS], alone[:MOST_OBSERVABLES], more


def density_cards(post: xr.DataTree, names: Sequence[str]) -> list[Card]:
    """Draw prior and posterior densities."""
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
    """Draw the ranks of each chain's draws."""
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
    """Draw what a descent went through; nothing for engines that do not descend."""
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
    """Draw the distribution of the PIT and the coverage of intervals; of a series, or of rows in
    any order.
    """
    n = int(scores.loc[[i for i in scores.index if i != "all"], "n"].sum())
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
    """Two figures of a few panels each lie side by side on a wide page, below on a narrow one."""
    if len(names) <= 4:
        return [names]
    first = 2 * -(-len(names) // 4)
    return [names[:first], names[first:]]


def _data_words(train: xr.Dataset, test: xr.Dataset | None, name: str) -> str:
    said = []
    for data, kind in ((train, "fitted"), (test, "held out")):
        if data is None or name not in data:
            continue
        seen = np.isfinite(data[name].values)
        gap = f" ({int((~seen).sum())} missing)" if not seen.all() else ""
        said.append(f"{count(int(seen.sum()), 'value')} {kind}{gap}")
    words = listed(said) if said else "no data"
    return words[:1].upper() + words[1:] + "."


def _share_words(parts: xr.Dataset, fitted: Span) -> str:
    index = next(str(dim) for dim in parts.dims if dim != "observable")
    start, end = fitted
    epistemic = plots.epistemic_parts(parts)
    parts = parts[["total", "aleatoric"]].assign(epistemic)
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
    whole = ahead.isel({index: np.flatnonzero(np.isfinite(ahead["total"].values))})
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
    inside = percent(scores.loc["all", "coverage_90"])
    if inside == MISSING:
        return "No test value could be scored."
    return f"The 90 % interval holds {inside} of the test values."
