"""Unknown functions that are linear in their weights."""

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
    r"""An unknown function of one state, forcing or time.

    $g(x) = \text{level} + \text{scale} \cdot f(x), \quad f(x) = \sum_i w_i \phi_i(x)$

    or, with `positive`, $\text{level} + \text{scale} \cdot e^{f(x)}$; or, with `monotone`
    (B-splines only), integrated splines with positive weights,
    $\text{level} + \text{scale} \cdot \sum_i e^{w_i} I_i(x)$, for `decreasing` with
    $I_i(high) - I_i(x)$. With zero weights the latter is a straight line that rises by `scale` from
    `low` to `high`, or falls. Neither is below `level` anywhere.

    With the weights that are there unless others are given, `scale` times the scale of the weights
    is under the prior about the standard deviation of g all over the range. A `HilbertGP`, or a
    `Product` with one, has an amplitude for that, so its weights are standard normal;
    `NormalShrinkage` would add a second scale.

    Its random leaves form the group *network*, hyperparameters included: it is what is learned, as
    a network is, apart from parameters that have a meaning; so `decompose` and `diagnose` treat it
    as they do a network.

    Args:
        family: what gives the features (`BSpline`, `RBF`, `Fourier`, `Polynomial`, `HilbertGP`,
            `Product`), each on its own range.
        input: the name of a state, a forcing or `"t"`; for a `Product` one for each family.
        output: the name of the value that is returned.
        weights: a prior that shrinks (`NormalShrinkage`, `Horseshoe`, `RandomWalk`), or an array or
            distribution of shape `(size,)`; `NormalShrinkage` with an unknown scale unless given,
            or standard normal for a family with an amplitude of its own.
        level: the constant that is added, in the units of g.
        scale: the factor of f, in the units of g.
        positive: whether f stands in an exponential.
        monotone: "increasing" or "decreasing", for a `BSpline`; neither unless given.
        through: a point (x0, value) that g passes through exactly, such as `(0.0, 1.0)` for a
            factor that is 1 where nothing inhibits; x0 is a tuple for a `Product`. f is then
            replaced by f(x) − f(x0), and the value takes the place of `level`; with `positive` g is
            level + (value − level) · exp(f(x) − f(x0)), so that the value takes the place of
            `scale`. The prior of g is then narrow near x0.

    Shapes: any shape of x, and the same of g.

    Raises:
        ModelError: if names, weights and features differ in number, if a positive or monotone
            function could change its sign by `scale`, for a point outside the range or one that
            leaves no room for `level` or `scale`, or if it is called and nobody gives its input.

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
        self.family, self.output, self.level, self.scale = family, output, level, scale
        self.input = (input,) if isinstance(input, str) else tuple(input)
        self.positive, self.monotone = positive, monotone
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
        if self.through is None:
            return
        x, value = self.through
        if len(x) != self.family.inputs or not all(
            low <= at <= high for at, (low, high) in zip(x, self.family.ranges, strict=True)
        ):
            ranges = " × ".join(f"[{low:g}, {high:g}]" for low, high in self.family.ranges)
            raise ModelError(
                f"through must be a point of the range {ranges} and a value, not {self.through!r}"
            )
        taken, default = ("scale", 1.0) if self.positive else ("level", 0.0)
        if not _is_number(getattr(self, taken), default):
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
        """The range of each input that a figure of the function shows."""
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
            level: Any = self.level  # a number where a positive function passes through a point
            return {self.output: level + (value - level) * shape}
        return {self.output: value + self.scale * shape}

    @property
    def _weights(self) -> Any:
        return (
            self.weights()
            if isinstance(self.weights, AbstractWeights)
            else jnp.asarray(self.weights)
        )

    @property
    def _is_linear(self) -> bool:
        return not (self.positive or self.monotone)

    @property
    def coefficients(self) -> Float[Array, " size"]:
        # Of a positive or monotone function they stand within its exponential.
        weights = self._weights if self.monotone else self._weights * self.family.scales
        return weights * self.scale if self._is_linear else weights

    def with_coefficients(self, coefficients: Float[Array, " size"]) -> "Basis":
        held: Any = (Unscaled(self.family), coefficients, 1.0 if self._is_linear else self.scale)
        return eqx.tree_at(lambda b: (b.family, b.weights, b.scale), self, held)

    def prepared(self) -> "Basis":
        """Itself with its coefficients worked out: they are the same at every point of a solve."""
        return (
            self if isinstance(self.family, Unscaled) else self.with_coefficients(self.coefficients)
        )

    def _shape(self, x: list, weights: Any) -> Any:
        """The function without its level and scale."""
        shape = self._sum(x, weights)
        if self.through is not None:
            shape = shape - self._sum(list(self.through[0]), weights)
        return jnp.exp(shape) if self.positive else shape

    def _sum(self, x: list, weights: Any) -> Any:
        """The weighted sum of the features, or of their integrals for a monotone function."""
        if not self.monotone:
            return self.family(*x) @ weights
        integrals = self.family.integrals(x[0])
        if self.monotone == "decreasing":
            integrals = self.family.integrals(jnp.inf) - integrals
        return integrals @ jnp.exp(weights) / self.family.intervals


def _default_weights(family: AbstractFamily) -> Any:
    return standard_normal(family.size) if family.has_amplitude else NormalShrinkage(family.size)


def _is_number(value: Any, number: float) -> bool:
    return isinstance(value, float | int) and value == number


def _point(through: Any) -> tuple[tuple[float, ...], float]:
    """The inputs and the value of a point.

    Raises:
        ModelError: for what is none.
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
