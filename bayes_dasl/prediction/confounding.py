"""Practical non-identifiability: unknown functions that can replace scientific parameters."""

from collections.abc import Callable, Mapping
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax.flatten_util import ravel_pytree
from jaxtyping import Array

from .._jax.trace import parted
from .._statistics.convergence import thinned
from .._statistics.least_squares import least_squares
from ..data.layer_inputs import Inputs
from ..hybrid._sensitivity import Coordinates, coordinates
from ..layers import is_linear, linear_parts, with_adjoint
from ..layers._corrected import amplified, is_corrected, without_closures
from ..layers.layer import AbstractPopulation
from ..model import Model
from ..random import RandomLeaf, paths, realise
from .datatree import names
from .predictive import Draws, map_over_draws

_DRAWS = 128


def confounding(model: Model, inputs: Inputs, draws: Draws) -> xr.Dataset | None:
    r"""Correlate each scientific parameter with the effect of unknown functions.

    Unknown functions are the closures of a `Residual`. Without closures, they are the parts that
    are linear in their own coefficients, such as a `Basis`. A factor $s$ scales all closures; for
    linear parts it scales the distance of their coefficients from the means over draws.

    At each of 128 draws, the effect of unknown functions on the predicted data $\eta$ is projected
    on the sensitivities to the parameters $\theta_k$. Each datum is weighted by its noise. $c =
    \arg\min_c \lVert \partial \eta / \partial s - \sum_k c_k\, \partial \eta / \partial \theta_k
    \rVert$ at $s = 1$. So $c_k$ is the shift of parameter $k$ that would replace the functions.
    Parameters with a constraint between their elements, such as shares that sum to 1, are taken in
    unconstrained space.

    Args:
        model: the model.
        inputs: the inputs of its layer at the data.
        draws: draws `(draw, …)` of every random leaf, by path.

    Returns:
        A dataset over `parameter`, or None without parameters or unknown functions. `correlation`
        is the correlation of $\theta_k$ and $c_k$ over draws, 0 if one of them does not vary.
        `shift_sd` is the standard deviation of $c_k$ divided by that of $\theta_k$. The attribute
        `explained` is the mean share of the effect that parameters could replace, and `of` names
        the kind of functions.
    """
    # 1. Scientific parameters of the layer, without those of the closures.
    alone = paths(eqx.tree_at(lambda m: m.layer, model, without_closures(model.layer)))
    leaves = {
        path: leaf for path, leaf in alone.items() if leaf.group == "science" and _in_layer(leaf)
    }
    corrected = is_corrected(model.layer)
    unknown = _unknown_linear_parts(model.layer)
    if not leaves or not (corrected or any(unknown)):
        return None
    # 2. A function that scales the unknown functions by a factor.
    total = len(next(iter(draws.values())))
    index = thinned(total, _DRAWS)
    some = {path: np.asarray(v)[index] for path, v in draws.items()}
    scale = amplified
    if not corrected:
        scale = _scaling_from_means(unknown, _mean_coefficients(model, some))
    # 3. The projection at each draw.
    projection = _projection_of_effect(model, inputs, coordinates(leaves), scale)
    one, held, _ = parted(projection, {path: v[0] for path, v in some.items()})
    theta, shift, explained = map(np.asarray, map_over_draws(one, held, some, batch=16))
    finite = np.isfinite(shift).all(axis=1)
    return _confounding_table(model, leaves, theta[finite], shift[finite], explained[finite])


def _in_layer(leaf: RandomLeaf) -> bool:
    """Return whether a leaf belongs to the layer, rather than to the noise."""
    return any(place.startswith("layer.") for place in leaf.places + leaf.within)


def _projection_of_effect(
    model: Model,
    inputs: Inputs,
    leaves: Mapping[str, Coordinates],
    scale: Callable[[Any, Array], Any],
) -> Any:
    """Return a function of a draw that projects the effect of unknown functions on sensitivities.

    Args:
        model: the model.
        inputs: the inputs of its layer.
        leaves: the transform of each parameter to unconstrained space, by path.
        scale: a function of a realised layer and a factor, which scales the unknown functions.

    Returns:
        The function. It returns the parameters, their shifts c, and the share of the effect that
        these shifts explain.
    """
    forward = with_adjoint(model, diffrax.ForwardMode())

    def one(draw):
        realised = realise(forward, draw)
        flat, unravel = ravel_pytree([how.free(draw[path]) for path, how in leaves.items()])

        def predicted(numbers_and_factor):
            numbers = unravel(numbers_and_factor[:-1])
            factor = numbers_and_factor[-1]
            moved = {
                path: how.value(free)
                for (path, how), free in zip(leaves.items(), numbers, strict=True)
            }
            layer = scale(realise(forward, draw | moved).layer, factor)
            prediction = eqx.tree_at(lambda m: m.layer, realised, layer).predict(inputs)
            values = [prediction.values[name].ravel() for name in model.observables]
            return jnp.concatenate(values), prediction

        # 1. ∂η/∂θ and ∂η/∂s in forward mode, in units of the noise of each datum.
        at = jnp.append(flat, 1.0)
        jacobian, prediction = jax.jacfwd(predicted, has_aux=True)(at)
        noise = realised.conditional(prediction, inputs)
        weights = [(1 / jnp.sqrt(noise[name].variance)).ravel() for name in model.observables]
        weight = jnp.concatenate(weights)
        sensitivities = jacobian[:, :-1] * weight[:, None]
        effect = jacobian[:, -1] * weight
        # 2. Least squares, and the share of the effect that the parameters explain.
        shift = least_squares(sensitivities, effect)
        left = jnp.sum((effect - sensitivities @ shift) ** 2)
        size = jnp.sum(effect**2)
        explained = 1 - left / jnp.where(size > 0, size, 1.0)
        return flat, jnp.where(prediction.ok, shift, jnp.nan), explained

    return one


def _unknown_linear_parts(layer: Any) -> list[bool]:
    """Flag the linear parts of a layer that have unknown coefficients and are no process noise."""
    # The groups of a population have times of their own.
    if isinstance(layer, AbstractPopulation):
        return []
    return [
        not part.is_process_noise and bool(paths(getattr(part, part.weights_field)))
        for _, part in linear_parts(layer)
    ]


def _mean_coefficients(model: Model, draws: Draws) -> list[Array]:
    """Return the mean over draws of the coefficients of each linear part."""

    def one(draw):
        return [part.coefficients for _, part in linear_parts(realise(model, draw).layer)]

    arrays = {path: jnp.asarray(values) for path, values in draws.items()}
    return [coefficients.mean(axis=0) for coefficients in jax.jit(jax.vmap(one))(arrays)]


def _scaling_from_means(unknown: list[bool], means: list[Array]) -> Callable[[Any, Array], Any]:
    """Return a function that scales the distance of coefficients from their means.

    Args:
        unknown: a flag for each linear part; only flagged parts are scaled.
        means: the mean coefficients of each linear part.

    Returns:
        A function of a realised layer and a factor, which returns the scaled layer.
    """

    def scaled(layer: Any, factor: Array) -> Any:
        left = iter(zip(unknown, means, strict=True))

        def one(part):
            if not is_linear(part):
                return part
            chosen, mean = next(left)
            if not chosen:
                return part
            return part.with_coefficients(mean + factor * (part.coefficients - mean))

        return jax.tree.map(one, layer, is_leaf=is_linear)

    return scaled


def _confounding_table(
    model: Model,
    leaves: Mapping[str, RandomLeaf],
    theta: np.ndarray,
    shift: np.ndarray,
    explained: np.ndarray,
) -> xr.Dataset:
    """Return the dataset of `confounding` from its values at all draws.

    Args:
        model: the model.
        leaves: the random leaves of the parameters, by path.
        theta: the parameters, `(draw, parameter)`.
        shift: the shifts c, `(draw, parameter)`.
        explained: the explained share in each draw.
    """
    short = names(model)
    labels = []
    for path, how in coordinates(leaves).items():
        inside = [f"[{', '.join(map(str, i))}]" if i else "" for i in np.ndindex(how.shape)]
        labels += [short[path] + tag for tag in inside]
    # The standard deviation of equal numbers is a rounding error, not exactly zero.
    theta_sd = theta.std(axis=0)
    shift_sd = shift.std(axis=0)
    moving = theta_sd > 1e-9 * np.abs(theta).max(initial=1e-300, axis=0)
    moving &= shift_sd > 1e-9 * np.abs(shift).max(initial=1e-300)
    products = (theta - theta.mean(axis=0)) * (shift - shift.mean(axis=0))
    covariance = products.mean(axis=0)
    correlation = covariance / np.where(moving, theta_sd * shift_sd, 1.0)
    relative = shift_sd / np.where(moving, theta_sd, 1.0)
    columns = {
        "correlation": ("parameter", np.where(moving, correlation, 0.0)),
        "shift_sd": ("parameter", np.where(moving, relative, 0.0)),
    }
    attributes = {
        "explained": float(np.mean(explained)) if len(explained) else float("nan"),
        "draws": len(theta),
        "of": "correction" if is_corrected(model.layer) else "unknown function",
    }
    return xr.Dataset(columns, {"parameter": labels}, attributes)
