"""Functions with random errors, propagated through a layer by sigma points."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..data.layer_inputs import Inputs
from ..errors import ModelError
from ..layers import AbstractFilter, AbstractLayer, Prediction
from ..layers._parts import check_function, is_layer
from ..layers.layer import AroundLayer, prediction
from ..random import Module, Scalar, Values, VectorField, check_scalar, is_function


class VarianceHead(Module):
    r"""A function whose values have normal errors with given standard deviations.

    $m(t, y, u) + \sigma(t, y, u)\,\varepsilon, \quad \varepsilon_i \sim N(0, 1)$

    There is one deviate ε for each value with a standard deviation. It is constant along a
    trajectory. It is aleatoric: data do not determine it. `Unscented` propagates the deviates
    through the layer; without `Unscented`, ε is 0.

    Args:
        mean: m, a function `(t, y, u)` that returns values by name, such as `bd.Network`.
        scales: σ of some or all values by name, in their units: a number, a distribution, or a
            function `(t, y, u)` such as `bd.noise.VaryingScale`.

    Raises:
        ModelError: if the mean is no function or there are no scales. When called, if `scales`
            names a value that the mean does not return.
    """

    mean: VectorField
    scales: Mapping[str, Any]
    deviates: Float[Array, " name"]

    def __init__(self, mean: VectorField, scales: Mapping[str, Scalar | Any]):
        check_function(mean, "mean")
        if not isinstance(scales, Mapping) or not scales:
            raise ModelError(
                "scales must be a dict of standard deviations by the name of a value, not "
                f"{scales!r}"
            )
        for name, scale in scales.items():
            if not is_function(scale):
                check_scalar(scale, f"scales['{name}']")
        self.mean = mean
        # JAX sorts the keys of a dict; deviates have the same order.
        self.scales = dict(sorted(scales.items()))
        self.deviates = jnp.zeros(len(scales))

    def __call__(self, t: Any, y: Values, u: Values) -> Values:
        values = dict(self.mean(t, y, u))
        for i, (name, scale) in enumerate(self.scales.items()):
            if name not in values:
                raise ModelError(
                    f"there is a scale of '{name}', but the mean returns {', '.join(values)}"
                )
            sd = scale(t, y, u) if is_function(scale) else scale
            values[name] = values[name] + jnp.asarray(sd) * self.deviates[i]
        return values


class Unscented(AroundLayer):
    r"""Predictive mean and variance of a layer with `VarianceHead`s, by the unscented transform.

    $E[z] \approx \sum_k w_k z(\varepsilon_k), \quad
    \mathrm{var}(z) \approx \sum_k w_k (z(\varepsilon_k) - E[z])^2$

    z is a prediction as a function of the n deviates ε of all heads. The sum is over $2n + 1$ sigma
    points $\varepsilon_k$ with weights $w_k$. The points are 0 and $\pm\sqrt{n + \kappa}$ along
    each deviate, with $\kappa = \max(3 - n, 0)$. Each point costs one solve.

    The variance counts as aleatoric and adds to the variance of the noise, which must be normal or
    log-normal. Means are exact for predictions that are quadratic in ε, variances for linear
    predictions. Given the parameters, predictions at different times are treated as independent, as
    in the source.

    Args:
        layer: a layer with one or more `VarianceHead`s inside.

    Raises:
        ModelError: if the layer has no `VarianceHead` inside, or is a filter.

    Source: Julier & Uhlmann (2004); Akhare, Luo & Wang (2024), DiffHybrid-UQ, arXiv:2401.00161. The
    latter draw ε anew at each step of a fixed-step solver, so that their noise depends on the step.
    Here ε is a constant error.
    """

    layer: AbstractLayer

    def __check_init__(self):
        if not is_layer(self.layer) or isinstance(self.layer, AbstractFilter):
            kind = type(self.layer).__name__
            raise ModelError(
                f"Unscented needs a layer that looks at no observations, such as bd.ODE, not {kind}"
            )
        if not self.deviates:
            raise ModelError(
                "Unscented needs a bd.filtering.VarianceHead inside of its layer: nothing there is "
                "uncertain"
            )

    @property
    def outputs(self) -> tuple[str, ...]:
        return self.layer.outputs

    @property
    def dims(self) -> Mapping[str, tuple[str, ...]]:
        return self.layer.dims

    @property
    def states(self) -> int:
        return self.layer.states

    @property
    def deviates(self) -> int:
        """The number of deviates of all heads."""
        return sum(head.deviates.size for head in _heads(self.layer))

    def deviating(self, deviates: Float[Array, " n"]) -> AbstractLayer:
        """Return the layer with given deviates.

        Args:
            deviates: the deviates ε of all heads, in the order of the heads in the layer.

        Returns:
            A copy of the layer.
        """
        sizes = [head.deviates.size for head in _heads(self.layer)]
        left = jnp.split(deviates, np.cumsum(sizes)[:-1])

        def placed(node):
            return (
                eqx.tree_at(lambda head: head.deviates, node, left.pop(0))
                if _is_head(node)
                else node
            )

        return jax.tree.map(placed, self.layer, is_leaf=_is_head)

    def __call__(self, inputs: Inputs) -> Prediction:
        # 1. Sigma points εₖ and weights wₖ, and one solve for each (Julier & Uhlmann 2004).
        points, weights = sigma_points(self.deviates)
        found = jax.vmap(lambda point: self.deviating(point)(inputs))(points)

        # 2. Moments: E[z] = Σ wₖ zₖ, var[z] = Σ wₖ (zₖ - E[z])².
        def mean(values):
            return jnp.tensordot(weights, values, 1)

        means = {name: mean(values) for name, values in found.values.items()}
        variances = {
            name: mean((values - means[name]) ** 2) for name, values in found.values.items()
        }
        # 3. Constraint residuals are taken from the first point, ε = 0.
        constraint_residuals = {
            name: values[0] for name, values in found.constraint_residuals.items()
        }
        stats = {name: jnp.sum(values) for name, values in found.stats.items()}
        return prediction(
            means,
            jnp.all(found.ok),
            stats,
            constraint_residuals=constraint_residuals,
            variances=variances,
        )


def sigma_points(number: int) -> tuple[Float[Array, "point number"], Float[Array, " point"]]:
    """Sigma points of independent standard normal variables, and their weights.

    The weighted moments of the points equal those of the variables up to the third.

    Args:
        number: the number of variables.

    Returns:
        The points, and the weight of each.
    """
    centre = max(3.0 - number, 0.0)
    spread = number + centre
    steps = jnp.sqrt(spread) * jnp.eye(number)
    points = jnp.concatenate([jnp.zeros((1, number)), steps, -steps])
    return points, jnp.full(2 * number + 1, 0.5 / spread).at[0].set(centre / spread)


def _is_head(node: Any) -> bool:
    return isinstance(node, VarianceHead)


def _heads(layer: Any) -> list[VarianceHead]:
    """Return all `VarianceHead`s in a layer, in the order of its leaves."""
    return [node for node in jax.tree.leaves(layer, is_leaf=_is_head) if _is_head(node)]
