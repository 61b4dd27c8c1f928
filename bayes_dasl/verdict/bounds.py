"""Findings on posteriors at a bound of the prior: flat up to the bound, or highest at it."""

import json
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from .._findings import Finding
from ..scores.draws_at_data import merged
from .element_names import element_names, is_common, read_more

# Consider quantiles of the distance from a bound. If draws are uniform near the bound, the 30 %
# quantile is 3 times the 10 % quantile, and the 90 % quantile 9 times. For a normal density with
# its peak one standard deviation from the bound, the 30 % quantile is 2.6 times the 10 % quantile.
_TENTH, _HIGHEST = 0.1, 2.55
# A finding needs a ratio of posterior to prior density at a bound of at least this number times the
# number of bounds (at least two).
_FAVOURED = 5.0
# Ratios of these quantiles that count as uniform. Quantiles of correlated draws are less exact, so
# a ratio a little below 3 is accepted. The density of the nearest tenth may differ by a quarter
# from that of the rest: the 90 % quantile is then 1 + 8 * 0.8 to 1 + 8 * 1.25 times the 10 % one.
_EVEN, _EVEN_FROM_NINE, _EVEN_TO_NINE = 2.3, 7.4, 11.0
# The least 90 % quantile of a wide posterior: a share of the prior's range, or a factor on the log
# scale.
_WIDE, _FACTOR = 0.5, 10.0
# Critical value of Kolmogorov's test at a level of 0.1 %.
_UNIFORM = 1.95


def bound_findings(post: xr.DataTree, taken: set[str]) -> Iterator[Finding]:
    """Yield findings on posteriors that are flat up to a bound of the prior, or highest at it.

    Args:
        post: the posterior.
        taken: the names of parameters that are known only in combination. They are left out, since
            they have a finding of their own.
    """
    if "prior" not in post.children:
        return
    held = post["posterior"].to_dataset()
    prior = post["prior"].to_dataset()
    bounds = {
        name: sides
        for name, sides in json.loads(post.attrs.get("bounds", "{}")).items()
        if name in held and name in prior and held[name].attrs.get("group", "science") == "science"
    }
    number = sum(len(sides) * math.prod(held[name].shape[2:]) for name, sides in bounds.items())
    for name, sides in bounds.items():
        variable = held[name]
        ends = {
            side: np.broadcast_to(value, variable.shape[2:]).ravel()
            for side, value in sides.items()
        }
        labels = element_names(name, variable)
        rows = zip(labels, merged(variable).T, merged(prior[name]).T, strict=True)
        each = [
            _Bounded(label, {side: float(end[i]) for side, end in ends.items()}, draws, before)
            for i, (label, draws, before) in enumerate(rows)
            if label not in taken
        ]
        level = {one.label: one.level() if is_common(variable) else [] for one in each}
        yield from _level_findings([one for one in each if level[one.label]], level)
        yield from _peak_findings(name, [one for one in each if not level[one.label]], number)


class _Bounded(NamedTuple):
    """A scalar parameter with one or two bounds.

    Args:
        label: the name of the parameter.
        ends: the bounds, by side: "lower" or "upper".
        draws: the posterior draws.
        prior: the prior draws.
    """

    label: str
    ends: dict[str, float]
    draws: np.ndarray
    prior: np.ndarray

    @property
    def _on_logs(self) -> bool | None:
        """Whether the prior is uniform on the log scale; None if it is uniform on no scale.

        False means that the prior is uniform on the plain scale.
        """
        for logs in (False, True):
            if len(self.ends) == 2 and (self.ends["lower"] > 0 or not logs):
                low, high = _scaled([self.ends["lower"], self.ends["upper"]], logs)
                # Kolmogorov's statistic: the largest distance from the uniform distribution.
                ranks = np.sort((_scaled(self.prior, logs) - low) / (high - low))
                size = len(ranks)
                off = np.abs(ranks - (np.arange(size) + 0.5) / size).max() + 0.5 / size
                if off * math.sqrt(size) < _UNIFORM:
                    return logs
        return None

    def reach(self, side: str, values: np.ndarray, shares: list[float]) -> np.ndarray:
        """Return quantiles of the distance from a bound, on the scale where the prior is uniform.

        Args:
            side: the bound, "lower" or "upper".
            values: posterior or prior draws.
            shares: the levels of the quantiles.

        Returns:
            One distance for each level.
        """
        logs = self._on_logs is True
        return np.quantile(np.abs(_scaled(values, logs) - _scaled(self.ends[side], logs)), shares)

    def level(self) -> list[str]:
        """Return the sides on which a wide posterior is flat up to the bound of a uniform prior.

        Returns:
            A list with "lower", "upper", both or neither.
        """
        logs = self._on_logs
        if logs is None:
            return []
        low, high = _scaled([self.ends["lower"], self.ends["upper"]], logs)
        found = []
        for side in self.ends:
            near, nearby, most = self.reach(side, self.draws, [_TENTH, 3 * _TENTH, 9 * _TENTH])
            wide = most >= _WIDE * (high - low) or (logs and most >= math.log(_FACTOR))
            if (
                wide
                and nearby >= _EVEN * near
                and _EVEN_FROM_NINE * near <= most <= _EVEN_TO_NINE * near
            ):
                found.append(side)
        return found


def _scaled(values: Any, logs: bool) -> np.ndarray:
    """Return values, or their logarithms if `logs` is true."""
    values = np.asarray(values, float)
    return np.asarray(np.log(values)) if logs else values


def _level_findings(each: list[_Bounded], level: dict[str, list[str]]) -> Iterator[Finding]:
    """Yield one finding for all elements of a parameter that are flat on the same sides.

    Args:
        each: the elements with a flat side.
        level: the flat sides of each element, by its label.
    """
    for sides in (["lower", "upper"], ["lower"], ["upper"]):
        found = [one for one in each if level[one.label] == sides]
        if not found:
            continue
        one, *others = found
        also = f"; the same holds for {len(others)} more of its elements" if others else ""
        if len(sides) == 2:
            message = (
                f"the data say nothing about {one.label}: its posterior is its prior, level from "
                f"{one.ends['lower']:g} to {one.ends['upper']:g}"
            )
            remedy = (
                f"fix {one.label}, give it an informative prior, or observe something that depends "
                "on it"
            )
        else:
            (side,) = sides
            way, rest, share = ("down", "below", 0.95) if side == "lower" else ("up", "above", 0.05)
            message = (
                f"the data set no {side} limit: the posterior is level {way} to the bound of "
                f"{one.ends[side]:g}, and "
                f"95 % of it lies {rest} {np.quantile(one.draws, share):.3g}"
            )
            remedy = "report a limit on the other side only: a wider prior would just move this end"
        yield Finding(
            "warning",
            f"identifiability of {one.label}",
            message + also,
            f"{remedy}; {read_more(one.label)}",
        )


def _peak_findings(name: str, each: list[_Bounded], number: int) -> Iterator[Finding]:
    r"""Yield findings on posteriors that pile up at a bound: at most one for each side.

    The ratio $R = p(b \mid y) / p(b)$ of posterior and prior density at the bound $b$ is estimated
    from two distances: the nearest tenth of the draws, and the nearest tenth of prior draws. Over
    data $y$ simulated from the prior, the mean of $R$ is 1. For a normal likelihood and a uniform
    prior, $R$ exceeds $r$ at one of $m$ bounds in at most 0.36 $m / r$ of fits. The density must
    also be highest at the bound.

    Args:
        name: the parameter.
        each: its elements.
        number: the number $m$ of bounds of all parameters.
    """
    for side in each[0].ends if each else ():
        worst, said = 0.0, None
        for one in each:
            near, nearby = one.reach(side, one.draws, [_TENTH, 3 * _TENTH])
            (usual,) = one.reach(side, one.prior, [_TENTH])
            favoured = float(usual / max(near, 1e-300))
            leans = favoured >= _FAVOURED * max(number, 2) and nearby >= _HIGHEST * near
            if leans and favoured > worst:
                worst = favoured
                tenths = [
                    np.quantile(np.abs(v - one.ends[side]), _TENTH) for v in (one.draws, one.prior)
                ]
                said = (
                    f"a tenth of the draws lies within {tenths[0]:.2g} of {one.ends[side]:g}, a "
                    "tenth of the prior "
                    f"within {tenths[1]:.2g}"
                )
        if said:
            yield Finding(
                "warning",
                f"{side} bound of {name}",
                said,
                "widen the prior unless the bound is a law of nature: the posterior is what the "
                "bound allows",
            )
