"""`Basis`: unknown functions that are linear in their weights."""

import math
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._statistics.describe_distributions import may_be_negative
from ..errors import ModelError
from ..layers import AbstractLinear
from ..networks.weights import AbstractWeights, NormalShrinkage, check_weights, standard_normal
from ..random import Scalar, Values
from .bases.families import AbstractFamily, Unscaled

_MONOTONE = (None, "increasing", "decreasing")


class Basis(AbstractLinear):
    r"""An unknown function of a state, a forcing or time, as a weighted sum of basis functions.

    $g(x) = \text{level} + \text{scale} \cdot f(x), \quad f(x) = \sum_i w_i \phi_i(x)$

    With `positive`, $g(x) = \text{level} + \text{scale} \cdot e^{f(x)}$. With `monotone` (B-splines
    only) it is a sum of integrated splines with positive weights, $g(x) = \text{level} +
    \text{scale} \cdot \sum_i e^{w_i} I_i(x)$, and for `decreasing` with $I_i(high) - I_i(x)$. Zero
    weights then give a straight line that rises or falls by `scale` from `low` to `high`. Positive
    and monotone functions are never below `level`.

    With the default weights, `scale` times the scale of the weights is about the prior standard
    deviation of g over the whole range. A `HilbertGP`, or a `Product` with one, has its own
    amplitude, so that its weights are standard normal; `NormalShrinkage` would add a second scale.

    The random leaves, hyperparameters included, form the group *network*: like the weights of a
    network they have no scientific meaning. `decompose` and `diagnose` treat them so.

    Args:
        family: the basis functions (`BSpline`, `RBF`, `Fourier`, `Polynomial`, `HilbertGP`,
            `Product`), each on its own range.
        input: the name of a state, a forcing or `"t"`; for a `Product` one for each family.
        output: the name of the value.
        weights: a shrinkage prior (`NormalShrinkage`, `Horseshoe`, `RandomWalk`), or an array or
            distribution of shape `(size,)`. The default is `NormalShrinkage` with an unknown scale,
            or standard normal for a family with an amplitude.
        level: the constant, in the units of g.
        scale: the factor of f, in the units of g.
        positive: whether f is exponentiated.
        monotone: "increasing" or "decreasing", for a `BSpline`; by default neither.
        through: a point (x0, value) on the function, such as `(0.0, 1.0)` for a factor that is 1
            without inhibition; x0 is a tuple for a `Product`. f is replaced by f(x) − f(x0), and
            the value replaces `level`. With `positive`, g is level + (value − level) · exp(f(x) −
            f(x0)), so that the value replaces `scale`. The prior of g is then narrow near x0.

    Shapes: any shape of x, and the same of g.

    Raises:
        ModelError: if names, weights and features differ in number, if `scale` could change the
            sign of a positive or monotone function, or if a point lies outside the range or fixes a
            parameter that is given; when called, if the input is unknown.

    Example:
        ```python
        growth = bd.Basis(bd.bases.BSpline(0.0, 2.0, 6), "y", "growth")
        print(growth.outputs)
        ```
    """

    random_group: ClassVar[str] = "network"

    family: AbstractFamily
    input: tuple[str, ...] = eqx.field(static=True)
    output: str = eqx.field(static=True)
    weights: Any
    level: Scalar
    scale: Scalar
    positive: bool = eqx.field(static=True)
    monotone: str | None = eqx.field(static=True)
    through: tuple[tuple[float, ...], float] | None = eqx.field(static=True)

    def __init__(
        self,
        family: AbstractFamily,
        input: str | tuple[str, ...],
        output: str,
        weights: Any = None,
        level: Scalar = 0.0,
        scale: Scalar = 1.0,
        *,
        positive: bool = False,
        monotone: str | None = None,
        through: tuple[float | tuple[float, ...], float] | None = None,
    ):
        self.family = family
        self.output = output
        self.level = level
        self.scale = scale
        self.input = (input,) if isinstance(input, str) else tuple(input)
        self.positive = positive
        self.monotone = monotone
        self.weights = _default_weights(family) if weights is None else weights
        self.through = None if through is None else _point(through)

    def __check_init__(self):
        if len(self.input) != self.family.inputs:
            raise ModelError(
                f"the family takes {self.family.inputs} inputs, not "
                f"{', '.join(self.input) or 'none'}"
            )
        if not isinstance(self.output, str):
            raise ModelError(f"output must be one name, not {self.output!r}")
        check_weights(self.weights, self.family.size)
        self._check_shape()
        self._check_point()

    def _check_shape(self):
        """Refuse a positive or monotone function that could change its sign."""
        if self.monotone not in _MONOTONE:
            raise ModelError(
                f"monotone must be 'increasing' or 'decreasing', not {self.monotone!r}"
            )
        if self.monotone and (self.positive or not self.family.intervals):
            raise ModelError(
                "a monotone function needs a BSpline family, and not `positive` too: it is never "
                "below its level"
            )
        if (self.monotone or self.positive) and may_be_negative(self.scale):
            raise ModelError(
                "the scale of a positive or monotone function must be positive, as HalfNormal is"
            )

    def _check_point(self):
        """Refuse a point outside the range, or one beside a parameter that it replaces."""
        if self.through is None:
            return
        x, value = self.through
        ends = self.family.ranges
        inside = len(x) == len(ends) and all(
            low <= at <= high for at, (low, high) in zip(x, ends, strict=True)
        )
        if not inside:
            ranges = " × ".join(f"[{low:g}, {high:g}]" for low, high in ends)
            raise ModelError(
                f"through must be a point of the range {ranges} and a value, not {self.through!r}"
            )
        taken, default = ("scale", 1.0) if self.positive else ("level", 0.0)
        given = getattr(self, taken)
        if not (isinstance(given, float | int) and given == default):
            raise ModelError(f"through gives the function its {taken}: leave `{taken}` out")
        if self.positive and isinstance(self.level, float | int) and not value > self.level:
            raise ModelError(
                f"a positive function is above its level {self.level:g}: it cannot pass through "
                f"{value:g}"
            )

    @property
    def outputs(self) -> tuple[str, ...]:
        return (self.output,)

    @property
    def drawn_over(self) -> dict[str, tuple[float, float]]:
        """The range of each input in a figure."""
        return dict(zip(self.input, self.family.ranges, strict=True))

    def __call__(self, t: Any, y: Values, u: Values) -> Values:
        known = {"t": t, **u, **y}
        missing = [name for name in self.input if name not in known]
        if missing:
            raise ModelError(f"basis input {', '.join(missing)} is none of {', '.join(known)}")
        shape = self._shape([known[name] for name in self.input], self._weights)
        if self.through is None:
            return {self.output: self.level + self.scale * shape}
        value = self.through[1]
        if self.positive:
            level: Any = self.level
            return {self.output: level + (value - level) * shape}
        return {self.output: value + self.scale * shape}

    @property
    def _weights(self) -> Any:
        """The weights as an array."""
        is_prior = isinstance(self.weights, AbstractWeights)
        if is_prior:
            return self.weights()
        return jnp.asarray(self.weights)

    @property
    def _is_linear(self) -> bool:
        """Whether the function is linear in its weights."""
        return not (self.positive or self.monotone)

    @property
    def coefficients(self) -> Float[Array, " size"]:
        # In a positive or monotone function they are inside the exponential, without the scale.
        weights = self._weights if self.monotone else self._weights * self.family.scales
        if self._is_linear:
            return weights * self.scale
        return weights

    def with_coefficients(self, coefficients: Float[Array, " size"]) -> "Basis":
        held: Any = (Unscaled(self.family), coefficients, 1.0 if self._is_linear else self.scale)
        return eqx.tree_at(lambda b: (b.family, b.weights, b.scale), self, held)

    def prepared(self) -> "Basis":
        """Return a copy with its coefficients computed: they are the same at every point of a
        solve.
        """
        if isinstance(self.family, Unscaled):
            return self
        return self.with_coefficients(self.coefficients)

    def _shape(self, x: list, weights: Any) -> Any:
        """Return the function without its level and scale: f, or exp(f) if positive."""
        shape = self._sum(x, weights)
        if self.through is not None:
            shape = shape - self._sum(list(self.through[0]), weights)
        if self.positive:
            return jnp.exp(shape)
        return shape

    def _sum(self, x: list, weights: Any) -> Any:
        """Return the weighted sum of features, or of their integrals for a monotone function."""
        if not self.monotone:
            return self.family(*x) @ weights
        # Positive weights of increasing integrals; equal weights give a straight line to 1.
        integrals = self.family.integrals(x[0])
        if self.monotone == "decreasing":
            integrals = self.family.integrals(jnp.inf) - integrals
        return integrals @ jnp.exp(weights) / self.family.intervals


def _default_weights(family: AbstractFamily) -> Any:
    """Return the default prior: one scale, either in the weights or in the family."""
    if family.has_amplitude:
        return standard_normal(family.size)
    return NormalShrinkage(family.size)


def _point(through: Any) -> tuple[tuple[float, ...], float]:
    """Return the inputs and the value of a point.

    Raises:
        ModelError: if it is no pair of finite numbers.
    """
    try:
        at, value = through
        inputs = tuple(map(float, at)) if isinstance(at, tuple | list) else (float(at),)
        value = float(value)
    except (TypeError, ValueError) as error:
        raise ModelError(
            f"through must be a point (x0, value), such as (0.0, 1.0), not {through!r}"
        ) from error
    if not all(map(math.isfinite, (*inputs, value))):
        raise ModelError(f"through must be a point (x0, value) of finite numbers, not {through!r}")
    return inputs, value
