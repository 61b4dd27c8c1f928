"""`report`, which makes a report of a fit as one HTML page."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
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
        html: text of the page.
    """

    html: str

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the page to a file, completely or not at all.

        Args:
            path: the file; an existing one is replaced.

        Returns:
            The path.

        Raises:
            WriteError: if the file cannot be written; an existing file then stays unchanged.
        """
        return write_text(path, self.html)

    def __repr__(self) -> str:
        return f"Report of {len(self.html) / 1e6:.1f} MB; save(path) writes it"

    def _repr_html_(self) -> str:
        # The styles of a page would change a whole notebook, so the page gets a frame.
        page = escape(self.html, quote=True)
        return f'<iframe srcdoc="{page}" title="Report" width="100%" height="800"></iframe>'


def report(
    post: xr.DataTree,
    fc: xr.DataTree,
    test: xr.Dataset | None = None,
    *,
    title: str = "Forecast report",
    name: str = "model",
    competitors: Mapping[str, xr.DataTree] | None = None,
    derived: xr.Dataset | None = None,
    mixture: Mixed | None = None,
    model: Model | None = None,
    options: ReportOptions | None = None,
) -> Report:
    """Make a report of one fit and its forecast.

    Args:
        post: the result of `fit`.
        fc: the forecast made from `post`.
        test: held-out data. Values that were fitted are removed before scoring. Without test data
            the page has no scores.
        title: title of the page.
        name: name of the model, in tables and figures.
        competitors: forecasts of other models by name, scored on the same data. Recalibrated
            forecasts among them are also drawn, and labelled as recalibrated.
        derived: the result of `evaluate`, shown beside unobserved outputs of the model. Variables
            with too many dimensions for a figure are listed by name.
        mixture: the result of `bayes_dasl.weighting.judge_mixture` for a mixture of this forecast
            and the competitors. The page is then about the mixture, with each model beside it;
            parameters and chains are those of `post`.
        model: the model of the fit. With it the page also shows unknown functions, equations and
            priors.
        options: optional contents, such as thresholds, return levels, metrics and the source of the
            data.

    Returns:
        The page.

    Raises:
        MismatchError: if `post` is no posterior, `fc` no forecast, or the model is not that of the
            fit; if test data and a forecast share no observable or no time; if a competitor has the
            name of the model, a baseline or the mixture; if options name an unknown observable.
        DataError: if `options` has a wrong type, or this forecast cannot show them.

    Example:
        ```python
        page = bd.report(post, fc, test, model=model)
        page.save(folder / "report.html")
        ```
    """
    if not isinstance(options, ReportOptions | None):
        raise DataError(f"options are bd.ReportOptions(…), not {type(options).__name__}")
    # Matplotlib, Jinja and ArviZ take two seconds to import.
    from ._page import render

    page = render(
        post,
        fc,
        test,
        title=title,
        name=name,
        competitors=competitors or {},
        derived=derived,
        mixture=mixture,
        model=model,
        description=model and describe(model),
        options=options or ReportOptions(),
    )
    return Report(page)
