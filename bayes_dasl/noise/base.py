"""Observation noise: how a datum scatters around what the layer predicts."""

from abc import abstractmethod
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Float
from numpyro.distributions import constraints

from .._statistics.distributions import describe_distribution, may_be_negative
from ..errors import ModelError
from ..random import Module, Scalar, Values, VectorField, check_scalar, is_function, is_random

# A solver may step a hair below zero; rates and medians must stay positive.
SMALLEST = 1e-12
_FAR = 30.0  # logarithms of the factor of a scale: beyond it nothing is noise


class VaryingScale(Module):
    r"""A scale of noise that depends on time, predictions and forcings: heteroscedastic noise.

    $\sigma(t, y, u) = \text{typical} \cdot e^{h(t, y, u)}$

    Args:
        typical: the scale where h is zero, in its units.
        head: h, a function `(t, y, u)` with one value, such as a `bd.Network` with one output; y are the predicted
            values of the model's layer. A network of a small scale, such as 0.5, keeps the noise near what is typical.

    Raises: ModelError if the head is no function, or, when called, returns more than one value.
    """

    typical: Scalar
    head: VectorField

    def __check_init__(self):
        if not is_function(self.head):
            raise ModelError(f"head must be a function (t, y, u) with one value, such as bd.Network, not {self.head!r}")
        _check_positive(self.typical, "VaryingScale.typical")

    def __call__(self, t: Any, y: Values, u: Values) -> Float[Array, "..."]:
        """The scale at one time or at many at once."""
        found = dict(self.head(t, y, u))
        if len(found) != 1:
            raise ModelError(f"the head of a VaryingScale has one value, not {len(found)}: {', '.join(found)}")
        (logarithm,) = found.values()
        return jnp.asarray(self.typical) * jnp.exp(jnp.clip(jnp.asarray(logarithm), -_FAR, _FAR))


class AbstractNoise(Module):
    """The distribution of a datum, given its prediction; its parameters may be random leaves.

    `counts_by_moments`: whether data are counts whose law follows from mean and variance, Poisson where these are equal
    and negative binomial where the variance is larger; `positive`: the fields that must be positive;
    `in_units_of_data`: the fields that have the units of the observable; `looks_back`: whether a datum is judged given
    those before it, as of `CorrelatedNoise`.
    """

    counts_by_moments: ClassVar[bool] = False
    positive: ClassVar[tuple[str, ...]] = ("scale",)
    in_units_of_data: ClassVar[tuple[str, ...]] = ()
    looks_back: ClassVar[bool] = False

    def __check_init__(self):
        scale = getattr(self, "scale", 1.0)
        if not _varies(scale):
            check_scalar(scale, f"{type(self).__name__}.scale")
        for name in self.positive:
            _check_positive(getattr(self, name, 1.0), f"{type(self).__name__}.{name}")

    @property
    def support(self) -> constraints.Constraint:
        """Where data may lie, such as `constraints.positive`; anywhere unless said otherwise."""
        return constraints.real

    @abstractmethod
    def __call__(self, prediction: Float[Array, "time ..."]) -> dist.Distribution:
        """The distribution of the data, with the batch shape of the prediction.

        Args:
            prediction: that of the observable, `(time, …)`, in its units.
        """

    @property
    def varies(self) -> bool:
        """Whether one of its parameters depends on time, predictions or forcings."""
        return any(map(_varies, jax.tree.leaves(self, is_leaf=_varies)))

    def at(self, t: Any, y: Values, u: Values) -> "AbstractNoise":
        """Itself at some times, where its parameters that vary are numbers.

        Args:
            t: times, `(time, …)`.
            y: the predicted values at these times, by name.
            u: the forcings at these times, by name.
        """
        return jax.tree.map(lambda leaf: leaf(t, y, u) if _varies(leaf) else leaf, self, is_leaf=_varies)

    @property
    def variance(self) -> Float[Array, ""]:
        """The variance of the noise, where it does not depend on the prediction.

        Raises: ModelError for a noise model that is not normal.
        """
        raise ModelError(f"a layer that predicts a variance too needs bd.NormalNoise, not {type(self).__name__}")

    def link(self, values: Float[Array, "time ..."]) -> Float[Array, "time ..."]:
        """Data or predictions on the scale on which the noise is nearly normal.

        Args:
            values: data or predictions, `(time, …)`, in the units of the observable.
        """
        return values

    def spread(
        self, prediction: Float[Array, "time ..."], variance: Float[Array, "time ..."] | None = None
    ) -> Float[Array, "time ..."]:
        """About the standard deviation of the noise on the scale of `link`: what a datum tells of its prediction.

        Args:
            prediction: that of the observable, `(time, …)`, in its units.
            variance: that of the prediction itself, in the square of its units; none where it is certain.
        """
        return jnp.sqrt(self.around(prediction, variance).variance)

    def around(
        self, prediction: Float[Array, "time ..."], variance: Float[Array, "time ..."] | None = None
    ) -> dist.Distribution:
        """The distribution of the data around a prediction that is uncertain by `variance` itself.

        Args:
            prediction: that of the observable, `(time, …)`, in its units.
            variance: that of the prediction itself, in the square of its units; none where it is certain.

        Raises: ModelError for a variance where the noise is not normal.
        """
        if variance is None:
            return self(prediction)
        return dist.Normal(prediction, jnp.sqrt(variance + self.variance))


def _check_positive(value: Any, where: str) -> None:
    """Refuse a number that is not positive, and a distribution that has negative numbers too."""
    if may_be_negative(value):
        what = f"{describe_distribution(value)}, which may be negative" if is_random(value) else f"{value}"
        raise ModelError(
            f"{where} must be positive, or a distribution of positive numbers, as HalfNormal is: not {what}"
        )


def _varies(node: Any) -> bool:
    return isinstance(node, VaryingScale)
