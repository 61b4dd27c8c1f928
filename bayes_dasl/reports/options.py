"""`ReportOptions`, the optional contents of a report."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from ..data.dates import are_dates, as_date
from ..errors import DataError, MismatchError
from ..extremes.levels import blocks_of, check_block, check_level, check_return_period, within

MOST_LEVELS = 6
"""Largest number of thresholds of one observable that a figure can distinguish."""


@dataclasses.dataclass(frozen=True)
class ReportOptions:
    """Optional contents of a report.

    Args:
        window: first and last time of a fan chart of each time series, as numbers or dates. None
            shows the forecast after the fitted data, with an equal time before it, unless this is
            most of the forecast. False draws no fan charts.
        thresholds: one to six levels by observable. The report gives the probability that each
            level is exceeded.
        below: names of observables in `thresholds`. For these the report gives the probability of
            values below the level.
        return_periods: return periods by observable, as numbers of blocks. The report gives the
            level that block maxima exceed once per return period on average.
        block: length of a block, as for `bayes_dasl.extremes.return_levels`.
        metrics: further scores of the predictive mean by name, such as
            `{"NSE": bd.scores.metrics.nse}`.
        source: source of the data. If empty, it is taken from `attrs["source"]` of the data of a
            study, or of the test data of a report.
        licence: licence of the data. If empty, it is taken from `attrs["licence"]` or
            `attrs["license"]` of the same data.
        brief: whether to make a report of one page: verdict, first forecasts, scores and first
            parameters.

    Raises:
        DataError: if an option has a wrong type or value.
    """

    window: Any = None
    thresholds: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    below: Sequence[str] = ()
    return_periods: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    block: Any = None
    metrics: Mapping[str, Callable[..., float]] = dataclasses.field(default_factory=dict)
    source: str = ""
    licence: str = ""
    brief: bool = False

    def __post_init__(self):
        # 1. Types first, since the checks below rely on them.
        for name in ("thresholds", "return_periods", "metrics"):
            if not isinstance(given := getattr(self, name), Mapping):
                raise DataError(f"{name} is a dict by name, not {type(given).__name__}")
        if not all(callable(metric) for metric in self.metrics.values()):
            raise DataError("metrics are functions by name, such as {'NSE': bd.scores.metrics.nse}")
        if isinstance(self.below, (str, bool)) or not isinstance(self.below, Iterable):
            raise DataError(
                f"below is a list of observables, such as {[*self.thresholds][:1]}, not "
                f"{self.below!r}"
            )
        # A misspelt name would change the direction silently.
        if stray := set(self.below) - set(self.thresholds):
            raise DataError(
                f"below names {', '.join(sorted(stray))}, of which there are no thresholds"
            )
        # 2. Values.
        for name in self.thresholds:
            if not 0 < len(self.levels(name)) <= MOST_LEVELS:
                raise DataError(
                    f"give one to {MOST_LEVELS} thresholds of '{name}', not "
                    f"{len(self.levels(name))}"
                )
        for name in self.return_periods:
            if not self.periods(name):
                raise DataError(f"give return periods of '{name}', such as [2, 10, 100]")
        check_block(self.block)
        # 3. Convert the window; a frozen dataclass can be changed only in this way.
        if self.window is not None and self.window is not False:
            object.__setattr__(self, "window", _checked_window(self.window))

    def levels(self, observable: str) -> list[float]:
        """Return the thresholds of an observable.

        Args:
            observable: name of the observable, a key of `thresholds`.

        Returns:
            The levels as numbers.
        """
        return [check_level(level) for level in _as_list(self.thresholds[observable])]

    def periods(self, observable: str) -> list[float]:
        """Return the return periods of an observable.

        Args:
            observable: name of the observable, a key of `return_periods`.

        Returns:
            The periods in blocks.
        """
        return [check_return_period(period) for period in _as_list(self.return_periods[observable])]

    def with_origin_of(self, data: xr.Dataset | None) -> ReportOptions:
        """Return a copy whose missing source and licence are taken from data.

        Args:
            data: a dataset whose attributes may name source and licence; None changes nothing.

        Returns:
            The options; a source or licence that nobody stated stays empty.
        """
        attrs = {} if data is None else data.attrs
        source = self.source or str(attrs.get("source", ""))
        licence = self.licence or str(attrs.get("licence", attrs.get("license", "")))
        return dataclasses.replace(self, source=source, licence=licence)

    def check(self, observables: Iterable[str], index: xr.DataArray, during: Any = None) -> None:
        """Check, before any fit, that a forecast can show these options.

        Args:
            observables: names of the observables of the forecast.
            index: times of the forecast, or its index of another kind.
            during: first and last time for return levels, usually those that are not fitted; None
                for all times.

        Raises:
            MismatchError: if an option names another observable.
            DataError: if window or block are dates but the index has numbers, or the reverse; if
                the window has fewer than two times; if the times fill no block.
        """
        held = list(observables)
        # 1. Names.
        for what in ("thresholds", "return_periods"):
            if stray := [name for name in getattr(self, what) if name not in held]:
                raise MismatchError(
                    f"{what} names {', '.join(stray)}, but the forecast has {', '.join(held)}"
                )
        # 2. The window.
        if self.window not in (None, False):
            kind = "dates" if are_dates(index) else "numbers"
            if are_dates(index) is _are_numbers(self.window):
                raise DataError(
                    f"'{index.name}' holds {kind}, so a window is two {kind}, not {self.window!r}"
                )
            if len(np.unique(index.values[within(index, self.window)])) < 2:
                raise DataError(f"fewer than two times are forecast in the window {self.window!r}")
        # 3. The blocks.
        if self.return_periods:
            times = np.unique(index.values[within(index, during)])
            unfitted = xr.DataArray(times, dims=index.dims, attrs=index.attrs, name=index.name)
            # Raises for times that fill no block.
            blocks_of(unfitted, self.block)


def _as_list(given: Any) -> list[Any]:
    """Return one value or an iterable of values as a list."""
    # Text is a quantity with units, and an array without dimensions a number.
    is_several = isinstance(given, Iterable) and not isinstance(given, str)
    return list(given) if is_several and getattr(given, "ndim", 1) else [given]


def _are_numbers(window: Any) -> bool:
    """Whether both ends of a window are numbers rather than dates."""
    return all(isinstance(at, (int, float, np.integer, np.floating)) for at in window)


def _checked_window(window: Any) -> tuple[Any, Any]:
    """Return the first and the last time of a window, as numbers or dates.

    Raises:
        DataError: if the window is not a pair of times in increasing order.
    """
    wrong = f"window is a first and a last time, or False for none, not {window!r}"
    if isinstance(window, (str, bool, Mapping, set)):
        raise DataError(wrong)
    try:
        first, last = window
        if not _are_numbers((first, last)):
            first, last = as_date(first), as_date(last)
    except (TypeError, ValueError) as error:
        raise DataError(wrong) from error
    if not first < last:
        raise DataError(f"the first time of a window lies before the last, not {window!r}")
    return first, last
