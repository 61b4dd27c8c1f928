"""Random Fourier features: a Gaussian process that is linear in its weights."""

import math

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Float
from scipy.special import ndtri

from .._jax.keys import as_key

# Prior standard deviation of the constant term.
_CONSTANT = 0.5


class Fourier(eqx.Module):
    r"""Random cosine waves and a linear trend, weighted by the linear layer `last`.

    $\mathrm{net}(x) = W_1 \sqrt 2 \cos(F x / \ell + p) + W_2 x + b$

    x are the inputs, F the frequencies and p the phases of the waves. The weights $W_1$, $W_2$ and
    the constant b belong to `last`. With standard normal frequencies and weights $W_1 \sim
    N(0, 1/\text{size})$ the waves approximate a Gaussian process. Its kernel is squared exponential
    with length ℓ. Frequencies and phases are quasi-random, so that few of them fill the space
    evenly. Far from the data the uncertainty grows because of the trend.

    Args:
        inputs: the number of inputs.
        outputs: the number of outputs.
        size: the number of waves.
        length: ℓ, in the units of the inputs.

    Source: Rahimi & Recht (2007), Random features for large-scale kernel machines; Roberts (2018),
    the R-sequence.
    """

    frequencies: Float[Array, "size inputs"]
    phases: Float[Array, " size"]
    last: eqx.nn.Linear

    def __init__(self, inputs: int, outputs: int, size: int, length: float):
        even = _evenly(size, inputs + 1)
        self.frequencies = jnp.asarray(ndtri(even[:, :-1]) / length)
        self.phases = jnp.asarray(2 * math.pi * even[:, -1])
        self.last = eqx.nn.Linear(size + inputs, outputs, key=as_key(0))

    def __call__(self, x: Float[Array, " inputs"]) -> Float[Array, " outputs"]:
        waves = math.sqrt(2.0) * jnp.cos(self.frequencies @ x + self.phases)
        return self.last(jnp.concatenate([waves, x]))

    def prior(self, name: str, weight: Array) -> dist.Distribution:
        """Return the normal prior of an array of the layer `last`.

        The prior variance of an output is 1 for the waves, 1 for the trend at inputs of size 1, and
        1/4 for the constant.

        Args:
            name: unused; other priors of weights have the same arguments.
            weight: the array, of weights if it has two axes, else of constants.
        """
        size, inputs = self.frequencies.shape
        sd = np.full(weight.shape, _CONSTANT)
        if weight.ndim == 2:
            sd[:, :size], sd[:, size:] = size**-0.5, inputs**-0.5
        return dist.Normal(0.0, sd).to_event(weight.ndim)


def _evenly(size: int, dimension: int) -> Float[np.ndarray, "size dimension"]:
    r"""Return points that fill the unit cube of d dimensions evenly, by the R-sequence.

    Point n is $x_n = (1/2 + n (r^{-1}, \dots, r^{-d})) \bmod 1$ with $r$ the root of
    $r^{d+1} = r + 1$.
    """
    # 1. The root by fixed-point iteration, r = (1 + r)^(1 / (d + 1)).
    root = 1.0
    for _ in range(50):
        root = (1 + root) ** (1 / (dimension + 1))
    # 2. The points.
    steps = root ** -np.arange(1.0, dimension + 1)
    return (0.5 + np.arange(1, size + 1)[:, None] * steps) % 1.0
