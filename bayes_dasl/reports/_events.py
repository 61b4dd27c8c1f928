"""The report's optional figures: a closer look, exceedance probabilities, return levels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from .. import plots
from ..data.dates import are_dates, in_words
from ..extremes.exceedance_and_return_levels import (
    closer,
    exceedance,
    is_series,
    return_levels,
    times_of,
    unseen,
)
from ..extremes.levels import likely, within
from ._cards import Card, card
from ._text import listed, number, slug
from .options import ReportOptions

_MOST_OF_THE_FIGURE = 0.6
"""A closer look at a larger share of the times shows nothing new."""


def window_cards(
    fc: xr.DataTree,
    train: xr.Dataset,
    test: xr.Dataset | None,
    names: Sequence[str],
    options: ReportOptions,
) -> list[Card]:
    """Draw a fan of each series over the window, if one is wanted or much is forecast ahead.

    Returns:
        The cards of the page.
    """
    window = _default_window(fc) if options.window is None else options.window
    if window is None or window is False:
        return []
    first, last = map(_time_text, window)
    words = f"From {first} to {last}, in bands that hold 20 to 95 % of the predictive draws."
    return [
        card(
            plots.plot_fan(fc, train, test, name, window),
            f"fan-{slug(name)}",
            f"{name}, a closer look.",
            words,
            f"Fan chart of the forecast of {name} from {first} to {last}.",
        )
        for name in names
        if is_series(fc, name)
    ]


def event_cards(fc: xr.DataTree, options: ReportOptions) -> list[Card]:
    """Draw exceedance probabilities and return levels, at the times that were not fitted.

    Returns:
        The cards of the page.
    """
    during = unseen(fc)
    when = f"from {_time_text(during[0])} to {_time_text(during[1])}"
    cards = []
    for name in options.thresholds:
        if is_series(fc, name):
            cards.append(_exceedance_card(fc, name, options, during, when))
    for name in options.return_periods:
        if is_series(fc, name):
            cards.append(_return_card(fc, name, options, during, when))
    return cards


def _exceedance_card(
    fc: xr.DataTree, name: str, options: ReportOptions, during: Any, when: str
) -> Card:
    """Draw the probability that each threshold is exceeded, at each time and at any of them."""
    units = _units_of(fc, name)
    below = name in options.below
    way = "below" if below else "above"
    found, said = [], []
    for level in options.levels(name):
        result = exceedance(fc, name, level, below=below, during=during)
        found.append(result)
        level_text = f"{result.attrs['level']:g} {units}".strip()
        said.append(f"{way} {level_text}: {likely(float(result['ever']))}")
    words = f"At each time; and at any of the times {when}: {'; '.join(said)}."
    alt = f"Probability over time that {name} goes {way} its thresholds."
    figure = plots.plot_exceedance(found, units)
    return card(figure, f"exceedance-{slug(name)}", f"{name}.", words, alt)


def _return_card(
    fc: xr.DataTree, name: str, options: ReportOptions, during: Any, when: str
) -> Card:
    """Draw the level that is exceeded once in a number of blocks, and say which are unknown."""
    units = _units_of(fc, name)
    table = return_levels(fc, name, options.periods(name), block=options.block, during=during)
    # A level is unknown if too few blocks reach it.
    known = table.dropna()
    said = [f"{number(level)} once in {period:g}" for period, level in known["level"].items()]
    exceeds = "no level is told"
    if said:
        exceeds = f"its highest value exceeds {'; '.join(said)}{f' ({units})' if units else ''}"
    words = f"Where a block is {table.attrs['block']}, {when}: {exceeds}."
    if left_out := table.attrs["left_out"]:
        words += f" Left out: {left_out}."
    if unknown := [f"{period:g}" for period in table.index.difference(known.index)]:
        words += f" Too few blocks among all draws reach that of {listed(unknown)}."
    alt = f"Levels of {name} by how seldom the highest value of a block exceeds them."
    figure = plots.plot_return_levels(table, name, units)
    return card(figure, f"return-{slug(name)}", f"{name}, return levels.", words, alt)


def _units_of(fc: xr.DataTree, name: str) -> str:
    """Return the units of an observable, empty without any."""
    return str(fc["predictions"].dataset[name].attrs.get("units", ""))


def not_drawn(fc: xr.DataTree, options: ReportOptions) -> list[str]:
    """Return a sentence for each request that cannot be drawn, with a remedy."""
    asked = {"thresholds": options.thresholds, "return levels": options.return_periods}
    if options.window not in (None, False):
        # A window concerns every observable.
        asked["a window"] = dict.fromkeys(map(str, fc["predictions"].data_vars))
    found = {}
    for what, names in asked.items():
        for name in names:
            if not is_series(fc, name):
                found.setdefault(name, []).append(what)
    remedy = (
        "Choose a place or member first, and see bd.extremes.exceedance, bd.extremes.return_levels "
        "and bd.plots.plot_fan."
    )
    if not fc.attrs.get("series", True):
        remedy = (
            "Its rows are in any order; bd.extremes.exceedance says of each how probable it is."
        )
    return [
        f"Not drawn, since {name} is no series: {listed(several)}. {remedy}"
        for name, several in found.items()
    ]


def _time_text(value: Any) -> str:
    """Return a time as text, with as many digits as a date in days needs."""
    return in_words(value) if are_dates(np.asarray(value)) else f"{float(value):.10g}"


def refuse(fc: xr.DataTree, options: ReportOptions) -> None:
    """Raise MismatchError or DataError for options that a forecast cannot show."""
    options.check(map(str, fc["predictions"].data_vars), times_of(fc), unseen(fc))


def _default_window(fc: xr.DataTree) -> tuple | None:
    """Return the window around the end of the fitted data, or None if it shows nothing new."""
    # The forecast after the fit, and as long a time before it.
    window = closer(fc)
    times = times_of(fc).values
    if window is None or len(np.unique(times[within(times_of(fc), window)])) < 2:
        return None
    share = (window[1] - window[0]) / (times.max() - times.min())
    return None if share > _MOST_OF_THE_FIGURE else window
