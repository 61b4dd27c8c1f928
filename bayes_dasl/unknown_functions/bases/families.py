"""Families of basis functions.

They are scaled so that independent standard normal weights give a function with a prior variance of
about 1.
"""

import math
from abc import abstractmethod
from dataclasses import replace
from functools import cache
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ...errors import ModelError
from ...random import Module


class AbstractFamily(Module):
    """A family of basis functions, also called features.

    `family(x)` evaluates all of them: the result has one more axis than `x`, of length `size`. The
    field `size` is the number of basis functions.
    """

    size: eqx.AbstractVar[int]

    @property
    def inputs(self) -> int:
        """The number of inputs of the functions."""
        return 1

    @property
    def ranges(self) -> tuple[tuple[float, float], ...]:
        """The lower and the upper end of the range of each input."""
        return ((self.low, self.high),)  # type: ignore[attr-defined]

    @property
    def has_amplitude(self) -> bool:
        """Whether the family has an amplitude, so that its weights need no scale of their own."""
        return False

    @property
    def intervals(self) -> int:
        """The sum of all `integrals` at the upper end of the range; 0 for a family without them."""
        return 0

    def integrals(self, x: Any) -> Float[Array, "... size"]:
        """Return the integrals of the basis functions from the lower end of the range to x.

        Args:
            x: the points, in the units of the input, of any shape.

        Returns:
            The integrals, with one more axis than x, of length `size`.

        Raises:
            ModelError: if the family has no integrals.
        """
        raise ModelError(
            f"{type(self).__name__} has no integrals, which a monotone function is made of"
        )

    @property
    def scales(self) -> Float[Array, " size"]:
        """The scale of each basis function, which hyperparameters determine; 1 without these."""
        return jnp.ones(self.size)

    def unscaled(self, *x: Any) -> Float[Array, "... size"]:
        """Return the basis functions divided by their `scales`; a scale may be 0.

        Args:
            x: an array for each input, of any shape.

        Returns:
            The values, with one more axis than x, of length `size`.
        """
        return self(*x)

    def finer(self, times: int) -> "tuple[AbstractFamily, ...]":
        """Return families of the same kind with a higher resolution.

        `bd.updating.check_functions` compares a fit with these. By default there are none.

        Args:
            times: the factor by which the resolution is increased.

        Returns:
            One finer family for each input, in which only that input has a higher resolution.
        """
        return ()

    @property
    def said(self) -> str:
        """The family's name and size, for a report."""
        return f"{type(self).__name__} of size {self.size}"

    @abstractmethod
    def __call__(self, *x: Any) -> Float[Array, "... size"]:
        """Return the values of all basis functions.

        Args:
            x: an array for each input, of any shape.

        Returns:
            The values, with one more axis than x, of length `size`.
        """


class BSpline(AbstractFamily):
    r"""B-splines on equidistant knots.

    $\phi_i(x) = B_{i,p}(x) / \sqrt{c_p}$

    $B_{i,p}$ is the B-spline i of degree p, and $c_p$ the mean of $\sum_i B_{i,p}^2$ over the
    range. The knots extend beyond the range, so that the prior is the same everywhere in
    [low, high]. Outside, the function is constant, so that its slope jumps to 0 at the ends.

    Args:
        low: the lower end of the range, in the units of x.
        high: the upper end of the range.
        size: the number of splines, more than the degree.
        degree: p; 3 gives cubic splines.

    Raises:
        ModelError: if the range is empty, or there are fewer splines than degree + 1.

    Source: de Boor (1978), A Practical Guide to Splines; Eilers & Marx (1996) for the knots.
    """

    low: float = eqx.field(static=True, converter=float)
    high: float = eqx.field(static=True, converter=float)
    size: int = eqx.field(static=True)
    degree: int = eqx.field(default=3, static=True)

    def __check_init__(self):
        check_range(self, self.low, self.high)
        if self.degree < 0 or self.size <= self.degree:
            raise ModelError(
                f"{self.size} B-splines of degree {self.degree}: there must be more splines than "
                "the degree, at least 0"
            )

    @property
    def intervals(self) -> int:
        return self.size - self.degree

    def finer(self, times: int) -> "tuple[BSpline, ...]":
        return (replace(self, size=times * self.intervals + self.degree),)

    def __call__(self, x: Any) -> Float[Array, "... size"]:
        return self._splines(x, self.degree) / math.sqrt(mean_square(self.degree))

    def integrals(self, x: Any) -> Float[Array, "... size"]:
        r"""Return $\int_{low}^x B_{i,p}$ for all splines, in units of a knot interval.

        At `high` the integrals sum to the number of knot intervals. A sum of integrals with
        positive weights is an increasing function. Outside [low, high] they are constant.

        Args:
            x: the points, in the units of the input, of any shape.

        Returns:
            The integrals, with one more axis than x, of length `size`.
        """
        return self._primitives(x) - self._primitives(self.low)

    def _primitives(self, x: Any) -> Float[Array, "... size"]:
        r"""Return antiderivatives of the splines, in units of a knot interval.

        $\int B_{i,p} = \sum_{j \ge i} B_{j,p+1}$
        """
        # Sum from the last spline backwards.
        backwards = jnp.flip(self._splines(x, self.degree + 1), -1)
        return jnp.flip(jnp.cumsum(backwards, -1), -1)[..., 1:]

    def _splines(self, x: Any, degree: int) -> Float[Array, "... splines"]:
        """Evaluate all B-splines of a degree by the Cox–de Boor recursion.

        Args:
            x: the points, of any shape.
            degree: the degree.

        Returns:
            The values, with one more axis than x, for the splines.
        """
        # 1. Degree 0: the indicator of the knot interval, with knots at whole numbers.
        z = (held(x, self.low, self.high) - self.low) * (self.intervals / (self.high - self.low))
        cell = jnp.clip(jnp.floor(z), 0, self.intervals - 1).astype(int)
        z = jnp.asarray(z)[..., None]
        knots = jnp.arange(-degree, self.intervals + degree)
        values = jax.nn.one_hot(cell + degree, len(knots), dtype=z.dtype)
        # 2. B_{i,k}(z) = ((z - i) B_{i,k-1}(z) + (i + k + 1 - z) B_{i+1,k-1}(z)) / k
        for k in range(1, degree + 1):
            left = knots[: len(knots) - k]
            values = ((z - left) * values[..., :-1] + (left + k + 1 - z) * values[..., 1:]) / k
        return values


class RBF(AbstractFamily):
    r"""Gaussian radial basis functions at equidistant centres.

    $\phi_i(x) = \pi^{-1/4} e^{-(x - c_i)^2 / (2 h^2)}$

    $c_i$ are the centres and h is the distance of neighbouring centres. The first and the last
    centre lie outside [low, high] by h, so that the prior is the same everywhere in the range.
    Outside, the function is constant.

    Args:
        low: the lower end of the range, in the units of x.
        high: the upper end of the range.
        size: the number of functions, at least 4.

    Raises:
        ModelError: if the range is empty, or there are fewer than 4 functions.
    """

    low: float = eqx.field(static=True, converter=float)
    high: float = eqx.field(static=True, converter=float)
    size: int = eqx.field(static=True)

    def __check_init__(self):
        check_range(self, self.low, self.high)
        if self.size < 4:
            raise ModelError(
                f"RBF needs at least 4 bumps, of which two lie outside the range, not {self.size}"
            )

    def finer(self, times: int) -> "tuple[RBF, ...]":
        return (replace(self, size=times * (self.size - 3) + 3),)

    def __call__(self, x: Any) -> Float[Array, "... size"]:
        z = (held(x, self.low, self.high) - self.low) * ((self.size - 3) / (self.high - self.low))
        distance = z[..., None] - jnp.arange(-1, self.size - 1)
        return jnp.exp(-0.5 * jnp.square(distance)) * math.pi**-0.25


class Fourier(AbstractFamily):
    r"""A constant and `(size − 1) / 2` harmonics with the period `high − low`.

    $\phi = \{1, \sqrt2 \cos k\omega(x - low), \sqrt2 \sin k\omega(x - low)\} / \sqrt{size}$

    k = 1, 2, … numbers the harmonics, and $\omega = 2\pi / (high - low)$. The basis functions are
    orthogonal over a period.

    Args:
        low: the beginning of a period, in the units of x.
        high: the end of the period.
        size: the number of features, odd: the constant, and two for each harmonic.

    Raises:
        ModelError: if the range is empty or the size is even.
    """

    low: float = eqx.field(static=True, converter=float)
    high: float = eqx.field(static=True, converter=float)
    size: int = eqx.field(static=True)

    def __check_init__(self):
        check_range(self, self.low, self.high)
        if self.size < 1 or self.size % 2 == 0:
            raise ModelError(
                f"Fourier needs an odd size (a constant, pairs of cosine and sine), not {self.size}"
            )

    def finer(self, times: int) -> "tuple[Fourier, ...]":
        return (replace(self, size=2 * _times(self.size // 2, times) + 1),)

    def __call__(self, x: Any) -> Float[Array, "... size"]:
        x = jnp.asarray(x, float)
        harmonics = jnp.arange(1, self.size // 2 + 1) * (2 * math.pi / (self.high - self.low))
        angle = (x[..., None] - self.low) * harmonics
        pairs = math.sqrt(2) * jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], -1)
        return jnp.concatenate([jnp.ones((*x.shape, 1)), pairs], -1) / math.sqrt(self.size)


class Polynomial(AbstractFamily):
    r"""Orthogonal polynomials up to a degree.

    $\phi_k(x) = P_k(z) / \sqrt c$

    $P_k$ is the Legendre or Chebyshev polynomial of degree k. z is x mapped from [low, high] to
    [−1, 1], and c is the mean of $\sum_k P_k^2$. The prior standard deviation of the function is
    largest at both ends. For degree 4 it is there 1.3 (Chebyshev) or 1.7 (Legendre) times its root
    mean square over the range. Outside [low, high] the function is constant.

    Args:
        low: the lower end of the range, in the units of x.
        high: the upper end of the range.
        degree: the highest degree.
        kind: "legendre" or "chebyshev".
        lowest: the lowest degree. With 1 there is no constant, for example because another function
            has one.

    Raises:
        ModelError: if the range is empty, the degrees are wrong, or the kind is unknown.
    """

    low: float = eqx.field(static=True, converter=float)
    high: float = eqx.field(static=True, converter=float)
    degree: int = eqx.field(static=True)
    kind: str = eqx.field(default="legendre", static=True)
    lowest: int = eqx.field(default=0, static=True, kw_only=True)

    def __check_init__(self):
        check_range(self, self.low, self.high)
        if not 0 <= self.lowest <= self.degree:
            raise ModelError(f"no polynomials from degree {self.lowest} to {self.degree}")
        if self.kind not in ("legendre", "chebyshev"):
            raise ModelError(f"no polynomials of kind {self.kind!r}: legendre or chebyshev")

    @property
    def size(self) -> int:
        return self.degree + 1 - self.lowest

    def finer(self, times: int) -> "tuple[Polynomial, ...]":
        return (replace(self, degree=_times(self.degree, times)),)

    @property
    def said(self) -> str:
        return f"Polynomial of degree {f'{self.lowest} to ' if self.lowest else ''}{self.degree}"

    def __call__(self, x: Any) -> Float[Array, "... size"]:
        z = (2 * held(x, self.low, self.high) - self.low - self.high) / (self.high - self.low)
        # Three-term recursion: P_{k+1} = a_k z P_k - b_k P_{k-1}
        values = [jnp.ones_like(z), z]
        for k in range(1, self.degree):
            a, b = (2.0, 1.0) if self.kind == "chebyshev" else ((2 * k + 1) / (k + 1), k / (k + 1))
            values.append(a * z * values[-1] - b * values[-2])
        kept = range(self.lowest, self.degree + 1)
        total = sum(map(self._mean_square, kept))
        return jnp.stack([values[k] for k in kept], -1) / math.sqrt(total)

    def _mean_square(self, k: int) -> float:
        """Return the mean of P_k² over [−1, 1]."""
        if self.kind == "legendre":
            return 1 / (2 * k + 1)
        return (1 - 1 / (4 * k**2 - 1)) / 2


class Product(AbstractFamily):
    """All products of the basis functions of several families, for functions of several inputs.

    Args:
        families: two or more families of one input each.

    Raises:
        ModelError: if there are fewer than two families, or one has several inputs.
    """

    families: tuple[AbstractFamily, ...]

    def __init__(self, *families: AbstractFamily):
        if len(families) < 2 or any(family.inputs != 1 for family in families):
            raise ModelError("a product takes two or more families of one number each")
        self.families = families

    @property
    def inputs(self) -> int:
        return len(self.families)

    @property
    def ranges(self) -> tuple[tuple[float, float], ...]:
        return tuple(ends for family in self.families for ends in family.ranges)

    @property
    def size(self) -> int:
        return math.prod(family.size for family in self.families)

    @property
    def has_amplitude(self) -> bool:
        return any(family.has_amplitude for family in self.families)

    @property
    def scales(self) -> Float[Array, " size"]:
        return _products([family.scales for family in self.families])

    @property
    def said(self) -> str:
        return f"Product of sizes {' × '.join(str(family.size) for family in self.families)}"

    def finer(self, times: int) -> "tuple[Product, ...]":
        found = []
        for i, family in enumerate(self.families):
            before = self.families[:i]
            after = self.families[i + 1 :]
            found += [Product(*before, finer, *after) for finer in family.finer(times)]
        return tuple(found)

    def unscaled(self, *x: Any) -> Float[Array, "... size"]:
        points = jnp.broadcast_arrays(*map(jnp.asarray, x))
        return _products(
            [family.unscaled(value) for family, value in zip(self.families, points, strict=True)]
        )

    def __call__(self, *x: Any) -> Float[Array, "... size"]:
        points = jnp.broadcast_arrays(*map(jnp.asarray, x))
        return _products(
            [family(value) for family, value in zip(self.families, points, strict=True)]
        )


def _products(several: list[Array]) -> Float[Array, "... size"]:
    """Return all products of basis functions, with the last family varying fastest.

    Args:
        several: the values of each family, with the functions along the last axis.
    """
    product, *others = several
    for features in others:
        product = (product[..., :, None] * features[..., None, :]).reshape(*product.shape[:-1], -1)
    return product


class Unscaled(AbstractFamily):
    """The basis functions of another family divided by their `scales`."""

    family: AbstractFamily

    def __init__(self, family: AbstractFamily):
        self.family = family

    @property
    def size(self) -> int:
        return self.family.size

    @property
    def inputs(self) -> int:
        return self.family.inputs

    @property
    def ranges(self) -> tuple[tuple[float, float], ...]:
        return self.family.ranges

    @property
    def intervals(self) -> int:
        return self.family.intervals

    def integrals(self, x: Any) -> Float[Array, "... size"]:
        return self.family.integrals(x)

    def __call__(self, *x: Any) -> Float[Array, "... size"]:
        return self.family.unscaled(*x)


@cache
def mean_square(degree: int) -> float:
    r"""Return the mean over x of the sum of all squared B-splines of degree p.

    It is $\int B_p^2$ for unit knot intervals, which is the B-spline of degree 2 p + 1 at its
    middle.
    """
    from scipy.interpolate import BSpline as Spline

    return float(Spline.basis_element(range(2 * degree + 3))(degree + 1))


def check_range(family: AbstractFamily, low: float, high: float) -> None:
    """Raise ModelError if the range of a family is empty or infinite."""
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ModelError(
            f"{type(family).__name__}({low:g}, {high:g}): low must be less than high, both finite"
        )


def _times(number: int, times: int) -> int:
    """Multiply a number of features by `times`; 0 becomes `times - 1`."""
    if number:
        return times * number
    return times - 1


def held(x: Any, low: float, high: float) -> Float[Array, "..."]:
    """Clip values to the range [low, high]."""
    return jnp.clip(jnp.asarray(x, float), low, high)
