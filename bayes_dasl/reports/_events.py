"""The report's figures of what was asked for: a closer look, levels that are exceeded, levels reached seldom."""

from __future__ import annotations

from collections.abc import Sequence

import xarray as xr

from .. import plots
from ..data.datasets import index_of
from ..data.dates import told
from ..errors import DataError, MismatchError
from ..judgement.events import exceedance, return_levels, window_of
from ..judgement.matching import fitted_between
from ._cards import Card, card
from ._text import listed, number, percent, slug
from .options import ReportOptions

_MOST = 0.6
"""Of the times that are drawn: a closer look at more of them shows nothing new."""


def refuse_unknown(fc: xr.DataTree, options: ReportOptions) -> None:
    """Raises: MismatchError for options about an observable that the forecast does not have."""
    held = [str(name) for name in fc["predictions"].data_vars]
    for what in ("thresholds", "return_periods"):
        if stray := [name for name in getattr(options, what) if name not in held]:
            raise MismatchError(f"{what} names {listed(stray)}, but the forecast has {listed(held)}")


def window_cards(
    fc: xr.DataTree, train: xr.Dataset, test: xr.Dataset | None, names: Sequence[str], options: ReportOptions
) -> list[Card]:
    """Draw a fan of each series over the window; nothing where none is wanted, or nothing is forecast ahead."""
    if options.window is False or not fc.attrs.get("series", True):
        return []
    cards = []
    for name in names:
        window = _close(fc, name) if options.window is None else options.window
        if window is None or fc["predictions"].dataset[name].ndim > 3:
            continue
        first, last = (told(at) for at in window)  # pyright: ignore[reportGeneralTypeIssues]
        figure = plots.plot_fan(fc, train, test, name, window)
        title, alt = f"{name}, a closer look.", f"Fan chart of the forecast of {name} from {first} to {last}."
        words = f"From {first} to {last}, in bands that hold 20 to 95 % of the predictive draws."
        cards.append(card(figure, f"fan-{slug(name)}", title, words, alt))
    return cards


def event_cards(fc: xr.DataTree, options: ReportOptions) -> list[Card]:
    """Draw how probable it is that thresholds are exceeded after the fitted data, and return levels."""
    predictions = fc["predictions"].dataset
    ahead = {name: _ahead(fc, name) for name in (*options.thresholds, *options.return_periods)}
    cards = []
    for name in options.thresholds:
        units = str(predictions[name].attrs.get("units", ""))
        below = name in options.below
        found = [exceedance(fc, name, at, below=below, during=ahead[name]) for at in options.levels(name)]
        if found[0]["at"].ndim > 1:
            raise DataError(f"'{name}' has places or members, of which exceedance is drawn one by one: bd.exceedance")
        way = "below" if below else "above"
        each = [f"{way} {number(f.attrs['level'])} {units}".strip() + f": {percent(f['ever'])}" for f in found]
        words = f"At each time; and at any of the times {_when(ahead[name])}: {'; '.join(each)}."
        alt = f"Probability over time that {name} goes {way} its thresholds."
        cards.append(card(plots.plot_exceedance(found, units), f"exceedance-{slug(name)}", f"{name}.", words, alt))
    for name, periods in options.return_periods.items():
        units = str(predictions[name].attrs.get("units", ""))
        table = return_levels(fc, name, periods, block=options.block, during=ahead[name])
        figure = plots.plot_return_levels(table, name, units)
        each = [f"{number(row['level'])} once in {period:g}" for period, row in table.iterrows()]
        words = f"The highest value of a block exceeds {'; '.join(each)}{f' ({units})' if units else ''}."
        alt = f"Levels of {name} by how seldom the highest value of a block exceeds them."
        cards.append(card(figure, f"return-{slug(name)}", f"{name}, return levels.", words, alt))
    return cards


def _ahead(fc: xr.DataTree, name: str) -> tuple | None:
    """The times after the fitted data, or all where there are none."""
    index = index_of(fc["predictions"].dataset)
    at = fc["predictions"].dataset[index].values
    _, end = fitted_between(fc)
    later = at if end is None or not fc.attrs.get("series", True) else at[at > end]
    return (later.min(), later.max()) if later.size else None


def _when(ahead: tuple | None) -> str:
    return "of the forecast" if ahead is None else f"from {told(ahead[0])} to {told(ahead[1])}"


def _close(fc: xr.DataTree, name: str) -> tuple | None:
    """The window of a forecast, unless it is about all of what is drawn anyway."""
    window, held = window_of(fc, name), fc["predictions"].dataset
    times = held[index_of(held)].values
    if window is None or (window[1] - window[0]) / (times.max() - times.min()) > _MOST:
        return None
    return window
