"""Optional figures of the report: fan charts, exceedance probabilities and return levels."""

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
"""Largest share of all times that the window of a default fan chart may cover."""


def window_cards(
    fc: xr.DataTree,
    train: xr.Dataset,
    test: xr.Dataset | None,
    names: Sequence[str],
    options: ReportOptions,
) -> list[Card]:
    """Draw a fan chart of each time series over a short window.

    The window is that of the options. By default it is the forecast after the fitted data with an
    equal time before it; see `_default_window`.

    Args:
        fc: the forecast.
        train: the fitted data.
        test: the held-out data, if there are any.
        names: names of the observables; those that are no time series are skipped.
        options: options of the report.

    Returns:
        One card per time series; none if the options switch the window off.
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
    """Draw exceedance probabilities and return levels, computed from times that were not fitted.

    If all times were fitted, all of them are used.

    Args:
        fc: the forecast.
        options: options of the report, with thresholds and return periods by observable.

    Returns:
        One card per observable with thresholds, then one per observable with return periods.
        Observables that are no time series are skipped.
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
    """Draw the probability over time that an observable exceeds each of its thresholds.

    The caption also gives the probability that the threshold is exceeded at least once in a period.

    Args:
        fc: the forecast.
        name: name of the observable.
        options: options of the report.
        during: first and last time of the period.
        when: the period in words.
    """
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
    """Draw the return levels of an observable against the return period.

    The caption lists the levels, and the return periods whose level is unknown.

    Args:
        fc: the forecast.
        name: name of the observable.
        options: options of the report.
        during: first and last time of the period from which block maxima are taken.
        when: the period in words.
    """
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
    """Return the units of an observable, or an empty string if it states none."""
    return str(fc["predictions"].dataset[name].attrs.get("units", ""))


def not_drawn(fc: xr.DataTree, options: ReportOptions) -> list[str]:
    """Explain which requested figures cannot be drawn, because an observable is no time series.

    Args:
        fc: the forecast.
        options: options of the report.

    Returns:
        One sentence with a remedy for each observable that is no time series.
    """
    asked = {"thresholds": options.thresholds, "return levels": options.return_periods}
    if options.window not in (None, False):
        # The window applies to every observable.
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
    """Return a date as text, or a number with up to 10 significant digits."""
    return in_words(value) if are_dates(np.asarray(value)) else f"{float(value):.10g}"


def refuse(fc: xr.DataTree, options: ReportOptions) -> None:
    """Check the options of a report against a forecast.

    Raises:
        MismatchError: if an option names an unknown observable.
        DataError: if the window or the blocks do not fit the times of the forecast.
    """
    options.check(map(str, fc["predictions"].data_vars), times_of(fc), unseen(fc))


def _default_window(fc: xr.DataTree) -> tuple | None:
    """Return first and last time of a window around the end of the fitted data.

    The window is the forecast after the fitted data, with an equal time before it.

    None is returned if a fan chart of the window would show nothing new. This is so if nothing
    after the fitted data is forecast, if the window has fewer than two times, or if it covers more
    than 60 % of all times.
    """
    window = closer(fc)
    times = times_of(fc).values
    if window is None or len(np.unique(times[within(times_of(fc), window)])) < 2:
        return None
    share = (window[1] - window[0]) / (times.max() - times.min())
    return None if share > _MOST_OF_THE_FIGURE else window
