"""`HilbertGP`: an approximate Gaussian process that is linear in its weights."""

import math
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import xarray as xr
from jaxtyping import Array, Float

from ...data.datasets import checked_times, series_index
from ...data.dates import as_numbers
from ...errors import DataError, ModelError
from ...priors import between
from ...random import Scalar
from .families import AbstractFamily, check_range, held

# `(few, wide)` of each kernel, from the source of `HilbertGP`. An accurate approximation needs
# size >= few * boundary * (half range) / length and boundary >= wide * length / (half range).
_SPECTRA = {"squared_exponential": (1.75, 3.2), "matern32": (3.42, 4.5), "matern52": (2.65, 4.1)}
# `over` extends the range of the data at each end by half of that range. With a boundary of 3 the
# length may be nearly the range of the data. Shorter lengths are overconfident just beyond the
# data.
_BEYOND = 0.5
_BOUNDARY = 3.0


class HilbertGP(AbstractFamily):
    r"""An approximate Gaussian process: eigenfunctions of the Laplace operator on an interval.

    $\phi_j(x) = \sqrt{S(\sqrt{\lambda_j})} \sin(\sqrt{\lambda_j}(x - m + L)) / \sqrt L, \quad
    \sqrt{\lambda_j} = j \pi / (2 L), \quad L = \text{boundary} \cdot (high - low) / 2$

    $\phi_j$ is the basis function with the eigenvalue $\lambda_j$, for j from 1 to `size`. The
    interval is [m − L, m + L] with m the middle of the range. S is the spectral density of the
    kernel with `length` and `amplitude`. The weights are standard normal, since the amplitude is
    their scale. Outside [low, high] the function is constant.

    Args:
        low: the lower end of the range, in the units of x.
        high: the upper end of the range.
        size: the number of basis functions.
        length: the length scale of the kernel, in the units of x: a number or a distribution. The
            default prior has 95 % of its mass on the lengths that `size` functions can represent,
            see `resolved_lengths`.
        amplitude: the standard deviation of the process, in the units of the function: a number or
            a distribution. The default prior is HalfNormal(1).
        kernel: "squared_exponential", "matern32" or "matern52".
        boundary: the width of the interval relative to the range, at least 1.2.

    Units: `length` in units of x, `amplitude` in units of the function.

    Raises:
        ModelError: if the range is empty, the kernel is unknown, the boundary is below 1.2, or
            there are too few functions for any length.

    Source: Riutort-Mayol et al. (2023), Practical Hilbert space approximate Bayesian Gaussian
    processes.
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
        self.low = float(low)
        self.high = float(high)
        self.size = size
        self.kernel = kernel
        self.boundary = boundary
        check_range(self, low, high)
        if kernel not in _SPECTRA or boundary < 1.2 or size < 1:
            raise ModelError(
                f"HilbertGP needs a kernel of {', '.join(_SPECTRA)}, a boundary of at least 1.2 "
                f"and a size of at least 1, not {kernel!r}, {boundary} and {size}"
            )
        self.length = between(*self.resolved_lengths) if length is None else length
        self.amplitude = dist.HalfNormal(1.0) if amplitude is None else amplitude

    @classmethod
    def over(
        cls,
        data: xr.Dataset,
        name: str,
        unit: float | None,
        size: int = 20,
        kernel: str = "squared_exponential",
    ) -> "HilbertGP":
        """Return a process over the range of a variable of the data.

        The range of the data is extended at each end by half of that range. The prior of the length
        covers the lengths that `size` functions can represent. For 20 functions these are from a
        quarter to nine tenths of the range of the data. The amplitude has a half-normal prior with
        scale `unit`.

        Args:
            data: the training data; missing values are ignored.
            name: the variable, or `"t"` for the index. Dates become days since 1970, as in a layer
                without `units`. For another unit of time pass `model.in_numbers(data)` as data.
            unit: a plausible size of the function, in its own units, such as a tenth of the value
                that it corrects. None for a fixed amplitude of 1, for example in a `Product` in
                which another family has an amplitude.
            size: the number of basis functions.
            kernel: as for a `HilbertGP`.

        Units: `length` in units of the variable, `amplitude` in units of the function.

        Returns:
            The process.

        Raises:
            DataError: if the variable is unknown, or has fewer than two distinct values.
            ModelError: if the unit is not positive, or as for a `HilbertGP`.
        """
        if unit is not None and not 0 < unit < math.inf:
            raise ModelError(
                "unit must be a positive number, such as a tenth of what is corrected, not "
                f"{unit!r}"
            )
        index = series_index(data)
        if name == index or (name == "t" and "t" not in data):
            values = checked_times(as_numbers(data, index), index)
        elif name in data:
            values = np.asarray(data[name].values, float)
        else:
            raise DataError(
                f"the data have no '{name}': they hold {', '.join(map(str, data.variables))}"
            )
        values = values[np.isfinite(values)]
        if not values.size or values.min() == values.max():
            raise DataError(
                f"'{name}' has no two values, so there is no range for a function of it"
            )
        beyond = _BEYOND * float(values.max() - values.min())
        low = float(values.min()) - beyond
        high = float(values.max()) + beyond
        amplitude = 1.0 if unit is None else dist.HalfNormal(unit)
        return cls(low, high, size, amplitude=amplitude, kernel=kernel, boundary=_BOUNDARY)

    @property
    def shortest_length(self) -> float:
        """The shortest length scale that `size` functions represent well."""
        few, _ = _SPECTRA[self.kernel]
        return few * self._half / self.size

    @property
    def resolved_lengths(self) -> tuple[float, float]:
        """The shortest and the longest length that `size` and `boundary` represent well.

        Raises:
            ModelError: if no length can be represented.
        """
        few, wide = _SPECTRA[self.kernel]
        shortest = self.shortest_length
        longest = self._half / wide
        if shortest >= longest:
            raise ModelError(
                f"{self.size} functions represent no {self.kernel} process: give more than "
                f"{few * wide:g}"
            )
        return shortest, longest

    @property
    def has_amplitude(self) -> bool:
        return True

    @property
    def said(self) -> str:
        return f"HilbertGP of size {self.size} and length {float(jnp.asarray(self.length)):.3g}"

    def finer(self, times: int) -> "tuple[HilbertGP, ...]":
        length: Any = self.length / times  # pyright: ignore
        return (
            HilbertGP(
                self.low, self.high, times * self.size, length, 1.0, self.kernel, self.boundary
            ),
        )

    @property
    def scales(self) -> Float[Array, " size"]:
        return (
            jnp.asarray(self.amplitude)
            * self._root_density(self._frequency)
            / math.sqrt(self._half)
        )

    def unscaled(self, x: Any) -> Float[Array, "... size"]:
        z = held(x, self.low, self.high) - (self.low + self.high) / 2 + self._half
        return jnp.sin(z[..., None] * self._frequency)

    def __call__(self, x: Any) -> Float[Array, "... size"]:
        return self.scales * self.unscaled(x)

    @property
    def _half(self) -> float:
        """L, half the length of the interval of the eigenfunctions."""
        return self.boundary * (self.high - self.low) / 2

    @property
    def _frequency(self) -> Float[np.ndarray, " size"]:
        """The square roots of the eigenvalues, j π / (2 L)."""
        return np.arange(1, self.size + 1) * (math.pi / (2 * self._half))

    def _root_density(self, frequency: Float[np.ndarray, " size"]) -> Float[Array, " size"]:
        """Return the square root of the kernel's spectral density, for amplitude 1."""
        length = jnp.asarray(self.length)
        if self.kernel == "squared_exponential":
            # Halve the exponent. The gradient of the root of an exponential would be infinite where
            # the exponential underflows.
            decay = jnp.exp(-jnp.square(length * frequency) / 4)
            return (2 * math.pi) ** 0.25 * jnp.sqrt(length) * decay
        if self.kernel == "matern32":
            rate = math.sqrt(3) / length
            return 2 * rate**1.5 / (rate**2 + frequency**2)
        rate = math.sqrt(5) / length
        return 4 / math.sqrt(3) * rate**2.5 / (rate**2 + frequency**2) ** 1.5
