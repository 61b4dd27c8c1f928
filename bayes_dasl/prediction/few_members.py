"""Forecasts of a few members: as many draws as intervals need, as wide as so few members allow to
say.
"""

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

_DRAWS, _FEWEST = (
    1000,
    100,
)  # that intervals are taken from; and of a field, if more would be too large
_LARGEST = 10**8  # numbers of a forecast
_TAIL = 0.05  # the widest spreads, which hardly move an interval and would ruin a mean
_LOCATIONS = ("loc", "logits", "rate", "mean", "probs")
_NEAR = 1e-6
_SMALLEST = _NEAR**2

type Scale = tuple[Callable[[np.ndarray], np.ndarray], Callable[[np.ndarray], np.ndarray]]


def repetitions(post: xr.DataTree, numbers: int) -> int:
    """How many predictive draws are made of each posterior draw: one of those of chains, several of
    few members.

    `numbers` are those of one predictive draw.
    """
    if are_chains(post):
        return 1
    members = post["posterior"].sizes["chain"] * post["posterior"].sizes["draw"]
    return -(-max(_FEWEST, min(_DRAWS, _LARGEST // numbers)) // members)


def repeated(
    pushed: Pushed, repeats: int, *, key: Array
) -> tuple[dict[str, np.ndarray], dict[str, Parameters]]:
    r"""Predictions of members that are repeated, and the parameters of their noise.

    Members are a sample of size $n$ from what may be: another one lies as far from their mean
    $\bar m$ as Student's t with $n - 1$ degrees of freedom says, $\sqrt{1 + 1/n}$ wider than they
    scatter. So member $i$ is moved at repetition $r$ to $\bar m + c_r (m_i - \bar m)$ with
    $c_r^2 = (n + 1) / \chi^2_r$, where $\chi^2_r$ goes through the quantiles of $\chi^2_{n-1}$; all
    members, observables and times share it. What is moved is the location of the noise, on a scale
    that keeps it in its bounds. Of one member nothing can be said of its spread.

    Shapes: the leading axis is `member · repeats`, the repetitions of a member one after the other.
    """
    families = dict(pushed.families)
    whole = {name: values for name, values in pushed.predictions.items() if name not in families}
    predictions = {name: values.reshape(-1, *values.shape[2:]) for name, values in whole.items()}
    noise, ok = {}, np.repeat(pushed.ok, repeats)
    factors = spread_factors(int(pushed.ok.sum()), repeats)
    keys = jax.random.split(key, max(len(families), 1))
    for own, (name, family) in zip(keys, families.items(), strict=False):
        noise[name] = {
            parameter: widened(values, pushed.ok, factors, _scale(family, parameter))
            for parameter, values in pushed.noise[name].items()
        }
        sound = _sound(noise[name])
        given = pushed.predictions[name]
        if (
            given.ndim > pushed.mean[name].ndim
        ):  # draws that hold together have been made, and are moved
            before = _sound(
                {p: np.repeat(v, repeats, axis=0) for p, v in pushed.noise[name].items()}
            )
            given = np.where(np.isnan(given), 1.0, given).reshape(-1, *given.shape[2:])
            drawn = np.asarray(_carried(family, before, sound, given))
        else:
            drawn = np.asarray(_sample(family, sound, own))
        predictions[name] = np.where(ok.reshape(-1, *(1,) * (drawn.ndim - 1)), drawn, np.nan)
    return predictions, noise


def spread_factors(members: int, repeats: int) -> np.ndarray:
    """By how much each repetition takes so many members further apart; ones for a single member."""
    if members < 2:
        return np.ones(repeats)
    level = np.maximum((np.arange(repeats) + 0.5) / repeats, _TAIL)
    return np.sqrt((members + 1) / (2 * gammaincinv((members - 1) / 2, level)))


def widened(
    values: np.ndarray, ok: np.ndarray, factors: np.ndarray, scale: Scale | None
) -> np.ndarray:
    """Members `(member, …)` at every repetition, `(member · repetition, …)`, further apart where
    there is a scale.
    """
    if scale is None or not ok.any():
        return np.repeat(values, len(factors), axis=0)
    there, back = scale
    moved = there(values)
    centre = moved[ok].mean(axis=0)
    apart = factors.reshape(-1, *(1,) * centre.ndim) * (moved - centre)[:, None]
    return back(centre + apart).reshape(-1, *values.shape[1:])


def _scale(family: str, parameter: str) -> Scale | None:
    """The scale on which a location is moved, and the way back; none for a parameter that is no
    location.
    """
    if parameter.rpartition(".")[2] not in _LOCATIONS:
        return None
    return _SCALES.get(tuple(bounds(constraint_of(family, parameter)).items()))


_SCALES: dict[tuple, Scale] = {
    (): (lambda x: x, lambda x: x),
    (("lower", 0.0),): (np.sqrt, lambda x: np.maximum(np.maximum(x, 0.0) ** 2, _SMALLEST)),
    (("lower", 0.0), ("upper", 1.0)): (
        lambda x: np.arcsin(np.sqrt(x)),
        lambda x: np.sin(np.clip(x, _NEAR, np.pi / 2 - _NEAR)) ** 2,
    ),
}


def _sound(parameters: Parameters) -> dict[str, np.ndarray]:
    return {name: np.where(np.isnan(v), v.dtype.type(1), v) for name, v in parameters.items()}


@functools.partial(jax.jit, static_argnames="family")
def _carried(family: str, before: Parameters, now: Parameters, drawn: Array) -> Array:
    """Draws of one distribution at the same levels of another."""
    return made(family, now).icdf(made(family, before).cdf(drawn))


@functools.partial(jax.jit, static_argnames="family")
def _sample(family: str, parameters: Parameters, key: Array) -> Array:
    return jnp.asarray(made(family, parameters).sample(key))
