"""A Gaussian process that is linear in its weights."""

import math
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Float

from ...errors import ModelError
from ...priors import between
from ...random import Scalar
from .families import AbstractFamily, check_range, held

# A kernel needs size >= few * boundary * half range / length, and boundary >= wide * length / half range.
_SPECTRA = {"squared_exponential": (1.75, 3.2), "matern32": (3.42, 4.5), "matern52": (2.65, 4.1)}


class HilbertGP(AbstractFamily):
    r"""A Gaussian process by the `size` lowest Laplace eigenfunctions of an interval that is `boundary` times as wide.

    $\phi_j(x) = \sqrt{S(\sqrt{\lambda_j})} \sin(\sqrt{\lambda_j}(x - m + L)) / \sqrt L, \quad
    \sqrt{\lambda_j} = j \pi / (2 L), \quad L = \text{boundary} \cdot (high - low) / 2$

    $S$ is the spectral density of the kernel with `length` and `amplitude`. The weights are standard normal: the
    amplitude shrinks them. Outside [low, high] a function is held constant.

    Args:
        low: the lower end of the range, in the units of x.
        high: its upper end.
        size: how many eigenfunctions.
        length: that of the kernel, in the units of x, which may be random; unless given its prior is the range that so
            many functions can represent, `resolved_lengths`.
        amplitude: the standard deviation of the process, in the units of the function, which may be random; unless
            given its prior is HalfNormal(1).
        kernel: "squared_exponential", "matern32" or "matern52".
        boundary: how many times as wide as the range the interval of the eigenfunctions is, at least 1.2.

    Units: `length` those of x, `amplitude` those of the function.
    Raises: ModelError for an empty range, another kernel, a boundary below 1.2 or too few functions for any length.
    Source: Riutort-Mayol et al. (2023), Practical Hilbert space approximate Bayesian Gaussian processes.
    """

    low: float = eqx.field(static=True)
    high: float = eqx.field(static=True)
    size: int = eqx.field(static=True)
    length: Scalar
    amplitude: Scalar
    kernel: str = eqx.field(static=True)
    boundary: float = eqx.field(static=True)

    def __init__(
        self,
        low: float,
        high: float,
        size: int,
        length: Scalar | None = None,
        amplitude: Scalar | None = None,
        kernel: str = "squared_exponential",
        boundary: float = 1.5,
    ):
        self.low, self.high, self.size, self.kernel, self.boundary = float(low), float(high), size, kernel, boundary
        check_range(self, low, high)
        if kernel not in _SPECTRA or boundary < 1.2 or size < 1:
            raise ModelError(
                f"HilbertGP needs a kernel of {', '.join(_SPECTRA)}, a boundary of at least 1.2 and a size of at least "
                f"1, not {kernel!r}, {boundary} and {size}"
            )
        self.length = between(*self.resolved_lengths) if length is None else length
        self.amplitude = dist.HalfNormal(1.0) if amplitude is None else amplitude

    @property
    def shortest_length(self) -> float:
        """The shortest length that this many functions represent well."""
        few, _ = _SPECTRA[self.kernel]
        return few * self._half / self.size

    @property
    def resolved_lengths(self) -> tuple[float, float]:
        """The shortest and the longest length that this many functions and this boundary represent well."""
        few, wide = _SPECTRA[self.kernel]
        shortest, longest = self.shortest_length, self._half / wide
        if shortest >= longest:
            raise ModelError(f"{self.size} functions represent no {self.kernel} process: give more than {few * wide:g}")
        return shortest, longest

    @property
    def has_amplitude(self) -> bool:
        return True

    @property
    def said(self) -> str:
        return f"HilbertGP of size {self.size} and length {float(jnp.asarray(self.length)):.3g}"

    def finer(self, times: int) -> "tuple[HilbertGP, ...]":
        length: Any = self.length / times  # pyright: ignore
        return (HilbertGP(self.low, self.high, times * self.size, length, 1.0, self.kernel, self.boundary),)

    @property
    def scales(self) -> Float[Array, " size"]:
        return jnp.asarray(self.amplitude) * self._root_density(self._frequency) / math.sqrt(self._half)

    def unscaled(self, x: Any) -> Float[Array, "... size"]:
        z = held(x, self.low, self.high) - (self.low + self.high) / 2 + self._half
        return jnp.sin(z[..., None] * self._frequency)

    def __call__(self, x: Any) -> Float[Array, "... size"]:
        return self.scales * self.unscaled(x)

    @property
    def _half(self) -> float:
        return self.boundary * (self.high - self.low) / 2

    @property
    def _frequency(self) -> Float[Array, " size"]:
        return jnp.arange(1, self.size + 1) * (math.pi / (2 * self._half))

    def _root_density(self, frequency: Float[Array, " size"]) -> Float[Array, " size"]:
        """The root of the spectral density of the kernel with amplitude 1."""
        length = jnp.asarray(self.length)
        if self.kernel == "squared_exponential":
            # Not the root of an exponential, whose gradient is infinite where it has underflown.
            return (2 * math.pi) ** 0.25 * jnp.sqrt(length) * jnp.exp(-jnp.square(length * frequency) / 4)
        if self.kernel == "matern32":
            rate = math.sqrt(3) / length
            return 2 * rate**1.5 / (rate**2 + frequency**2)
        rate = math.sqrt(5) / length
        return 4 / math.sqrt(3) * rate**2.5 / (rate**2 + frequency**2) ** 1.5
