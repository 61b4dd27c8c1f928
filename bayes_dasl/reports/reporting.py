"""The page as a file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import xarray as xr

from .._runs.files import write_text
from ..checking.description import describe
from ..errors import DataError
from ..model import Model
from ..weighting.judged_mixtures import Mixed
from .options import ReportOptions

__all__ = ["Report", "ReportOptions", "report"]


@dataclass(frozen=True)
class Report:
    """A report as one self-contained HTML page.

    Args:
        html: the page.
    """

    html: str

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the page to a file: the whole of it, or nothing.

        Args:
            path: the file; an older one is replaced.

        Raises:
            WriteError: if it cannot be written; an older file at `path` is then left as it was.
        """
        return write_text(path, self.html)

    def _repr_html_(self) -> str:
        return self.html


def report(
    post: xr.DataTree,
    fc: xr.DataTree,
    test: xr.Dataset | None = None,
    *,
    title: str = "Forecast report",
    name: str = "model",
    rivals: Mapping[str, xr.DataTree] | None = None,
    derived: xr.Dataset | None = None,
    mixture: Mixed | None = None,
    model: Model | None = None,
    options: ReportOptions | None = None,
) -> Report:
    """Report on one fit and its forecast.

    Args:
        post: what `fit` returned.
        fc: a forecast made from it.
        test: data that the fit has not seen, as a dataset; without any the page has no scores.
            Values that were fitted are left out of it.
        title: that of the page.
        name: that of the model, in tables and figures.
        rivals: forecasts of other models by name, to be scored on the same data; recalibrated ones
            are drawn, too, and labelled.
        derived: what `evaluate` returned, to be shown beside outputs of the model that nobody
            observes; what has too many dimensions for a figure is named.
        mixture: what `bayes_dasl.weighting.judge_mixture` said of a mixture of this forecast and
            those of the rivals. The page is then about the mixture, with each model beside it;
            parameters and chains are those of `post`.
        model: the model of the fit, whose unknown functions are then drawn, and its equations and
            priors told.
        options: what else the page shows: a closer look, thresholds, return levels, metrics, the
            source of the data.

    Raises:
        MismatchError: for what is no posterior or forecast, for another model than that of the fit,
            if the test data and a forecast share no observable or no time, if a rival has the name
            of the model, of a baseline, or of the mixture, or for options about an observable that
            is not forecast.
        DataError: for options that are none, or that this forecast cannot show.

    Example:
        ```python
        page = bd.report(post, fc, test, model=model)
        page.save(folder / "report.html")
        ```
    """
    if not isinstance(options, ReportOptions | None):
        raise DataError(f"options are bd.ReportOptions(…), not {type(options).__name__}")
    from ._page import render  # with Matplotlib, Jinja and ArviZ: two seconds

    beside = {
        "derived": derived,
        "mixture": mixture,
        "model": model,
        "options": options or ReportOptions(),
    }
    beside["description"] = model and describe(model)
    return Report(render(post, fc, test, title=title, name=name, rivals=rivals or {}, **beside))
