"""Groups of a population that differ from all other groups more than in prior draws."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import xarray as xr

from .._findings import Finding, model_finding
from .._statistics.convergence import thinned
from ..scores.draws_at_data import merged
from .prior_findings import Scale
from .residuals import ABSURD, share_beyond

# The fewest groups, one of which may lie far from the others.
_FEWEST = 5
_DRAWS = 1000


def outlying_findings(post: xr.DataTree) -> Iterator[Finding]:
    r"""Yield findings on groups that differ from the others more than in prior draws.

    1. Each draw is transformed to the unconstrained scale. The value $z_i$ of each group is
    compared
       with the mean and standard deviation of all others by $t_i = (z_i - \bar z_{-i}) / s_{-i}$.
       It depends on neither the mean nor the scale of the population.
    2. Prior draws give the distribution of the largest $\log |t_i|$ in a sound population.
    3. The posterior median of the largest $\log |t_i|$ is compared with this distribution. A group
       without information in its data is drawn from the population, and so is not conspicuous.

    Yields:
        At most one finding for each random effect.

    Source: Grubbs (1950), Sample criteria for testing outlying observations, for the statistic.
    """
    if "prior" not in post.children:
        return
    prior = post["prior"].to_dataset()
    pooled = {
        name: variable
        for name, variable in post["posterior"].to_dataset().data_vars.items()
        if name in prior
        and variable.attrs.get("pooled", 0)
        and variable.ndim == 3
        and variable.shape[2] >= _FEWEST
    }
    for name, variable in pooled.items():
        scale = Scale.of(variable.attrs)
        # Draws beyond a bound, which no engine makes, give NaN.
        with np.errstate(invalid="ignore"):
            held, before = (scale(merged(v)) for v in (variable, prior[name]))
        held, before = (values[np.isfinite(values).all(axis=1)] for values in (held, before))
        if not len(held) or not len(before):
            continue
        apart = _log_distances(held[thinned(len(held), _DRAWS)])
        found = np.median(apart.max(axis=1))
        usual = _log_distances(before).max(axis=1)
        if len(pooled) * share_beyond(usual, float(found)) >= ABSURD:
            continue
        member = int(np.median(apart, axis=0).argmax())
        dim = variable.dims[2]
        yield model_finding(
            "warning",
            f"outlying {name}",
            f"{name} of {dim} {variable[dim].values[member]} lies {np.exp(found):.2g} standard "
            f"deviations{scale.said} "
            f"from the middle of the others, where {np.exp(np.median(usual)):.2g} are usual for "
            "the furthest",
            f"look at the data of this {dim}; if they are right, explain the difference by what is "
            "known of it, or let "
            "members differ by a law with heavier tails",
        )


def _log_distances(z: np.ndarray) -> np.ndarray:
    """Return the log distance of each group from the others, in their standard deviations.

    The distance is that from the mean of the others.

    Args:
        z: values `(draw, group)`.

    Returns:
        Log distances `(draw, group)`.
    """
    others = z.shape[1] - 1
    mean = (z.sum(axis=1, keepdims=True) - z) / others
    # The sum of squares of the others about their mean.
    centred = z - z.mean(axis=1, keepdims=True)
    left = (centred**2).sum(axis=1, keepdims=True) - centred**2 * z.shape[1] / others
    sd = np.sqrt(np.maximum(left, 1e-300) / (others - 1))
    return np.log(np.maximum(np.abs(z - mean), 1e-300) / np.maximum(sd, 1e-300))
