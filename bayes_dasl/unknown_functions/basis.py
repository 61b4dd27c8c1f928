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

    x is the input, $\phi_i$ are the basis functions and $w_i$ their weights.

    With `positive`, $g(x) = \text{level} + \text{scale} \cdot e^{f(x)}$. With `monotone`, g is a
    sum of integrated B-splines $I_i$ with positive weights, $g(x) = \text{level} + \text{scale}
    \cdot \sum_i e^{w_i} I_i(x) / I$. I is the sum of all $I_i$ at the upper end of the range. A
    decreasing function has $I_i(high) - I_i(x)$ in place of $I_i(x)$. If all weights are zero, g is
    a straight line that rises or falls by `scale` over the range. Positive and monotone functions
    are never below `level`.

    With the default weights, `scale` times the scale of the weights is about the prior standard
    deviation of g over the whole range. A `HilbertGP`, or a `Product` with one, has an amplitude
    already. Its default weights are therefore standard normal, without another scale.

    The random leaves, including hyperparameters, form the group *network*, since they have no
    scientific meaning. `bd.decompose` and `bd.diagnose` treat them like weights of a network.

    Args:
        family: the basis functions and their range: `BSpline`, `RBF`, `Fourier`, `Polynomial`,
            `HilbertGP` or `Product`.
        input: the name of a state, a forcing or `"t"`; for a `Product` one name for each family.
        output: the name of the value g.
        weights: a shrinkage prior (`NormalShrinkage`, `Horseshoe`, `RandomWalk`), or an array or
            distribution of shape `(size,)`. The default is `NormalShrinkage` with an inferred
            scale, or standard normal weights for a family with an amplitude.
        level: the constant, in the units of g.
        scale: the factor of f, in the units of g.
        positive: whether f is exponentiated.
        monotone: "increasing" or "decreasing", for a `BSpline` only; by default neither.
        through: a point (x0, value) through which g must pass; x0 is a tuple for a `Product`. For
            example, a factor that is 1 without an inhibitor has `(0.0, 1.0)`. f(x) is replaced by
            f(x) − f(x0), and the value replaces `level`. With `positive`, g is level + (value −
            level) · exp(f(x) − f(x0)), and the value replaces `scale`. The prior of g is narrow
            near x0.

    Shapes: x has any shape, and g has the same.

    Raises:
        ModelError: if the number of names or weights does not fit the family, or if `scale` may be
            negative for a positive or monotone function. Also if the point of `through` lies
            outside the range, or if the parameter that it replaces is given. When called, if the
            input is unknown.

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
        """Raise ModelError for an invalid `monotone`, or a scale that may be negative with it."""
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
        """Raise ModelError if `through` is outside the range, or what it replaces is given too."""
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
        """The range (low, high) of each input in figures, by name."""
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
        """Whether the function is linear in its weights: neither positive nor monotone."""
        return not (self.positive or self.monotone)

    @property
    def coefficients(self) -> Float[Array, " size"]:
        # In a positive or monotone function the weights are exponentiated, and `scale` is not part
        # of the coefficients.
        weights = self._weights if self.monotone else self._weights * self.family.scales
        if self._is_linear:
            return weights * self.scale
        return weights

    def with_coefficients(self, coefficients: Float[Array, " size"]) -> "Basis":
        held: Any = (Unscaled(self.family), coefficients, 1.0 if self._is_linear else self.scale)
        return eqx.tree_at(lambda b: (b.family, b.weights, b.scale), self, held)

    def prepared(self) -> "Basis":
        """Return a copy with computed coefficients, since they are constant during a solve."""
        if isinstance(self.family, Unscaled):
            return self
        return self.with_coefficients(self.coefficients)

    def _shape(self, x: list, weights: Any) -> Any:
        """Return the function without its level and scale: f(x), or exp(f(x)) if positive.

        Args:
            x: the values of the inputs.
            weights: the weights, `(size,)`.
        """
        shape = self._sum(x, weights)
        if self.through is not None:
            shape = shape - self._sum(list(self.through[0]), weights)
        if self.positive:
            return jnp.exp(shape)
        return shape

    def _sum(self, x: list, weights: Any) -> Any:
        """Return the weighted sum of the basis functions, or of integrals if monotone."""
        if not self.monotone:
            return self.family(*x) @ weights
        # Increasing integrals with positive weights. Zero weights give a straight line from 0 to 1.
        integrals = self.family.integrals(x[0])
        if self.monotone == "decreasing":
            integrals = self.family.integrals(jnp.inf) - integrals
        return integrals @ jnp.exp(weights) / self.family.intervals


def _default_weights(family: AbstractFamily) -> Any:
    """Return the default prior of weights; it has a scale unless the family has an amplitude."""
    if family.has_amplitude:
        return standard_normal(family.size)
    return NormalShrinkage(family.size)


def _point(through: Any) -> tuple[tuple[float, ...], float]:
    """Convert the argument `through` of a `Basis` to the inputs x0 and the value.

    Raises:
        ModelError: if it is no point of finite numbers.
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
