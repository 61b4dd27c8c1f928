"""The head of the page: what was fitted, badges, skill, and the key numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr

from .._findings import Diagnosis
from ..data.datasets import index_of
from ..data.dates import are_dates, in_words
from ..prediction.posterior import are_chains, of_particles
from ..scores.baselines import BASELINES
from ..scores.draws_at_data import lower_by
from ..scores.failures import usable_draws
from ..scores.matching import fitted_between
from ._text import count, fixed, number, percent

UNCHECKED = "not checked"
MOST_COMPARED = 4


@dataclass(frozen=True)
class Scored:
    """Scores of every forecast on the test data.

    Args:
        tables: tables of scores by name of the forecast, including competitors and baselines. The
            forecast that the page is about comes first.
        pit: PIT (probability integral transform) values of the forecast that the page is about.
        name: name of that forecast.
        data: the test data at the times of that forecast.
    """

    tables: dict[str, pd.DataFrame]
    pit: xr.Dataset
    name: str
    data: xr.Dataset

    @property
    def own(self) -> pd.DataFrame:
        """The scores of the forecast that the page is about."""
        return self.tables[self.name]


def subtitle(
    fc: xr.DataTree, train: xr.Dataset, test: xr.Dataset | None, all_fitted: bool
) -> list[str]:
    """Return phrases on the times that were fitted and forecast, and on reservations.

    Args:
        fc: the forecast.
        train: the fitted data.
        test: the held-out data, if there are any.
        all_fitted: whether all test values that the user gave were fitted.
    """
    index = index_of(train)
    fitted = train[index]
    unit = str(fitted.attrs.get("units", ""))
    said = [f"fitted on {_span(fitted.values)}"]
    # With test data, the forecast counts only where it can be scored.
    times = (fc["predictions"].dataset if test is None else test)[index].values
    start, end = fitted_between(fc)
    before = times[:0] if start is None else times[times < start]
    after = times if end is None else times[times > end]
    said += [f"forecast over {_span(part)}" for part in (before, after) if part.size]
    said[-1] += f" ({unit})" if unit else ""
    if fc.attrs.get("what_if", 0):
        said.append("what if: the forecast is of another model than the fitted one")
    if all_fitted:
        said.append("the data given here were fitted: none are held out")
    elif test is None:
        said.append("no held-out data")
    return said


def _span(time: np.ndarray) -> str:
    """Return the first and the last time as text, such as `0–12`."""
    dates = are_dates(time)
    first, last = (
        in_words(at) if dates else f"{float(at):.10g}" for at in (time.min(), time.max())
    )
    between = " to " if dates else "\N{EN DASH}"
    return f"{first}{between}{last}" if last != first else first


def badges(diagnosis: Diagnosis) -> list[tuple[str, str]]:
    """Return the worst level of each aspect by name; an aspect without any check has no level."""
    aspects = {finding.aspect for finding in diagnosis.findings}
    sampling = diagnosis.sampling if "sampling" in aspects else UNCHECKED
    return [("Sampling", sampling), ("Fit", diagnosis.model or UNCHECKED)]


def skill(scored: Scored | None, units: Mapping[str, str]) -> tuple[str, str]:
    """Return the CRPS, and a sentence that compares it with every other forecast.

    Both are empty without test data; nothing is said of a skill that was not measured.
    """
    if scored is None:
        return "", ""
    # NaN if no test value lies at a time of the forecast.
    crps, n = scored.own.loc["all", ["crps", "n"]]
    if not np.isfinite(crps):
        return "", "No test value could be scored."
    # Baselines first, then the best competitors.
    known = {
        name: (name not in BASELINES, float(table.loc["all", "crps"]))
        for name, table in scored.tables.items()
        if name != scored.name and np.isfinite(table.loc["all", "crps"])
    }
    ordered = sorted(known, key=known.__getitem__)
    said = [_against(name, scored.own, scored.tables[name]) for name in ordered[:MOST_COMPARED]]
    if more := len(ordered) - len(said):
        said.append(f"{more} more under Scores")
    several = "on average over the observables " if len(scored.own) > 2 else ""
    compared = f": {several}{'; '.join(said)}" if said else ""
    on = f"on {count(int(n), 'held-out value')}{compared}."
    return f"CRPS {number(crps)} {units['all']}".strip(), on


def _against(name: str, own: pd.DataFrame, other: pd.DataFrame) -> str:
    """Compare two forecasts by their CRPS, in words.

    The difference is a share of the higher CRPS, averaged over observables as in the verdict.

    Args:
        name: name of the other forecast.
        own: scores of the forecast that the page is about.
        other: scores of the other forecast.
    """
    rows = [
        row for row in own.index if row != "all" and row in other.index and own.loc[row, "n"] > 0
    ]
    ours = own.loc[rows, "crps"].to_numpy(float)
    theirs = other.loc[rows, "crps"].to_numpy(float)
    n = own.loc[rows, "n"].to_numpy(float)
    # A mean over observables belongs to no mean of shares.
    mean = f" ({number(other.loc['all', 'crps'])})" if len(rows) == 1 else ""
    # Differences below half a per cent would be shown as 0 %.
    if (lower := lower_by(ours, theirs, n)) > 0.005:
        return f"worse than {name}, whose CRPS is {percent(lower)} lower{mean}"
    if (lower := lower_by(theirs, ours, n)) > 0.005:
        return f"{percent(lower)} lower than {name}{mean}"
    return f"the same as {name}{mean}"


def key_facts(
    post: xr.DataTree,
    fc: xr.DataTree,
    summary: pd.DataFrame,
    scored: Scored | None,
    units: Mapping[str, str],
    of: str,
) -> list[tuple[str, str, str]]:
    """Return the four numbers at the top of the page, or three for draws that are no chains.

    Args:
        post: the posterior.
        fc: the forecast that the page is about.
        summary: the result of `summaries`.
        scored: the scores; None without test data.
        units: units by observable.
        of: words that name the model in a page about a mixture; else empty.

    Returns:
        A tuple of label, value and unit for each number.
    """
    # 1. The forecast: its scores, or without test data its draws.
    if scored:
        crps, cover = scored.own.loc["all", ["crps", "coverage_90"]]
        facts = [
            ("CRPS", number(crps), units["all"] or "mean over observables"),
            ("90 % coverage", percent(cover), "of test values inside"),
        ]
    else:
        failed, draws = count_failed(fc)
        runs = count(post["posterior"].sizes["chain"], "run" if of_particles(post) else "chain")
        facts = [
            ("forecast draws", fixed(draws, 0), runs),
            ("failed forecast draws", fixed(failed, 0), "left out"),
        ]
    # 2. The sampling: R-hat and ESS of chains, or the kind of draws of other engines.
    if not are_chains(post):
        draws = fixed(post["posterior"].sizes["draw"], 0)
        return [*facts, ("draws", draws, str(post.attrs.get("draws_are", "")))]
    worst, lowest = fixed(summary["r_hat"].max(), 3), fixed(summary["ess_bulk"].min(), 0)
    whose = f"science parameters{of}"
    mixing = ("largest R-hat", worst, whose)
    # Chains that are too short for R-hat have it of groups of chains.
    if "nested_rhat" in post.attrs:
        mixing = ("nested R-hat", fixed(post.attrs["nested_rhat"], 3), "of superchains")
    return [*facts, mixing, ("lowest bulk ESS", lowest, whose)]


def count_failed(fc: xr.DataTree) -> tuple[int, int]:
    """Count the posterior draws that failed or are not finite.

    A posterior draw with several predictive draws counts once.

    Returns:
        The number of failed draws, and the number of all draws.
    """
    usable = usable_draws(fc)
    return int((~usable).sum()), usable.size
