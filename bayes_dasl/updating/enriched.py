"""Unknown functions with added finer features, to test whether the functions are too coarse."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..random import Module, Values
from ..unknown_functions.bases.families import AbstractFamily
from ..unknown_functions.basis import Basis

# Factors by which the features added to a basis are finer.
_FINER = (2, 4)
# For other functions, the length scales of features are the width of an input divided by these.
_WIDTHS = (1, 2, 4)
# The largest number of features of a family.
_LARGEST = 256
# `drawn_over` spans five widths of an input.
_RANGE = 5.0


class Waves(AbstractFamily):
    r"""Random Fourier features, which approximate a Gaussian process of several inputs.

    $\phi_k = \{\cos \omega_k \cdot z, \sin \omega_k \cdot z\} / \sqrt{\text{number}},
    \quad \omega_k \sim N(0, 1)$

    with the scaled inputs $z = (x - \text{middles}) / \text{lengths}$. The frequencies $\omega_k$
    are drawn with a fixed seed.

    Args:
        middles: the centre of each input, in its units.
        lengths: the length scale of the process along each input, in its units.
        number: the number of frequencies.

    Source: Rahimi & Recht (2007), Random features for large-scale kernel machines.
    """

    middles: tuple[float, ...] = eqx.field(static=True)
    lengths: tuple[float, ...] = eqx.field(static=True)
    number: int = eqx.field(static=True)

    def __init__(self, middles: tuple[float, ...], lengths: tuple[float, ...], number: int = 30):
        self.middles, self.lengths, self.number = middles, lengths, number

    @property
    def inputs(self) -> int:
        return len(self.middles)

    @property
    def ranges(self) -> tuple[tuple[float, float], ...]:
        return ((-np.inf, np.inf),) * self.inputs

    @property
    def size(self) -> int:
        return 2 * self.number

    def __call__(self, *x: Any) -> Float[Array, "... size"]:
        frequencies = np.random.default_rng(0).standard_normal((self.inputs, self.number))
        z = jnp.stack(jnp.broadcast_arrays(*map(jnp.asarray, x)), axis=-1)
        angle = ((z - np.asarray(self.middles)) / np.asarray(self.lengths)) @ frequencies
        return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1) / np.sqrt(self.number)


class Enriched(Module):
    r"""An unknown function f plus linear combinations of features.

    $f(x) + \sum_k c_k \phi_k(x)$

    If f is a positive basis, it is the exponential of a basis. The features are then added to the
    exponent, and their effect is linearised.

    Args:
        function: the unknown function f, realised.
        families: the families of the features.
        coefficients: the coefficients of each family, `(output, feature)`.
    """

    function: Any
    families: tuple[AbstractFamily, ...]
    coefficients: tuple[Float[Array, "output _"], ...]

    def __call__(self, t: Any, y: Values, u: Values) -> Values:
        found = dict(self.function(t, y, u))
        known = {"t": t, **u, **y}
        x = [known[name] for name in self.function.drawn_over]
        positive = isinstance(self.function, Basis) and self.function.positive
        for i, name in enumerate(self.function.outputs):
            added = sum(
                family(*x) @ c[i]
                for family, c in zip(self.families, self.coefficients, strict=True)
            )
            # For f = level + e^g, the derivative by the exponent g is f - level.
            found[name] += (found[name] - self.function.level) * added if positive else added
        return found


def finer_families(function: Any) -> tuple[AbstractFamily, ...]:
    """Return the families of features that are added to an unknown function, the coarsest first.

    Args:
        function: the unknown function.

    Returns:
        For a basis, finer versions of its family. For other functions, or if all finer families
        have too many features, `Waves` whose lengths are the widths of the inputs, a half and a
        quarter of them.
    """
    if isinstance(function, Basis):
        finer = tuple(
            f for times in _FINER for f in function.family.finer(times) if f.size <= _LARGEST
        )
        # For a basis with many features, all finer families may be too large.
        if finer:
            return finer
    ranges = function.drawn_over.values()
    middles = tuple((low + high) / 2 for low, high in ranges)
    widths = [(high - low) / _RANGE for low, high in ranges]
    return tuple(Waves(middles, tuple(width / times for width in widths)) for times in _WIDTHS)
