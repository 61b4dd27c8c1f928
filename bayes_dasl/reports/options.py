"""What a report shows beyond what every report has."""

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
"""Of one observable, so that a figure can tell them apart."""


@dataclasses.dataclass(frozen=True)
class ReportOptions:
    """What is asked for of a report, beyond what every report has.

    Args:
        window: first and last time, numbers or dates, of a closer look at each forecast, drawn as a
            fan. Unless given, what is forecast after the fitted data and as long a time before it,
            where that is a small part of the figure; False for no such figures.
        thresholds: a level by observable, or up to six, of which it is said how probable it is that
            they are exceeded.
        below: the observables whose levels are those that it goes below.
        return_periods: numbers of blocks by observable; the report says which level is exceeded
            once in so many.
        block: how long a block is, as for `bayes_dasl.extremes.return_levels`.
        metrics: scores of the predictive mean by name, such as `{"NSE": bd.scores.metrics.nse}`,
            beside those of every report.
        source: where the data come from. Unless given, a study takes `data.attrs["source"]`, and a
            report by itself that of the test data.
        licence: under which licence; unless given, `attrs["licence"]` or `attrs["license"]`,
            likewise.

    Raises:
        DataError: for what is none of these.
    """

    window: Any = None
    thresholds: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    below: Sequence[str] = ()
    return_periods: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    block: Any = None
    metrics: Mapping[str, Callable[..., float]] = dataclasses.field(default_factory=dict)
    source: str = ""
    licence: str = ""

    def __post_init__(self):
        for name in ("thresholds", "return_periods", "metrics"):
            if not isinstance(getattr(self, name), Mapping):
                raise DataError(
                    f"{name} is a dict by name, not {type(getattr(self, name)).__name__}"
                )
        if not all(callable(metric) for metric in self.metrics.values()):
            raise DataError("metrics are functions by name, such as {'NSE': bd.scores.metrics.nse}")
        if isinstance(self.below, (str, bool)) or not isinstance(self.below, Iterable):
            raise DataError(
                f"below is a list of observables, such as {[*self.thresholds][:1]}, not "
                f"{self.below!r}"
            )
        if stray := set(self.below) - set(self.thresholds):
            raise DataError(
                f"below names {', '.join(sorted(stray))}, of which there are no thresholds"
            )
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
        if self.window is not None and self.window is not False:
            object.__setattr__(self, "window", _checked(self.window))

    def levels(self, observable: str) -> list[float]:
        """The thresholds of an observable.

        Args:
            observable: its name.
        """
        return [check_level(level) for level in _several(self.thresholds[observable])]

    def periods(self, observable: str) -> list[float]:
        """The return periods of an observable.

        Args:
            observable: its name.
        """
        return [check_return_period(period) for period in _several(self.return_periods[observable])]

    def told_of(self, data: xr.Dataset | None) -> ReportOptions:
        """The same with the source and the licence that data tell, where it tells none.

        Args:
            data: a dataset whose attributes may tell them; none told where there is none.
        """
        attrs = {} if data is None else data.attrs
        source = self.source or str(attrs.get("source", ""))
        licence = self.licence or str(attrs.get("licence", attrs.get("license", "")))
        return dataclasses.replace(self, source=source, licence=licence)

    def check(self, observables: Iterable[str], index: xr.DataArray, during: Any = None) -> None:
        """Refuse, before any fit, what no forecast of these observables along this index could
        show.

        Args:
            observables: names of what is forecast.
            index: its times, or what stands for them.
            during: the first and the last of them that were not fitted; all unless given.

        Raises:
            MismatchError: for an observable that is not among them.
            DataError: for dates where there are numbers, or the other way round, in the window or
                the block, for a window with fewer than two times, and for times that fill no block.
        """
        held = list(observables)
        for what in ("thresholds", "return_periods"):
            if stray := [name for name in getattr(self, what) if name not in held]:
                raise MismatchError(
                    f"{what} names {', '.join(stray)}, but the forecast has {', '.join(held)}"
                )
        dated, kind = are_dates(index), "dates" if are_dates(index) else "numbers"
        if self.window not in (None, False) and dated is _are_numbers(self.window):
            raise DataError(
                f"'{index.name}' holds {kind}, so a window is two {kind}, not {self.window!r}"
            )
        if (
            self.window not in (None, False)
            and len(np.unique(index.values[within(index, self.window)])) < 2
        ):
            raise DataError(f"fewer than two times are forecast in the window {self.window!r}")
        if self.return_periods:
            times = np.unique(index.values[within(index, during)])
            blocks_of(
                xr.DataArray(times, dims=index.dims, attrs=index.attrs, name=index.name), self.block
            )


def _several(held: Any) -> list[Any]:
    alone = isinstance(held, str) or not isinstance(held, Iterable) or getattr(held, "ndim", 1) == 0
    return [held] if alone else list(held)


def _are_numbers(window: Any) -> bool:
    return all(isinstance(at, (int, float, np.integer, np.floating)) for at in window)


def _checked(window: Any) -> tuple[Any, Any]:
    """The first and the last time of a window, as numbers or dates.

    Raises:
        DataError: for what is none.
    """
    wrong = f"window is a first and a last time, or False for none, not {window!r}"
    if isinstance(window, (str, bool, Mapping, set)):
        raise DataError(wrong)
    try:
        first, last = window
        first, last = (
            (first, last) if _are_numbers((first, last)) else (as_date(first), as_date(last))
        )
    except (TypeError, ValueError) as error:
        raise DataError(wrong) from error
    if not first < last:
        raise DataError(f"the first time of a window lies before the last, not {window!r}")
    return first, last
