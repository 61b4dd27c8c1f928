"""What the intervals of a forecast hold of the data of each member."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

import bayes_dasl as bd

from ..rows import Row

SCORES = ("coverage_50", "coverage_90", "crps", "log_score")


def judged(fc: xr.DataTree, test: xr.Dataset) -> dict[str, Any]:
    """Of each observable the number of data, their scores, and how many of each member's are in 90
    % intervals.

    Args:
        fc: a forecast at the rows and of the members of the data, in their order.
        test: data that the fit has not seen, `(time, subject)`.
    """
    found = {}
    for name in fc["predictions"].data_vars:
        seen = test[name].transpose("time", "subject")
        low, high = fc["predictions"][name].quantile([0.05, 0.95], ("chain", "draw")).transpose(
            "quantile", "time", "subject"
        ).values  # fmt: skip
        inside = ((low <= seen) & (seen <= high)).sum("time").values
        number = seen.notnull().sum("time").values
        scores = bd.score(fc, test).loc[name]
        found[name] = {
            "data": int(number.sum()),
            **{score: round(float(scores[score]), 4) for score in SCORES},
            "members": {
                f"{m:g}": [int(i), int(n)]
                for m, i, n in zip(seen["subject"].values, inside, number, strict=True)
                if n
            },
        }
    return found


def sampled(post: xr.DataTree) -> dict[str, Any]:
    """How the draws of a fit came out."""
    told = bd.diagnose(post)
    return {
        "verdict": told.verdict,
        "draws": int(np.prod([post["posterior"].sizes[d] for d in ("chain", "draw")])),
        "seconds": round(float(post.attrs["wall_time_s"])),
    }


def summary(rows: list[Row], observables: Sequence[str]) -> tuple[object, ...]:
    """Cells of a table: the data of some fits, their shares in 50 and 90 % intervals, their CRPS
    where it is of one observable, and of how many members no more than half are in 90 % intervals.
    """
    members: dict[str, np.ndarray] = {}
    for found in (row[name] for row in rows for name in observables):
        for member, counts in found["members"].items():
            members[member] = members.get(member, np.zeros(2, int)) + counts
    inside, number = np.sum([*members.values()], axis=0)
    mean = lambda score: sum(r[n][score] * r[n]["data"] for r in rows for n in observables) / number  # noqa: E731
    few = sum(2 * held <= of for held, of in members.values())
    crps = f"{mean('crps'):.3g}" if len(observables) == 1 else ""
    return (
        number,
        f"{mean('coverage_50'):.0%}",
        f"{inside / number:.1%}",
        crps,
        f"{few} of {len(members)}",
    )
