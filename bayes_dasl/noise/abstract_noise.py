"""Observation noise: how a datum scatters around what the layer predicts."""

import dataclasses
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, get_args, get_type_hints

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Float
from numpyro.distributions import constraints

from .._statistics.describe_distributions import (
    describe_distribution,
    describe_support,
    may_be_negative,
)
from ..errors import ModelError
from ..random import Module, Scalar, Values, VectorField, check_scalar, is_function, is_random

# A solver may step a hair below zero; rates and medians must stay positive.
SMALLEST = 1e-12
_LOOKS_BACK = "it judges a datum given those before it, of which the other noise would know nothing"
_FAR = 30.0  # logarithms of the factor of a scale: beyond it nothing is noise


class VaryingScale(Module):
    r"""A scale of noise that depends on time, predictions and forcings: heteroscedastic noise.

    $\sigma(t, y, u) = \text{typical} \cdot e^{h(t, y, u)}$

    Args:
        typical: the scale where h is zero, in its units.
        head: h, a function `(t, y, u)` with one value, such as a `bd.Network` with one output; y
            are the predicted values of the model's layer. A network of a small scale, such as 0.5,
            keeps the noise near what is typical.

    Raises:
        ModelError: if the head is no function, or, when called, returns more than one value.
    """

    typical: Scalar
    head: VectorField

    def __check_init__(self):
        if not is_function(self.head):
            raise ModelError(
                "head must be a function (t, y, u) with one value, such as bd.Network, not "
                f"{self.head!r}"
            )
        check_positive(self.typical, "VaryingScale.typical")

    def __call__(self, t: Any, y: Values, u: Values) -> Float[Array, "..."]:
        """The scale at one time or at many at once."""
        found = dict(self.head(t, y, u))
        if len(found) != 1:
            raise ModelError(
                f"the head of a VaryingScale has one value, not {len(found)}: {', '.join(found)}"
            )
        (logarithm,) = found.values()
        return jnp.asarray(self.typical) * jnp.exp(jnp.clip(jnp.asarray(logarithm), -_FAR, _FAR))

    def at(self, t: Any, y: Values, u: Values, of_data: Values) -> Float[Array, "..."]:
        """The scale at some times, where a noise asks for it.

        Args:
            t: times.
            y: predicted values by name.
            u: forcings by name.
            of_data: not looked at.
        """
        return self(t, y, u)


class PerDatum(Module):
    """A known number of each datum, in place of a number of the noise: its measurement error, or
    how many were counted.

    The data have it as a variable with the dimensions of the observable:
    `bd.NormalNoise(bd.noise.PerDatum("level_error"))`.

    Args:
        variable: the name of the variable in the data; `{observable}` in it stands for the name of
            the observable, where one noise is that of several.
        factor: multiplies what the data say: 1, or a distribution, such as
            `dist.LogNormal(0.0, 0.5)` on errors that are known up to a factor.
        otherwise: the number of a datum that is forecast, where nothing says it: in the units of
            the variable. Unless given, such a datum is refused.
        needed: whether the data of a fit must say it of each datum; else it is `otherwise` there
            too.

    Raises:
        ModelError: if the variable has no name, or the factor may be negative.
    """

    variable: str = eqx.field(static=True)
    factor: Scalar = 1.0
    otherwise: float | None = eqx.field(default=None, static=True)
    needed: bool = eqx.field(default=True, static=True)

    def __check_init__(self):
        if not isinstance(self.variable, str) or not self.variable:
            raise ModelError(
                f"PerDatum takes the name of a variable of the data, not {self.variable!r}"
            )
        check_positive(self.factor, "PerDatum.factor")

    def named(self, observable: str) -> str:
        """The name of the variable in the data.

        Args:
            observable: the name of that of which the noise is.
        """
        return self.variable.replace("{observable}", observable)

    def at(self, t: Any, y: Values, u: Values, of_data: Values) -> Float[Array, "..."]:
        """The number of each datum.

        Args:
            t: times: not looked at, as what is predicted is not.
            y: predicted values by name.
            u: forcings by name.
            of_data: what the noise reads of each datum, by `variable`.
        """
        return jnp.asarray(self.factor) * of_data[self.variable]


def per_datum(value: Any) -> Any:
    """The name of a variable of the data as what it holds; all else as it is."""
    return PerDatum(value) if isinstance(value, str) else value


class Read(NamedTuple):
    """What a noise reads of each datum, where it may lie, and whether it has the units of the
    observable.
    """

    leaf: PerDatum
    support: constraints.Constraint
    in_units_of_data: bool


class AbstractNoise(Module):
    """The distribution of a datum, given its prediction; its parameters may be random leaves.

    `counts_by_moments`: whether data are counts whose law follows from mean and variance, Poisson
    where these are equal and negative binomial where the variance is larger; `positive`: the fields
    that must be positive; `in_units_of_data`: the fields that have the units of the observable;
    `looks_back`: whether a datum is judged given those before it, as of `CorrelatedNoise`;
    `not_inside`: why it may not stand inside of another noise, for most "". What a field may hold
    beside a number its annotation says, such as `Scalar | VaryingScale | PerDatum`.
    """

    counts_by_moments: ClassVar[bool] = False
    # Whether single values of continuous data may have a probability, which depends on no units.
    has_masses: ClassVar[bool] = False
    positive: ClassVar[tuple[str, ...]] = ("scale",)
    in_units_of_data: ClassVar[tuple[str, ...]] = ()
    looks_back: ClassVar[bool] = False
    not_inside: ClassVar[str] = ""

    def __check_init__(self):
        for inner in (getattr(self, each.name) for each in dataclasses.fields(self)):
            if not isinstance(inner, AbstractNoise):
                continue
            why = inner.not_inside or (
                "" if self.looks_back or not inner.looks_back else _LOOKS_BACK
            )
            if why:
                raise ModelError(
                    f"{type(self).__name__} cannot be around {type(inner).__name__}: {why}"
                )
        for name, kinds in _alternatives(type(self)).items():
            if not isinstance(getattr(self, name), kinds):
                check_scalar(getattr(self, name), f"{type(self).__name__}.{name}")
        for name in self.positive:
            check_positive(getattr(self, name, 1.0), f"{type(self).__name__}.{name}")

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
        """Whether one of its parameters depends on time, predictions or forcings, or is known of
        each datum.
        """
        return any(map(may_vary, jax.tree.leaves(self, is_leaf=may_vary)))

    @property
    def reads(self) -> tuple[Read, ...]:
        """What it reads of each datum, itself or in a noise that it is around."""
        found = []
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, PerDatum):
                found.append(
                    Read(value, self.support_of(field.name), field.name in self.in_units_of_data)
                )
            elif isinstance(value, AbstractNoise):
                found += value.reads
        return tuple(found)

    def support_of(self, field: str) -> constraints.Constraint:
        """Where the numbers of a field may lie that are known of each datum.

        Args:
            field: its name.
        """
        return constraints.positive

    def at(self, t: Any, y: Values, u: Values, of_data: Values) -> "AbstractNoise":
        """Itself at some times, where its parameters that vary are numbers.

        Args:
            t: times, `(time, …)`.
            y: the predicted values at these times, by name.
            u: the forcings at these times, by name.
            of_data: what it reads of each datum, by the `PerDatum.variable` that says so.
        """
        return jax.tree.map(
            lambda leaf: leaf.at(t, y, u, of_data) if may_vary(leaf) else leaf,
            self,
            is_leaf=may_vary,
        )

    def told(self, of_data: Mapping[str, Any]) -> "AbstractNoise":
        """Itself where what is known of each datum is in its place; what is unknown stays unknown.

        Args:
            of_data: as for `at`.
        """

        def known(leaf: Any) -> Any:
            return of_data[leaf.variable] if isinstance(leaf, PerDatum) else leaf

        return jax.tree.map(known, self, is_leaf=lambda leaf: may_vary(leaf) or is_random(leaf))

    def ruled_out(self, values: Float[np.ndarray, "time ..."]) -> tuple[np.ndarray, str]:
        """Which data cannot be, and what they would have to be.

        Args:
            values: data, `(time, …)`, NaN where missing, of a noise that is `told` what is known of
                each.
        """
        outside = ~np.isnan(values) & ~np.asarray(self.support(values))
        if not outside.any():
            return outside, ""
        first = tuple(np.argwhere(outside)[0])
        own = jax.tree.map(
            lambda end: end[first] if np.shape(end) == values.shape else end, self.support
        )
        return outside, describe_support(own)

    def known_between(self, values: Float[np.ndarray, "time ..."]) -> tuple[np.ndarray, np.ndarray]:
        """The bounds within which data lie, the datum itself twice where it is seen.

        Args:
            values: data, `(time, …)`, of a noise that is `told` what is known of each.
        """
        return values, values

    @property
    def limits(self) -> dict[str, float]:
        """Limits beyond which no datum is seen, as attributes of a forecast; none for most."""
        return {}

    @property
    def variance(self) -> Float[Array, ""]:
        """The variance of the noise, where it does not depend on the prediction.

        Raises:
            ModelError: for a noise model that is not normal.
        """
        raise ModelError(
            f"a layer that predicts a variance too needs bd.NormalNoise, not {type(self).__name__}"
        )

    def as_predicted(self, values: Float[Array, "time ..."]) -> Float[Array, "time ..."]:
        """Data as what is predicted of them: the data themselves, but for counts of which a share
        is predicted.

        Args:
            values: data, `(time, …)`.
        """
        return values

    def link(self, values: Float[Array, "time ..."]) -> Float[Array, "time ..."]:
        """Data or predictions on the scale on which the noise is nearly normal.

        Args:
            values: data or predictions, `(time, …)`, in the units of the observable.
        """
        return values

    def spread(
        self, prediction: Float[Array, "time ..."], variance: Float[Array, "time ..."] | None = None
    ) -> Float[Array, "time ..."]:
        """About the standard deviation of the noise on the scale of `link`: what a datum tells of
        its prediction.

        Args:
            prediction: that of the observable, `(time, …)`, in its units.
            variance: that of the prediction itself, in the square of its units; none where it is
                certain.
        """
        return jnp.sqrt(self.around(prediction, variance).variance)

    def around(
        self, prediction: Float[Array, "time ..."], variance: Float[Array, "time ..."] | None = None
    ) -> dist.Distribution:
        """The distribution of the data around a prediction that is uncertain by `variance` itself.

        Args:
            prediction: that of the observable, `(time, …)`, in its units.
            variance: that of the prediction itself, in the square of its units; none where it is
                certain.

        Raises:
            ModelError: for a variance where the noise is not normal.
        """
        if variance is None:
            return self(prediction)
        return dist.Normal(prediction, jnp.sqrt(variance + self.variance))


class AbstractCrossCorrelation(Module):
    """How the residuals of several observables of a model are correlated with one another.

    Fields: `observables`, their names.
    """

    observables: eqx.AbstractVar[tuple[str, ...]]

    @abstractmethod
    def refuse(self, observables: Mapping[str, tuple[AbstractNoise, tuple[str, ...]]]) -> None:
        """Refuse observables that cannot be correlated.

        Args:
            observables: the noise and the dimensions of each observable of a model, by name.

        Raises:
            ModelError: that names the first one.
        """

    @abstractmethod
    def given(
        self,
        noises: Mapping[str, Any],
        predictions: Mapping[str, Float[Array, "time ..."]],
        times: Float[Array, " time"],
        befores: Mapping[str, Any],
    ) -> dict[str, dist.Distribution]:
        """The distribution of each datum, given those before it; drawn by one key, all of them hold
        together.

        Args:
            noises: that of each observable.
            predictions: of each, `(time, …)`, in its units.
            times: those of the predictions, which never fall.
            befores: what was seen of each.
        """


def check_positive(value: Any, where: str) -> None:
    """Refuse a number that is not positive, and a distribution that has negative numbers too."""
    if may_be_negative(value):
        what = (
            f"{describe_distribution(value)}, which may be negative"
            if is_random(value)
            else f"{value}"
        )
        raise ModelError(
            f"{where} must be positive, or a distribution of positive numbers, as HalfNormal is: "
            f"not {what}"
        )


def may_vary(node: Any) -> bool:
    """Whether something is no number itself, but one for each datum."""
    return isinstance(node, (VaryingScale, PerDatum))


def _alternatives(noise: type) -> dict[str, tuple[type, ...]]:
    """What may stand in place of a number,
    by the fields of a noise for which there is something.
    """
    try:
        hints = get_type_hints(noise)
    except NameError:  # an annotation that is only known to the type checker
        return {}
    kinds = {name: get_args(hints[name]) for name in noise.__dataclass_fields__ if name in hints}
    return {
        name: tuple(k for k in own if k is not Scalar)
        for name, own in kinds.items()
        if Scalar in own
    }
