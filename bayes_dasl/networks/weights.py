"""Priors of weights: fan-in or sparse for networks, shrinkage for basis functions."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Float

from ..errors import ModelError
from ..random import Module, Scalar, is_random, shape_of


class AbstractWeights(Module):
    """A prior of weights that is made of several random leaves.

    If numbers are in place of the random leaves, a call returns the weights. The field `size` is
    the number of weights.
    """

    size: eqx.AbstractVar[int]

    @abstractmethod
    def __call__(self) -> Float[Array, " size"]:
        """Return the weights."""


def standard_normal(size: int) -> dist.Distribution:
    """Return the distribution of independent standard normal weights.

    Args:
        size: the number of weights.

    Returns:
        A distribution of shape `(size,)`.

    Raises:
        ModelError: if the size is no positive whole number.
    """
    if not isinstance(size, int) or size < 1:
        raise ModelError(f"the number of weights must be a whole number, at least 1, not {size!r}")
    return dist.Normal(0.0, 1.0).expand((size,)).to_event(1)


class NormalShrinkage(AbstractWeights):
    r"""Ridge shrinkage: normal weights with one common scale.

    $w_i = \sigma z_i, \quad z_i \sim N(0, 1)$ for weight i

    Args:
        size: the number of weights, one for each basis function.
        scale: σ; by default it is inferred, with the prior HalfNormal(1).
    """

    size: int = eqx.field(static=True)
    z: Any
    scale: Scalar

    def __init__(self, size: int, scale: Scalar | None = None):
        self.size = size
        self.z = standard_normal(size)
        self.scale = dist.HalfNormal(1.0) if scale is None else scale

    def __call__(self) -> Float[Array, " size"]:
        return self.scale * self.z


class Horseshoe(AbstractWeights):
    r"""The regularised horseshoe prior: most weights are nearly zero, and a few are large.

    $w_i = \tau \tilde\lambda_i z_i, \quad \tilde\lambda_i = \lambda_i / \sqrt{1 + \tau^2
    \lambda_i^2 / c^2}$ with $z_i \sim N(0, 1)$ and $\lambda_i \sim C^+(0, 1)$

    τ shrinks all weights, and the local scale $\lambda_i$ lets weight i escape. Large weights are
    limited by c, the width of the slab. $C^+$ is the half-Cauchy distribution.

    Args:
        size: the number of weights, one for each basis function.
        few: the expected number of relevant weights.
        shrinkage: τ, by default $C^+(0, \tau_0)$ with $\tau_0 = \text{few} / (\text{size} -
            \text{few})$. The source also multiplies $\tau_0$ by the standard deviation of the noise
            over √(number of data).
        slab: c², by default with an inverse-gamma prior. Large weights then have a Student-t prior
            with 4 degrees of freedom and scale 1.

    Raises:
        ModelError: unless 0 < few < size.

    Source: Piironen & Vehtari (2017), Sparsity information and regularization in the horseshoe.
    """

    size: int = eqx.field(static=True)
    z: Any
    local: Any
    shrinkage: Scalar
    slab: Scalar

    def __init__(
        self,
        size: int,
        few: float = 1.0,
        shrinkage: Scalar | None = None,
        slab: Scalar | None = None,
    ):
        self.size = size
        self.z = standard_normal(size)
        if not 0 < few < size:
            raise ModelError(
                f"few={few} of {size} weights: it must lie between 0 and the number of weights"
            )
        self.local = dist.HalfCauchy(1.0).expand((size,)).to_event(1)
        self.shrinkage = dist.HalfCauchy(few / (size - few)) if shrinkage is None else shrinkage
        self.slab = dist.InverseGamma(2.0, 2.0) if slab is None else slab

    def __call__(self) -> Float[Array, " size"]:
        wide = jnp.asarray(self.shrinkage * self.local)
        slab = jnp.asarray(self.slab)
        return self.z * wide / jnp.sqrt(1 + jnp.square(wide) / slab)


class RandomWalk(AbstractWeights):
    r"""A random walk of weights with mean zero: neighbouring weights are similar (P-splines).

    $w = \sigma C z, \quad w_{i+1} - w_i \sim N(0, c^2 \sigma^2), \quad \sum_i w_i = 0$

    w are the weights, z independent standard normal variables, and C a fixed matrix that sums and
    centres them. Since the weights have mean zero, the constant part of the function is the `level`
    of the `Basis`. The number c is chosen so that σ has the meaning below.

    Args:
        size: the number of weights, one for each basis function.
        scale: σ, the root mean square of the prior standard deviations of the weights. By default
            it is inferred, with the prior HalfNormal(1).

    Raises:
        ModelError: if there are fewer than 2 weights.

    Source: Lang & Brezger (2004), Bayesian P-splines; first order.
    """

    size: int = eqx.field(static=True)
    z: Any
    scale: Scalar

    def __init__(self, size: int, scale: Scalar | None = None):
        if not isinstance(size, int) or size < 2:
            raise ModelError(f"a random walk needs at least 2 weights, not {size!r}")
        self.size = size
        self.z = standard_normal(size - 1)
        self.scale = dist.HalfNormal(1.0) if scale is None else scale

    def __call__(self) -> Float[Array, " size"]:
        # The pseudoinverse of the difference matrix gives a centred random walk. Scale it so that
        # the rows of C have a mean square norm of 1.
        root = np.linalg.pinv(np.diff(np.eye(self.size), axis=0))
        unit = root / np.sqrt(np.sum(root**2) / self.size)
        return self.scale * (jnp.asarray(unit) @ self.z)


def check_weights(weights: Any, size: int) -> None:
    """Raise ModelError unless there is one weight for each of `size` features."""
    if isinstance(weights, AbstractWeights):
        shape = (weights.size,)
    elif is_random(weights) or eqx.is_array_like(weights):
        shape = shape_of(weights)
    else:
        raise ModelError(
            "weights must be NormalShrinkage, Horseshoe, an array or a distribution, not "
            f"{weights!r}"
        )
    if shape != (size,):
        raise ModelError(
            f"the weights have shape {shape}, but the family has {size} features: want ({size},)"
        )


type WeightPrior = Callable[[str, Array], Any]
"""A function of the name and the value of an array. It returns the prior of the array, a
distribution of the same shape or an `AbstractWeights`."""


def fan_in(scale: float = 1.0, bias: float = 1.0) -> WeightPrior:
    r"""Return a prior with weights N(0, scale² / fan-in) and biases N(0, bias²).

    The fan-in is the number of inputs of a layer. With this prior the size of the layer's outputs
    does not depend on it.

    Args:
        scale: the factor of the standard deviation $1/\sqrt{\text{fan-in}}$.
        bias: the standard deviation of the biases.

    Returns:
        The prior, for `Network`.

    Raises:
        ModelError: if a scale is not positive.
    """
    if not (scale > 0 and bias > 0):
        raise ModelError(f"fan_in(scale={scale}, bias={bias}): both must be positive")

    def prior(name: str, weight: Array) -> dist.Distribution:
        # The first axis is that of the outputs; arrays with one axis are biases.
        sd = scale * (weight.size / weight.shape[0]) ** -0.5 if weight.ndim > 1 else bias
        return dist.Normal(0.0, sd).expand(weight.shape).to_event(weight.ndim)

    return prior


def sparse(few: float = 1.0, bias: float = 1.0) -> WeightPrior:
    """Return a sparse prior: a regularised horseshoe for weights, and biases N(0, bias²).

    Each array of weights has a `Horseshoe` of its own.

    Args:
        few: the expected number of relevant weights of an array.
        bias: the standard deviation of the biases.

    Returns:
        The prior, for `Network`.

    Raises:
        ModelError: when a network is built, unless `few` lies between 0 and the number of weights.
    """

    def prior(name: str, weight: Array) -> Any:
        if weight.ndim < 2:
            return fan_in(bias=bias)(name, weight)
        return Horseshoe(weight.size, few)

    return prior
