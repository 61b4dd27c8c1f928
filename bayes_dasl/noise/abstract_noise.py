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
# The reason why most noise cannot contain correlated noise, for an error message.
_LOOKS_BACK = "it judges a datum given those before it, of which the other noise would know nothing"
# Largest |h| in a varying scale. exp(30) is far above any scale of noise, but still finite.
_FAR = 30.0


class VaryingScale(Module):
    r"""A scale of noise that depends on time, predictions and forcings (heteroscedastic noise).

    $\sigma(t, y, u) = \text{typical} \cdot e^{h(t, y, u)}$

    σ is the scale at time t for the predicted values y and the forcings u.

    Args:
        typical: the scale for h = 0, in the units of the scale.
        head: h, a function `(t, y, u)` that returns a dict with one value, such as a `bd.Network`
            with one output. A small `scale` of the network, such as 0.5, keeps σ near `typical`.

    Raises:
        ModelError: if `head` is no function. When called, if it does not return exactly one value.
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
        """Return the scale at one time, or at an array of times.

        Args:
            t: the time or times.
            y: the predicted values by name.
            u: the forcings by name.
        """
        found = dict(self.head(t, y, u))
        if len(found) != 1:
            raise ModelError(
                f"the head of a VaryingScale has one value, not {len(found)}: {', '.join(found)}"
            )
        (logarithm,) = found.values()
        return jnp.asarray(self.typical) * jnp.exp(jnp.clip(jnp.asarray(logarithm), -_FAR, _FAR))

    def at(self, t: Any, y: Values, u: Values, of_data: Values) -> Float[Array, "..."]:
        """Return the scale at the times of the data.

        Args:
            t: the times, `(time,)`.
            y: the predicted values by name.
            u: the forcings by name.
            of_data: unused; `PerDatum.at` has the same arguments.

        Returns:
            The scale, `(time, …)`.
        """
        return self(t, y, u)


class PerDatum(Module):
    """A parameter of noise with a known value for each datum, such as its measurement error.

    The data hold these values as a variable with the dimensions of the observable. For example,
    `bd.NormalNoise(bd.noise.PerDatum("level_error"))` reads the variable `level_error`.

    Args:
        variable: the name of the variable in the data. `{observable}` in the name is replaced by
            the name of the observable, so that several observables can have the same noise.
        factor: a factor by which the values are multiplied: 1, or a distribution such as
            `dist.LogNormal(0.0, 0.5)` for errors that are known up to a factor.
        otherwise: the value of a forecast datum for which the data have no value, in the units of
            the variable. By default such a datum is refused.
        needed: whether each training datum needs a value. If not, a missing value is replaced by
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
        """Return the name of the variable that belongs to an observable.

        Args:
            observable: the name of the observable.

        Returns:
            The name of the variable in the data.
        """
        return self.variable.replace("{observable}", observable)

    def at(self, t: Any, y: Values, u: Values, of_data: Values) -> Float[Array, "..."]:
        """Return the value of each datum.

        Args:
            t: unused; `VaryingScale.at` has the same arguments.
            y: unused.
            u: unused.
            of_data: the values in the data, `(time, …)` by `PerDatum.variable`.

        Returns:
            The values, `(time, …)`.
        """
        return jnp.asarray(self.factor) * of_data[self.variable]


def per_datum(value: Any) -> Any:
    """Convert the name of a variable to a `PerDatum`; return any other value unchanged."""
    if isinstance(value, str):
        return PerDatum(value)
    return value


class Read(NamedTuple):
    """A variable of the data that a noise reads for each datum.

    Args:
        leaf: the `PerDatum` that stands for it in the noise.
        support: the possible values.
        in_units_of_data: whether the variable has the units of the observable.
    """

    leaf: PerDatum
    support: constraints.Constraint
    in_units_of_data: bool


class AbstractNoise(Module):
    """The distribution of a datum around its prediction; parameters may be random leaves.

    A field holds a number or a distribution, and also a `VaryingScale` or a `PerDatum` if its
    annotation includes these. Class variables describe the noise:

    - `counts_by_moments`: the data are counts with a Poisson or negative binomial distribution,
      which is determined by its mean and variance.
    - `has_masses`: single values of continuous data may have a positive probability, which does not
      depend on units as a density does.
    - `positive`: the names of the fields that must be positive.
    - `in_units_of_data`: the names of the fields in the units of the observable.
    - `looks_back`: the distribution of a datum depends on earlier data, as in `CorrelatedNoise`.
    - `not_inside`: the reason why another noise cannot contain this one; empty if it can.
    """

    counts_by_moments: ClassVar[bool] = False
    has_masses: ClassVar[bool] = False
    positive: ClassVar[tuple[str, ...]] = ("scale",)
    in_units_of_data: ClassVar[tuple[str, ...]] = ()
    looks_back: ClassVar[bool] = False
    not_inside: ClassVar[str] = ""

    def __check_init__(self):
        # 1. Refuse a noise that this noise cannot contain.
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
        # 2. A parameter is one number, or of another type that the annotation allows.
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
        """Return the distribution of the data, given the prediction.

        Args:
            prediction: the prediction, `(time, …)`, in the units of the observable.

        Returns:
            A NumPyro distribution whose batch shape is the shape of the prediction.
        """

    @property
    def varies(self) -> bool:
        """Whether a parameter differs between data, as a `VaryingScale` or a `PerDatum` does."""
        return any(map(may_vary, jax.tree.leaves(self, is_leaf=may_vary)))

    @property
    def reads(self) -> tuple[Read, ...]:
        """The variables of the data that this noise, or a noise inside it, reads for each datum."""
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
        """Return the possible values of a field that holds a `PerDatum`.

        Args:
            field: the name of the field.

        Returns:
            A NumPyro constraint.
        """
        return constraints.positive

    def at(self, t: Any, y: Values, u: Values, of_data: Values) -> "AbstractNoise":
        """Return a copy in which each `VaryingScale` and `PerDatum` is replaced by its values.

        Args:
            t: the times, `(time, …)`.
            y: the predicted values at these times, by name.
            u: the forcings at these times, by name.
            of_data: the values for each `PerDatum`, `(time, …)` by `PerDatum.variable`.

        Returns:
            The noise. Its parameters are numbers, or arrays over the data.
        """
        return jax.tree.map(
            lambda leaf: leaf.at(t, y, u, of_data) if may_vary(leaf) else leaf,
            self,
            is_leaf=may_vary,
        )

    def filled(self, of_data: Mapping[str, Any]) -> "AbstractNoise":
        """Return a copy in which each `PerDatum` is replaced by its values, without `factor`.

        Args:
            of_data: the values for each `PerDatum`, `(time, …)` by `PerDatum.variable`.

        Returns:
            The noise. Random leaves and each `VaryingScale` stay in it.
        """

        def known(leaf: Any) -> Any:
            if isinstance(leaf, PerDatum):
                return of_data[leaf.variable]
            return leaf

        return jax.tree.map(known, self, is_leaf=lambda leaf: may_vary(leaf) or is_random(leaf))

    def ruled_out(self, values: Float[np.ndarray, "time ..."]) -> tuple[np.ndarray, str]:
        """Flag the data that are impossible under this noise.

        Call it on a noise without `PerDatum`, from `filled`.

        Args:
            values: the data, `(time, …)`, NaN where missing.

        Returns:
            Flags `(time, …)` of the data outside the support, and a description of the support of
            the first flagged datum. The description is empty if no datum is flagged.
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
        """Return the bounds between which the values behind the data are known to lie.

        Only censored data have two different bounds. Call it on a noise without `PerDatum`.

        Args:
            values: the data, `(time, …)`.

        Returns:
            The lower and the upper bounds, each `(time, …)`.
        """
        return values, values

    @property
    def limits(self) -> dict[str, float]:
        """The limits below and above which data are censored, by name; empty for most noise."""
        return {}

    @property
    def variance(self) -> Float[Array, ""]:
        """The variance, for normal noise whose variance does not depend on the prediction.

        Raises:
            ModelError: if the noise is not normal.
        """
        raise ModelError(
            f"a layer that predicts a variance too needs bd.NormalNoise, not {type(self).__name__}"
        )

    def as_predicted(self, values: Float[Array, "time ..."]) -> Float[Array, "time ..."]:
        """Convert data to the scale of predictions.

        Binomial counts become shares of their trials. Other data are returned unchanged.

        Args:
            values: the data, `(time, …)`.

        Returns:
            The converted data, `(time, …)`.
        """
        return values

    def link(self, values: Float[Array, "time ..."]) -> Float[Array, "time ..."]:
        """Transform data or predictions to the scale on which the noise is nearly normal.

        Args:
            values: data or predictions, `(time, …)`, in the units of the observable.

        Returns:
            The transformed values, `(time, …)`; by default unchanged.
        """
        return values

    def spread(
        self, prediction: Float[Array, "time ..."], variance: Float[Array, "time ..."] | None = None
    ) -> Float[Array, "time ..."]:
        """Return the approximate standard deviation of the data on the scale of `link`.

        Args:
            prediction: the prediction, `(time, …)`, in the units of the observable.
            variance: the variance of the prediction itself, in squared units. None if the
                prediction has no variance.

        Returns:
            The standard deviation, `(time, …)`.
        """
        return jnp.sqrt(self.around(prediction, variance).variance)

    def around(
        self, prediction: Float[Array, "time ..."], variance: Float[Array, "time ..."] | None = None
    ) -> dist.Distribution:
        """Return the distribution of the data around a prediction that may have a variance.

        Args:
            prediction: the prediction, `(time, …)`, in the units of the observable.
            variance: the variance of the prediction itself, in squared units. None if the
                prediction has no variance.

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

    The field `observables` holds the names of these observables.
    """

    observables: eqx.AbstractVar[tuple[str, ...]]

    @abstractmethod
    def refuse(self, observables: Mapping[str, tuple[AbstractNoise, tuple[str, ...]]]) -> None:
        """Refuse observables that cannot be correlated.

        Args:
            observables: a pair of noise and dimensions for each observable of a model, by name.

        Raises:
            ModelError: if an observable cannot be correlated; the message names it.
        """

    @abstractmethod
    def given(
        self,
        noises: Mapping[str, Any],
        predictions: Mapping[str, Float[Array, "time ..."]],
        times: Float[Array, " time"],
        befores: Mapping[str, Any],
    ) -> dict[str, dist.Distribution]:
        """Return the distributions of the correlated observables, given earlier data.

        Draws of different observables are correlated only if they use the same random key.

        Args:
            noises: the noise of each observable, by name.
            predictions: the prediction of each observable, `(time, …)`, in its units.
            times: the times of the predictions, which do not decrease.
            befores: the earlier residuals by observable, for noise that depends on them.

        Returns:
            A NumPyro distribution by observable.
        """


def check_positive(value: Any, where: str) -> None:
    """Raise ModelError for a number that is not positive, or a distribution that may not be.

    Args:
        value: the number or distribution.
        where: the name of the parameter, for the error message.
    """
    if may_be_negative(value):
        what = f"{value}"
        if is_random(value):
            what = f"{describe_distribution(value)}, which may be negative"
        raise ModelError(
            f"{where} must be positive, or a distribution of positive numbers, as HalfNormal is: "
            f"not {what}"
        )


def may_vary(node: Any) -> bool:
    """Whether a node may have a different value for each datum."""
    return isinstance(node, (VaryingScale, PerDatum))


def _alternatives(noise: type) -> dict[str, tuple[type, ...]]:
    """Return the types besides `Scalar` that the annotations of a noise class allow.

    Returns:
        The types by field, for the fields whose annotation is a union with `Scalar`.
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
