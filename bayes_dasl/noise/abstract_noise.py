"""Observation noise: the distribution of a datum around its prediction."""

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
# Why correlated noise cannot stand inside most others.
_LOOKS_BACK = "it judges a datum given those before it, of which the other noise would know nothing"
# Largest |h| in a varying scale: exp(30) is no scale of noise, but still finite.
_FAR = 30.0


class VaryingScale(Module):
    r"""Heteroscedastic noise: a scale that depends on time, predictions and forcings.

    $\sigma(t, y, u) = \text{typical} \cdot e^{h(t, y, u)}$

    Args:
        typical: the scale for h = 0, in its units.
        head: h, a function `(t, y, u)` with one value, such as a `bd.Network` with one output; y
            are the predicted values. A small scale of the network, such as 0.5, keeps the noise
            near `typical`.

    Raises:
        ModelError: if the head is no function, or returns more than one value when called.
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
        """Return the scale at one time or at many times."""
        found = dict(self.head(t, y, u))
        if len(found) != 1:
            raise ModelError(
                f"the head of a VaryingScale has one value, not {len(found)}: {', '.join(found)}"
            )
        (logarithm,) = found.values()
        return jnp.asarray(self.typical) * jnp.exp(jnp.clip(jnp.asarray(logarithm), -_FAR, _FAR))

    def at(self, t: Any, y: Values, u: Values, of_data: Values) -> Float[Array, "..."]:
        """Return the scale at the times of data.

        Args:
            t: times.
            y: predicted values by name.
            u: forcings by name.
            of_data: unused.

        Returns:
            The scale, `(time, …)`.
        """
        return self(t, y, u)


class PerDatum(Module):
    """A known value of each datum in place of a parameter: a measurement error, or a number of
    trials.

    The data hold it as a variable with the dimensions of the observable:
    `bd.NormalNoise(bd.noise.PerDatum("level_error"))`.

    Args:
        variable: the name of the variable in the data. `{observable}` in it is replaced by the name
            of the observable, so that one noise serves several.
        factor: a factor of the variable: 1, or a distribution, such as `dist.LogNormal(0.0, 0.5)`
            for errors known up to a factor.
        otherwise: the value of a forecast datum, for which the data have none, in the units of the
            variable. By default such a datum is refused.
        needed: whether the data of a fit need a value for each datum; else a missing one is
            `otherwise`.

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
        """Return the name of the variable in the data.

        Args:
            observable: the name of the observable.

        Returns:
            The name.
        """
        return self.variable.replace("{observable}", observable)

    def at(self, t: Any, y: Values, u: Values, of_data: Values) -> Float[Array, "..."]:
        """Return the value of each datum.

        Args:
            t: times, unused.
            y: predicted values, unused.
            u: forcings, unused.
            of_data: known values of each datum, by `variable`.

        Returns:
            The values, `(time, …)`.
        """
        return jnp.asarray(self.factor) * of_data[self.variable]


def per_datum(value: Any) -> Any:
    """Turn the name of a variable into a `PerDatum`; other values stay as they are."""
    if isinstance(value, str):
        return PerDatum(value)
    return value


class Read(NamedTuple):
    """A variable that a noise reads: its `PerDatum`, its support, and whether its units are the
    data's.
    """

    leaf: PerDatum
    support: constraints.Constraint
    in_units_of_data: bool


class AbstractNoise(Module):
    """The distribution of a datum around its prediction; parameters may be random leaves.

    A field may hold more than a number if its annotation says so: `Scalar | VaryingScale |
    PerDatum`. Class variables describe a noise:

    - `counts_by_moments`: data are counts with a Poisson or negative binomial distribution, which
      follows from mean and variance.
    - `positive`: the fields that must be positive.
    - `in_units_of_data`: the fields in the units of the observable.
    - `looks_back`: the distribution of a datum depends on earlier data, as in `CorrelatedNoise`.
    - `not_inside`: the reason why it cannot stand inside another noise; mostly empty.
    """

    counts_by_moments: ClassVar[bool] = False
    # Whether single values of continuous data may have a probability, which depends on no units.
    has_masses: ClassVar[bool] = False
    positive: ClassVar[tuple[str, ...]] = ("scale",)
    in_units_of_data: ClassVar[tuple[str, ...]] = ()
    looks_back: ClassVar[bool] = False
    not_inside: ClassVar[str] = ""

    def __check_init__(self):
        # 1. A noise inside another one.
        for inner in (getattr(self, field.name) for field in dataclasses.fields(self)):
            if not isinstance(inner, AbstractNoise):
                continue
            why = inner.not_inside
            if inner.looks_back and not self.looks_back:
                why = why or _LOOKS_BACK
            if why:
                raise ModelError(
                    f"{type(self).__name__} cannot be around {type(inner).__name__}: {why}"
                )
        # 2. Parameters: one number each, or an alternative that the annotation allows.
        for name, kinds in _alternatives(type(self)).items():
            if not isinstance(getattr(self, name), kinds):
                check_scalar(getattr(self, name), f"{type(self).__name__}.{name}")
        for name in self.positive:
            check_positive(getattr(self, name, 1.0), f"{type(self).__name__}.{name}")

    @property
    def support(self) -> constraints.Constraint:
        """The support of the data, such as `constraints.positive`; by default the real line."""
        return constraints.real

    @abstractmethod
    def __call__(self, prediction: Float[Array, "time ..."]) -> dist.Distribution:
        """Return the distribution of the data, with the batch shape of the prediction.

        Args:
            prediction: the prediction, `(time, …)`, in the units of the observable.

        Returns:
            A NumPyro distribution.
        """

    @property
    def varies(self) -> bool:
        """Whether a parameter is a function of time, prediction or forcings, or known for each
        datum.
        """
        return any(map(may_vary, jax.tree.leaves(self, is_leaf=may_vary)))

    @property
    def reads(self) -> tuple[Read, ...]:
        """The variables that it reads for each datum, also through a noise inside it."""
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
        """Return the support of a field whose values are known for each datum.

        Args:
            field: its name.

        Returns:
            A NumPyro constraint.
        """
        return constraints.positive

    def at(self, t: Any, y: Values, u: Values, of_data: Values) -> "AbstractNoise":
        """Return the noise with its varying parameters evaluated at some times.

        Args:
            t: times, `(time, …)`.
            y: the predicted values at these times, by name.
            u: the forcings at these times, by name.
            of_data: known values of each datum, by `PerDatum.variable`.

        Returns:
            The noise, whose parameters are numbers or arrays.
        """
        return jax.tree.map(
            lambda leaf: leaf.at(t, y, u, of_data) if may_vary(leaf) else leaf,
            self,
            is_leaf=may_vary,
        )

    def filled(self, of_data: Mapping[str, Any]) -> "AbstractNoise":
        """Return the noise with known values of each datum filled in; random leaves stay.

        Args:
            of_data: as for `at`.

        Returns:
            The noise without `PerDatum`.
        """

        def known(leaf: Any) -> Any:
            if isinstance(leaf, PerDatum):
                return of_data[leaf.variable]
            return leaf

        return jax.tree.map(known, self, is_leaf=lambda leaf: may_vary(leaf) or is_random(leaf))

    def ruled_out(self, values: Float[np.ndarray, "time ..."]) -> tuple[np.ndarray, str]:
        """Flag the data outside the support.

        Args:
            values: data, `(time, …)`, NaN where missing. Known values of each datum must be filled
                in.

        Returns:
            The flags, and a description of the support for the first flagged datum.
        """
        outside = ~np.isnan(values) & ~np.asarray(self.support(values))
        if not outside.any():
            return outside, ""
        first = tuple(np.argwhere(outside)[0])
        # The bounds of a support may differ between data, as numbers of trials do.
        own = jax.tree.map(
            lambda end: end[first] if np.shape(end) == values.shape else end, self.support
        )
        return outside, describe_support(own)

    def known_between(self, values: Float[np.ndarray, "time ..."]) -> tuple[np.ndarray, np.ndarray]:
        """Return lower and upper bounds of the data; an uncensored datum is both.

        Args:
            values: data, `(time, …)`. Known values of each datum must be filled in.

        Returns:
            Lower and upper bounds.
        """
        return values, values

    @property
    def limits(self) -> dict[str, float]:
        """Limits of what can be seen, as attributes of a forecast; empty for most noises."""
        return {}

    @property
    def variance(self) -> Float[Array, ""]:
        """The variance of normal noise that does not depend on the prediction.

        Raises:
            ModelError: if the noise is not normal.
        """
        raise ModelError(
            f"a layer that predicts a variance too needs bd.NormalNoise, not {type(self).__name__}"
        )

    def as_predicted(self, values: Float[Array, "time ..."]) -> Float[Array, "time ..."]:
        """Return data in the units of predictions; for binomial counts their share of the trials.

        Args:
            values: data, `(time, …)`.

        Returns:
            The data, `(time, …)`.
        """
        return values

    def link(self, values: Float[Array, "time ..."]) -> Float[Array, "time ..."]:
        """Transform data or predictions to the scale on which the noise is nearly normal.

        Args:
            values: data or predictions, `(time, …)`, in the units of the observable.

        Returns:
            The transformed values.
        """
        return values

    def spread(
        self, prediction: Float[Array, "time ..."], variance: Float[Array, "time ..."] | None = None
    ) -> Float[Array, "time ..."]:
        """Return the approximate standard deviation of the noise on the scale of `link`.

        Args:
            prediction: the prediction, `(time, …)`, in the units of the observable.
            variance: the variance of the prediction itself, in squared units; None if it is exact.

        Returns:
            The standard deviation, `(time, …)`.
        """
        return jnp.sqrt(self.around(prediction, variance).variance)

    def around(
        self, prediction: Float[Array, "time ..."], variance: Float[Array, "time ..."] | None = None
    ) -> dist.Distribution:
        """Return the distribution of the data around an uncertain prediction.

        Args:
            prediction: the prediction, `(time, …)`, in the units of the observable.
            variance: the variance of the prediction itself, in squared units; None if it is exact.

        Returns:
            A NumPyro distribution.

        Raises:
            ModelError: if there is a variance and the noise is not normal.
        """
        if variance is None:
            return self(prediction)
        return dist.Normal(prediction, jnp.sqrt(variance + self.variance))


class AbstractCrossCorrelation(Module):
    """The correlation between the residuals of several observables.

    Fields: `observables`, their names.
    """

    observables: eqx.AbstractVar[tuple[str, ...]]

    @abstractmethod
    def refuse(self, observables: Mapping[str, tuple[AbstractNoise, tuple[str, ...]]]) -> None:
        """Refuse observables that cannot be correlated.

        Args:
            observables: the noise and the dimensions of each observable of a model, by name.

        Raises:
            ModelError: if one of them cannot be correlated; the message names it.
        """

    @abstractmethod
    def given(
        self,
        noises: Mapping[str, Any],
        predictions: Mapping[str, Float[Array, "time ..."]],
        times: Float[Array, " time"],
        befores: Mapping[str, Any],
    ) -> dict[str, dist.Distribution]:
        """Return the joint distributions of the observables, given earlier data.

        They are correlated only if all are drawn with the same random key.

        Args:
            noises: the noise of each observable.
            predictions: the prediction of each, `(time, …)`, in its units.
            times: the times of the predictions, which never fall.
            befores: the earlier residuals of each.

        Returns:
            NumPyro distributions by observable.
        """


def check_positive(value: Any, where: str) -> None:
    """Refuse a number that is not positive, or a distribution that is not."""
    if may_be_negative(value):
        what = f"{value}"
        if is_random(value):
            what = f"{describe_distribution(value)}, which may be negative"
        raise ModelError(
            f"{where} must be positive, or a distribution of positive numbers, as HalfNormal is: "
            f"not {what}"
        )


def may_vary(node: Any) -> bool:
    """Whether a parameter has its own value for each datum."""
    return isinstance(node, (VaryingScale, PerDatum))


def _alternatives(noise: type) -> dict[str, tuple[type, ...]]:
    """Return the types, other than numbers, that the annotations of fields allow."""
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
