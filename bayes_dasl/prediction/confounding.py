"""Whether an unknown function does what a scientific parameter could do."""

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
from .predictive import Draws

_DRAWS = 128


def confounding(model: Model, inputs: Inputs, draws: Draws) -> xr.Dataset | None:
    r"""How each scientific parameter correlates with what unknown functions do in its place; none
    without any.

    These are the closures of a `Residual`, or else those that are linear in coefficients of their
    own, wherever they stand, such as a `Basis` that is a factor.

    At each of 128 draws the effect of these on the predicted data, $\partial \eta / \partial s$ for
    a factor $s = 1$ on all of them, or on how far coefficients are from their means over the draws,
    is projected on the sensitivities to the parameters, each datum weighed by its noise:
    $c
    = \arg\min_c \lVert \partial \eta / \partial s - \sum_k c_k\, \partial \eta / \partial \theta_k
    \rVert$. So $c_k$ is by how much the parameter would move to do what they do.

    Shares that sum to 1, and others that can move in fewer directions than they are numbers, count
    in NumPyro's free coordinates. Returns a dataset over `parameter`: `correlation` of $\theta_k$
    and $c_k$ over the draws (0 where one does not move), and `shift_sd`, the standard deviation of
    $c_k$ in that of $\theta_k$; the attribute `explained` is the mean share of that effect that the
    parameters could do, and `of` what the functions are.
    """
    alone = paths(eqx.tree_at(lambda m: m.layer, model, without_closures(model.layer)))
    leaves = {
        path: leaf for path, leaf in alone.items() if leaf.group == "science" and _in_layer(leaf)
    }
    corrected, found = is_corrected(model.layer), _unknown_functions(model.layer)
    if not leaves or not (corrected or any(found)):
        return None
    total = len(next(iter(draws.values())))
    index = thinned(total, _DRAWS)
    some = {path: np.asarray(v)[index] for path, v in draws.items()}
    means = None if corrected else _mean_coefficients(model, some)
    grow = amplified if corrected else lambda layer, factor: _grown(layer, factor, found, means)
    one, held, _ = parted(
        _one_draw(model, inputs, coordinates(leaves), grow),
        {path: v[0] for path, v in some.items()},
    )
    each = jax.jit(
        lambda held, draws: jax.lax.map(lambda draw: one(held, draw), draws, batch_size=16)
    )
    theta, shift, explained = map(np.asarray, each(held, some))
    finite = np.isfinite(shift).all(axis=1)
    return _table(model, leaves, theta[finite], shift[finite], explained[finite])


def _in_layer(leaf: RandomLeaf) -> bool:
    return any(place.startswith("layer.") for place in leaf.places + leaf.within)


def _one_draw(
    model: Model,
    inputs: Inputs,
    leaves: Mapping[str, Coordinates],
    grow: Callable[[Any, Array], Any],
) -> Any:
    forward = with_adjoint(model, diffrax.ForwardMode())

    def one(draw):
        realised = realise(forward, draw)
        flat, unravel = ravel_pytree([how.free(draw[path]) for path, how in leaves.items()])

        def predicted(numbers_and_factor):
            numbers, factor = unravel(numbers_and_factor[:-1]), numbers_and_factor[-1]
            moved = {
                path: how.value(free)
                for (path, how), free in zip(leaves.items(), numbers, strict=True)
            }
            layer = grow(realise(forward, draw | moved).layer, factor)
            prediction = eqx.tree_at(lambda m: m.layer, realised, layer).predict(inputs)
            return jnp.concatenate(
                [prediction.values[n].ravel() for n in model.observables]
            ), prediction

        at = jnp.append(flat, 1.0)
        jacobian, prediction = jax.jacfwd(predicted, has_aux=True)(at)
        noise = realised.conditional(prediction, inputs)
        weight = jnp.concatenate(
            [(1 / jnp.sqrt(noise[n].variance)).ravel() for n in model.observables]
        )
        sensitivities, effect = jacobian[:, :-1] * weight[:, None], jacobian[:, -1] * weight
        shift = least_squares(sensitivities, effect)
        left = jnp.sum((effect - sensitivities @ shift) ** 2)
        size = jnp.sum(effect**2)
        return (
            flat,
            jnp.where(prediction.ok, shift, jnp.nan),
            1 - left / jnp.where(size > 0, size, 1.0),
        )

    return one


def _unknown_functions(layer: Any) -> list[bool]:
    """Which of the parts that are linear in coefficients are functions with unknown ones; none of a
    population.
    """
    if isinstance(layer, AbstractPopulation):
        return []
    return [
        not part.is_process_noise and bool(paths(getattr(part, part.weights_field)))
        for _, part in linear_parts(layer)
    ]


def _mean_coefficients(model: Model, draws: Draws) -> list[Array]:
    """Those of each linear part, in the mean of draws."""
    of = jax.jit(
        jax.vmap(
            lambda draw: [part.coefficients for _, part in linear_parts(realise(model, draw).layer)]
        )
    )
    return [each.mean(axis=0) for each in of({path: jnp.asarray(v) for path, v in draws.items()})]


def _grown(layer: Any, factor: Array, which: list[bool], means: Any) -> Any:
    """A realised layer whose unknown functions are so many times as far from their means: a factor
    may be near one.
    """
    left = iter(zip(which, means, strict=True))

    def one(part):
        if not is_linear(part):
            return part
        unknown, mean = next(left)
        return (
            part.with_coefficients(mean + factor * (part.coefficients - mean)) if unknown else part
        )

    return jax.tree.map(one, layer, is_leaf=is_linear)


def _table(
    model: Model,
    leaves: Mapping[str, RandomLeaf],
    theta: np.ndarray,
    shift: np.ndarray,
    explained: np.ndarray,
) -> xr.Dataset:
    short, labels = names(model), []
    for path, how in coordinates(leaves).items():
        inside = (
            [f"[{', '.join(map(str, i))}]" for i in np.ndindex(how.shape)] if how.shape else [""]
        )
        labels += [short[path] + tag for tag in inside]
    # Equal numbers have a standard deviation of what rounding leaves of them.
    spread = theta.std(axis=0), shift.std(axis=0)
    moving = (spread[0] > 1e-9 * np.abs(theta).max(initial=1e-300, axis=0)) & (
        spread[1] > 1e-9 * np.abs(shift).max(initial=1e-300)
    )
    covariance = ((theta - theta.mean(axis=0)) * (shift - shift.mean(axis=0))).mean(axis=0)
    safe = np.where(moving, spread[0] * spread[1], 1.0)
    columns = {
        "correlation": np.where(moving, covariance / safe, 0.0),
        "shift_sd": np.where(moving, spread[1] / np.where(moving, spread[0], 1.0), 0.0),
    }
    return xr.Dataset(
        {name: ("parameter", values) for name, values in columns.items()},
        {"parameter": labels},
        {
            "explained": float(np.mean(explained)) if len(explained) else float("nan"),
            "draws": len(theta),
            "of": "correction" if is_corrected(model.layer) else "unknown function",
        },
    )
