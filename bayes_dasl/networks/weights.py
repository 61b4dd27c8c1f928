"""Priors of weights: those of networks by their fan-in or sparse, those of bases shrunk where data
ask for nothing.
"""

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
    """Weights of a basis, made of random leaves: called, once these are known, it gives the
    weights.
    """

    size: eqx.AbstractVar[int]

    @abstractmethod
    def __call__(self) -> Float[Array, " size"]:
        """The weights."""


def standard_normal(size: int) -> dist.Distribution:
    """Independent standard normal numbers.

    Raises:
        ModelError: unless the size is a positive whole number.
    """
    if not isinstance(size, int) or size < 1:
        raise ModelError(f"the number of weights must be a whole number, at least 1, not {size!r}")
    return dist.Normal(0.0, 1.0).expand((size,)).to_event(1)


class NormalShrinkage(AbstractWeights):
    r"""Shrinkage of all weights alike (ridge).

    $w_i = \sigma z_i, \quad z_i \sim N(0, 1)$

    Args:
        size: how many weights, one for each feature of the family.
        scale: σ; unless given it is unknown, HalfNormal(1).
    """

    size: int = eqx.field(static=True)
    z: Any
    scale: Scalar

    def __init__(self, size: int, scale: Scalar | None = None):
        self.size, self.z = size, standard_normal(size)
        self.scale = dist.HalfNormal(1.0) if scale is None else scale

    def __call__(self) -> Float[Array, " size"]:
        return self.scale * self.z


class Horseshoe(AbstractWeights):
    r"""The regularised horseshoe: most weights are almost zero, a few as large as they like, up to
    a slab.

    $w_i
    = \tau \tilde\lambda_i z_i, \quad \tilde\lambda_i = \lambda_i / \sqrt{1 + \tau^2 \lambda_i^2 /
    c^2}, \quad z_i \sim N(0, 1), \quad \lambda_i \sim C^+(0, 1)$

    Args:
        size: how many weights, one for each feature of the family.
        few: how many of them are thought to matter.
        shrinkage: τ, $C^+(0, \tau_0)$ unless given, with
            $\tau_0 = \text{few} / (\text{size} - \text{few})$; the source multiplies that by noise
            / √(number of data), if these are known.
        slab: c², unless given inverse gamma, so that large weights are Student-t with 4 degrees of
            freedom and scale 1.

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
        self.size, self.z = size, standard_normal(size)
        if not 0 < few < size:
            raise ModelError(
                f"few={few} of {size} weights: it must lie between 0 and the number of weights"
            )
        self.local = dist.HalfCauchy(1.0).expand((size,)).to_event(1)
        self.shrinkage = dist.HalfCauchy(few / (size - few)) if shrinkage is None else shrinkage
        self.slab = dist.InverseGamma(2.0, 2.0) if slab is None else slab

    def __call__(self) -> Float[Array, " size"]:
        wide, slab = jnp.asarray(self.shrinkage * self.local), jnp.asarray(self.slab)
        return self.z * wide / jnp.sqrt(1 + jnp.square(wide) / slab)


class RandomWalk(AbstractWeights):
    r"""A random walk with mean zero: neighbouring weights are alike (P-splines).

    $w = \sigma C z, \quad w_{i+1} - w_i \sim N(0, c^2 \sigma^2), \quad \sum_i w_i = 0$

    The walk is centred, so that it shrinks to a constant: let the `level` of the basis be that. The
    constant c makes σ what `scale` says.

    Args:
        size: how many weights, one for each feature of the family.
        scale: σ, the root mean square of the standard deviations of the weights; unless given it is
            unknown, HalfNormal(1).

    Raises:
        ModelError: for fewer than 2 weights.

    Source: Lang & Brezger (2004), Bayesian P-splines; first order.
    """

    size: int = eqx.field(static=True)
    z: Any
    scale: Scalar

    def __init__(self, size: int, scale: Scalar | None = None):
        if not isinstance(size, int) or size < 2:
            raise ModelError(f"a random walk needs at least 2 weights, not {size!r}")
        self.size, self.z = size, standard_normal(size - 1)
        self.scale = dist.HalfNormal(1.0) if scale is None else scale

    def __call__(self) -> Float[Array, " size"]:
        root = np.linalg.pinv(np.diff(np.eye(self.size), axis=0))
        return self.scale * (jnp.asarray(root / np.sqrt(np.sum(root**2) / self.size)) @ self.z)


def check_weights(weights: Any, size: int) -> None:
    """Refuse weights of another number than there are features."""
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
"""From the dotted name of an array of a module and the array: a distribution of its shape, or
`AbstractWeights`.
"""


def fan_in(scale: float = 1.0, bias: float = 1.0) -> WeightPrior:
    r"""Weights N(0, scale² / fan-in), biases N(0, bias²): what a layer says does not grow with the
    width before it.

    Args:
        scale: how many times as wide as $1/\sqrt{\text{fan-in}}$ the weights are.
        bias: the standard deviation of the biases.

    Raises:
        ModelError: for scales that are not positive.
    """
    if not (scale > 0 and bias > 0):
        raise ModelError(f"fan_in(scale={scale}, bias={bias}): both must be positive")

    def prior(name: str, weight: Array) -> dist.Distribution:
        sd = scale * (weight.size / weight.shape[0]) ** -0.5 if weight.ndim > 1 else bias
        return dist.Normal(0.0, sd).expand(weight.shape).to_event(weight.ndim)

    return prior


def sparse(few: float = 1.0, bias: float = 1.0) -> WeightPrior:
    """Weights under a regularised horseshoe for each array, of which about `few` matter; biases
    N(0, bias²).

    Args:
        few: how many weights of an array are thought to matter.
        bias: the standard deviation of the biases.

    Raises:
        ModelError: when a network is built, unless `few` lies between 0 and the number of weights.
    """

    def prior(name: str, weight: Array) -> Any:
        if weight.ndim < 2:
            return fan_in(bias=bias)(name, weight)
        return Horseshoe(weight.size, few)

    return prior
