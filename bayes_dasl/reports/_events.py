"""The report's figures of what was asked for: a closer look, levels that are exceeded, levels
reached seldom.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from .. import plots
from ..data.dates import are_dates, told
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

_MOST = 0.6
"""Of the times that are drawn: a closer look at more of them shows nothing new."""


def window_cards(
    fc: xr.DataTree,
    train: xr.Dataset,
    test: xr.Dataset | None,
    names: Sequence[str],
    options: ReportOptions,
) -> list[Card]:
    """Draw a fan of each series over the window; nothing where none is wanted, or nothing is
    forecast ahead.
    """
    window = _close(fc) if options.window is None else options.window
    if window is None or window is False:
        return []
    first, last = map(_at, window)
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
    """Draw how probable it is that thresholds are exceeded where nothing was fitted, and return
    levels.
    """
    predictions, during, cards = fc["predictions"].dataset, unseen(fc), []
    when = f"from {_at(during[0])} to {_at(during[1])}"
    for name in filter(lambda name: is_series(fc, name), options.thresholds):
        units = str(predictions[name].attrs.get("units", ""))
        below = name in options.below
        found = [
            exceedance(fc, name, level, below=below, during=during)
            for level in options.levels(name)
        ]
        way = "below" if below else "above"
        each = [
            f"{way} {f'{f.attrs["level"]:g} {units}'.strip()}: {likely(float(f['ever']))}"
            for f in found
        ]
        words = f"At each time; and at any of the times {when}: {'; '.join(each)}."
        alt = f"Probability over time that {name} goes {way} its thresholds."
        cards.append(
            card(
                plots.plot_exceedance(found, units),
                f"exceedance-{slug(name)}",
                f"{name}.",
                words,
                alt,
            )
        )
    for name in filter(lambda name: is_series(fc, name), options.return_periods):
        units = str(predictions[name].attrs.get("units", ""))
        table = return_levels(fc, name, options.periods(name), block=options.block, during=during)
        known = table.dropna()
        each = [f"{number(row['level'])} once in {period:g}" for period, row in known.iterrows()]
        seldom = [f"{period:g}" for period in table.index.difference(known.index)]
        exceeds = f"its highest value exceeds {'; '.join(each)}" if each else "no level is told"
        words = (
            f"Where a block is {table.attrs['block']}, {when}: "
            f"{exceeds}{f' ({units})' if units and each else ''}."
        )
        words += f" Left out: {table.attrs['left_out']}." if table.attrs["left_out"] else ""
        words += (
            f" Too few blocks among all draws reach that of {listed(seldom)}." if seldom else ""
        )
        alt = f"Levels of {name} by how seldom the highest value of a block exceeds them."
        figure = plots.plot_return_levels(table, name, units)
        cards.append(card(figure, f"return-{slug(name)}", f"{name}, return levels.", words, alt))
    return cards


def not_drawn(fc: xr.DataTree, options: ReportOptions) -> list[str]:
    """Say of what was asked for, and is not drawn, why and how to see it."""
    asked = {"thresholds": options.thresholds, "return levels": options.return_periods}
    if options.window not in (None, False):
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


def _at(value: Any) -> str:
    """A time in words, with all digits that a date in days needs."""
    return told(value) if are_dates(np.asarray(value)) else f"{float(value):.10g}"


def refuse(fc: xr.DataTree, options: ReportOptions) -> None:
    """Raise MismatchError or DataError for options that this forecast cannot show."""
    options.check(map(str, fc["predictions"].data_vars), times_of(fc), unseen(fc))


def _close(fc: xr.DataTree) -> tuple | None:
    """What to look at closer, unless fewer than two times lie there, or about all of what is drawn
    anyway.
    """
    window, times = closer(fc), times_of(fc).values
    if window is None or len(np.unique(times[within(times_of(fc), window)])) < 2:
        return None
    whole = times.max() - times.min()
    return None if (window[1] - window[0]) / whole > _MOST else window
