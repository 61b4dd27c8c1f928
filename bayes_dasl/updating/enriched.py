"""Unknown functions with finer features beside them, to see whether these are missed."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..random import Module, Values
from ..unknown_functions.bases.families import AbstractFamily
from ..unknown_functions.basis import Basis

_FINER = (2, 4)  # times as fine as a basis
_WIDTHS = (
    1,
    2,
    4,
)  # lengths to a width of an input, of what is tried beside a function that is no basis
_LARGEST = 256  # features that are tried at once
_RANGE = 5.0  # widths of an input, of the range over which such a function is drawn


class Waves(AbstractFamily):
    r"""Waves of random lengths and directions: about a Gaussian process of several inputs.

    $\phi_k
    = \{\cos \omega_k \cdot z, \sin \omega_k \cdot z\} / \sqrt{\text{number}}, \quad \omega_k \sim
    N(0, 1)$

    with z the inputs in units of the lengths. The waves are the same every time.

    Args:
        middles: what is taken off each input, in its units.
        lengths: the length of the process along each input, in its units.
        number: how many waves.

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
    """An unknown function and features beside it, which have a coefficient for each output of the
    function.

    Beside a positive function they stand in its exponential.

    Args:
        function: the unknown function, realised.
        families: those of the features.
        coefficients: of each family, `(output, feature)`.
    """

    function: Any
    families: tuple[AbstractFamily, ...]
    coefficients: tuple[Float[Array, "output _"], ...]

    def __call__(self, t: Any, y: Values, u: Values) -> Values:
        found, known = dict(self.function(t, y, u)), {"t": t, **u, **y}
        x = [known[name] for name in self.function.drawn_over]
        positive = isinstance(self.function, Basis) and self.function.positive
        for i, name in enumerate(self.function.outputs):
            added = sum(
                family(*x) @ c[i]
                for family, c in zip(self.families, self.coefficients, strict=True)
            )
            found[name] += (found[name] - self.function.level) * added if positive else added
        return found


def finer_families(function: Any) -> tuple[AbstractFamily, ...]:
    """Features that are tried beside an unknown function, the coarser first.

    Of a basis these are its own families, finer; of anything else waves that are as long as its
    inputs are wide, and shorter ones: a figure draws it over five widths.
    """
    if isinstance(function, Basis):
        finer = tuple(
            f for times in _FINER for f in function.family.finer(times) if f.size <= _LARGEST
        )
        if finer:
            return finer
    ranges = tuple(function.drawn_over.values())
    middles, widths = (
        [(low + high) / 2 for low, high in ranges],
        [(high - low) / _RANGE for low, high in ranges],
    )
    shorter = (tuple(width / times for width in widths) for times in _WIDTHS)
    return tuple(Waves(tuple(middles), lengths) for lengths in shorter)
