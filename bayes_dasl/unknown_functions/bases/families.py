"""Families of basis functions, scaled so that standard weights give functions of variance 1."""

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
    """Basis functions of one number: `family(x)` has one more axis than `x`, of length `size`."""

    size: eqx.AbstractVar[int]

    @property
    def inputs(self) -> int:
        """The number of its inputs."""
        return 1

    @property
    def ranges(self) -> tuple[tuple[float, float], ...]:
        """The lower and upper end of each input."""
        return ((self.low, self.high),)  # type: ignore[attr-defined]

    @property
    def has_amplitude(self) -> bool:
        """Whether it has a random amplitude, so that its weights are standard normal."""
        return False

    @property
    def intervals(self) -> int:
        """The sum of its integrals at the upper end; 0 for a family without integrals."""
        return 0

    def integrals(self, x: Any) -> Float[Array, "... size"]:
        """Return the positive integrals of the features from the lower end.

        Args:
            x: points, in the units of the input, of any shape.

        Returns:
            One more axis, of length `size`.

        Raises:
            ModelError: if the family has no integrals.
        """
        raise ModelError(
            f"{type(self).__name__} has no integrals, which a monotone function is made of"
        )

    @property
    def scales(self) -> Float[Array, " size"]:
        """The random scale of each feature; 1 for families without hyperparameters."""
        return jnp.ones(self.size)

    def unscaled(self, *x: Any) -> Float[Array, "... size"]:
        """Return the features divided by their `scales`, also if these are 0.

        Args:
            x: as for the features.

        Returns:
            One more axis, of length `size`.
        """
        return self(*x)

    def finer(self, times: int) -> "tuple[AbstractFamily, ...]":
        """Return finer families of the same kind, for `bd.updating.check_functions`; by default
        none.

        Args:
            times: the factor of refinement. With several inputs, each is refined by itself.

        Returns:
            The finer families.
        """
        return ()

    @property
    def said(self) -> str:
        """The family's name and size, for a report."""
        return f"{type(self).__name__} of size {self.size}"

    @abstractmethod
    def __call__(self, *x: Any) -> Float[Array, "... size"]:
        """Return the features.

        Args:
            x: one input for each that the family takes, of any shape.

        Returns:
            One more axis, of length `size`.
        """


class BSpline(AbstractFamily):
    r"""B-splines on equidistant knots.

    $\phi_i(x) = B_{i,p}(x) / \sqrt{c_p}$, with $c_p$ the mean of $\sum_i B_{i,p}^2$ over the domain

    The knots extend beyond the ends, so that the prior is the same everywhere in [low, high].
    Outside, the function is constant, so that its slope jumps to 0 at the ends. The `integrals` are
    $\int_{low}^x B_{i,p}$ in units of a knot interval. They sum to the number of intervals at
    `high`; positive weights of them give an increasing function.

    Args:
        low: the lower end of the range, in the units of x.
        high: its upper end.
        size: the number of splines, more than the degree.
        degree: the degree of the splines; 3 is cubic.

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
        """Return integrals of the unscaled splines from `low`, constant outside [low, high].

        Args:
            x: points, in the units of the input, of any shape.

        Returns:
            One more axis, of length `size`.
        """
        return self._primitives(x) - self._primitives(self.low)

    def _primitives(self, x: Any) -> Float[Array, "... size"]:
        r"""Return antiderivatives: $\int B_{i,p} = \sum_{j \ge i} B_{j,p+1}$, in knot intervals."""
        # Sum from the last spline backwards.
        backwards = jnp.flip(self._splines(x, self.degree + 1), -1)
        return jnp.flip(jnp.cumsum(backwards, -1), -1)[..., 1:]

    def _splines(self, x: Any, degree: int) -> Float[Array, "... splines"]:
        """Evaluate the B-splines of a degree by the recursion of Cox and de Boor."""
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

    $\phi_i(x) = \pi^{-1/4} e^{-(x - c_i)^2 / (2 h^2)}$, with $h$ the distance of two centres

    The first and the last centre lie one distance outside [low, high], so that the prior is the
    same everywhere in it. Outside, the function is constant.

    Args:
        low: the lower end of the range, in the units of x.
        high: its upper end.
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

    They are orthogonal over a period. The function is periodic.

    Args:
        low: the begin of a period, in the units of x.
        high: its end.
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
    r"""Orthogonal polynomials up to a degree, with [low, high] mapped to [−1, 1].

    $\phi_k(x) = P_k(z) / \sqrt c$, with $P_k$ the polynomials of `legendre` or `chebyshev` and $c$
    the mean of $\sum_k P_k^2$

    The prior standard deviation is largest at both ends: for degree 4 it is 1.3 (Chebyshev) or 1.7
    (Legendre) times its root mean square. Outside [low, high] the function is constant.

    Args:
        low: the lower end of the range, in the units of x.
        high: its upper end.
        degree: the highest degree.
        kind: "legendre" or "chebyshev".
        lowest: the lowest degree; 1 leaves out the constant, if another function has it.

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
    """Products of the basis functions of several families: a function of two or more numbers.

    Args:
        families: two or more, each of one input.
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
    """Return all products of features, with the last family varying fastest."""
    product, *others = several
    for features in others:
        product = (product[..., :, None] * features[..., None, :]).reshape(*product.shape[:-1], -1)
    return product


class Unscaled(AbstractFamily):
    """The basis functions of a family divided by their scales."""

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
    r"""Return the mean of the sum of squared B-splines of a degree p.

    $\int B_p^2$ is the B-spline of degree 2 p + 1 at its middle.
    """
    from scipy.interpolate import BSpline as Spline

    return float(Spline.basis_element(range(2 * degree + 3))(degree + 1))


def check_range(family: AbstractFamily, low: float, high: float) -> None:
    """Raise ModelError if a range is empty or infinite."""
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ModelError(
            f"{type(family).__name__}({low:g}, {high:g}): low must be less than high, both finite"
        )


def _times(number: int, times: int) -> int:
    """Multiply a number of features; no feature at all becomes `times - 1`."""
    if number:
        return times * number
    return times - 1


def held(x: Any, low: float, high: float) -> Float[Array, "..."]:
    """Move a value to the nearer end if it lies outside the range."""
    return jnp.clip(jnp.asarray(x, float), low, high)
