"""What a report shows beyond what every report has."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import xarray as xr

from ..errors import DataError
from ..judgement.metrics import Metric

__all__ = ["ReportOptions"]


@dataclasses.dataclass(frozen=True)
class ReportOptions:
    """What is asked for of a report, beyond what every report has.

    Args:
        window: first and last time, numbers or dates, of a closer look at each forecast, drawn as a fan. Unless given,
            what is forecast after the fitted data and as long a time before it; False for no such figures.
        thresholds: levels by observable, of which it is said how probable it is that they are exceeded.
        below: the observables whose levels are those that it goes below.
        return_periods: numbers of blocks by observable; the report says which level is exceeded once in so many.
        block: how long a block is, as for `bayes_dasl.return_levels`.
        metrics: scores of the predictive mean by name, such as `{"NSE": bd.metrics.nse}`, beside those of every report.
        source: where the data come from; unless given, `attrs["source"]` of the data.
        licence: under which licence; unless given, `attrs["licence"]` or `attrs["license"]` of the data.

    Raises: DataError for what is none of these.
    """

    window: Sequence[Any] | bool | None = None
    thresholds: Mapping[str, float | Sequence[float]] = dataclasses.field(default_factory=dict)
    below: Sequence[str] = ()
    return_periods: Mapping[str, Sequence[float]] = dataclasses.field(default_factory=dict)
    block: Any = None
    metrics: Mapping[str, Metric] = dataclasses.field(default_factory=dict)
    source: str = ""
    licence: str = ""

    def __post_init__(self):
        for name in ("thresholds", "return_periods", "metrics"):
            if not isinstance(getattr(self, name), Mapping):
                raise DataError(f"{name} is a dict by name, not {type(getattr(self, name)).__name__}")
        if not all(callable(metric) for metric in self.metrics.values()):
            raise DataError("metrics are functions by name, such as {'NSE': bd.metrics.nse}")
        if self.window is True or not (self.window in (None, False) or _are_two(self.window)):
            raise DataError(f"window is a first and a last time, or False for none, not {self.window!r}")
        if isinstance(self.below, str):
            raise DataError(f"below is a list of observables, such as ['{self.below}']")
        if stray := set(self.below) - set(self.thresholds):
            raise DataError(f"below names {', '.join(sorted(stray))}, of which there are no thresholds")

    def told_of(self, data: xr.Dataset) -> ReportOptions:
        """The same with the source and the licence that data tell, where it tells none."""
        source = self.source or str(data.attrs.get("source", ""))
        licence = self.licence or str(data.attrs.get("licence", data.attrs.get("license", "")))
        return dataclasses.replace(self, source=source, licence=licence)

    def levels(self, observable: str) -> list[float]:
        """The thresholds of an observable."""
        held = self.thresholds[observable]
        return [float(level) for level in held] if isinstance(held, Sequence) else [float(held)]


def _are_two(window: object) -> bool:
    return not isinstance(window, (str, bool)) and hasattr(window, "__len__") and len(window) == 2  # pyright: ignore
