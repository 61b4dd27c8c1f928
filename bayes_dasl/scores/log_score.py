"""The log score: minus the log predictive density of a datum, or log probability of a count."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from scipy.special import logsumexp

from .._statistics.tails import censored_log_prob
from ..data.censoring import bounds
from ..prediction.conditional import Conditional, Parameters, conditional

EXACT = "exact"
KERNEL = "a kernel estimate from the draws"
UNKNOWN = "not known: of whole numbers draws alone give no mass"


def exact_log_scores(
    predictions: xr.Dataset, noise: xr.Dataset, observed: xr.Dataset
) -> dict[str, np.ndarray]:
    r"""Return exact log scores $-\log \bar p$ with the mean density $\bar p$ of a datum over draws.

    An observable has such scores only if the forecast stores the parameters of its noise. Failed
    draws are left out.

    Args:
        predictions: the predictive draws, `(chain, draw, time, …)`.
        noise: the parameters of the noise of each observable.
        observed: the data, with the dimensions of `predictions` other than chain and draw.

    Returns:
        Log scores `(datum,)` by observable; NaN where the datum is missing or all draws failed.
    """
    found = {}
    for name, variable in predictions.data_vars.items():
        kept = conditional(noise, variable)
        if kept is None:
            continue
        y = observed[name].values.astype(float)
        ends = (end.reshape(y.shape) for end in bounds(observed[name]))
        low, high = (np.nan_to_num(end, posinf=np.inf, neginf=-np.inf) for end in ends)
        # Without bounds where nothing is censored, the program is simpler.
        between = None if np.array_equal(low, high) else (low, high)
        scores = _mixture_log_scores(kept.family, dict(kept.parameters), np.nan_to_num(y), between)
        found[str(name)] = np.where(np.isnan(y), np.nan, np.asarray(scores)).ravel()
    return found


@functools.partial(jax.jit, static_argnames="family")
def _mixture_log_scores(
    family: str,
    parameters: Parameters,
    observed: jax.Array,
    between: tuple[jax.Array, jax.Array] | None,
) -> jax.Array:
    """Return minus the log of the mean density over draws, for each datum.

    Args:
        family: the family of the noise distribution.
        parameters: its parameters in each draw, `(draw, …)` by name.
        observed: the data.
        between: the bounds of each datum; None if nothing is censored.
    """
    # 1. The log density of each datum in each draw; -∞ outside the support.
    given = Conditional(family, parameters).distribution
    allowed = given.support(observed)  # pyright: ignore
    safe = jnp.where(allowed, observed, 1.0)
    if between is None:
        density = jnp.where(allowed, given.log_prob(safe), -jnp.inf)
    else:
        seen = between[0] == between[1]
        density = censored_log_prob(given, safe, *(jnp.where(seen, safe, end) for end in between))
        density = jnp.where(allowed | ~seen, density, -jnp.inf)
    # 2. The log of the mean over draws, without failed ones.
    isnan = map(jnp.isnan, parameters.values())
    failed = functools.reduce(jnp.logical_or, isnan, jnp.isnan(density))
    number = jnp.sum(~failed, axis=0)
    total = jax.nn.logsumexp(jnp.where(failed, -jnp.inf, density), axis=0)
    return jnp.where(number > 0, jnp.log(number) - total, jnp.nan)


def are_whole(draws: np.ndarray, observed: np.ndarray) -> bool:
    """Return whether all draws and data are integers, as counts are.

    Values that are not finite are ignored.

    Returns:
        True for counts.
    """
    both = draws, observed
    return all(bool(np.all(x == np.round(x), where=np.isfinite(x))) for x in both)


def kernel_log_scores(observed: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Return the log score of a Gaussian kernel density of draws.

    Args:
        observed: the data, `(datum,)`.
        draws: draws `(datum, draw)`.

    Returns:
        One score for each datum; NaN if all its draws are equal.
    """
    import scoringrules

    width = _silverman_bandwidth(draws)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        scores = scoringrules.logs_ensemble(observed, draws, bw=width)
        # Far from every draw the density underflows and its logarithm is lost: sum in logarithms.
        log_kernels = -0.5 * ((observed[:, None] - draws) / width[:, None]) ** 2
    normaliser = np.log(draws.shape[1] * width * np.sqrt(2 * np.pi))
    far = np.reshape(np.isinf(scores), observed.shape)
    return np.where(far, normaliser - logsumexp(log_kernels, axis=1), scores)


def _silverman_bandwidth(draws: np.ndarray) -> np.ndarray:
    """Return Silverman's bandwidth for draws `(datum, draw)`; NaN if all draws are equal."""
    deviation = draws.std(axis=1)
    quartiles = np.quantile(draws, [0.25, 0.75], axis=1)
    robust = np.diff(quartiles, axis=0)[0] / 1.34
    # The quartiles are equal if half of the draws are.
    spread = np.where(robust > 0, np.minimum(deviation, robust), deviation)
    return np.where(spread > 0, 1.06 * spread * draws.shape[1] ** -0.2, np.nan)
