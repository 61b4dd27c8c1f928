"""Conflict between the prior of a parameter and the data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from .._findings import Finding, model_finding
from ..scores.draws_at_data import merged
from .residuals import ABSURD, share_beyond

# Standard deviations between the quartiles of a normal distribution.
_QUARTILES = 1.349
# Up to this number of standard deviations from the median of a prior, nothing is reported.
_FAR = 4.0
# The least distance to a bound.
_LEAST = 1e-300
# Mean excess of the outer tenth of prior draws over their 90 % quantile, on the unconstrained
# scale. It is 1 if the density at the bound is positive, as for a half-normal or uniform prior, and
# smaller if the density falls to zero at the bound.
_FAVOURS_ITS_BOUND = 0.75


class Scale(NamedTuple):
    """The bounds of a parameter; called with values, it maps them to an unconstrained scale.

    The scale is the logarithm of the distance from a single bound, and the logit for two bounds.

    Args:
        lower: the lower bound, or −∞.
        upper: the upper bound, or ∞.
    """

    lower: float
    upper: float

    @classmethod
    def of(cls, attributes: Mapping[str, Any]) -> Scale:
        """Read the bounds from the attributes of a variable of draws.

        Returns:
            The scale.
        """
        return cls(float(attributes.get("lower", -np.inf)), float(attributes.get("upper", np.inf)))

    def __call__(self, values: np.ndarray) -> np.ndarray:
        found = [values] if np.isinf(self.lower) and np.isinf(self.upper) else []
        if np.isfinite(self.lower):
            found.append(np.log(np.maximum(values - self.lower, _LEAST)))
        if np.isfinite(self.upper):
            found.append(-np.log(np.maximum(self.upper - values, _LEAST)))
        return sum(found[1:], found[0])

    @property
    def said(self) -> str:
        """The scale in words; "" for a parameter without bounds."""
        if np.isinf(self.lower) and np.isinf(self.upper):
            return ""
        logarithm = self.lower == 0 and np.isinf(self.upper)
        return " of its logarithm" if logarithm else " on its unconstrained scale"


def prior_findings(post: xr.DataTree) -> Iterator[Finding]:
    """Yield findings on parameters whose posterior lies where the prior is nearly zero.

    Each parameter is tested on its unconstrained scale. The test is the prior probability of values
    as far out as the posterior median, times the number of parameters. Random effects are not
    tested, since all share one draw of their hyperparameters. The hyperparameters are tested
    instead.

    Yields:
        At most one finding for each parameter.
    """
    if "prior" not in post.children:
        return
    prior, judged = post["prior"].to_dataset(), {}
    for name, variable in post["posterior"].to_dataset().data_vars.items():
        attributes = variable.attrs
        if (
            name in prior
            and attributes.get("group", "science") == "science"
            and not attributes.get("pooled", 0)
        ):
            judged[name] = (
                merged(prior[name]),
                np.median(merged(variable), axis=0),
                Scale.of(attributes),
            )
    number = sum(middle.size for _, middle, _ in judged.values())
    for name, (before, middle, scale) in judged.items():
        # Draws beyond a bound, which no engine makes, give NaN.
        with np.errstate(invalid="ignore"):
            draws, at = scale(before), scale(middle)
        low, half, high = np.quantile(draws, [0.25, 0.5, 0.75], axis=0)
        spread = (high - low) / _QUARTILES
        # A prior without spread gives no finding.
        away = np.abs(at - half) / np.where(spread > 0, spread, np.inf)
        beyond = (at > draws.max(axis=0)) | (at < draws.min(axis=0))
        outside = np.flatnonzero(beyond & (away > _FAR))
        chances = {i: 2 * number * _chance(draws[:, i], at[i], half[i], scale) for i in outside}
        worst = min(chances, key=lambda i: chances[i], default=None)
        if worst is None or chances[worst] >= ABSURD:
            continue
        yield model_finding(
            "bad",
            f"prior of {name}",
            f"the posterior lies around {middle[worst]:.3g}, {away[worst]:.0f} standard "
            f"deviations{scale.said} from "
            f"the middle of its prior, {np.median(before[:, worst]):.3g}",
            "the prior and the data contradict each other: look for an error in units or data, or "
            "widen the prior",
        )


def _chance(draws: np.ndarray, at: float, half: float, scale: Scale) -> float:
    """Return the prior probability of a value as far out on the same side.

    Args:
        draws: prior draws, on the unconstrained scale.
        at: the posterior median, on the same scale.
        half: the prior median, on the same scale.
        scale: the bounds of the parameter.

    Returns:
        The probability; 1 if the prior favours the bound on this side.
    """
    side = 1.0 if at > half else -1.0
    bounded = scale.upper if side > 0 else scale.lower
    tail = np.quantile(side * draws, 0.9)
    reach = np.mean(side * draws[side * draws >= tail]) - tail
    # A half-normal or uniform prior favours its bound: a value near that bound is small, but no
    # contradiction.
    if np.isfinite(bounded) and reach >= _FAVOURS_ITS_BOUND:
        return 1.0
    return share_beyond(side * draws, side * at)
