"""Forecasts of a small ensemble: several predictive draws per member widen its intervals."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array
from scipy.special import gammaincinv

from .._statistics.describe_distributions import bounds
from .conditional import Parameters, constraint_of, made
from .posterior import are_chains
from .predictive import Pushed

# The usual number of predictive draws, and the fewest for a field that is too large for so many.
_DRAWS, _FEWEST = 1000, 100
# The most numbers of a forecast.
_LARGEST = 10**8
# The largest 5 % of factors are cut off: they hardly move an interval, but would ruin a mean.
_TAIL = 0.05
# Parameters of distributions that are locations.
_LOCATIONS = ("loc", "logits", "rate", "mean", "probs")
# The least distance of transformed locations from their bounds.
_NEAR = 1e-6
_SMALLEST = _NEAR**2

type Scale = tuple[Callable[[np.ndarray], np.ndarray], Callable[[np.ndarray], np.ndarray]]
"""A transform to a scale without bounds, and its inverse."""


def repetitions(post: xr.DataTree, numbers: int) -> int:
    """Return the number of predictive draws for each posterior draw.

    It is 1 for Markov chains, and larger for a small ensemble.

    Args:
        post: the posterior.
        numbers: the number of values in one predictive draw.

    Returns:
        The number, at least 1.
    """
    if are_chains(post):
        return 1
    members = post["posterior"].sizes["chain"] * post["posterior"].sizes["draw"]
    return -(-max(_FEWEST, min(_DRAWS, _LARGEST // numbers)) // members)


def repeated(
    pushed: Pushed, repeats: int, *, key: Array
) -> tuple[dict[str, np.ndarray], dict[str, Parameters]]:
    r"""Return several predictions for each member of an ensemble, and parameters of their noise.

    The $n$ members $m_i$ are a sample. Another member would differ from their mean $\bar m$ by
    Student's t with $n - 1$ degrees of freedom, $\sqrt{1 + 1/n}$ times wider than their scatter. So
    member $i$ moves, at repetition $r$, to $\bar m + c_r (m_i - \bar m)$ with $c_r^2 = (n + 1) /
    \chi^2_r$. Here $\chi^2_r$ runs through the quantiles of $\chi^2_{n-1}$, the same for all
    members, observables and times. Only the location of the noise moves, on a scale without bounds.
    A single member does not move.

    Args:
        pushed: the predictions of all members.
        repeats: the number of repetitions.
        key: the random seed.

    Shapes: the leading axis is `member · repeats`, the repetitions of a member one after the other.

    Returns:
        Predictions by observable, and parameters of their noise by observable and name.
    """
    # 1. Noise that its parameters do not rebuild was drawn several times already.
    families = dict(pushed.families)
    whole = {name: values for name, values in pushed.predictions.items() if name not in families}
    predictions = {name: values.reshape(-1, *values.shape[2:]) for name, values in whole.items()}
    noise = {}
    ok = np.repeat(pushed.ok, repeats)
    factors = spread_factors(int(pushed.ok.sum()), repeats)
    keys = jax.random.split(key, max(len(families), 1))
    for own, (name, family) in zip(keys, families.items(), strict=False):
        # 2. Move the locations apart.
        noise[name] = {
            parameter: widened(values, pushed.ok, factors, _location_scale(family, parameter))
            for parameter, values in pushed.noise[name].items()
        }
        filled = _without_nan(noise[name])
        given = pushed.predictions[name]
        if given.ndim > pushed.mean[name].ndim:
            # 3. Dependent draws were made already, and move with the location.
            repeated_noise = {
                p: np.repeat(v, repeats, axis=0) for p, v in pushed.noise[name].items()
            }
            before = _without_nan(repeated_noise)
            given = given.reshape(-1, *given.shape[2:])
            given = np.where(np.isnan(given), 1.0, given)
            drawn = np.asarray(_at_same_quantiles(family, before, filled, given))
        else:
            # 4. Independent draws are made now.
            drawn = np.asarray(_sample_of_family(family, filled, own))
        solved = ok.reshape(-1, *(1,) * (drawn.ndim - 1))
        predictions[name] = np.where(solved, drawn, np.nan)
    return predictions, noise


def spread_factors(members: int, repeats: int) -> np.ndarray:
    """Return the factor of each repetition by which members move away from their mean.

    Args:
        members: the number of members.
        repeats: the number of repetitions.

    Returns:
        The factors; 1 for a single member.
    """
    if members < 2:
        return np.ones(repeats)
    level = np.maximum((np.arange(repeats) + 0.5) / repeats, _TAIL)
    return np.sqrt((members + 1) / (2 * gammaincinv((members - 1) / 2, level)))


def widened(
    values: np.ndarray, ok: np.ndarray, factors: np.ndarray, scale: Scale | None
) -> np.ndarray:
    """Repeat the values of members, and move the repetitions away from the mean of the members.

    Args:
        values: one value for each member, `(member, …)`.
        ok: flags of the members whose solve succeeded.
        factors: the factor of each repetition.
        scale: the scale on which members move; None to repeat them unchanged.

    Returns:
        The values `(member · repetition, …)`.
    """
    if scale is None or not ok.any():
        return np.repeat(values, len(factors), axis=0)
    forward, inverse = scale
    moved = forward(values)
    centre = moved[ok].mean(axis=0)
    apart = factors.reshape(-1, *(1,) * centre.ndim) * (moved - centre)[:, None]
    return inverse(centre + apart).reshape(-1, *values.shape[1:])


def _location_scale(family: str, parameter: str) -> Scale | None:
    """Return the scale on which a parameter of a family moves; None if it is no location."""
    if parameter.rpartition(".")[2] not in _LOCATIONS:
        return None
    return _SCALES.get(tuple(bounds(constraint_of(family, parameter)).items()))


# Variance-stabilising transforms, by the bounds of a location.
_SCALES: dict[tuple, Scale] = {
    (): (lambda x: x, lambda x: x),
    (("lower", 0.0),): (np.sqrt, lambda x: np.maximum(np.maximum(x, 0.0) ** 2, _SMALLEST)),
    (("lower", 0.0), ("upper", 1.0)): (
        lambda x: np.arcsin(np.sqrt(x)),
        lambda x: np.sin(np.clip(x, _NEAR, np.pi / 2 - _NEAR)) ** 2,
    ),
}


def _without_nan(parameters: Parameters) -> dict[str, np.ndarray]:
    """Parameters with 1 in place of NaN, so that failed members do not break the distribution."""
    filled = {}
    for name, values in parameters.items():
        filled[name] = np.where(np.isnan(values), values.dtype.type(1), values)
    return filled


@functools.partial(jax.jit, static_argnames="family")
def _at_same_quantiles(family: str, before: Parameters, now: Parameters, drawn: Array) -> Array:
    """Move draws of a family to the same quantiles for other parameters.

    Args:
        family: the family of both distributions.
        before: the parameters with which the draws were made.
        now: the other parameters.
        drawn: the draws.
    """
    return made(family, now).icdf(made(family, before).cdf(drawn))


@functools.partial(jax.jit, static_argnames="family")
def _sample_of_family(family: str, parameters: Parameters, key: Array) -> Array:
    return jnp.asarray(made(family, parameters).sample(key))
